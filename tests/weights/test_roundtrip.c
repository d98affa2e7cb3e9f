/* test_roundtrip.c - what the writer writes, the reader finds again; and the
 * plan of tensors for each family against lists written by hand. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/weights/tiny.h"

static void check_same(const struct tlr_file *f, const struct tiny *t)
{
    ck_assert_mem_eq(tlr_file_config(f), &t->config, sizeof t->config);
    ck_assert_uint_eq(tlr_file_n_tensors(f),
                      tlr_config_n_tensors(&t->config));
    ck_assert_uint_eq(tlr_file_version(f), t->matrix >= TLR_Q4N ? 2 : 1);
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *tensor = tlr_file_tensor_at(f, i);
        struct tlr_tensor_want want;
        size_t len;
        uint8_t *data = tiny_tensor(t, i, &len);
        tlr_config_tensor(&t->config, i, &want);
        ck_assert_str_eq(tensor->name, want.name);
        ck_assert_uint_eq(tensor->n_rows, want.n_rows);
        ck_assert_uint_eq(tensor->n_cols, want.n_cols);
        ck_assert_int_eq(tensor->type, want.is_matrix ? t->matrix : TLR_F32);
        ck_assert_uint_eq((uintptr_t)tensor->data % 64, 0);
        ck_assert_uint_eq(tensor->n_bytes, len);
        ck_assert_mem_eq(tensor->data, data, len);
        ck_assert_uint_eq(tensor->crc32, tlr_crc32(0, data, len));
        ck_assert_ptr_eq(tlr_file_tensor(f, want.name), tensor);
        tlr_free(data);
    }
    ck_assert_ptr_null(tlr_file_tensor(f, "blk.0.nothing"));
    ck_assert_ptr_null(tlr_file_tensor(f, ""));
    ck_assert_ptr_null(tlr_file_tensor_at(f, tlr_file_n_tensors(f)));
    for (int id = TLR_SECTION_TOKENIZER; id <= TLR_SECTION_ROUTER; id++) {
        const char *text = tiny_section((enum tlr_section)id);
        struct tlr_bytes b = tlr_file_section(f, (enum tlr_section)id);
        ck_assert_uint_eq(b.len, text ? strlen(text) : 0);
        ck_assert(text ? memcmp(b.ptr, text, b.len) == 0 : b.ptr == NULL);
    }
}

START_TEST(every_family_and_type)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    char path[600];
    snprintf(path, sizeof path, "%s/model-%d.bin", tlr_test_tmpdir(), _i);
    struct tiny t = tiny_model((enum tlr_family)(1 + _i % 3),
                               (enum tlr_type)(_i / 3));
    ck_assert_msg(tiny_write_path(&t, path, &err) == 0, "%s", err.text);

    struct tlr_file_options lazy = {.populate = false};
    ck_assert_msg(tlr_file_open(&f, path, &lazy, &err) == 0, "%s", err.text);
    check_same(f, &t);
    ck_assert_str_eq(tlr_file_label(f), path);
    ck_assert_msg(tlr_file_verify(f, NULL, NULL, &err) == 0, "%s", err.text);
    uint64_t bytes = tlr_file_bytes(f), fingerprint = tlr_file_fingerprint(f);
    tlr_file_close(f);

    /* Through a descriptor, and from memory written in other pieces. */
    int fd = open(path, O_RDONLY);
    ck_assert_msg(tlr_file_open_fd(&f, fd, "by fd", NULL, &err) == 0, "%s",
                  err.text);
    check_same(f, &t);
    tlr_file_close(f);
    close(fd);
    size_t len;
    uint8_t *image = tiny_image(&t, &len);
    ck_assert_uint_eq(len, bytes);
    ck_assert_msg(tlr_file_open_bytes(&f, image, len, "image", &err) == 0,
                  "%s", err.text);
    check_same(f, &t);
    ck_assert_uint_eq(tlr_file_fingerprint(f), fingerprint);
    tlr_file_close(f);
    tlr_free(image);
}
END_TEST

static const char *const qwen3_plan[] = {
    "embed 20 32 m",         "final_norm 1 32 v",
    "blk.0.attn_norm 1 32 v", "blk.0.q 32 32 m",
    "blk.0.k 16 32 m",       "blk.0.v 16 32 m",
    "blk.0.q_norm 1 8 v",    "blk.0.k_norm 1 8 v",
    "blk.0.o 32 32 m",       "blk.0.ffn_norm 1 32 v",
    "blk.0.gate 64 32 m",    "blk.0.up 64 32 m",
    "blk.0.down 32 64 m",    "blk.1.attn_norm 1 32 v",
    NULL};
