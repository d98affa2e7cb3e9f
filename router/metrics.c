/* metrics.c - see metrics.h. */
#include "router/metrics.h"

#include <math.h>
#include <stdlib.h>

static int by_score(const void *a, const void *b)
{
    const struct tlr_scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return (int)x->label - (int)y->label;
}

void tlr_scored_sort(struct tlr_scored *s, size_t n)
{
    qsort(s, n, sizeof *s, by_score);
}

static size_t count_ones(const struct tlr_scored *s, size_t n)
{
    size_t ones = 0;
    for (size_t i = 0; i < n; i++)
        ones += s[i].label;
    return ones;
}

/* End of the run of equal scores that begins at i. */
static size_t run_end(const struct tlr_scored *s, size_t n, size_t i)
{
    size_t j = i + 1;
    while (j < n && s[j].score == s[i].score)
        j++;
    return j;
}

double tlr_auroc(const struct tlr_scored *s, size_t n)
{
    double zeros_below = 0, u = 0;
    for (size_t i = 0, j; i < n; i = j) {
        j = run_end(s, n, i);
        double ones = (double)count_ones(s + i, j - i);
        double zeros = (double)(j - i) - ones;
        u += ones * (zeros_below + zeros / 2);
        zeros_below += zeros;
    }
    double n_ones = (double)n - zeros_below;
    return zeros_below > 0 && n_ones > 0 ? u / (zeros_below * n_ones) : NAN;
}

double tlr_auprc_ask(const struct tlr_scored *s, size_t n)
{
    double n_zeros = (double)(n - count_ones(s, n)), found = 0, sum = 0;
    if (n_zeros == 0)
        return NAN;
    for (size_t i = 0, j; i < n; i = j) {
        j = run_end(s, n, i);
        double zeros = (double)(j - i - count_ones(s + i, j - i));
        found += zeros;
        sum += zeros / n_zeros * (found / (double)j);
    }
    return sum;
}

double tlr_ece(const struct tlr_scored *s, size_t n)
{
    double right[TLR_ECE_BINS] = { 0 };
    double sure[TLR_ECE_BINS] = { 0 }, sum = 0;
    for (size_t i = 0; i < n; i++) {
        int b = (int)(s[i].score * TLR_ECE_BINS);
        b = b < 0 ? 0 : b >= TLR_ECE_BINS ? TLR_ECE_BINS - 1 : b;
        right[b] += s[i].label;
        sure[b] += (double)s[i].score;
    }
    for (int b = 0; b < TLR_ECE_BINS; b++)
        sum += fabs(right[b] - sure[b]);
    return n > 0 ? sum / (double)n : NAN;
}

float tlr_share_tau(const struct tlr_scored *s, size_t n, double share)
{
    size_t below = (size_t)(share * (double)n + 0.5);
    if (below == 0)
        return s[0].score;
    if (below >= n)
        return nextafterf(s[n - 1].score, INFINITY);
    float low = s[below - 1].score, high = s[below].score;
    float middle = low + (high - low) / 2;
    /* Neighbours without a number between: `low` is still to be asked. */
    return middle > low ? middle : high;
}

struct tlr_share_row tlr_share_at(const struct tlr_scored *s, size_t n,
                                  double share)
{
    struct tlr_share_row row = { .share = share,
                                 .tau = tlr_share_tau(s, n, share) };
    size_t asked = 0;
    while (asked < n && s[asked].score < row.tau)
        asked++;
    double caught = (double)(asked - count_ones(s, asked));
    double zeros = (double)(n - count_ones(s, n));
    row.attained = (double)asked / (double)n;
    row.recall = zeros > 0 ? caught / zeros : NAN;
    row.precision = asked ? caught / (double)asked : NAN;
    return row;
}
