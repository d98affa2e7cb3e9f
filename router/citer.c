/* citer.c - see citer.h. */
#include "router/citer.h"

#include <math.h>

#include "base/hash.h"
#include "base/mem.h"

static double input(const struct tlr_citer *c, const float *x, uint32_t i)
{
    return c->in_mean ? ((double)x[i] - (double)c->in_mean[i]) *
                            (double)c->in_scale[i]
                      : (double)x[i];
}

static double bn_factor(const struct tlr_citer *c, uint32_t k)
{
    return (double)c->gamma[k] / sqrt((double)c->var[k] + TLR_CITER_BN_EPS);
}

double tlr_citer_logit(const struct tlr_citer *c, const float *x,
                       double *scratch)
{
    double *h = scratch, *mid = scratch + c->n_hidden, z = (double)c->b3;
    if (c->n_hidden == 0) {
        for (uint32_t i = 0; i < c->n_in; i++)
            z += (double)c->w3[i] * input(c, x, i);
        return z;
    }
    for (uint32_t k = 0; k < c->n_hidden; k++) {
        const float *row = c->w1 + (size_t)k * c->n_in;
        double a = (double)c->b1[k];
        for (uint32_t i = 0; i < c->n_in; i++)
            a += (double)row[i] * input(c, x, i);
        a = (a - (double)c->mean[k]) * bn_factor(c, k) + (double)c->beta[k];
        h[k] = a > 0 ? a : 0;
    }
    for (uint32_t j = 0; j < c->n_mid; j++) {
        const float *row = c->w2 + (size_t)j * c->n_hidden;
        mid[j] = (double)c->b2[j];
        for (uint32_t k = 0; k < c->n_hidden; k++)
            mid[j] += (double)row[k] * h[k];
        z += (double)c->w3[j] * mid[j];
    }
    return z;
}

/* ---- the fold ---------------------------------------------------------------- */

static void fold_first(struct tlr_router_weights *out,
                       const struct tlr_citer *c)
{
    for (uint32_t k = 0; k < c->n_hidden; k++) {
        const float *row = c->w1 + (size_t)k * c->n_in;
        float *to = out->w1 + (size_t)k * c->n_in;
        double s = bn_factor(c, k);
        double b = (double)c->b1[k] - (double)c->mean[k];
        for (uint32_t i = 0; i < c->n_in; i++) {
            double w = (double)row[i];
            if (c->in_mean) {
                w *= (double)c->in_scale[i];
                b -= w * (double)c->in_mean[i];
            }
            to[i] = (float)(s * w);
        }
        out->b1[k] = (float)(s * b + (double)c->beta[k]);
    }
}

/* acc [n_hidden] */
static void fold_last(struct tlr_router_weights *out, const struct tlr_citer *c,
                      double *acc)
{
    double b = (double)c->b3;
    for (uint32_t j = 0; j < c->n_mid; j++) {
        const float *row = c->w2 + (size_t)j * c->n_hidden;
        double w = (double)c->w3[j];
        for (uint32_t k = 0; k < c->n_hidden; k++)
            acc[k] += w * (double)row[k];
        b += w * (double)c->b2[j];
    }
    for (uint32_t k = 0; k < c->n_hidden; k++)
        out->w2[k] = (float)acc[k];
    out->b2 = (float)b;
}

static void fold_linear(struct tlr_router_weights *out,
                        const struct tlr_citer *c)
{
    double b = (double)c->b3;
    for (uint32_t i = 0; i < c->n_in; i++) {
        double w = (double)c->w3[i];
        if (c->in_mean) {
            w *= (double)c->in_scale[i];
            b -= w * (double)c->in_mean[i];
        }
        out->w2[i] = (float)w;
    }
    out->b2 = (float)b;
}

int tlr_citer_fold(struct tlr_router_weights *out, const struct tlr_citer *c,
                   struct tlr_err *err)
{
    uint32_t n_last = c->n_hidden ? c->n_hidden : c->n_in;
    double *acc = tlr_calloc(n_last, sizeof *acc);
    out->n_hidden = c->n_hidden;
    out->temperature = 1;
    out->w1 = tlr_calloc((size_t)c->n_hidden * c->n_in, sizeof *out->w1);
    out->b1 = tlr_calloc(c->n_hidden, sizeof *out->b1);
    out->w2 = tlr_calloc(n_last, sizeof *out->w2);
    if (!acc || !out->w1 || !out->b1 || !out->w2) {
        tlr_free(acc);
        tlr_router_weights_clear(out);
        return tlr_err_nomem(err, "router weights",
                             (unsigned long long)c->n_hidden * c->n_in * 4);
    }
    if (c->n_hidden) {
        fold_first(out, c);
        fold_last(out, c, acc);
    } else {
        fold_linear(out, c);
    }
    tlr_free(acc);
    return 0;
}

void tlr_router_weights_clear(struct tlr_router_weights *w)
{
    tlr_free(w->w1);
    tlr_free(w->b1);
    tlr_free(w->w2);
    w->w1 = w->b1 = w->w2 = NULL;
}

double tlr_folded_logit(const struct tlr_router_weights *w, const float *x)
{
    uint32_t n_in = w->dim + w->n_features;
    double z = (double)w->b2;
    for (uint32_t k = 0; k < w->n_hidden; k++) {
        const float *row = w->w1 + (size_t)k * n_in;
        double a = (double)w->b1[k];
        for (uint32_t i = 0; i < n_in; i++)
            a += (double)row[i] * (double)x[i];
        z += a > 0 ? a * (double)w->w2[k] : 0;
    }
    for (uint32_t i = 0; w->n_hidden == 0 && i < n_in; i++)
        z += (double)w->w2[i] * (double)x[i];
    return z;
}

/* ---- the fold, checked --------------------------------------------------------- */

/* Sum of four uniforms, scaled to variance 1: near enough to normal here. */
static float random_normal(uint64_t seed, uint64_t i)
{
    uint64_t h = tlr_hash_u64(seed, i);
    double sum = 0;
    for (int part = 0; part < 4; part++)
        sum += (double)((h >> (16 * part)) & 0xffff) / 65536.0 - 0.5;
    return (float)(sum * sqrt(3.0));
}

int tlr_citer_check(const struct tlr_router_weights *w,
                    const struct tlr_citer *c, uint32_t n, uint64_t seed,
                    double *worst, struct tlr_err *err)
{
    float *x = tlr_calloc(c->n_in, sizeof *x);
    double *scratch = tlr_calloc((size_t)c->n_hidden + c->n_mid + 1,
                                 sizeof *scratch);
    int rc = x && scratch ? 0 : tlr_err_nomem(err, "fold check", c->n_in * 4ull);
    *worst = 0;
    for (uint32_t t = 0; !rc && t < n; t++) {
        for (uint32_t i = 0; i < c->n_in; i++) {
            x[i] = random_normal(seed, (uint64_t)t * c->n_in + i);
            if (c->in_mean)
                x[i] = c->in_mean[i] + x[i] / c->in_scale[i];
        }
        double whole = tlr_citer_logit(c, x, scratch);
        double gap = fabs(tlr_folded_logit(w, x) - whole) / (1 + fabs(whole));
        if (!(gap <= *worst)) /* NaN sticks */
            *worst = gap;
    }
    tlr_free(x);
    tlr_free(scratch);
    return rc;
}
