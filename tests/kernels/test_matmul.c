/* test_matmul.c - whether the oracle of the integer products is right: ref
 * against sums in double over tlr_row_decode, and quantise against its words.
 *
 * Bound of a product: the scales' product, the fma of its block and the fma of
 * each later block round once each, so a term passes at most n_cols/32 + 1
 * roundings, in q4m n_cols/16 + 2 (Higham 2002, section 3.1); integer sums are
 * exact and under 2^24.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

static struct tlr_kernels ref_kernels(void)
{
    struct tlr_kernels k;
    tlr_kernels_init(&k, TLR_CPU_REF);
    return k;
}

/* ---- quantise ---- */

/* sizes down to the smallest block that is not zero */
static const float sizes[] = {1, 1e-3f, 300, 1e30f, 3e38f, 1e-20f, 0x1p-99f};

START_TEST(quantise_keeps_its_word)
{
    enum { COLS = 96, TOK = 5 };
    struct tlr_kernels k = ref_kernels();
    struct tlr_rng rng = {tlr_test_seed() + (uint64_t)_i, 0};
    float x[TOK][COLS], rest[TOK][COLS], rest2[TOK][COLS];
    uint8_t act[TOK * COLS / 32 * TLR_ACT_BYTES], act2[sizeof act];
    ck_assert_uint_eq(tlr_act_bytes(TOK, COLS), sizeof act);
    for (int i = 0; i < TOK * COLS; i++) {
        float u = (float)(tlr_rng_u64(&rng) >> 40) * 0x1p-23f - 1.0f;
        x[i / COLS][i % COLS] = i % 32 == 7 ? sizes[_i] : u * sizes[_i];
    }
    k.quantise(act, rest[0], x[0], COLS, TOK, COLS);
    k.quantise(act2, rest2[0], rest[0], COLS, TOK, COLS);
    for (int t = 0; t < TOK; t++) {
        for (int b = 0; b < COLS / 32; b++) {
            struct act_block q, q2;
            act_get(act, TOK, COLS, t, b, &q);
            act_get(act2, TOK, COLS, t, b, &q2);
            ck_assert(q.d == sizes[_i] / 127);
            int sum = 0;
            double d = (double)q.d, most = 0;
            for (int c = 0; c < 32; c++) {
                double in = (double)x[t][32 * b + c], left = in - d * q.q[c];
                ck_assert_int_ge(q.q[c], -127);
                /* 127/a and the product round */
                ck_assert_double_le(fabs(left), d * (0.5 + 127 * 0x1p-22));
                ck_assert(rest[t][32 * b + c] == (float)left);
                most = fmax(most, fabs(left));
                double left2 = left - (double)q2.d * q2.q[c];
                if (q2.d > 0)
                    ck_assert_double_le(fabs(left2), d * 0.51 / 254);
                sum += q.q[c];
            }
            ck_assert_int_eq(q.q[7], 127);
            ck_assert_int_eq(q.sum, sum);
            ck_assert(most < 0x1p-100 ? q2.d == 0 : q2.d > 0);
        }
    }
}
END_TEST

START_TEST(quantise_zeroes_tiny_blocks)
{
    struct tlr_kernels k = ref_kernels();
    const float tiny[] = {0, 0x1p-149f, -0x1p-120f, 0x1.fffffep-101f};
    for (size_t i = 0; i < sizeof tiny / sizeof tiny[0]; i++) {
        float x[32] = {[3] = tiny[i]}, rest[32];
        uint8_t act[TLR_ACT_BYTES], zero[TLR_ACT_BYTES] = {0};
        memset(act, 0xa5, sizeof act);
        k.quantise(act, rest, x, 32, 1, 32);
        ck_assert_mem_eq(act, zero, sizeof act);
        ck_assert_mem_eq(rest, x, sizeof x);
    }
}
END_TEST

