/* train_loss.c - see train_loss.h. */
#include "router/train_loss.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

double tlr_sigmoid(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

/* log(1 + e^z) without overflow. */
static double softplus(double z)
{
    return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
}

static double bce(const double *z, const struct tlr_target *t, uint32_t n,
                  double pos_weight, double *dz)
{
    double sum = 0;
    for (uint32_t r = 0; r < n; r++) {
        double w = (double)t[r].weight / n * (t[r].label ? pos_weight : 1);
        sum += w * softplus(t[r].label ? -z[r] : z[r]);
        if (dz)
            dz[r] = w * (tlr_sigmoid(z[r]) - t[r].label);
    }
    return sum;
}

static double bt(const double *z, const struct tlr_target *t, uint32_t n,
                 double *dz)
{
    double ones = 0, zeros = 0, sum = 0;
    for (uint32_t r = 0; r < n; r++)
        *(t[r].label ? &ones : &zeros) += (double)t[r].weight;
    if (dz)
        memset(dz, 0, n * sizeof *dz);
    if (ones <= 0 || zeros <= 0)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!t[i].label)
            continue;
        for (uint32_t j = 0; j < n; j++) {
            if (t[j].label)
                continue;
            double w = (double)t[i].weight / ones * ((double)t[j].weight / zeros);
            double gap = z[j] - z[i];
            sum += w * softplus(gap);
            if (dz) {
                double d = w * tlr_sigmoid(gap);
                dz[i] -= d;
                dz[j] += d;
            }
        }
    }
    return sum;
}

static double deferral(const double *z, const struct tlr_target *t, uint32_t n,
                       double *dz)
{
    double sum = 0;
    for (uint32_t r = 0; r < n; r++) {
        double s = tlr_sigmoid(z[r]), w = (double)t[r].weight / n;
        double a = (double)t[r].p_slm, b = (double)t[r].p_llm;
        /* Probabilities that f32 lost would make infinite losses. */
        double mix = s * a + (1 - s) * b + 1e-12;
        sum -= w * log(mix);
        if (dz)
            dz[r] = -w * s * (1 - s) * (a - b) / mix;
    }
    return sum;
}

double tlr_loss(enum tlr_loss_kind kind, const double *z,
                const struct tlr_target *t, uint32_t n, double pos_weight,
                double *dz)
{
    switch (kind) {
    case TLR_LOSS_BT:
        return bt(z, t, n, dz);
    case TLR_LOSS_DEFERRAL:
        return deferral(z, t, n, dz);
    case TLR_LOSS_BCE:
        break;
    }
    return bce(z, t, n, pos_weight, dz);
}

/* ---- calibration ----------------------------------------------------------------- */

static double scaled_loss(const double *z, const struct tlr_target *t,
                          uint64_t n, double slope, double shift)
{
    double sum = 0;
    for (uint64_t r = 0; r < n; r++) {
        double v = slope * z[r] + shift;
        sum += (double)t[r].weight * softplus(t[r].label ? -v : v);
    }
    return sum;
}

/* The shift of a slope: Newton on a convex function of one variable, steps no
 * longer than 2 so that flat tails do not throw it away. */
static double best_shift(const double *z, const struct tlr_target *t,
                         uint64_t n, double slope, double shift)
{
    for (int i = 0; i < 50; i++) {
        double g = 0, h = 1e-12;
        for (uint64_t r = 0; r < n; r++) {
            double p = tlr_sigmoid(slope * z[r] + shift);
            g += (double)t[r].weight * (p - t[r].label);
            h += (double)t[r].weight * p * (1 - p);
        }
        double step = fmax(-2, fmin(2, g / h));
        shift -= step;
        if (fabs(step) < 1e-9)
            break;
    }
    return shift;
}

/* Golden section on log(slope): the loss, least over shifts, is convex in the
 * slope, so it has one valley. */
void tlr_loss_calibrate(const double *z, const struct tlr_target *t, uint64_t n,
                        double *temperature, double *shift)
{
    const double ratio = 0.6180339887498949;
    double low = -log(20), high = log(20), b = 0;
    double at[2] = { high - ratio * (high - low), low + ratio * (high - low) };
    double loss[2];
    for (int i = 0; i < 2; i++) {
        b = best_shift(z, t, n, exp(at[i]), b);
        loss[i] = scaled_loss(z, t, n, exp(at[i]), b);
    }
    while (high - low > 1e-7) {
        int left = loss[0] < loss[1];
        if (left)
            high = at[1];
        else
            low = at[0];
        at[left] = at[!left];
        loss[left] = loss[!left];
        double x = left ? high - ratio * (high - low) : low + ratio * (high - low);
        at[!left] = x;
        b = best_shift(z, t, n, exp(x), b);
        loss[!left] = scaled_loss(z, t, n, exp(x), b);
    }
    double slope = exp((low + high) / 2);
    *temperature = 1 / slope;
    *shift = best_shift(z, t, n, slope, b);
}
