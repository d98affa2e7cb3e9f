/* train_net.c - see train_net.h.
 *
 * Only the logit is wanted of the last two layers, so they are one vector: with
 * d the dropout of the middle layer (0 or 1/(1-p)),
 *   v = W2^T (d w3)         z = v . h + (d w3) . b2 + b3        dz/dh = v
 *   g = sum over rows of dz h              dL/dW2 = (d w3) g^T
 *   dL/dw3 = d (W2 g + b2 sum of dz)
 * d is drawn once a step and not once a row.  That is what makes v one vector for
 * the whole batch, and leaves two matrix products a step of five.
 */
#include "router/train_net.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/linear.h"

enum {
    MAX_ITEMS = 8 /* of one product; more would pack its operands anew */
};

#define BN_MOMENTUM 0.1

struct tlr_net {
    struct tlr_net_shape shape;
    struct tlr_pool *pool;
    uint32_t max_batch, panel, n_panels; /* of the hidden layer */
    uint32_t block, n_blocks;            /* of the middle layer */
    float *xhat, *h, *da; /* [batch, K] */
    float *d, *u;         /* [M]: middle dropout, and times w3 */
    float *rstd, *v, *g_h; /* [K] */
    double *sums;         /* [n_panels, 4 panel + batch] */
    double dz_sum;
    /* the call that runs */
    struct tlr_net_params p, g;
    const float *x;
    const struct tlr_router_weights *folded;
    uint32_t n;
    double dropout;
    uint64_t mask_seed;
    const double *dz;
    double *z;
};

/* ---- scratch ------------------------------------------------------------------ */

/* Width of the pieces that n is cut into: a multiple of 4, since one hash makes
 * the dropout of four neighbours. */
static uint32_t piece_of(uint32_t n)
{
    uint32_t piece = (n + MAX_ITEMS - 1) / MAX_ITEMS;
    return piece == 0 ? 4 : (piece + 3) / 4 * 4;
}

int tlr_net_new(struct tlr_net **out, const struct tlr_net_shape *s,
                uint32_t max_batch, struct tlr_pool *pool,
                struct tlr_err *err)
{
    *out = NULL;
    int rc = tlr_linear_setup(tlr_pool_threads(pool), err);
    if (rc)
        return rc;
    struct tlr_net *net = tlr_calloc(1, sizeof *net);
    if (!net)
        return tlr_err_nomem(err, "network", sizeof *net);
    size_t k = s->n_hidden, m = s->n_mid;
    net->shape = *s;
    net->pool = pool;
    net->max_batch = max_batch;
    net->panel = piece_of(s->n_hidden);
    net->n_panels = (s->n_hidden + net->panel - 1) / net->panel;
    net->block = piece_of(s->n_mid);
    net->n_blocks = (s->n_mid + net->block - 1) / net->block;
    net->xhat = tlr_calloc(max_batch * k, sizeof(float));
    net->h = tlr_calloc(max_batch * k, sizeof(float));
    net->da = tlr_calloc(max_batch * k, sizeof(float));
    net->d = tlr_calloc(m, sizeof(float));
    net->u = tlr_calloc(m, sizeof(float));
    net->v = tlr_calloc(k, sizeof(float));
    net->g_h = tlr_calloc(k, sizeof(float));
    net->rstd = tlr_calloc(k, sizeof(float));
    net->sums = tlr_calloc((size_t)net->n_panels * (4 * net->panel + max_batch),
                           sizeof(double));
    if (!net->xhat || !net->h || !net->da || !net->d || !net->u || !net->v ||
        !net->g_h || !net->rstd || !net->sums) {
        tlr_net_free(net);
        return tlr_err_nomem(err, "network of one batch",
                             12ull * max_batch * k);
    }
    *out = net;
    return 0;
}

void tlr_net_free(struct tlr_net *net)
{
    if (!net)
        return;
    tlr_free(net->xhat);
    tlr_free(net->h);
    tlr_free(net->da);
    tlr_free(net->v);
    tlr_free(net->g_h);
    tlr_free(net->d);
    tlr_free(net->u);
    tlr_free(net->rstd);
    tlr_free(net->sums);
    tlr_free(net);
}

/* Piece i of n in steps of `piece`: its first element, and how many. */
static uint32_t piece_at(uint32_t i, uint32_t piece, uint32_t n, uint32_t *size)
{
    uint32_t first = i * piece;
    *size = n - first < piece ? n - first : piece;
    return first;
}

