/* test_convert.c - the driver: types, exactness, same bytes, and no harm done
 * when the disk is full, memory is out or the user stops it.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "tests/convert/helpers.h"
#include "tests/support/tlr_check.h"

#define FOLDER "tests/golden/hf_folders/tiny-llama"
#define GGUF "tests/golden/gguf/tiny-llama3.gguf"

static struct tlr_source *open_source(const char *path)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source;
    ck_assert_msg(tlr_source_open(&source, path, &err) == 0, "%s", err.text);
    return source;
}

static struct tlr_convert_report convert_one(struct tlr_source *source,
                                             const char *to, int type)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_convert_report report;
    struct tlr_convert_options options = {.type = type};
    ck_assert_msg(tlr_convert(source, to, &options, &report, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(tlr_convert_verify(source, to, &options, &err) == 0, "%s",
                  err.text);
    return report;
}

/* ---- a source whose numbers a test chooses ---- */

struct fake {
    struct tlr_source source;
    float scale;
    int exact;
};

static int fake_describe(struct tlr_source *s, uint32_t i,
                         struct tlr_source_tensor *out, struct tlr_err *err)
{
    (void)err;
    struct tlr_tensor_want want;
    tlr_config_tensor(&s->config, i, &want);
    out->src_name = "fake";
    out->src_type = "F32";
    out->exact = ((struct fake *)s)->exact;
    out->src_bytes = (uint64_t)want.n_rows * want.n_cols * 4;
    return 0;
}

static int fake_read_rows(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, float *dst, struct tlr_err *err)
{
    (void)err;
    struct tlr_tensor_want want;
    tlr_config_tensor(&s->config, i, &want);
    for (uint64_t k = 0; k < (uint64_t)n * want.n_cols; k++) {
        uint64_t h = tlr_hash_u64(i, (uint64_t)row * want.n_cols + k);
        dst[k] = ((float)(h >> 40) / 8388608.0f - 1.0f) *
                 (want.is_matrix ? ((struct fake *)s)->scale : 1.0f);
    }
    return 0;
}

static void fake_close(struct tlr_source *s)
{
    (void)s;
}

static const struct tlr_source_ops fake_ops = {.describe = fake_describe,
                                               .read_rows = fake_read_rows,
                                               .close = fake_close};

/* Width 40 does not divide into tiles of 32 columns; ffn 64 does. */
static struct fake make_fake(void)
{
    struct fake f = {.source = {.ops = &fake_ops}, .scale = 1.0f, .exact = -1};
    f.source.config = (struct tlr_config){
        .family = TLR_FAMILY_LLAMA, .flags = TLR_CONFIG_TIED_HEAD, .dim = 40,
        .ffn_dim = 64, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1,
        .head_dim = 40, .n_vocab = 37, .max_ctx = 64, .rms_eps = 1e-5f,
        .rope_theta = 10000.0f};
    tlr_generation_default(&f.source.generation);
    return f;
}

START_TEST(widths_that_do_not_divide)
{
    struct fake f = make_fake();
    struct tlr_convert_report r =
        convert_one(&f.source, tmp_path("fake.bin"), TLR_Q8);
    ck_assert_uint_eq(r.n_tensors, 11);
    ck_assert_uint_eq(r.n_fallback, 7); /* all but down [40,64] */
    ck_assert_uint_eq(r.n_by_type[TLR_BF16], 7);
    ck_assert_uint_eq(r.n_by_type[TLR_Q8], 1);
    ck_assert_uint_eq(r.n_by_type[TLR_F32], 3);
    r = convert_one(&f.source, tmp_path("fake.bin"), TLR_F32);
    ck_assert_uint_eq(r.n_fallback, 0);
    ck_assert_uint_eq(r.n_exact, 11);
}
END_TEST

/* Rounding errors stand in the range that the step of each type predicts: a
 * uniform weight in [-1,1] has rms 1/sqrt(3), a step s the error s/sqrt(12). */
