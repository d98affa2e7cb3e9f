/* test_sampler.c - sampling against cases worked out by hand and against the
 * published output of PCG32. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"
#include "tests/support/tlr_check.h"

static const struct tlr_generation plain = {
    .temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = 1.0f};

static struct tlr_sampler *sampler(struct tlr_generation g, uint32_t n,
                                   uint64_t seed)
{
    struct tlr_sampler *s = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_sampler_new(&s, &g, n, seed, &err), 0);
    return s;
}

/* Counts of each id in n draws. */
static void counts(struct tlr_generation g, const float *logits, uint32_t n_vocab,
                   const int32_t *history, size_t n_history, int n, int *out)
{
    struct tlr_sampler *s = sampler(g, n_vocab, 99);
    memset(out, 0, n_vocab * sizeof *out);
    for (int i = 0; i < n; i++) {
        int32_t id = tlr_sample(s, logits, history, n_history);
        ck_assert(id >= 0 && (uint32_t)id < n_vocab);
        out[id]++;
    }
    tlr_sampler_free(s);
}

START_TEST(argmax_takes_the_lowest_of_ties)
{
    const float ties[] = {1, 3, 2, 3, -1};
    ck_assert_int_eq(tlr_argmax(ties, 5), 1);
    const float nan[] = {NAN, -5, NAN, 7, NAN};
    ck_assert_int_eq(tlr_argmax(nan, 5), 3);
    const float all_nan[] = {NAN, NAN};
    ck_assert_int_eq(tlr_argmax(all_nan, 2), 0);
    const float low[] = {-INFINITY, -INFINITY, -3e38f};
    ck_assert_int_eq(tlr_argmax(low, 3), 2);
    ck_assert_int_eq(tlr_argmax(ties, 1), 0);
}
END_TEST

START_TEST(log_sum_exp_is_stable)
{
    const float x[] = {0, 0, 0, 0};
    ck_assert_double_eq_tol(tlr_log_sum_exp(x, 4), log(4.0), 1e-15);
    const float big[] = {1000, 1000, -1000};
    ck_assert_double_eq_tol(tlr_log_sum_exp(big, 3), 1000 + log(2.0), 1e-12);
    const float none[] = {-INFINITY, -INFINITY};
    ck_assert(tlr_log_sum_exp(none, 2) == -INFINITY);
    const float half[] = {-INFINITY, 2};
    ck_assert_double_eq_tol(tlr_log_sum_exp(half, 2), 2.0, 1e-15);
}
END_TEST

/* Equal logits over 2^16 ids: the id is the draw's upper half.  The numbers are
 * those that pcg32-demo prints for seed 42, stream 54. */
START_TEST(draws_are_pcg32)
{
    static const uint32_t published[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                         0x83d2f293, 0xbfa4784b, 0xcbed606e};
    float *logits = calloc(65536, sizeof *logits);
    struct tlr_sampler *s = sampler(plain, 65536, 42);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(tlr_sample(s, logits, NULL, 0),
                         (int32_t)(published[i] >> 16));
    }
    tlr_sampler_free(s);
    free(logits);
}
END_TEST

START_TEST(temperature_zero_is_argmax)
{
    struct tlr_generation g = plain;
    g.temperature = 0;
    const float x[] = {1, 4, 4, 2};
    int n[4];
    counts(g, x, 4, NULL, 0, 20, n);
    ck_assert_int_eq(n[1], 20);
    /* 4/2 = 2 and 4/2 = 2, so 2.5 wins; twice in the history counts once. */
    g.repeat_penalty = 2;
    const float y[] = {2.5f, 4, 4, -1};
    const int32_t history[] = {1, 2, 1, -7, 4, 1000000};
    counts(g, y, 4, history, 6, 5, n);
    ck_assert_int_eq(n[0], 5);
    /* Negative logits are multiplied: -1 becomes -2 and loses to -1.5. */
    const float z[] = {-1, -1.5f};
    const int32_t zero[] = {0};
    counts(g, z, 2, zero, 1, 5, n);
    ck_assert_int_eq(n[1], 5);
}
END_TEST

