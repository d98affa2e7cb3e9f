/* test_compensate.c - rounding that makes up for its errors: the factor against
 * its definition, the gain it promises, and whole conversions with a text.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "convert/compensate.h"
#include "convert/convert.h"
#include "tests/convert/helpers.h"
#include "tests/support/tlr_check.h"

enum { N = 96, ROWS = 16, TOKENS = 400 };

#define FOLDER "tests/golden/hf_folders/tiny-llama"

/* Sum of x x' over rows that depend on each other, as activations do. */
static float *make_h(struct tlr_rng *rng)
{
    float *h = tlr_calloc((size_t)N * N, sizeof *h);
    for (int t = 0; t < TOKENS; t++) {
        float x[N], shared = tlr_rng_normal(rng);
        for (int c = 0; c < N; c++)
            x[c] = (tlr_rng_normal(rng) + 2 * shared) *
                   (c % 7 == 0 ? 5.0f : 1.0f);
        for (int i = 0; i < N; i++)
            for (int j = i; j < N; j++)
                h[i * N + j] += x[i] * x[j];
    }
    return h;
}

static double h_at(const float *h, int i, int j)
{
    return (double)(i < j ? h[i * N + j] : h[j * N + i]);
}

/* (w - q) H (w - q)' over all rows. */
static double loss(const float *h, const float *w, const void *band)
{
    double sum = 0;
    for (int r = 0; r < ROWS; r++) {
        float q[N];
        tlr_row_decode(TLR_Q4N, q, band, (uint64_t)r, N);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                sum += (double)(w[r * N + i] - q[i]) * h_at(h, i, j) *
                       (double)(w[r * N + j] - q[j]);
    }
    return sum;
}

/* u' u is the inverse of the damped H in the factor's order. */
START_TEST(factor_is_what_it_says)
{
    struct tlr_rng rng = {.seed = tlr_test_seed()};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_factor f;
    float *h = make_h(&rng);
    double trace = 0;
    for (int i = 0; i < N; i++)
        trace += (double)h[i * N + i];
    ck_assert_msg(tlr_factor_make(&f, h, N, &err) == 0, "%s", err.text);
    for (int b = 1; b < N / 32; b++) /* blocks stay together */
        for (int c = 0; c < 32; c++)
            ck_assert_uint_eq(f.order[b * 32 + c] / 32, f.order[b * 32] / 32);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0; /* row i of u' u, column j of H */
            for (int k = 0; k < N; k++) {
                double inverse = 0;
                for (int m = 0; m <= (i < k ? i : k); m++)
                    inverse += (double)f.u[m * N + i] * (double)f.u[m * N + k];
                double add = k == j ? 0.01 * trace / N : 0;
                sum += inverse *
                       (h_at(h, (int)f.order[k], (int)f.order[j]) + add);
            }
            ck_assert_msg(fabs(sum - (i == j)) < 5e-3, "[%d,%d]: %g", i, j,
                          sum);
        }
    }
    tlr_factor_clear(&f);
    tlr_free(h);
}
END_TEST

START_TEST(errors_cancel)
{
    struct tlr_rng rng = {.seed = tlr_test_seed() + 1};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_factor f;
    static float w[ROWS * N], rows[ROWS * N], scratch[ROWS * N];
    static uint8_t plain[N / 32 * 288], ours[N / 32 * 288];
    float *h = make_h(&rng);
    for (int i = 0; i < ROWS * N; i++) /* blocks of three sizes */
        w[i] = tlr_rng_normal(&rng) * (float)(1 + i % N / 32);
    memcpy(rows, w, sizeof w);
    tlr_band_encode(TLR_Q4N, plain, w, ROWS, N);
    ck_assert_msg(tlr_factor_make(&f, h, N, &err) == 0, "%s", err.text);
    tlr_compensate_band(&f, ours, rows, scratch, ROWS);
    double a = loss(h, w, plain), b = loss(h, w, ours);
    ck_assert_msg(b < 0.5 * a, "loss %g, plain rounding has %g", b, a);
    tlr_refine_band(&f, ours, w, rows, scratch, ROWS);
    double descended = loss(h, w, ours);
    ck_assert_msg(descended < 0.95 * b, "loss %g, before descent %g", descended,
                  b);
    double error = 0, size = 0; /* still these weights */
    for (int r = 0; r < ROWS; r++) {
        float q[N];
        tlr_row_decode(TLR_Q4N, q, ours, (uint64_t)r, N);
        for (int c = 0; c < N; c++) {
            error += pow((double)(q[c] - w[r * N + c]), 2);
            size += pow((double)w[r * N + c], 2);
        }
    }
    ck_assert_msg(sqrt(error / size) < 0.2, "%g", sqrt(error / size));
    tlr_factor_clear(&f);
    tlr_free(h);
}
END_TEST

