/* fuzz_gguf.c - any bytes as a .gguf file.
 *
 * What parses must be usable: first and last row of every tensor is decoded and
 * carried into a tile, every key is read as every type, and the vocabulary is
 * built.  Seeds: tests/golden/gguf and small hand-made files in
 * tests/fuzz/corpus/gguf.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/gguf.h"
#include "convert/gguf_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_COLS = 1 << 16 };

static void must(int holds)
{
    if (!holds) {
        abort();
    }
}

static void use_row(const struct tlr_gguf_tensor *t, uint64_t row)
{
    uint32_t n_cols = (uint32_t)t->ne[0];
    uint64_t row_bytes = t->ne[0] / t->type->n_elems * t->type->n_bytes;
    const uint8_t *src = t->data + row * row_bytes;
    float *dst = tlr_calloc(n_cols, sizeof *dst);
    if (dst) {
        tlr_block_row_decode(t->type, dst, src, n_cols);
    }
    tlr_free(dst);
    if (t->type->exact < 0 || !tlr_type_is_tiled((enum tlr_type)t->type->exact)) {
        return;
    }
    uint8_t *band =
        tlr_calloc(tlr_band_bytes((enum tlr_type)t->type->exact, n_cols), 1);
    if (band) {
        tlr_block_row_carry(t->type, band, (int)(row % 16), src, n_cols);
    }
    tlr_free(band);
}

static void use_key(const struct tlr_gguf *g, const struct tlr_gguf_kv *kv)
{
    char key[256] = {0};
    memcpy(key, kv->key.ptr, kv->key.len);
    must(tlr_gguf_find(g, key) == kv);
    uint64_t u;
    double d;
    bool flag;
    struct tlr_bytes text;
    struct tlr_gguf_kv array;
    (void)tlr_gguf_get_u64(g, key, true, UINT32_MAX, &u, NULL);
    (void)tlr_gguf_get_f64(g, key, true, &d, NULL);
    (void)tlr_gguf_get_bool(g, key, true, &flag, NULL);
    (void)tlr_gguf_get_string(g, key, true, &text, NULL);
    if (tlr_gguf_get_array(g, key, true, TLR_GGUF_STRING, &array, NULL) == 0) {
        struct tlr_span s = tlr_span_of(array.data.ptr, array.data.len);
        for (uint64_t i = 0; i < array.n; i++) {
            tlr_gguf_next_string(&s);
        }
        must(!s.bad && tlr_span_left(&s) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tlr_gguf g;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_gguf_parse(&g, data, size, "fuzz", &err);
    must(rc == err.code && (rc == 0) == (err.text[0] == '\0'));
    for (uint64_t i = 0; rc == 0 && i < g.n_tensors; i++) {
        const struct tlr_gguf_tensor *t = &g.tensors[i];
        must(t->data >= data && t->n_bytes <= size);
        if (t->ne[0] <= MAX_COLS) {
            use_row(t, 0);
            use_row(t, t->ne[1] * t->ne[2] * t->ne[3] - 1);
        }
    }
    for (uint64_t i = 0; rc == 0 && i < g.n_kv; i++) {
        use_key(&g, &g.kv[i]);
    }
    if (rc == 0) {
        struct tlr_vocab_owned vocab = {0};
        rc = tlr_gguf_vocab_read(&vocab, &g, &err);
        must(rc == err.code && (rc == 0) == (err.text[0] == '\0'));
        tlr_vocab_owned_clear(&vocab);
    }
    tlr_gguf_clear(&g);
    return 0;
}