/* log of probabilities 0.4 0.3 0.2 0.1, not in order of id. */
static const float four[] = {-1.6094379f, -0.9162907f, -2.3025851f,
                             -1.2039728f}; /* .2 .4 .1 .3 */

static void check_share(int count, int n, double p)
{
    /* Five standard deviations of a binomial count. */
    double tolerance = 5.0 * sqrt(n * p * (1.0 - p)) + 1e-9;
    ck_assert_msg(fabs(count - n * p) <= tolerance, "%d of %d, expected %g",
                  count, n, n * p);
}

static void check_shares(struct tlr_generation g, const double p[4])
{
    enum { N = 40000 };
    int n[4];
    counts(g, four, 4, NULL, 0, N, n);
    for (int i = 0; i < 4; i++) {
        check_share(n[i], N, p[i]);
    }
}

START_TEST(distribution_is_softmax)
{
    check_shares(plain, (double[]){0.2, 0.4, 0.1, 0.3});
    struct tlr_generation g = plain;
    g.temperature = 0.5f; /* squares: 4 16 1 9 of 30 */
    check_shares(g, (double[]){4 / 30.0, 16 / 30.0, 1 / 30.0, 9 / 30.0});
    g.temperature = 1;
    g.top_p = 0.9999999f; /* everything, by way of the heap */
    check_shares(g, (double[]){0.2, 0.4, 0.1, 0.3});
}
END_TEST

START_TEST(top_k_keeps_k)
{
    struct tlr_generation g = plain;
    g.top_k = 1;
    check_shares(g, (double[]){0, 1, 0, 0});
    g.top_k = 2;
    check_shares(g, (double[]){0, 4 / 7.0, 0, 3 / 7.0});
    g.top_k = 4;
    check_shares(g, (double[]){0.2, 0.4, 0.1, 0.3});
    g.top_k = 1000;
    check_shares(g, (double[]){0.2, 0.4, 0.1, 0.3});
    const float ties[] = {1, 1, 1, 1}; /* the lowest ids win */
    int n[4];
    g.top_k = 2;
    counts(g, ties, 4, NULL, 0, 1000, n);
    check_share(n[0], 1000, 0.5);
    ck_assert_int_eq(n[2] + n[3], 0);
}
END_TEST

START_TEST(top_p_keeps_the_smallest_set)
{
    struct tlr_generation g = plain;
    g.top_p = 0.39f;
    check_shares(g, (double[]){0, 1, 0, 0});
    g.top_p = 0.41f;
    check_shares(g, (double[]){0, 4 / 7.0, 0, 3 / 7.0});
    g.top_p = 0.85f;
    check_shares(g, (double[]){2 / 9.0, 4 / 9.0, 0, 3 / 9.0});
    g.top_p = 1e-9f; /* the best one always stays */
    check_shares(g, (double[]){0, 1, 0, 0});
    /* Of the top 2 (4/7 and 3/7), 0.5 keeps the first only. */
    g.top_k = 2;
    g.top_p = 0.5f;
    check_shares(g, (double[]){0, 1, 0, 0});
    g.top_p = 0.6f;
    check_shares(g, (double[]){0, 4 / 7.0, 0, 3 / 7.0});
}
END_TEST

START_TEST(min_p_is_a_share_of_the_best)
{
    struct tlr_generation g = plain;
    g.min_p = 0.6f; /* of 0.4: at least 0.24 */
    check_shares(g, (double[]){0, 4 / 7.0, 0, 3 / 7.0});
    g.min_p = 0.3f; /* at least 0.12 */
    check_shares(g, (double[]){2 / 9.0, 4 / 9.0, 0, 3 / 9.0});
    g.top_k = 3;
    g.min_p = 0.6f;
    check_shares(g, (double[]){0, 4 / 7.0, 0, 3 / 7.0});
    /* Temperature first: 16 9 4 1, at least 0.5 of 16. */
    g.top_k = 0;
    g.temperature = 0.5f;
    g.min_p = 0.5f;
    check_shares(g, (double[]){0, 16 / 25.0, 0, 9 / 25.0});
}
END_TEST

