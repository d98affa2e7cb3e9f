/* fuzz_model.c - any bytes as a model file.
 *
 * config=fuzz compiles the reader's checksum comparison out (TLR_FUZZ), so that
 * mutated tables are reached.  What opens must be usable: every tensor's first
 * and last byte is read, names are looked up, sections and data are walked.
 * Seeds: tests/fuzz/corpus/model, kept current by tests/weights.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weights/model_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void must(int holds)
{
    if (!holds) {
        abort();
    }
}

static void use(const struct tlr_file *f)
{
    struct tlr_err err = TLR_ERR_INIT;
    uint64_t sum = tlr_file_fingerprint(f);
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        const uint8_t *p = t->data;
        must((uintptr_t)p % 64 == 0);
        must(t->n_bytes == tlr_matrix_bytes(t->type, t->n_rows, t->n_cols));
        must(tlr_file_tensor(f, t->name) == t);
        sum += p[0];
        sum += p[t->n_bytes - 1];
    }
    for (int id = TLR_SECTION_CONFIG; id <= TLR_SECTION_ROUTER; id++) {
        struct tlr_bytes b = tlr_file_section(f, (enum tlr_section)id);
        for (size_t i = 0; i < b.len; i++) {
            sum += b.ptr[i];
        }
    }
    must(tlr_config_check(tlr_file_config(f), "fuzz", &err) == 0);
    int rc = tlr_file_verify(f, NULL, NULL, &err);
    must(rc == 0 || err.text[0] != '\0');
    sink = sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    uint8_t *copy = tlr_alloc_aligned(size);
    if (!copy) {
        return 0;
    }
    if (size > 0) {
        memcpy(copy, data, size);
    }
    int rc = tlr_file_open_bytes(&f, copy, size, "fuzz", &err);
    if (rc == 0) {
        use(f);
        tlr_file_close(f);
    } else {
        must(f == NULL && err.code == rc && err.text[0] != '\0');
    }
    tlr_free(copy);
    return 0;
}