START_TEST(rounding_is_reported)
{
    static const struct {
        int type;
        double low, high;
    } rows[] = {{TLR_F32, 0, 0},
                {TLR_BF16, 5e-4, 3e-3},
                {TLR_Q8, 2e-3, 5e-3},
                {TLR_Q4M, 0.04, 0.08},
                {TLR_Q4, 0.04, 0.09},
                {TLR_Q4N, 0.04, 0.09},
                {TLR_Q8P, 2e-3, 5e-3},
                {TLR_RECIPE_Q8, 2e-3, 5e-3},
                {TLR_RECIPE_Q4, 0.04, 0.09}};
    struct fake f = make_fake();
    f.source.config.dim = f.source.config.head_dim = 64;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tlr_convert_report r =
            convert_one(&f.source, tmp_path("fake.bin"), rows[i].type);
        ck_assert_msg(r.max_rel_rms >= rows[i].low &&
                          r.max_rel_rms <= rows[i].high,
                      "%s: %g", tlr_convert_type_name(rows[i].type),
                      r.max_rel_rms);
        ck_assert_uint_eq(r.n_exact + r.n_rounded, r.n_tensors);
        ck_assert_int_eq(r.worst[0] != '\0', rows[i].high > 0);
    }
}
END_TEST

/* A scale beyond f16 would become infinite: refused, not written. */
START_TEST(values_too_large_for_the_type)
{
    struct fake f = make_fake();
    f.source.config.dim = f.source.config.head_dim = 64;
    f.scale = 1e9f;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_convert_options options = {.type = TLR_Q4};
    const char *bin = tmp_path("large.bin");
    int rc = tlr_convert(&f.source, bin, &options, NULL, &err);
    expect_error("large", rc, &err, TLR_EFORMAT, "too large for type q4");
    ck_assert_int_ne(access(bin, F_OK), 0);
    convert_one(&f.source, bin, TLR_F32);
}
END_TEST

/* ---- real formats ---- */

START_TEST(default_types)
{
    struct tlr_source *s = open_source(GGUF);
    struct tlr_convert_report r = convert_one(s, tmp_path("a.bin"), -1);
    ck_assert_uint_eq(r.n_rounded, 0);
    ck_assert_uint_eq(r.n_exact, r.n_tensors);
    ck_assert_uint_eq(r.n_by_type[TLR_BF16], 16); /* 2 tables, 7 per layer */
    tlr_source_close(s);
    s = open_source(FOLDER);
    r = convert_one(s, tmp_path("a.bin"), -1);
    ck_assert_uint_eq(r.n_by_type[TLR_Q8], 14);
    ck_assert_uint_eq(r.n_by_type[TLR_Q8P], 1); /* the table is the head */
    ck_assert_uint_eq(r.n_rounded, 15);
    ck_assert(r.max_rel_rms > 1e-3 && r.max_rel_rms < 2e-2);
    for (int type = 0; type < TLR_RECIPES_END; type++) {
        r = convert_one(s, tmp_path("a.bin"), type);
        ck_assert_uint_eq(r.n_by_type[TLR_F32], type == TLR_F32 ? 20u : 5u);
        ck_assert_uint_eq(r.n_rounded, type == TLR_F32 || type == TLR_BF16
                                           ? 0u : 15u);
    }
    tlr_source_close(s);
}
END_TEST

