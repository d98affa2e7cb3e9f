/* train_params.c - the network's parameters: where they lie, how they begin, and
 * the step that moves them.
 */
#include <math.h>

#include "base/hash.h"
#include "router/train_net.h"

enum { ADAM_ITEM = 1 << 16 };

/* ---- parameters -------------------------------------------------------------- */

size_t tlr_net_n_decayed(const struct tlr_net_shape *s)
{
    size_t k = s->n_hidden, m = s->n_mid;
    return k ? k * s->n_in + m * k + m : s->n_in;
}

size_t tlr_net_n_trained(const struct tlr_net_shape *s)
{
    size_t k = s->n_hidden, m = s->n_mid;
    return tlr_net_n_decayed(s) + (k ? 3 * k + m : 0) + 1;
}

size_t tlr_net_n_all(const struct tlr_net_shape *s)
{
    return tlr_net_n_trained(s) + 2 * (size_t)s->n_hidden;
}

void tlr_net_view(struct tlr_net_params *out, const struct tlr_net_shape *s,
                  float *flat)
{
    size_t k = s->n_hidden, m = k ? s->n_mid : 0;
    out->w1 = flat;
    out->w2 = out->w1 + k * s->n_in;
    out->w3 = out->w2 + m * k;
    out->b1 = out->w3 + (k ? m : s->n_in);
    out->gamma = out->b1 + k;
    out->beta = out->gamma + k;
    out->b2 = out->beta + k;
    out->b3 = out->b2 + m;
    out->mean = out->b3 + 1;
    out->var = out->mean + k;
}

static void fill_uniform(float *to, size_t n, uint64_t seed, uint32_t fan_in)
{
    double bound = 1 / sqrt((double)fan_in);
    for (size_t i = 0; i < n; i++) {
        double u = (double)(tlr_hash_u64(seed, i) >> 40) / 16777216.0;
        to[i] = (float)(bound * (2 * u - 1));
    }
}

void tlr_net_init(const struct tlr_net_shape *s, float *flat, uint64_t seed)
{
    struct tlr_net_params p;
    uint32_t k = s->n_hidden, m = k ? s->n_mid : 0;
    uint32_t last = k ? m : s->n_in;
    tlr_net_view(&p, s, flat);
    fill_uniform(p.w1, (size_t)k * s->n_in, seed, s->n_in);
    fill_uniform(p.b1, k, seed + 1, s->n_in);
    fill_uniform(p.w2, (size_t)m * k, seed + 2, k);
    fill_uniform(p.b2, m, seed + 3, k);
    fill_uniform(p.w3, last, seed + 4, last);
    fill_uniform(p.b3, 1, seed + 5, last);
    for (uint32_t i = 0; i < k; i++) {
        p.gamma[i] = p.var[i] = 1;
        p.beta[i] = p.mean[i] = 0;
    }
}

/* ---- the step ------------------------------------------------------------------- */

struct adam {
    size_t n_decayed, n;
    float *p, *m, *v;
    const float *g;
    float rate, eps; /* with both bias corrections in them */
    float keep;      /* 1 - lr decay */
};

/* m / c1 / (sqrt(v / c2) + eps) = m (sqrt(c2) / c1) / (sqrt(v) + eps sqrt(c2)) */
static void adam_item(void *ctx, int item, int thread)
{
    const struct adam *a = ctx;
    (void)thread;
    size_t i = (size_t)item * ADAM_ITEM;
    size_t end = i + ADAM_ITEM < a->n ? i + ADAM_ITEM : a->n;
    for (; i < end; i++) {
        float g = a->g[i];
        float m = a->m[i] = 0.9f * a->m[i] + 0.1f * g;
        float v = a->v[i] = 0.999f * a->v[i] + 0.001f * g * g;
        float p = i < a->n_decayed ? a->p[i] * a->keep : a->p[i];
        a->p[i] = p - a->rate * m / (sqrtf(v) + a->eps);
    }
}

void tlr_adamw_step(struct tlr_pool *pool, const struct tlr_adamw *o,
                    size_t n_decayed, size_t n, float *p, const float *grad,
                    float *m, float *v)
{
    double c1 = 1 - pow(0.9, (double)o->step);
    double c2 = 1 - pow(0.999, (double)o->step);
    struct adam a = { .n_decayed = n_decayed, .n = n, .p = p, .m = m,
                      .v = v, .g = grad, .rate = (float)(o->lr * sqrt(c2) / c1),
                      .eps = (float)(1e-8 * sqrt(c2)),
                      .keep = (float)(1 - o->lr * o->decay) };
    tlr_pool_run(pool, adam_item, &a, (int)((n + ADAM_ITEM - 1) / ADAM_ITEM));
}
