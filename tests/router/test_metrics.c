/* test_metrics.c - AUROC, average precision, calibration error and thresholds,
 * beside their definitions written out.
 */
#include <math.h>

#include "router/metrics.h"
#include "tests/support/tlr_check.h"

enum { N = 300 };

/* Scores on a coarse grid, so that many are equal. */
static void draw(struct tlr_scored *s, uint64_t seed)
{
    struct tlr_rng rng = { seed, 0 };
    for (int i = 0; i < N; i++) {
        s[i].label = tlr_rng_u64(&rng) % 4 != 0;
        double x = 0.5 + 0.2 * (double)s[i].label + 0.15 * (double)tlr_rng_normal(&rng);
        s[i].score = (float)(floor(fmin(1, fmax(0, x)) * 40) / 40);
    }
}

START_TEST(auroc_is_the_share_of_pairs_in_order)
{
    struct tlr_scored s[N];
    draw(s, tlr_test_seed());
    double right = 0, pairs = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (s[i].label && !s[j].label) {
                pairs++;
                right += s[i].score > s[j].score   ? 1
                         : s[i].score == s[j].score ? 0.5
                                                    : 0;
            }
    tlr_scored_sort(s, N);
    ck_assert(fabs(tlr_auroc(s, N) - right / pairs) < 1e-12);
    ck_assert(right / pairs > 0.7 && right / pairs < 0.99);
    struct tlr_scored one[2] = { { 0.1f, 1 }, { 0.2f, 1 } };
    ck_assert(isnan(tlr_auroc(one, 2)));
}
END_TEST

/* sum over thresholds, from the lowest score on, of the recall won there times
 * the precision there. */
START_TEST(auprc_is_the_sum_over_thresholds)
{
    struct tlr_scored s[N];
    draw(s, tlr_test_seed() + 1);
    double zeros = 0, sum = 0, before = 0;
    for (int i = 0; i < N; i++)
        zeros += !s[i].label;
    for (int t = 0; t <= 40; t++) {
        double found = 0, asked = 0;
        for (int i = 0; i < N; i++) {
            asked += (double)s[i].score <= t / 40.0 + 1e-6;
            found += (double)s[i].score <= t / 40.0 + 1e-6 && !s[i].label;
        }
        if (asked > 0)
            sum += (found - before) / zeros * (found / asked);
        before = found;
    }
    tlr_scored_sort(s, N);
    ck_assert(fabs(tlr_auprc_ask(s, N) - sum) < 1e-12);
    ck_assert(sum > zeros / N + 0.1);
}
END_TEST

/* By hand: bins of 1/15; 0.1 and 0.12 share the second, 0.9 and 0.92 the last
 * but one.  |1 - 0.22| + |2 - 1.82| over 4 = 0.24. */
START_TEST(calibration_error_by_hand)
{
    struct tlr_scored s[] = { { 0.1f, 0 }, { 0.12f, 1 }, { 0.9f, 1 }, { 0.92f, 1 } };
    ck_assert(fabs(tlr_ece(s, 4) - 0.24) < 1e-6);
    struct tlr_scored sure[] = { { 0, 0 }, { 1, 1 } };
    ck_assert(tlr_ece(sure, 2) == 0);
}
END_TEST

START_TEST(thresholds_route_their_share)
{
    struct tlr_scored s[N];
    struct tlr_rng rng = { tlr_test_seed() + 2, 0 };
    for (int i = 0; i < N; i++)
        s[i] = (struct tlr_scored){ tlr_rng_normal(&rng), (uint8_t)(i % 5 != 0) };
    tlr_scored_sort(s, N);
    for (int k = 0; k <= N; k++) {
        struct tlr_share_row row = tlr_share_at(s, N, (double)k / N);
        ck_assert_msg(fabs(row.attained - (double)k / N) < 1e-9, "%d: %g", k,
                      row.attained);
        double zeros = 0;
        for (int i = 0; i < k; i++)
            zeros += !s[i].label;
        ck_assert(fabs(row.recall - zeros / (N / 5)) < 1e-9);
        ck_assert(k == 0 ? isnan(row.precision)
                         : fabs(row.precision - zeros / k) < 1e-9);
    }
}
END_TEST

Suite *suite_metrics(void);
Suite *suite_metrics(void)
{
    Suite *s = suite_create("metrics");
    TCase *c = tcase_create("definitions");
    tcase_add_test(c, auroc_is_the_share_of_pairs_in_order);
    tcase_add_test(c, auprc_is_the_sum_over_thresholds);
    tcase_add_test(c, calibration_error_by_hand);
    tcase_add_test(c, thresholds_route_their_share);
    suite_add_tcase(s, c);
    return s;
}
