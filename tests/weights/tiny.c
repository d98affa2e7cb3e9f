/* tiny.c - makes, repairs and finds its way in tiny model files. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/weights/tiny.h"

struct tiny tiny_model(enum tlr_family family, enum tlr_type matrix)
{
    struct tiny t = {
        .config = {.family = family, .dim = 32, .ffn_dim = 64, .n_layers = 2,
                   .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .n_vocab = 20,
                   .max_ctx = 128, .rms_eps = 1e-6f, .rope_theta = 1e4f},
        .matrix = matrix,
        .seed = 7,
    };
    t.config.flags =
        family == TLR_FAMILY_QWEN2   ? TLR_CONFIG_QKV_BIAS
        : family == TLR_FAMILY_QWEN3 ? TLR_CONFIG_QK_NORM | TLR_CONFIG_TIED_HEAD
                                     : TLR_CONFIG_ROPE_FACTORS;
    return t;
}

static void fill_floats(struct tlr_rng *rng, uint8_t *p, size_t len,
                        enum tlr_type type)
{
    size_t width = type == TLR_F32 ? 4 : 2;
    for (size_t i = 0; i < len / width; i++) {
        float v = tlr_rng_normal(rng);
        uint16_t h = tlr_f32_to_bf16(v);
        if (type == TLR_F32) {
            memcpy(p + 4 * i, &v, 4);
        } else {
            memcpy(p + 2 * i, &h, 2);
        }
    }
}

uint8_t *tiny_tensor(const struct tiny *t, uint32_t i, size_t *len)
{
    struct tlr_tensor_want want;
    tlr_config_tensor(&t->config, i, &want);
    enum tlr_type type = want.is_matrix ? t->matrix : TLR_F32;
    *len = (size_t)tlr_matrix_bytes(type, want.n_rows, want.n_cols);
    uint8_t *p = tlr_alloc_aligned(*len);
    struct tlr_rng rng = {tlr_hash_name(t->seed, want.name), 0};
    if (!tlr_type_is_tiled(type)) {
        fill_floats(&rng, p, *len, type);
        return p;
    }
    for (size_t at = 0; at < *len; at++) {
        p[at] = (uint8_t)tlr_rng_u64(&rng);
    }
    size_t tile = type == TLR_Q8P ? TLR_HIGH_BYTES : tlr_tile_bytes(type);
    size_t end = type == TLR_Q8P ? 64 * tile * (want.n_cols / 32) : *len;
    size_t scales = type == TLR_Q4M ? 32 : 16;
    for (size_t at = 0; at < end; at += tile) {
        for (size_t s = 0; s < scales; s++) {
            uint16_t h = tlr_f32_to_f16(0.01f * tlr_rng_normal(&rng));
            memcpy(p + at + 2 * s, &h, 2);
        }
    }
    return p;
}

const char *tiny_section(enum tlr_section section)
{
    switch (section) {
    case TLR_SECTION_TOKENIZER: return "not a real tokenizer";
    case TLR_SECTION_CHAT: return "{\"name\": \"none\"}";
    case TLR_SECTION_GENERATION: return "{}";
    case TLR_SECTION_PROVENANCE: return "{\"source\": \"tests/weights\"}";
    case TLR_SECTION_ROUTER: return "no router either";
    default: return NULL;
    }
}

int tiny_write(const struct tiny *t, struct tlr_writer *w, size_t piece,
               struct tlr_err *err)
{
    for (int id = TLR_SECTION_TOKENIZER; id <= TLR_SECTION_ROUTER; id++) {
        const char *text = tiny_section((enum tlr_section)id);
        int rc = text ? tlr_writer_section(w, (enum tlr_section)id, text,
                                           strlen(text), err)
                      : 0;
        if (rc) {
            tlr_writer_abort(w);
            return rc;
        }
    }
    for (uint32_t i = 0; i < tlr_config_n_tensors(&t->config); i++) {
        size_t len;
        uint8_t *data = tiny_tensor(t, i, &len);
        ck_assert_ptr_nonnull(data);
        for (size_t at = 0; at < len; at += piece) {
            size_t n = len - at < piece ? len - at : piece;
            int rc = tlr_writer_data(w, data + at, n, err);
            if (rc) {
                tlr_free(data);
                tlr_writer_abort(w);
                return rc;
            }
        }
        tlr_free(data);
    }
    return tlr_writer_commit(w, err);
}

static void tiny_types(const struct tiny *t, enum tlr_type *types)
{
    uint32_t n = tlr_config_n_tensors(&t->config);
    ck_assert_uint_le(n, TINY_MAX_TENSORS);
    for (uint32_t i = 0; i < n; i++) {
        struct tlr_tensor_want want;
        tlr_config_tensor(&t->config, i, &want);
        types[i] = want.is_matrix ? t->matrix : TLR_F32;
    }
}

int tiny_write_path(const struct tiny *t, const char *path,
                    struct tlr_err *err)
{
    enum tlr_type types[TINY_MAX_TENSORS];
    struct tlr_writer *w;
    tiny_types(t, types);
    int rc = tlr_writer_begin(&w, path, &t->config, types, err);
    return rc ? rc : tiny_write(t, w, 1000, err);
}

uint8_t *tiny_image(const struct tiny *t, size_t *len)
{
    enum tlr_type types[TINY_MAX_TENSORS];
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_writer *w;
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    tiny_types(t, types);
    int rc = tlr_writer_begin_fd(&w, fileno(file), "tiny", &t->config, types,
                                 &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    rc = tiny_write(t, w, 4096, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    *len = (size_t)lseek(fileno(file), 0, SEEK_END);
    uint8_t *image = tlr_alloc_aligned(*len);
    ck_assert_int_eq(pread(fileno(file), image, *len, 0), (ssize_t)*len);
    fclose(file);
    return image;
}

uint8_t *tiny_copy(const uint8_t *bytes, size_t len)
{
    uint8_t *p = tlr_alloc_aligned(len);
    ck_assert_ptr_nonnull(p);
    if (len > 0) {
        memcpy(p, bytes, len);
    }
    return p;
}

void tiny_repair(uint8_t *image, size_t len)
{
    uint32_t n_tensors = tlr_get_u32(image + TLR_HEAD_N_TENSORS);
    uint64_t head = tlr_head_area_bytes(n_tensors);
    for (int i = 0; i < TLR_FILE_MAX_SECTIONS; i++) {
        uint8_t *slot = image + TLR_HEAD_BYTES + i * TLR_SECT_BYTES;
        uint64_t offset = tlr_get_u64(slot + TLR_SECT_OFFSET);
        uint64_t size = tlr_get_u64(slot + TLR_SECT_SIZE);
        if (size > 0 && offset < len && size <= len - offset) {
            tlr_put_u32(slot + TLR_SECT_CRC,
                        tlr_crc32(0, image + offset, (size_t)size));
        }
    }
    if (head <= len) {
        tlr_put_u32(image + TLR_HEAD_TABLE_CRC,
                    tlr_crc32(0, image + TLR_HEAD_BYTES,
                              (size_t)head - TLR_HEAD_BYTES));
    }
    tlr_put_u32(image + TLR_HEAD_CRC, tlr_crc32(0, image, TLR_HEAD_CRC));
}

uint8_t *tiny_slot(uint8_t *image, enum tlr_section section)
{
    for (int i = 0; i < TLR_FILE_MAX_SECTIONS; i++) {
        uint8_t *slot = image + TLR_HEAD_BYTES + i * TLR_SECT_BYTES;
        if (tlr_get_u32(slot + TLR_SECT_ID) == (uint32_t)section) {
            return slot;
        }
    }
    ck_abort_msg("no section %d", section);
    return NULL;
}

uint8_t *tiny_entry(uint8_t *image, const char *tensor)
{
    uint32_t n = tlr_get_u32(image + TLR_HEAD_N_TENSORS);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = image + TLR_FILE_DIR_AT + i * TLR_DIR_BYTES;
        if (strcmp((char *)entry, tensor) == 0) {
            return entry;
        }
    }
    ck_abort_msg("no tensor %s", tensor);
    return NULL;
}