static void expect_same_files(const char *a, const char *b)
{
    size_t n, m;
    uint8_t *x = slurp(a, &n), *y = slurp(b, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(x, y, n);
    free(x);
    free(y);
}

START_TEST(same_source_same_bytes)
{
    const char *elsewhere = copy_folder(FOLDER, "tiny-llama-elsewhere");
    const char *a = tmp_path("one.bin"), *b = tmp_path("two.bin");
    struct tlr_source *s = open_source(FOLDER);
    struct tlr_source *t = open_source(elsewhere);
    for (int type = -1; type < TLR_RECIPES_END; type++) {
        convert_one(s, a, type);
        convert_one(t, b, type);
        expect_same_files(a, b);
    }
    struct tlr_convert_options options = {.type = TLR_Q8};
    struct tlr_convert_report r;
    struct tlr_err err = TLR_ERR_INIT;
    convert_one(s, a, TLR_Q8);
    int fd = open(b, O_RDWR | O_CREAT | O_TRUNC, 0666);
    ck_assert_int_eq(tlr_convert_fd(s, fd, "b", &options, &r, &err), 0);
    close(fd);
    expect_same_files(a, b);
    size_t len;
    free(slurp(a, &len));
    ck_assert_uint_eq(r.out_bytes, len);
    tlr_source_close(s);
    tlr_source_close(t);
}
END_TEST

/* ---- verification ---- */

START_TEST(verify_finds_a_flipped_byte)
{
    struct tlr_source *s = open_source(FOLDER);
    const char *bin = tmp_path("flip.bin");
    convert_one(s, bin, TLR_Q8);
    size_t len;
    uint8_t *data = slurp(bin, &len);
    data[len - 100] ^= 0x10;
    spill(bin, data, len);
    free(data);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_convert_options options = {.type = TLR_Q8};
    int rc = tlr_convert_verify(s, bin, &options, &err);
    ck_assert_msg(rc != 0 && strstr(err.text, "tensor"), "%d %s", rc, err.text);
    tlr_source_close(s);
}
END_TEST

/* Checksums right, one number wrong by a little more than rounding. */
START_TEST(verify_finds_another_number)
{
    for (int type = 0; type < TLR_RECIPES_END; type++) {
        struct fake f = make_fake();
        f.source.config.dim = f.source.config.head_dim = 64;
        const char *bin = tmp_path("other.bin");
        struct tlr_err err = TLR_ERR_INIT;
        convert_one(&f.source, bin, type);
        struct tlr_convert_options options = {.type = type};
        f.scale = type == TLR_F32 ? 1.0000002f : type <= TLR_Q8 ? 1.02f
                  : type == TLR_Q4N || type == TLR_RECIPE_Q4 ? 1.7f : 1.3f;
        int rc = tlr_convert_verify(&f.source, bin, &options, &err);
        expect_error(tlr_convert_type_name(type), rc, &err, TLR_EMISMATCH,
                     "tensor embed (fake of the source): row ");
    }
}
END_TEST

START_TEST(verify_finds_another_model)
{
    struct tlr_source *s = open_source(FOLDER), *t = open_source(GGUF);
    const char *bin = tmp_path("verify.bin");
    convert_one(s, bin, TLR_Q8);
    struct tlr_err e[3] = {TLR_ERR_INIT};
    struct tlr_convert_options q4 = {.type = TLR_Q4}, q8 = {.type = TLR_Q8};
    expect_error("type", tlr_convert_verify(s, bin, &q4, &e[0]), &e[0],
                 TLR_EMISMATCH, "expected type q4, found q8");
    expect_error("source", tlr_convert_verify(t, bin, &q8, &e[1]), &e[1],
                 TLR_EMISMATCH, "another source");
    int rc = tlr_convert_verify(s, tmp_path("absent.bin"), &q8, &e[2]);
    ck_assert_int_ne(rc, 0);
    tlr_source_close(s);
    tlr_source_close(t);
}
END_TEST

/* ---- nothing lost ---- */

static const char old_model[] = "a model that was here before";

static const char *make_old(void)
{
    const char *dir = copy_folder("tests/golden/gguf", "out");
    static char path[600];
    snprintf(path, sizeof path, "%s/model.bin", dir);
    spill(path, old_model, sizeof old_model);
    return path;
}

static void expect_old(const char *path)
{
    size_t len;
    uint8_t *data = slurp(path, &len);
    ck_assert_uint_eq(len, sizeof old_model);
    ck_assert_mem_eq(data, old_model, len);
    free(data);
    ck_assert_int_eq(count_hidden(tmp_path("out")), 0);
}

START_TEST(full_disk)
{
    const char *path = make_old();
    struct tlr_source *s = open_source(GGUF);
    struct tlr_convert_options options = {.type = TLR_F32};
    long k = 0;
    for (;; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_io_fail_after(k, ENOSPC);
        int rc = tlr_convert(s, path, &options, NULL, &err);
        tlr_io_fail_after(-1, 0);
        if (rc == 0) {
            break;
        }
        expect_error("full disk", rc, &err, TLR_EIO, "No space left");
        if (strstr(err.text, "model.bin") == NULL) {
            ck_abort_msg("no file named: %s", err.text);
        }
        size_t len;
        free(slurp(path, &len));
        if (len == sizeof old_model) {
            expect_old(path);
        } else { /* renamed, then the folder's fsync failed: new and whole */
            ck_assert_int_eq(tlr_convert_verify(s, path, &options, &err) != 0 &&
                                 err.code != TLR_EIO, 0);
            spill(path, old_model, sizeof old_model);
        }
    }
    ck_assert_int_ge(k, 3);
    tlr_source_close(s);
}
END_TEST

static void *json_alloc(size_t n)
{
    return tlr_calloc(n, 1);
}

/* Opens and converts with the k-th allocation failing, jansson's included. */
static int convert_with_failure(const char *from, const char *to, long k,
                                struct tlr_err *err)
{
    struct tlr_source *s = NULL;
    struct tlr_convert_options options = {.type = TLR_Q8, .verify = true};
    tlr_mem_fail_after(k);
    int rc = tlr_source_open(&s, from, err);
    if (rc == 0) {
        rc = tlr_convert(s, to, &options, NULL, err);
    }
    tlr_source_close(s);
    tlr_mem_fail_after(-1);
    return rc;
}

/* jansson reports some failures of its lexer as bad JSON: with_json asks only
 * that nothing crashes, leaks or is lost. */
static void out_of_memory(const char *from, bool with_json, long stride)
{
    const char *path = make_old();
    if (with_json) {
        json_set_alloc_funcs(json_alloc, tlr_free);
    }
    long k = 0;
    for (;; k += k < 40 ? 1 : stride) {
        struct tlr_err err = TLR_ERR_INIT;
        int rc = convert_with_failure(from, path, k, &err);
        if (rc == 0) {
            break;
        }
        ck_assert_msg(rc == TLR_ENOMEM || with_json, "k = %ld: %s: %s", k, tlr_err_name(rc),
                      err.text);
        expect_old(path);
    }
    ck_assert_int_ge(k, 20);
}

START_TEST(out_of_memory_everywhere)
{
    out_of_memory(GGUF, false, 1);
    out_of_memory(FOLDER, false, 1);
    out_of_memory(GGUF, true, 1);
    out_of_memory(FOLDER, true, 17);
}
END_TEST

/* The source changes between the two passes: the model is not what it was made
 * of, and must not take the place of the old one. */
static int change_source(void *ctx, uint64_t done, uint64_t total,
                         const char *tensor)
{
    (void)tensor;
    struct fake *f = ctx;
    f->scale = done >= total / 2 ? 1.5f : 1.0f;
    return 0;
}

START_TEST(failed_verification)
{
    const char *path = make_old();
    struct fake f = make_fake();
    struct tlr_convert_options options = {.type = TLR_F32, .verify = true};
    struct tlr_err err = TLR_ERR_INIT;
    options.progress = change_source;
    options.progress_ctx = &f;
    int rc = tlr_convert(&f.source, path, &options, NULL, &err);
    expect_error("verify", rc, &err, TLR_EMISMATCH,
                 "out/model.bin: tensor embed (fake of the source): row 0");
    expect_old(path);
    options.progress = NULL;
    tlr_err_clear(&err);
    rc = tlr_convert(&f.source, path, &options, NULL, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    rc = tlr_convert_verify(&f.source, path, &options, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    ck_assert_int_eq(count_hidden(tmp_path("out")), 0);
}
END_TEST

struct stop {
    int left;
    uint64_t last;
};

static int stop_later(void *ctx, uint64_t done, uint64_t total,
                      const char *tensor)
{
    struct stop *s = ctx;
    ck_assert(done >= s->last && done <= total && tensor[0] != '\0');
    s->last = done;
    return s->left-- == 0;
}

START_TEST(stopped_by_the_user)
{
    const char *path = make_old();
    struct tlr_source *s = open_source(GGUF);
    for (int left = 0;; left++) {
        struct stop stop = {.left = left};
        struct tlr_convert_options options = {.type = -1,
                                              .verify = _i == 1,
                                              .progress = stop_later,
                                              .progress_ctx = &stop};
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_convert(s, path, &options, NULL, &err);
        if (rc == 0) {
            ck_assert_int_ge(left, _i == 1 ? 60 : 20);
            break;
        }
        expect_error("stop", rc, &err, TLR_ECANCELLED, "was stopped");
        expect_old(path);
    }
    tlr_source_close(s);
}
END_TEST

START_TEST(unwritable_output)
{
    struct tlr_source *s = open_source(GGUF);
    struct tlr_convert_options options = {.type = -1};
    const char *paths[] = {"/no/such/folder/model.bin", tlr_test_tmpdir()};
    for (int i = 0; i < 2; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_convert(s, paths[i], &options, NULL, &err);
        ck_assert_msg(rc != 0 && strstr(err.text, paths[i]), "%d %s", rc,
                      err.text);
    }
    tlr_source_close(s);
}
END_TEST

/* ---- the real model ---- */

START_TEST(smollm2_is_taken_over_exactly)
{
    const char *path = tlr_test_model("smollm2-135m-instruct.gguf");
    if (!path) {
        TLR_SKIP("models/smollm2-135m-instruct.gguf is not there: make demo");
    }
    struct tlr_source *s = open_source(path);
    struct tlr_convert_report r = convert_one(s, tmp_path("smollm2.bin"), -1);
    ck_assert_uint_eq(r.n_tensors, 272);
    ck_assert_uint_eq(r.n_exact, 272);
    ck_assert_uint_eq(r.n_by_type[TLR_Q4M], 210);
    ck_assert_uint_eq(r.n_by_type[TLR_Q8P], 1);
    ck_assert_uint_eq(r.n_by_type[TLR_F32], 61);
    ck_assert_uint_eq(r.n_fallback, 0);
    ck_assert_str_eq(s->chat.name, "chatml");
    ck_assert(tlr_generation_is_eos(&s->generation, 2));
    remove(tmp_path("smollm2.bin"));
    tlr_source_close(s);
}
END_TEST

Suite *suite_convert(void);
Suite *suite_convert(void)
{
    Suite *suite = suite_create("convert");
    TCase *tc = tcase_create("convert");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, widths_that_do_not_divide);
    tcase_add_test(tc, rounding_is_reported);
    tcase_add_test(tc, values_too_large_for_the_type);
    tcase_add_test(tc, default_types);
    tcase_add_test(tc, same_source_same_bytes);
    tcase_add_test(tc, verify_finds_a_flipped_byte);
    tcase_add_test(tc, verify_finds_another_number);
    tcase_add_test(tc, verify_finds_another_model);
    tcase_add_test(tc, full_disk);
    tcase_add_test(tc, out_of_memory_everywhere);
    tcase_add_test(tc, failed_verification);
    tcase_add_loop_test(tc, stopped_by_the_user, 0, 2);
    tcase_add_test(tc, unwritable_output);
    tcase_add_test(tc, smollm2_is_taken_over_exactly);
    suite_add_tcase(suite, tc);
    return suite;
}