static double *panel_sums(struct tlr_net *net, uint32_t panel)
{
    return net->sums + (size_t)panel * (4 * net->panel + net->max_batch);
}

/* ---- forward ------------------------------------------------------------------- */

/* keep [n]: 1/(1-p) or 0 for elements first .. of a row; first is a multiple of
 * four. */
static void dropout_row(float *keep, uint32_t first, uint32_t n, uint64_t seed,
                        double p)
{
    float kept = (float)(1 / (1 - p));
    uint32_t below = (uint32_t)(p * 65536 + 0.5);
    for (uint32_t i = 0; i < n; i += 4) {
        uint64_t bits = below ? tlr_hash_u64(seed, (first + i) / 4) : 0;
        for (uint32_t j = i; j < i + 4 && j < n; j++, bits >>= 16)
            keep[j] = (uint32_t)(bits & 0xffff) < below ? 0 : kept;
    }
}

/* Mean and biased variance of the columns of a [n, c] (row stride k): the
 * variance from the differences, since squares of large numbers cancel. */
static void column_stats(const float *a, uint32_t n, uint32_t c, size_t k,
                         double *mean, double *var)
{
    memset(mean, 0, c * sizeof *mean);
    memset(var, 0, c * sizeof *var);
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t i = 0; i < c; i++)
            mean[i] += (double)a[r * k + i];
    for (uint32_t i = 0; i < c; i++)
        mean[i] /= n;
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t i = 0; i < c; i++) {
            double e = (double)a[r * k + i] - mean[i];
            var[i] += e * e;
        }
    for (uint32_t i = 0; i < c; i++)
        var[i] /= n;
}

static void hidden_panel(void *ctx, int item, int thread)
{
    struct tlr_net *net = ctx;
    (void)thread;
    uint32_t c, n = net->n, n_in = net->shape.n_in;
    size_t k = net->shape.n_hidden;
    uint32_t k0 = piece_at((uint32_t)item, net->panel, net->shape.n_hidden, &c);
    double *mean = panel_sums(net, (uint32_t)item), *var = mean + net->panel;
    float *a = net->xhat + k0;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)c,
                (int)n_in, 1, net->x, (int)n_in, net->p.w1 + k0 * (size_t)n_in,
                (int)n_in, 0, a, (int)k);
    column_stats(a, n, c, k, mean, var);
    for (uint32_t i = 0; i < c; i++) {
        float *running = &net->p.mean[k0 + i], *spread = &net->p.var[k0 + i];
        double whole = mean[i] + (double)net->p.b1[k0 + i];
        double unbiased = var[i] * n / (n - 1.0);
        *running += (float)(BN_MOMENTUM * (whole - (double)*running));
        *spread += (float)(BN_MOMENTUM * (unbiased - (double)*spread));
        net->rstd[k0 + i] = (float)(1 / sqrt(var[i] + TLR_CITER_BN_EPS));
        var[i] = (double)net->rstd[k0 + i];
    }
    for (uint32_t r = 0; r < n; r++) {
        float *h = net->h + r * k + k0, *row = a + r * k;
        dropout_row(h, k0, c, tlr_hash_u64(net->mask_seed, r), net->dropout);
        for (uint32_t i = 0; i < c; i++) {
            row[i] = (float)(((double)row[i] - mean[i]) * var[i]);
            float y = net->p.gamma[k0 + i] * row[i] + net->p.beta[k0 + i];
            h[i] = y > 0 ? y * h[i] : 0;
        }
    }
}

static void last_panel(void *ctx, int item, int thread)
{
    struct tlr_net *net = ctx;
    (void)thread;
    uint32_t c, n = net->n;
    size_t k = net->shape.n_hidden;
    uint32_t k0 = piece_at((uint32_t)item, net->panel, net->shape.n_hidden, &c);
    double *v = panel_sums(net, (uint32_t)item), *part = v + 4 * net->panel;
    memset(v, 0, c * sizeof *v);
    for (uint32_t j = 0; j < net->shape.n_mid; j++)
        for (uint32_t i = 0; i < c; i++)
            v[i] += (double)net->u[j] * (double)net->p.w2[j * k + k0 + i];
    for (uint32_t i = 0; i < c; i++)
        net->v[k0 + i] = (float)v[i];
    for (uint32_t r = 0; r < n; r++) {
        const float *h = net->h + r * k + k0;
        part[r] = 0;
        for (uint32_t i = 0; i < c; i++)
            part[r] += (double)(net->v[k0 + i] * h[i]);
    }
}