START_TEST(strange_logits_do_not_break_it)
{
    struct tlr_generation cut = plain;
    cut.top_k = 3;
    cut.top_p = 0.99f;
    const struct tlr_generation both[] = {plain, cut};
    for (int i = 0; i < 2; i++) {
        int n[4];
        const float nan[] = {NAN, 1, NAN, -INFINITY};
        counts(both[i], nan, 4, NULL, 0, 50, n);
        ck_assert_int_eq(n[1], 50);
        const float inf[] = {1, INFINITY, 2, INFINITY};
        counts(both[i], inf, 4, NULL, 0, 50, n);
        ck_assert_int_eq(n[1], 50);
        const float none[] = {-INFINITY, NAN, -INFINITY, NAN};
        counts(both[i], none, 4, NULL, 0, 50, n);
        ck_assert_int_eq(n[0], 50);
        const float wide[] = {3e38f, -3e38f, 0, 1};
        counts(both[i], wide, 4, NULL, 0, 50, n);
        ck_assert_int_eq(n[0], 50);
        int one[1];
        counts(both[i], wide, 1, NULL, 0, 50, one);
        ck_assert_int_eq(one[0], 50);
    }
}
END_TEST

/* A big vocabulary with everything on, against a plain sort. */
static int by_logit(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

START_TEST(heap_agrees_with_sort)
{
    enum { V = 5000, K = 40 };
    struct tlr_rng rng = {tlr_test_seed(), 0};
    float *x = calloc(V, sizeof *x), *sorted = calloc(V, sizeof *x);
    for (int i = 0; i < V; i++) {
        sorted[i] = x[i] = tlr_rng_normal(&rng);
    }
    qsort(sorted, V, sizeof *sorted, by_logit);
    struct tlr_generation g = plain;
    g.temperature = 50; /* nearly flat, so that all K are seen */
    g.top_k = K;
    int *n = calloc(V, sizeof *n), seen = 0;
    counts(g, x, V, NULL, 0, 4000, n);
    for (int i = 0; i < V; i++) {
        ck_assert(!n[i] || x[i] >= sorted[K - 1]);
        seen += n[i] > 0;
    }
    ck_assert_int_eq(seen, K);
    free(x);
    free(sorted);
    free(n);
}
END_TEST

START_TEST(seed_decides)
{
    float x[64] = {0};
    struct tlr_sampler *a = sampler(plain, 64, 7), *b = sampler(plain, 64, 7);
    struct tlr_sampler *c = sampler(plain, 64, 8);
    int differ = 0;
    for (int i = 0; i < 100; i++) {
        int32_t id = tlr_sample(a, x, NULL, 0);
        ck_assert_int_eq(tlr_sample(b, x, NULL, 0), id);
        differ += tlr_sample(c, x, NULL, 0) != id;
    }
    ck_assert_int_gt(differ, 50);
    tlr_sampler_free(a);
    tlr_sampler_free(b);
    tlr_sampler_free(c);
}
END_TEST

Suite *suite_sampler(void);
Suite *suite_sampler(void)
{
    Suite *s = suite_create("sampler");
    TCase *tc = tcase_create("sampler");
    tcase_add_test(tc, argmax_takes_the_lowest_of_ties);
    tcase_add_test(tc, log_sum_exp_is_stable);
    tcase_add_test(tc, draws_are_pcg32);
    tcase_add_test(tc, temperature_zero_is_argmax);
    tcase_add_test(tc, distribution_is_softmax);
    tcase_add_test(tc, top_k_keeps_k);
    tcase_add_test(tc, top_p_keeps_the_smallest_set);
    tcase_add_test(tc, min_p_is_a_share_of_the_best);
    tcase_add_test(tc, strange_logits_do_not_break_it);
    tcase_add_test(tc, heap_agrees_with_sort);
    tcase_add_test(tc, seed_decides);
    suite_add_tcase(s, tc);
    return s;
}
