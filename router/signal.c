/* signal.c - numbers that one position's logits give for nothing.
 *
 * Sums run in index order in double, so a signal has the same bits on every
 * level of kernels.
 */
#include <math.h>

#include "router/policy.h"

void tlr_top_logits(const float *logits, uint32_t n_ids, float *top)
{
    const int last = TLR_SIGNAL_TOP - 1;
    for (int i = 0; i <= last; i++)
        top[i] = -INFINITY;
    for (uint32_t i = 0; i < n_ids; i++) {
        if (!(logits[i] > top[last]))
            continue;
        int k = last;
        for (; k > 0 && logits[i] > top[k - 1]; k--)
            top[k] = top[k - 1];
        top[k] = logits[i];
    }
}

void tlr_features(const float *top, float *out)
{
    double sum = 0, weighted = 0;
    out[0] = top[0];
    for (int i = 0; i < TLR_SIGNAL_TOP; i++) {
        double below = (double)top[0] - (double)top[i], e = exp(-below);
        if (i > 0)
            out[i] = (float)below;
        sum += e;
        weighted += e * below;
    }
    /* H = log sum e^-d + sum p d, with d the distance below the best. */
    out[TLR_SIGNAL_TOP] = (float)(log(sum) + weighted / sum);
    out[TLR_SIGNAL_TOP + 1] = (float)(1 / sum);
}

void tlr_signals_of(const float *logits, uint32_t n_ids,
                    struct tlr_signals *out)
{
    uint32_t best = 0;
    float second = -INFINITY;
    double sum = 0, weighted = 0;
    bool is_nan = n_ids == 0;
    for (uint32_t i = 0; i < n_ids; i++) {
        is_nan = is_nan || isnan(logits[i]);
        if (i > 0 && logits[i] > logits[best]) {
            second = logits[best];
            best = i;
        } else if (i > 0 && logits[i] > second) {
            second = logits[i];
        }
    }
    if (is_nan || isinf(logits[best])) {
        *out = (struct tlr_signals){NAN, NAN, NAN, NAN, -1};
        return;
    }
    for (uint32_t i = 0; i < n_ids; i++) {
        double below = (double)logits[best] - (double)logits[i];
        /* Beyond 200 nats e^-d adds nothing to a sum of at least 1, and
         * infinity times zero would. */
        if (below > 200)
            continue;
        double e = exp(-below);
        sum += e;
        weighted += e * below;
    }
    out->entropy = (float)(log(sum) + weighted / sum);
    out->max_prob = (float)(1 / sum);
    out->margin =
        (float)((1 - exp((double)second - (double)logits[best])) / sum);
    out->max_logit = logits[best];
    out->best = (int32_t)best;
}
