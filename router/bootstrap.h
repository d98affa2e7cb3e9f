/* bootstrap.h - how far a mean over questions can be trusted.
 *
 * Questions are drawn with replacement TLR_RESAMPLES times (Efron 1979); every
 * statistic uses the same draws, so two policies are compared on the same
 * questions each time (paired).  The draws are a function of the seed alone:
 * draw i of resample b is tlr_hash_u64(seed, b * n + i) mod n.
 */
#ifndef TLR_ROUTER_BOOTSTRAP_H
#define TLR_ROUTER_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { TLR_RESAMPLES = 2000, TLR_BOOTSTRAP_ITEMS_MAX = 1 << 20 };

struct tlr_resamples {
    size_t n;
    uint16_t *counts; /* [TLR_RESAMPLES, n]: how often each item was drawn */
    double *values;   /* [TLR_RESAMPLES] scratch */
};

struct tlr_interval {
    double value;     /* on the items as they are; NaN for 0 / 0 */
    double low, high; /* 2.5 and 97.5 percent quantiles of the resamples, linear
                         between neighbours */
};

/* n items, 1 <= n <= TLR_BOOTSTRAP_ITEMS_MAX. */
int tlr_resamples_new(struct tlr_resamples *out, size_t n, uint64_t seed,
                      struct tlr_err *err);
void tlr_resamples_clear(struct tlr_resamples *r); /* a zeroed one is allowed */

/* sum(num) / sum(den); num, den [n]. */
struct tlr_interval tlr_bootstrap_ratio(struct tlr_resamples *r,
                                        const double *num, const double *den);

/* (a - low) / (high - low) of the three ratios x / den: the share of the way
 * from low to high that a goes.  A resample in which high does not exceed low
 * counts as minus infinity. */
struct tlr_interval tlr_bootstrap_gap(struct tlr_resamples *r, const double *a,
                                      const double *low, const double *high,
                                      const double *den);

/* One-sided p that a's ratio is not above b's: (1 + resamples in which it is
 * not) / (1 + TLR_RESAMPLES). */
double tlr_bootstrap_p(struct tlr_resamples *r, const double *a,
                       const double *b, const double *den);

#endif