/* The part of z that no hidden unit makes. */
static double middle(struct tlr_net *net)
{
    double z = (double)net->p.b3[0];
    dropout_row(net->d, 0, net->shape.n_mid, ~net->mask_seed, net->dropout);
    for (uint32_t j = 0; j < net->shape.n_mid; j++) {
        net->u[j] = net->d[j] * net->p.w3[j];
        z += (double)net->u[j] * (double)net->p.b2[j];
    }
    return z;
}

static void linear_forward(const struct tlr_net_shape *s,
                           const struct tlr_net_params *p, const float *x,
                           uint32_t n, double *z)
{
    for (uint32_t r = 0; r < n; r++) {
        z[r] = (double)p->b3[0];
        for (uint32_t i = 0; i < s->n_in; i++)
            z[r] += (double)p->w3[i] * (double)x[(size_t)r * s->n_in + i];
    }
}

void tlr_net_forward(struct tlr_net *net, float *flat, const float *x,
                     uint32_t n, double dropout, uint64_t mask_seed, double *z)
{
    net->x = x;
    net->n = n;
    net->z = z;
    net->dropout = dropout;
    net->mask_seed = mask_seed;
    tlr_net_view(&net->p, &net->shape, flat);
    if (net->shape.n_hidden == 0) {
        linear_forward(&net->shape, &net->p, x, n, z);
        return;
    }
    tlr_pool_run(net->pool, hidden_panel, net, (int)net->n_panels);
    double rest = middle(net);
    tlr_pool_run(net->pool, last_panel, net, (int)net->n_panels);
    for (uint32_t r = 0; r < n; r++)
        z[r] = rest;
    for (uint32_t panel = 0; panel < net->n_panels; panel++) {
        const double *part = panel_sums(net, panel) + 4 * net->panel;
        for (uint32_t r = 0; r < n; r++)
            z[r] += part[r];
    }
}

/* ---- backward ------------------------------------------------------------------- */

/* Rows j0 .. of dW2, and what hangs on them. */
static void middle_block(void *ctx, int item, int thread)
{
    struct tlr_net *net = ctx;
    (void)thread;
    uint32_t c;
    size_t k = net->shape.n_hidden;
    uint32_t j0 = piece_at((uint32_t)item, net->block, net->shape.n_mid, &c);
    for (uint32_t j = j0; j < j0 + c; j++) {
        const float *w2 = net->p.w2 + j * k;
        double dot = (double)net->p.b2[j] * net->dz_sum;
        for (size_t i = 0; i < k; i++) {
            dot += (double)(w2[i] * net->g_h[i]);
            net->g.w2[j * k + i] = net->u[j] * net->g_h[i];
        }
        net->g.w3[j] = (float)((double)net->d[j] * dot);
        net->g.b2[j] = (float)((double)net->u[j] * net->dz_sum);
    }
}

/* Through dropout, ReLU and BatchNorm: with dy the gradient of BN's output,
 *   da = gamma rstd (dy - mean(dy) - xhat mean(dy xhat))
 * (Ioffe & Szegedy 2015, section 3). */
static void panel_da(struct tlr_net *net, uint32_t k0, uint32_t c, double *sums)
{
    size_t k = net->shape.n_hidden;
    double *dbeta = sums, *dgamma = sums + c, *g_h = dgamma + c;
    double kept = 1 / (1 - net->dropout);
    memset(sums, 0, 3 * c * sizeof *sums);
    for (uint32_t r = 0; r < net->n; r++) {
        float *da = net->da + r * k + k0, dz = (float)(net->dz[r] * kept);
        const float *h = net->h + r * k + k0, *xhat = net->xhat + r * k + k0;
        for (uint32_t i = 0; i < c; i++) {
            da[i] = h[i] > 0 ? net->v[k0 + i] * dz : 0;
            dbeta[i] += (double)da[i];
            dgamma[i] += (double)(da[i] * xhat[i]);
            g_h[i] += net->dz[r] * (double)h[i];
        }
    }
    for (uint32_t i = 0; i < c; i++) {
        net->g.beta[k0 + i] = (float)dbeta[i];
        net->g.gamma[k0 + i] = (float)dgamma[i];
        net->g.b1[k0 + i] = 0;
        net->g_h[k0 + i] = (float)g_h[i];
        dbeta[i] /= net->n;
        dgamma[i] /= net->n;
    }
    for (uint32_t r = 0; r < net->n; r++) {
        float *da = net->da + r * k + k0;
        const float *xhat = net->xhat + r * k + k0;
        for (uint32_t i = 0; i < c; i++)
            da[i] = net->p.gamma[k0 + i] * net->rstd[k0 + i] *
                    (da[i] - (float)dbeta[i] - xhat[i] * (float)dgamma[i]);
    }
}