/* What a broken model feeds it: any numbers come out, but they stay in place. */
START_TEST(quantise_survives_nonsense)
{
    size_t n;
    const struct tlr_variant *rows = tlr_kernel_variants(&n);
    const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
    int n_run = 0;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].op != TLR_OP_QUANTISE || !tlr_cpu_has(rows[i].level))
            continue;
        for (int at = 0; at < 64; at++) {
            float x[64] = {[5] = 1, [40] = -2};
            x[at] = bad[at % 4];
            x[at ^ 1] = bad[at / 4 % 4];
            size_t bytes = tlr_act_bytes(1, 64);
            struct output act = output_new(1, bytes, bytes, 1);
            struct output rest = output_new(4, 64, 64, 1);
            ((tlr_quantise_fn *)rows[i].fn)(act.first,
                                            (float *)(void *)rest.first, x, 64,
                                            1, 64);
            ck_assert(output_intact(&act) && output_intact(&rest));
            output_free(&act);
            output_free(&rest);
            n_run++;
        }
    }
    ck_assert_int_ge(n_run, 64);
}
END_TEST

/* ---- products ---- */

static double minimum_of(enum tlr_type type, const uint8_t *w, int row, int b,
                         int n_cols)
{
    if (type != TLR_Q4M)
        return 0;
    const uint8_t *at = w + row / 16 * (int)tlr_band_bytes(type, (uint64_t)n_cols) +
                        b * 320 + 32 + 2 * (row % 16);
    return (double)tlr_f16_to_f32((uint16_t)(at[0] | at[1] << 8));
}

/* The product and its bound without the roundings. */
static void exact_product(enum tlr_type type, const uint8_t *w, int row,
                          const void *act, int n_tok, int t, int n_cols,
                          double *product, double *bound)
{
    float *values = malloc((size_t)n_cols * sizeof *values);
    ck_assert_ptr_nonnull(values);
    tlr_row_decode(type, values, w, (uint64_t)row, n_cols);
    double sum = 0, size = 0;
    for (int b = 0; b < n_cols / 32; b++) {
        struct act_block x;
        act_get(act, n_tok, n_cols, t, b, &x);
        double m = minimum_of(type, w, row, b, n_cols);
        for (int c = 0; c < 32; c++) {
            double v = (double)values[32 * b + c], in = (double)x.d * x.q[c];
            sum += v * in;
            size += (fabs(v - m) + fabs(m)) * fabs(in);
        }
    }
    /* q4m's decoded value d*n + m is itself rounded */
    int chain = type == TLR_Q4M ? n_cols / 16 + 3 : n_cols / 32 + 1;
    *product = sum;
    *bound = 1.001 * chain * ROUNDOFF * size;
    free(values);
}

static const enum tlr_type tiled[] = {TLR_Q8, TLR_Q4, TLR_Q4M, TLR_Q4N,
                                      TLR_Q8P};

START_TEST(ref_is_the_product)
{
    enum { ROW = 1008, ROWS = 40, COLS = 896, TOK = 11 };
    enum tlr_type type = tiled[_i];
    struct tlr_kernels k = ref_kernels();
    struct tlr_rng rng = {tlr_test_seed() + (uint64_t)_i, 0};
    size_t bytes = tlr_matrix_bytes(type, ROW + ROWS, COLS);
    uint8_t *w = malloc(bytes), *act = malloc(tlr_act_bytes(TOK, COLS));
    ck_assert(w != NULL && act != NULL);
    fill_matrix(&rng, type, w, ROW + ROWS, COLS);
    fill_acts(&rng, act, TOK, COLS, IN_RANDOM);
    static float y[TOK][ROWS], want[TOK][ROWS];
    k.matmul[type - TLR_Q8](y[0], ROWS, w, ROW, act, TOK, ROWS, COLS);
    double largest = 0;
    for (int t = 0; t < TOK; t++) {
        for (int r = 0; r < ROWS; r++) {
            double product, bound;
            exact_product(type, w, ROW + r, act, TOK, t, COLS, &product,
                          &bound);
            ck_assert_msg(fabs((double)y[t][r] - product) <= bound,
                          "%s row %d token %d: expected %.9g, found %.9g, "
                          "bound %.3g",
                          tlr_type_name(type), r, t, product, (double)y[t][r],
                          bound);
            want[t][r] = (float)product;
            largest = fmax(largest, bound);
        }
    }
    ck_assert(bound_is_small(largest, want[0], TOK * ROWS));
    free(act);
    free(w);
}
END_TEST

