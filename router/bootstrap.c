/* bootstrap.c - see bootstrap.h. */
#include "router/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

int tlr_resamples_new(struct tlr_resamples *out, size_t n, uint64_t seed,
                      struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    if (n < 1 || n > TLR_BOOTSTRAP_ITEMS_MAX)
        return tlr_err_set(err, TLR_ELIMIT,
                           "intervals: expected 1 to %d items, found %zu",
                           TLR_BOOTSTRAP_ITEMS_MAX, n);
    out->n = n;
    out->counts = tlr_calloc((size_t)TLR_RESAMPLES * n, sizeof *out->counts);
    out->values = tlr_calloc(TLR_RESAMPLES, sizeof *out->values);
    if (!out->counts || !out->values) {
        tlr_resamples_clear(out);
        return tlr_err_nomem(err, "intervals",
                             (size_t)TLR_RESAMPLES * n * sizeof *out->counts);
    }
    for (size_t b = 0; b < TLR_RESAMPLES; b++)
        for (size_t i = 0; i < n; i++) {
            uint16_t *c = &out->counts[b * n + tlr_hash_u64(seed, b * n + i) % n];
            if (*c < UINT16_MAX)
                ++*c;
        }
    return 0;
}

void tlr_resamples_clear(struct tlr_resamples *r)
{
    tlr_free(r->counts);
    tlr_free(r->values);
    memset(r, 0, sizeof *r);
}

/* Sum of x over resample b; all items once for b < 0. */
static double sum(const struct tlr_resamples *r, const double *x, int b)
{
    double s = 0;
    if (b < 0) {
        for (size_t i = 0; i < r->n; i++)
            s += x[i];
        return s;
    }
    const uint16_t *c = r->counts + (size_t)b * r->n;
    for (size_t i = 0; i < r->n; i++)
        s += x[i] * c[i];
    return s;
}

static double ratio(const struct tlr_resamples *r, const double *num,
                    const double *den, int b)
{
    return sum(r, num, b) / sum(r, den, b);
}

/* NaN sorts first, so that a resample without meaning widens the interval. */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return isnan(y) - isnan(x);
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, double q)
{
    double at = q * (TLR_RESAMPLES - 1);
    size_t i = (size_t)at;
    double rest = at - (double)i;
    if (rest <= 0 || i + 1 >= TLR_RESAMPLES || sorted[i] == sorted[i + 1])
        return sorted[i];
    return sorted[i] + rest * (sorted[i + 1] - sorted[i]);
}

static struct tlr_interval interval(struct tlr_resamples *r, double value)
{
    qsort(r->values, TLR_RESAMPLES, sizeof *r->values, by_value);
    return (struct tlr_interval){value, quantile(r->values, 0.025),
                                 quantile(r->values, 0.975)};
}

struct tlr_interval tlr_bootstrap_ratio(struct tlr_resamples *r,
                                        const double *num, const double *den)
{
    for (int b = 0; b < TLR_RESAMPLES; b++)
        r->values[b] = ratio(r, num, den, b);
    return interval(r, ratio(r, num, den, -1));
}

static double gap(const struct tlr_resamples *r, const double *a,
                  const double *low, const double *high, const double *den,
                  int b)
{
    double from = ratio(r, low, den, b), to = ratio(r, high, den, b);
    return to > from ? (ratio(r, a, den, b) - from) / (to - from) : -INFINITY;
}

struct tlr_interval tlr_bootstrap_gap(struct tlr_resamples *r, const double *a,
                                      const double *low, const double *high,
                                      const double *den)
{
    for (int b = 0; b < TLR_RESAMPLES; b++)
        r->values[b] = gap(r, a, low, high, den, b);
    return interval(r, gap(r, a, low, high, den, -1));
}

double tlr_bootstrap_p(struct tlr_resamples *r, const double *a,
                       const double *b, const double *den)
{
    int n_not_above = 0;
    for (int k = 0; k < TLR_RESAMPLES; k++)
        n_not_above += !(ratio(r, a, den, k) > ratio(r, b, den, k));
    return (1.0 + n_not_above) / (1.0 + TLR_RESAMPLES);
}