/* Inputs that never were (a dead channel) and all-zero weights. */
START_TEST(nothing_to_go_by)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_factor f;
    static float h[N * N], rows[ROWS * N], scratch[ROWS * N];
    static uint8_t band[N / 32 * 288];
    ck_assert_msg(tlr_factor_make(&f, h, N, &err) == 0, "%s", err.text);
    rows[5] = 1.0f;
    static float w[ROWS * N], g[ROWS * N];
    memcpy(w, rows, sizeof w);
    tlr_compensate_band(&f, band, rows, scratch, 3);
    tlr_refine_band(&f, band, w, g, scratch, 3);
    float q[N];
    tlr_row_decode(TLR_Q4N, q, band, 0, N);
    for (int c = 0; c < N; c++)
        ck_assert_msg(fabsf(q[c] - (float)(c == 5)) < 0.03f, "[%d] %g", c,
                      (double)q[c]);
    tlr_row_decode(TLR_Q4N, q, band, 1, N);
    for (int c = 0; c < N; c++)
        ck_assert(q[c] == 0);
    tlr_factor_clear(&f);
}
END_TEST

/* ---- whole conversions ---- */

static char text[8000];

static struct tlr_convert_options with_text(size_t len)
{
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the cat sat on a mat. 0123 "[i * 7 % 27];
    return (struct tlr_convert_options){
        .type = TLR_RECIPE_Q4, .calibration_text = text,
        .calibration_bytes = len, .calibration_tok = 1024};
}

START_TEST(a_text_changes_the_body_alone)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *s = NULL;
    struct tlr_convert_report r;
    const char *a = tmp_path("cal-a.bin"), *b = tmp_path("cal-b.bin");
    ck_assert_msg(!tlr_source_open(&s, FOLDER, &err), "%s", err.text);
    struct tlr_convert_options o = with_text(sizeof text);
    o.verify = true;
    ck_assert_msg(!tlr_convert(s, a, &o, &r, &err), "%s", err.text);
    ck_assert_uint_eq(r.n_by_type[TLR_Q4N], 14);
    ck_assert_uint_eq(r.n_by_type[TLR_Q8P], 1);
    ck_assert_msg(!tlr_convert(s, b, &o, &r, &err), "%s", err.text);
    size_t n, m;
    uint8_t *x = slurp(a, &n), *y = slurp(b, &m);
    static const char said[] = "\"calibration\":{\"text_sha256\":\"";
    ck_assert_ptr_nonnull(memmem(x, n, said, strlen(said)));
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(x, y, n);
    free(y);
    o.calibration_text = NULL;
    ck_assert_msg(!tlr_convert(s, b, &o, &r, &err), "%s", err.text);
    y = slurp(b, &m);
    ck_assert_int_ne(memcmp(x, y, n < m ? n : m), 0);
    free(x);
    free(y);
    tlr_source_close(s);
}
END_TEST

static int stop(void *ctx, uint64_t done, uint64_t total, const char *tensor)
{
    (void)ctx;
    ck_assert_uint_le(done, total);
    return strcmp(tensor, "calibration") == 0;
}

static int never(void *ctx, uint64_t done, uint64_t total, const char *tensor)
{
    (void)ctx, (void)done, (void)total;
    ck_abort_msg("work was done: %s", tensor);
    return 1;
}

START_TEST(calibration_is_refused_and_stopped)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *s = NULL;
    const char *bin = tmp_path("cal-none.bin");
    ck_assert_msg(!tlr_source_open(&s, FOLDER, &err), "%s", err.text);
    struct tlr_convert_options o = with_text(100);
    int rc = tlr_convert(s, bin, &o, NULL, &err);
    expect_error("short text", rc, &err, TLR_ELIMIT,
                 "calibration text: expected 512 tokens or more");
    o = with_text(sizeof text);
    o.type = TLR_RECIPE_Q8;
    o.progress = never; /* refused before any work */
    tlr_err_clear(&err);
    rc = tlr_convert(s, bin, &o, NULL, &err);
    expect_error("nothing to round", rc, &err, TLR_EUSAGE,
                 "expected matrices that are rounded to q4n, found none");
    o = with_text(sizeof text);
    o.progress = stop;
    tlr_err_clear(&err);
    rc = tlr_convert(s, bin, &o, NULL, &err);
    expect_error("stopped", rc, &err, TLR_ECANCELLED, "calibration: stopped");
    tlr_source_close(s);
    tlr_err_clear(&err);
    ck_assert_msg(!tlr_source_open(&s, "random:tiny-llama", &err), "%s",
                  err.text);
    o.progress = NULL;
    rc = tlr_convert(s, bin, &o, NULL, &err);
    expect_error("no words", rc, &err, TLR_EUSAGE, "no tokenizer");
    ck_assert_int_ne(access(bin, F_OK), 0);
    tlr_source_close(s);
}
END_TEST

Suite *suite_compensate(void);
Suite *suite_compensate(void)
{
    Suite *suite = suite_create("compensate");
    TCase *tc = tcase_create("compensate");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, factor_is_what_it_says);
    tcase_add_test(tc, errors_cancel);
    tcase_add_test(tc, nothing_to_go_by);
    tcase_add_test(tc, a_text_changes_the_body_alone);
    tcase_add_test(tc, calibration_is_refused_and_stopped);
    suite_add_tcase(suite, tc);
    return suite;
}
