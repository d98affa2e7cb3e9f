/* test_compensate.c - rounding that makes up for its errors: the factor against
 * its definition, the gain it promises, and whole conversions with a text.
 */
#include <math.h>
#include <stdio.h>
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
    double before = INFINITY;
    for (int b = 0; b < N / 32; b++) { /* stay together, the strong ones first */
        double strength = 0;
        for (int c = 0; c < 32; c++) {
            int at = (int)f.order[b * 32 + c], last = (int)f.order[b * 32];
            ck_assert_int_eq(at / 32, last / 32);
            last = c ? (int)f.order[b * 32 + c - 1] : at;
            ck_assert(h_at(h, at, at) <= h_at(h, last, last));
            strength += h_at(h, at, at);
        }
        ck_assert_double_le(strength, before);
        before = strength;
    }
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

/* ---- each number is what the method says ---- */

/* Sum of squared errors, each over u's diagonal, when the block at `at` of the
 * order is rounded with scale d from compensated weights w[32]. */
static double block_loss(const struct tlr_factor *f, int at, const double *w,
                         double d)
{
    double left[32], sum = 0;
    memcpy(left, w, sizeof left);
    for (int j = 0; j < 32; j++) {
        const float *u = f->u + (at + j) * N + at;
        double nearest = INFINITY;
        for (int i = 0; i < 16; i++) {
            double e = left[j] - d * (double)tlr_q4n_levels[i];
            nearest = fabs(e) < fabs(nearest) ? e : nearest;
        }
        double e = nearest / (double)u[j];
        sum += e * e;
        for (int k = j + 1; k < 32; k++)
            left[k] -= e * (double)u[k];
    }
    return sum;
}

/* One row against Frantar et al. 2022, section 3.3: what is left of a column
 * after those before it goes to the nearest level, and of the scales that are
 * offered none would have lost less. */
static void check_row(const struct tlr_factor *f, const float *w,
                      const uint8_t *band, int row)
{
    double left[N];
    float q[N];
    tlr_row_decode(TLR_Q4N, q, band, (uint64_t)row, N);
    for (int c = 0; c < N; c++)
        left[c] = (double)w[f->order[c]];
    for (int at = 0; at < N; at += 32) {
        const uint8_t *tile = band + f->order[at] / 32 * 288;
        double extreme = 0;
        double d = (double)tlr_f16_to_f32(
            (uint16_t)(tile[2 * row] | tile[2 * row + 1] << 8));
        for (int j = at; j < at + 32; j++)
            extreme = fabs(left[j]) > fabs(extreme) ? left[j] : extreme;
        double ours = block_loss(f, at, left + at, d);
        for (int i = 0; i < 16; i++) {
            double end = (100 + 6 * (i / 2)) * (i % 2 ? 1 : -1);
            double other = (double)tlr_f16_to_f32(
                tlr_f32_to_f16((float)(extreme / end)));
            ck_assert_msg(ours <= block_loss(f, at, left + at, other) * 1.001,
                          "row %d block %d: scale %g, %g is better", row, at,
                          d, other);
        }
        for (int j = at; j < at + 32; j++) {
            double e = left[j] - (double)q[f->order[j]], nearest = INFINITY;
            for (int i = 0; i < 16; i++)
                nearest = fmin(nearest,
                               fabs(left[j] - d * (double)tlr_q4n_levels[i]));
            ck_assert_msg(fabs(e) <= nearest + 0.01 * fabs(d),
                          "row %d, column %u: %g became %g", row, f->order[j],
                          left[j], (double)q[f->order[j]]);
            for (int k = j + 1; k < N; k++)
                left[k] -= e / (double)f->u[j * N + j] * (double)f->u[j * N + k];
        }
    }
}

START_TEST(numbers_are_the_methods)
{
    struct tlr_rng rng = {.seed = tlr_test_seed() + 2};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_factor f;
    static float w[ROWS * N], rows[ROWS * N], scratch[ROWS * N];
    static uint8_t band[N / 32 * 288];
    float *h = make_h(&rng);
    for (int i = 0; i < ROWS * N; i++)
        w[i] = tlr_rng_normal(&rng) * (float)(1 + i % N / 32);
    memcpy(rows, w, sizeof w);
    ck_assert_msg(tlr_factor_make(&f, h, N, &err) == 0, "%s", err.text);
    tlr_compensate_band(&f, band, rows, scratch, ROWS);
    for (int r = 0; r < ROWS; r++)
        check_row(&f, w + r * N, band, r);
    tlr_factor_clear(&f);
    tlr_free(h);
}
END_TEST

/* ---- where descent ends ---- */

/* What one move could still take off a row's loss, as a share of it: the most
 * for a number to another level, and for a block to another scale. */
struct gain {
    double number, scale;
};