/* The estimate is the product with 7.5 for every low nibble.  With random low
 * nibbles the error, in deviations, has mean 0 and variance 1. */
START_TEST(score_is_an_estimate)
{
    enum { ROW = 16, ROWS = 1000, COLS = 96 };
    struct tlr_kernels k = ref_kernels();
    struct tlr_rng rng = {tlr_test_seed(), 0};
    size_t bytes = tlr_matrix_bytes(TLR_Q8P, ROW + ROWS, COLS);
    size_t high_bytes = (size_t)TLR_PLANES_ROWS / 16 * 3 * TLR_HIGH_BYTES;
    uint8_t *w = malloc(bytes), act[3 * TLR_ACT_BYTES];
    ck_assert(w != NULL);
    ck_assert_uint_eq(bytes, high_bytes / 288 * (288 + 256));
    fill_matrix(&rng, TLR_Q8P, w, ROW + ROWS, COLS);
    for (size_t i = high_bytes; i < bytes; i++)
        w[i] = (uint8_t)tlr_rng_u64(&rng);
    fill_acts(&rng, act, 1, COLS, IN_RANDOM);
    static float y[ROWS], dev[ROWS], all_low[ROWS], exact[ROWS];
    k.score_q8p(y, dev, ROWS, w, ROW, act, 1, ROWS, COLS);
    k.matmul[TLR_Q8P - TLR_Q8](exact, ROWS, w, ROW, act, 1, ROWS, COLS);
    double mean = 0, variance = 0, worst = 0;
    for (int r = 0; r < ROWS; r++) {
        double z = ((double)exact[r] - (double)y[r]) / (double)dev[r];
        mean += z / ROWS;
        variance += z * z / ROWS;
        worst = fmax(worst, fabs(z));
    }
    /* five deviations of a mean and of a variance of 1000 */
    ck_assert_double_le(fabs(mean), 5 / sqrt(ROWS));
    ck_assert_double_le(fabs(variance - 1), 5 * sqrt(2.0 / ROWS));
    ck_assert_double_le(worst, 6);
    /* low nibbles 0 and 15 lie evenly around the estimate */
    memset(w + high_bytes, 0x00, bytes - high_bytes);
    k.matmul[TLR_Q8P - TLR_Q8](exact, ROWS, w, ROW, act, 1, ROWS, COLS);
    memset(w + high_bytes, 0xff, bytes - high_bytes);
    k.matmul[TLR_Q8P - TLR_Q8](all_low, ROWS, w, ROW, act, 1, ROWS, COLS);
    for (int r = 0; r < ROWS; r++) {
        double middle = ((double)exact[r] + (double)all_low[r]) / 2;
        double product, bound;
        exact_product(TLR_Q8P, w, ROW + r, act, 1, 0, COLS, &product, &bound);
        ck_assert_double_le(fabs((double)y[r] - middle), 4 * bound);
    }
    free(w);
}
END_TEST

Suite *suite_matmul(void);
Suite *suite_matmul(void)
{
    Suite *suite = suite_create("matmul");
    TCase *tc = tcase_create("quantise");
    tcase_add_loop_test(tc, quantise_keeps_its_word, 0,
                        (int)(sizeof sizes / sizeof sizes[0]));
    tcase_add_test(tc, quantise_zeroes_tiny_blocks);
    tcase_add_test(tc, quantise_survives_nonsense);
    suite_add_tcase(suite, tc);
    tc = tcase_create("ref");
    tcase_add_loop_test(tc, ref_is_the_product, 0, 5);
    tcase_add_test(tc, score_is_an_estimate);
    suite_add_tcase(suite, tc);
    return suite;
}