static void hidden_panel_back(void *ctx, int item, int thread)
{
    struct tlr_net *net = ctx;
    (void)thread;
    uint32_t c, n_in = net->shape.n_in;
    uint32_t k0 = piece_at((uint32_t)item, net->panel, net->shape.n_hidden, &c);
    panel_da(net, k0, c, panel_sums(net, (uint32_t)item));
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)c, (int)n_in,
                (int)net->n, 1, net->da + k0, (int)net->shape.n_hidden, net->x,
                (int)n_in, 0, net->g.w1 + k0 * (size_t)n_in, (int)n_in);
}

static void linear_backward(const struct tlr_net_shape *s,
                            const struct tlr_net_params *g, const float *x,
                            uint32_t n, const double *dz)
{
    for (uint32_t i = 0; i < s->n_in; i++) {
        double sum = 0;
        for (uint32_t r = 0; r < n; r++)
            sum += dz[r] * (double)x[(size_t)r * s->n_in + i];
        g->w3[i] = (float)sum;
    }
}

void tlr_net_backward(struct tlr_net *net, const float *flat, const float *x,
                      uint32_t n, const double *dz, float *grad)
{
    (void)flat; /* its views stand since forward */
    net->x = x;
    net->n = n;
    net->dz = dz;
    tlr_net_view(&net->g, &net->shape, grad);
    double sum = 0;
    for (uint32_t r = 0; r < n; r++)
        sum += dz[r];
    net->g.b3[0] = (float)sum;
    net->dz_sum = sum;
    if (net->shape.n_hidden == 0) {
        linear_backward(&net->shape, &net->g, x, n, dz);
        return;
    }
    tlr_pool_run(net->pool, hidden_panel_back, net, (int)net->n_panels);
    tlr_pool_run(net->pool, middle_block, net, (int)net->n_blocks);
}

/* ---- folded evaluation ------------------------------------------------------------ */

static void eval_panel(void *ctx, int item, int thread)
{
    struct tlr_net *net = ctx;
    (void)thread;
    const struct tlr_router_weights *w = net->folded;
    uint32_t c, n = net->n, n_in = net->shape.n_in;
    size_t k = net->shape.n_hidden;
    uint32_t k0 = piece_at((uint32_t)item, net->panel, net->shape.n_hidden, &c);
    double *part = panel_sums(net, (uint32_t)item) + 4 * net->panel;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)c,
                (int)n_in, 1, net->x, (int)n_in, w->w1 + k0 * (size_t)n_in,
                (int)n_in, 0, net->h + k0, (int)k);
    for (uint32_t r = 0; r < n; r++) {
        const float *h = net->h + r * k + k0;
        part[r] = 0;
        for (uint32_t i = 0; i < c; i++) {
            float y = h[i] + w->b1[k0 + i];
            part[r] += y > 0 ? (double)(y * w->w2[k0 + i]) : 0;
        }
    }
}

void tlr_net_eval(struct tlr_net *net, const struct tlr_router_weights *w,
                  const float *x, uint32_t n, double *z)
{
    net->folded = w;
    net->x = x;
    net->n = n;
    if (w->n_hidden == 0) {
        for (uint32_t r = 0; r < n; r++)
            z[r] = tlr_folded_logit(w, x + (size_t)r * net->shape.n_in);
        return;
    }
    tlr_pool_run(net->pool, eval_panel, net, (int)net->n_panels);
    for (uint32_t r = 0; r < n; r++)
        z[r] = (double)w->b2;
    for (uint32_t panel = 0; panel < net->n_panels; panel++) {
        const double *part = panel_sums(net, panel) + 4 * net->panel;
        for (uint32_t r = 0; r < n; r++)
            z[r] += part[r];
    }
}
