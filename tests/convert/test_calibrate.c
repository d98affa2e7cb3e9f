/* test_calibrate.c - whether a calibration text reaches the matrices that read
 * it: the inputs of every matrix are summed here once more, through the engine's
 * observer, and each matrix must have lost less on its own than by plain
 * rounding.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "engine/tlr.h"
#include "tests/convert/helpers.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

#define FOLDER "tests/golden/hf_folders/tiny-llama"

enum { MAX_LAYERS = 2, MAX_COLS = 256, WINDOW = 512, N_TOK = 2 * WINDOW };

/* Two windows that have little in common, so that a forgotten one shows. */
static char text[6000];

static void write_text(void)
{
    for (size_t i = 0; i < sizeof text; i++) {
        uint64_t h = tlr_hash_u64(11, i);
        text[i] = i < 500 ? "0123456789 "[h % 11] : "etaoin shrdlu. EN"[h % 17];
    }
}

static struct tlr_convert_options recipe(int type, bool calibrated)
{
    return (struct tlr_convert_options){
        .type = type, .calibration_text = calibrated ? text : NULL,
        .calibration_bytes = sizeof text, .calibration_tok = N_TOK};
}

static void make_model(const char *path, const struct tlr_convert_options *o)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *src = NULL;
    ck_assert_msg(!tlr_source_open(&src, FOLDER, &err), "%s", err.text);
    ck_assert_msg(!tlr_convert(src, path, o, NULL, &err), "%s", err.text);
    tlr_source_close(src);
}

static struct tlr_model *open_as(const char *name, int type, bool calibrated)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_model *m = NULL;
    struct tlr_convert_options o = recipe(type, calibrated);
    const char *path = tmp_path(name);
    make_model(path, &o);
    ck_assert_msg(!tlr_model_open(&m, path, &err), "%s", err.text);
    return m;
}

/* ---- sums of x x' ---- */

struct sums {
    double *h[MAX_LAYERS][TLR_N_INPUTS]; /* [n, n] */
    uint32_t n_tok;
};

static void add(void *ctx, uint32_t layer, enum tlr_input input, const float *x,
                size_t x_stride, int n_tok, uint32_t n)
{
    struct sums *sums = ctx;
    if (input == TLR_INPUT_HEAD) {
        sums->n_tok += (uint32_t)n_tok;
        return;
    }
    ck_assert(layer < MAX_LAYERS && n <= MAX_COLS);
    double **h = &sums->h[layer][input];
    if (!*h) {
        *h = tlr_calloc((size_t)n * n, sizeof **h);
    }
    for (int t = 0; t < n_tok; t++, x += x_stride) {
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j < n; j++) {
                (*h)[i * n + j] += (double)x[i] * (double)x[j];
            }
        }
    }
}

static void gather(struct sums *sums)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_model *m = open_as("sums.bin", TLR_F32, false);
    struct tlr_session_options o = {.cpu_level = (int)tlr_test_cpu_level()};
    struct tlr_session *s = NULL;
    struct tlr_ids ids = {0};
    o.n_ctx = WINDOW;
    ck_assert_msg(!tlr_session_new(&s, m, &o, &err) &&
                      !tlr_encode(tlr_model_tokenizer(m), text, sizeof text,
                                  TLR_ENCODE_BOS, &ids, &err) &&
                      !tlr_session_observe(s, add, sums, &err),
                  "%s", err.text);
    ck_assert_uint_ge(ids.n, N_TOK);
    for (size_t at = 0; at < N_TOK; at += WINDOW) {
        ck_assert_msg(!tlr_rewind(s, 0, &err) &&
                          !tlr_prefill(s, ids.ids + at, WINDOW, 0, &err),
                      "%s", err.text);
    }
    ck_assert_uint_eq(sums->n_tok, N_TOK);
    tlr_ids_clear(&ids);
    tlr_session_free(s);
    tlr_model_close(m);
}

/* ---- what a matrix lost ---- */

static const struct tlr_tensor *matrix(const struct tlr_model *m, int layer,
                                       const char *role)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", layer, role);
    const struct tlr_tensor *t = tlr_file_tensor(tlr_model_file(m), name);
    ck_assert_msg(t != NULL, "%s", name);
    return t;
}

/* (w - q) H (w - q)' over all rows. */
static double loss(const struct tlr_tensor *w, const struct tlr_tensor *q,
                   const double *h)
{
    uint32_t n = w->n_cols;
    double sum = 0, e[MAX_COLS];
    for (uint32_t r = 0; r < w->n_rows; r++) {
        float a[MAX_COLS], b[MAX_COLS];
        tlr_row_decode(w->type, a, w->data, r, (int)n);
        tlr_row_decode(q->type, b, q->data, r, (int)n);
        for (uint32_t i = 0; i < n; i++) {
            e[i] = (double)a[i] - (double)b[i];
        }
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j < n; j++) {
                sum += e[i] * h[i * n + j] * e[j];
            }
        }
    }
    return sum;
}