/* q . H q over one block. */
static double block_energy(const struct tlr_factor *f, const float *q, int at)
{
    double sum = 0;
    for (int i = at; i < at + 32; i++)
        for (int j = at; j < at + 32; j++)
            sum += (double)q[i] * (double)f->h[i * N + j] * (double)q[j];
    return sum;
}

/* The most that column i's move to another level takes off. */
static double best_move(const struct tlr_factor *f, double d, double q,
                        double g, int i)
{
    double best = 0;
    for (int l = 0; l < 16; l++) {
        double by = d * (double)tlr_q4n_levels[l] - q;
        best = fmax(best, 2 * by * g - by * by * (double)f->h[i * N + i]);
    }
    return best;
}

static struct gain gain_of(const struct tlr_factor *f, const float *w,
                           const uint8_t *band, int row)
{
    struct gain out = {0, 0};
    float q[N];
    double g[N] = {0}, row_loss = 0;
    tlr_row_decode(TLR_Q4N, q, band, (uint64_t)row, N);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            g[i] += (double)f->h[i * N + j] * (double)(w[j] - q[j]);
        row_loss += (double)(w[i] - q[i]) * g[i];
    }
    for (int at = 0; at < N; at += 32) {
        const uint8_t *tile = band + at / 32 * 288;
        double d = (double)tlr_f16_to_f32(
            (uint16_t)(tile[2 * row] | tile[2 * row + 1] << 8));
        double above = 0;
        for (int i = at; i < at + 32; i++) {
            double less = best_move(f, d, (double)q[i], g[i], i);
            out.number = fmax(out.number, less / row_loss);
            above += (double)q[i] * g[i];
        }
        double below = block_energy(f, q, at);
        out.scale = fmax(out.scale, above * above / below / row_loss);
    }
    return out;
}

static struct gain mean_gain(const struct tlr_factor *f, const float *w,
                             const uint8_t *band)
{
    struct gain mean = {0, 0};
    for (int r = 0; r < ROWS; r++) {
        struct gain g = gain_of(f, w + r * N, band, r);
        mean.number += g.number / ROWS;
        mean.scale += g.scale / ROWS;
    }
    return mean;
}

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
    struct gain first = mean_gain(&f, w, ours);
    tlr_refine_band(&f, ours, w, rows, scratch, ROWS);
    struct gain last = mean_gain(&f, w, ours);
    double descended = loss(h, w, ours);
    printf("compensate: %.3f of plain rounding's loss, then %.3f of that; one "
           "more number takes off %.2g, before %.2g, one more scale %.2g, "
           "before %.2g\n", b / a, descended / b, last.number, first.number,
           last.scale, first.scale);
    ck_assert_msg(descended < b, "loss %g, before descent %g", descended, b);
    ck_assert(first.number > 0.01 && first.scale > 0.01);
    ck_assert(last.number < 0.002 && last.scale < 0.002);
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

/* Descent from numbers that were rounded to the nearest: they must move. */
START_TEST(descent_moves_numbers)
{
    struct tlr_rng rng = {.seed = tlr_test_seed() + 3};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_factor f;
    static float w[ROWS * N], g[ROWS * N], scratch[ROWS * N];
    static uint8_t band[N / 32 * 288], plain[N / 32 * 288];
    float *h = make_h(&rng);
    for (int i = 0; i < ROWS * N; i++)
        w[i] = tlr_rng_normal(&rng);
    tlr_band_encode(TLR_Q4N, plain, w, ROWS, N);
    memcpy(band, plain, sizeof band);
    ck_assert_msg(tlr_factor_make(&f, h, N, &err) == 0, "%s", err.text);
    tlr_refine_band(&f, band, w, g, scratch, ROWS);
    double before = loss(h, w, plain), after = loss(h, w, band);
    int n_moved = 0; /* pairs of numbers; the first 32 bytes are scales */
    for (int i = 0; i < N / 32 * 288; i++)
        n_moved += i % 288 >= 32 && band[i] != plain[i];
    printf("compensate: descent alone leaves %.3f of the loss and moves %d of "
           "%d pairs of numbers\n", after / before, n_moved, ROWS * N / 2);
    ck_assert_msg(after < 0.5 * before, "%g, before %g", after, before);
    ck_assert_int_gt(n_moved, ROWS * N / 2 / 40);
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
    tcase_add_test(tc, numbers_are_the_methods);
    tcase_add_test(tc, errors_cancel);
    tcase_add_test(tc, descent_moves_numbers);
    tcase_add_test(tc, nothing_to_go_by);
    tcase_add_test(tc, a_text_changes_the_body_alone);
    tcase_add_test(tc, calibration_is_refused_and_stopped);
    suite_add_tcase(suite, tc);
    return suite;
}