static const char *const qwen2_plan[] = {
    "embed 20 32 m",          "head 20 32 m",
    "final_norm 1 32 v",      "blk.0.attn_norm 1 32 v",
    "blk.0.q 32 32 m",        "blk.0.k 16 32 m",
    "blk.0.v 16 32 m",        "blk.0.q_bias 1 32 v",
    "blk.0.k_bias 1 16 v",    "blk.0.v_bias 1 16 v",
    "blk.0.o 32 32 m",        NULL};
static const char *const llama_plan[] = {
    "embed 20 32 m",       "head 20 32 m",
    "final_norm 1 32 v",   "rope_factors 1 4 v",
    "blk.0.attn_norm 1 32 v", NULL};

START_TEST(plan_of_each_family)
{
    const char *const *plans[] = {llama_plan, qwen2_plan, qwen3_plan};
    const unsigned counts[] = {4 + 2 * 9, 3 + 2 * 12, 2 + 2 * 11};
    for (int p = 0; p < 3; p++) {
        struct tiny t = tiny_model((enum tlr_family)(p + 1), TLR_Q8);
        ck_assert_uint_eq(tlr_config_n_tensors(&t.config), counts[p]);
        for (uint32_t i = 0; plans[p][i]; i++) {
            struct tlr_tensor_want want;
            char line[80];
            tlr_config_tensor(&t.config, i, &want);
            snprintf(line, sizeof line, "%s %u %u %c", want.name, want.n_rows,
                     want.n_cols, want.is_matrix ? 'm' : 'v');
            ck_assert_str_eq(line, plans[p][i]);
        }
    }
}
END_TEST

/* The fuzzer's seeds are what the writer writes today: a change of the format
 * shows here.  TLR_WRITE_SEEDS=1 writes them anew. */
START_TEST(fuzz_seeds_are_current)
{
    const struct {
        const char *path;
        enum tlr_family family;
        enum tlr_type type;
        uint32_t dim;
    } seeds[] = {
        {"tests/fuzz/corpus/model/llama-f32", TLR_FAMILY_LLAMA, TLR_F32, 8},
        {"tests/fuzz/corpus/model/llama-bf16", TLR_FAMILY_LLAMA, TLR_BF16, 8},
        {"tests/fuzz/corpus/model/qwen2-q8", TLR_FAMILY_QWEN2, TLR_Q8, 32},
        {"tests/fuzz/corpus/model/qwen3-q4m", TLR_FAMILY_QWEN3, TLR_Q4M, 32},
        {"tests/fuzz/corpus/model/llama-q4", TLR_FAMILY_LLAMA, TLR_Q4, 32},
        {"tests/fuzz/corpus/model/qwen3-q4n", TLR_FAMILY_QWEN3, TLR_Q4N, 32},
    };
    struct tiny t = tiny_model(seeds[_i].family, seeds[_i].type);
    t.config.dim = t.config.ffn_dim = seeds[_i].dim;
    t.config.n_layers = 1;
    size_t len, len_found;
    uint8_t *image = tiny_image(&t, &len);
    ck_assert_uint_lt(len, 20000);
    if (getenv("TLR_WRITE_SEEDS")) {
        FILE *file = fopen(seeds[_i].path, "wb");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fwrite(image, 1, len, file), len);
        ck_assert_int_eq(fclose(file), 0);
    }
    struct tlr_err err = TLR_ERR_INIT;
    char *found;
    ck_assert_msg(tlr_read_file(&found, &len_found, seeds[_i].path, 20000,
                                &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(len_found, len);
    ck_assert_mem_eq(found, image, len);
    tlr_free(found);
    tlr_free(image);
}
END_TEST

Suite *suite_roundtrip(void);
Suite *suite_roundtrip(void)
{
    Suite *s = suite_create("roundtrip");
    TCase *tc = tcase_create("model_file");
    tcase_add_loop_test(tc, every_family_and_type, 0, 3 * TLR_N_TYPES);
    tcase_add_test(tc, plan_of_each_family);
    tcase_add_loop_test(tc, fuzz_seeds_are_current, 0, 6);
    suite_add_tcase(s, tc);
    return s;
}