START_TEST(each_matrix_gains_on_its_own_inputs)
{
    static const struct {
        const char *role;
        enum tlr_input input;
    } roles[] = {{"q", TLR_INPUT_QKV},        {"k", TLR_INPUT_QKV},
                 {"v", TLR_INPUT_QKV},        {"o", TLR_INPUT_O},
                 {"gate", TLR_INPUT_GATE_UP}, {"up", TLR_INPUT_GATE_UP},
                 {"down", TLR_INPUT_DOWN}};
    struct sums sums = {.n_tok = 0};
    write_text();
    gather(&sums);
    struct tlr_model *f32 = open_as("f32.bin", TLR_F32, false);
    struct tlr_model *plain = open_as("plain.bin", TLR_RECIPE_Q4, false);
    struct tlr_model *ours = open_as("ours.bin", TLR_RECIPE_Q4, true);
    for (int l = 0; l < MAX_LAYERS; l++) {
        for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
            const struct tlr_tensor *w = matrix(f32, l, roles[i].role);
            const double *h = sums.h[l][roles[i].input];
            double a = loss(w, matrix(plain, l, roles[i].role), h);
            double b = loss(w, matrix(ours, l, roles[i].role), h);
            printf("calibrate: layer %d %s: %.3f of plain rounding's loss\n", l,
                   roles[i].role, b / a);
            ck_assert_msg(b < 0.5 * a, "layer %d %s: loss %g, plain %g", l,
                          roles[i].role, b, a);
        }
    }
    for (int l = 0; l < MAX_LAYERS; l++) {
        for (int i = 0; i < TLR_N_INPUTS; i++) {
            tlr_free(sums.h[l][i]);
        }
    }
    tlr_model_close(f32);
    tlr_model_close(plain);
    tlr_model_close(ours);
}
END_TEST

/* Layer after layer in a pass of its own, or all in one: the same bytes. */
START_TEST(passes_do_not_change_the_model)
{
    const char *one = tmp_path("one-pass.bin"), *more = tmp_path("passes.bin");
    write_text();
    struct tlr_convert_options o = recipe(TLR_RECIPE_Q4, true);
    make_model(one, &o);
    o.calibration_memory = 1;
    make_model(more, &o);
    size_t n, m;
    uint8_t *a = slurp(one, &n), *b = slurp(more, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(a, b, n);
    free(a);
    free(b);
}
END_TEST

/* ---- verification ---- */

static const struct tlr_source_ops *honest;

/* The o matrices with their signs turned. */
static int read_turned(struct tlr_source *src, uint32_t i, uint32_t row,
                       uint32_t n, float *out, struct tlr_err *err)
{
    struct tlr_tensor_want want;
    tlr_config_tensor(&src->config, i, &want);
    int rc = honest->read_rows(src, i, row, n, out, err);
    for (uint32_t k = 0; strstr(want.name, ".o") && k < n * want.n_cols; k++) {
        out[k] = -out[k];
    }
    return rc;
}

START_TEST(verify_knows_a_calibrated_row)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *src = NULL;
    const char *bin = tmp_path("turned.bin");
    write_text();
    struct tlr_convert_options o = recipe(TLR_RECIPE_Q4, true);
    make_model(bin, &o);
    ck_assert_msg(!tlr_source_open(&src, FOLDER, &err), "%s", err.text);
    ck_assert_msg(!tlr_convert_verify(src, bin, &o, &err), "%s", err.text);
    honest = src->ops;
    struct tlr_source_ops turned = *honest;
    turned.read_rows = read_turned;
    src->ops = &turned;
    int rc = tlr_convert_verify(src, bin, &o, &err);
    expect_error("turned", rc, &err, TLR_EMISMATCH, "tensor blk.0.o ");
    src->ops = honest;
    tlr_source_close(src);
}
END_TEST

Suite *suite_calibrate(void);
Suite *suite_calibrate(void)
{
    Suite *suite = suite_create("calibrate");
    TCase *tc = tcase_create("calibrate");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, each_matrix_gains_on_its_own_inputs);
    tcase_add_test(tc, passes_do_not_change_the_model);
    tcase_add_test(tc, verify_knows_a_calibrated_row);
    suite_add_tcase(suite, tc);
    return suite;
}
