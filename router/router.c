/* router.c - evaluates a trained router, and looks up its thresholds.
 *
 * W1 x goes through the kernels' integer product with inputs of 15 bits, which is
 * specified to the bit; the rest are sums in index order in double.  So a trust
 * does not depend on the level of the kernels, and costs one pass over W1.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "router/router_internal.h"

enum { MAX_DIM = 65536, MAX_HIDDEN = 262144 };

static int wrong_shape(const struct tlr_router_weights *w, const char *label,
                       struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: router: found kind %s of width %" PRIu32
                       " with %" PRIu32 " features and %" PRIu32
                       " hidden units; expected mlp or deferral without "
                       "features, or mlp+ with %d; train it again",
                       label, tlr_policy_name(w->kind), w->dim, w->n_features,
                       w->n_hidden, TLR_N_FEATURES);
}

int tlr_router_check_shape(const struct tlr_router_weights *w,
                           const char *label, struct tlr_err *err)
{
    uint32_t n_features =
        w->kind == TLR_POLICY_MLP_PLUS ? TLR_N_FEATURES : 0;
    bool has_layer = w->kind != TLR_POLICY_DEFERRAL;
    if (!tlr_policy_is_trained(w->kind) || w->n_features != n_features ||
        (w->n_hidden > 0) != has_layer || w->dim < 1 || w->dim > MAX_DIM ||
        w->n_hidden > MAX_HIDDEN)
        return wrong_shape(w, label, err);
    return 0;
}

int tlr_router_new(struct tlr_router **out, const struct tlr_router_weights *w,
                   const char *label, struct tlr_err *err)
{
    *out = NULL;
    int rc = tlr_router_check_shape(w, label, err);
    if (rc)
        return rc;
    struct tlr_router *r = tlr_calloc(1, sizeof *r);
    if (!r)
        return tlr_err_nomem(err, label, sizeof *r);
    r->w = *w;
    if (w->n_hidden > 0)
        r->n_cols = tlr_router_pad(w->dim) + tlr_router_pad(w->n_features);
    uint64_t n_tiles = tlr_matrix_bytes(TLR_Q8, w->n_hidden, r->n_cols);
    r->tiles = tlr_alloc_aligned((size_t)n_tiles);
    r->w.w1 = NULL;
    r->w.b1 = tlr_calloc(w->n_hidden, sizeof(float));
    r->w.w2 = tlr_calloc(tlr_router_n_w2(w), sizeof(float));
    r->feature_scale = tlr_calloc(w->n_features, sizeof(float));
    r->label = tlr_strdup(label);
    if (!r->tiles || !r->w.b1 || !r->w.w2 || !r->feature_scale || !r->label) {
        tlr_router_free(r);
        return tlr_err_nomem(err, label, n_tiles);
    }
    memset(r->tiles, 0, (size_t)n_tiles);
    tlr_calibration_clear(&r->calibration);
    tlr_kernels_init(&r->kernels, tlr_cpu_detect());
    *out = r;
    return 0;
}

void tlr_router_free(struct tlr_router *r)
{
    if (!r)
        return;
    tlr_free(r->tiles);
    tlr_free(r->w.b1);
    tlr_free(r->w.w2);
    tlr_free(r->feature_scale);
    tlr_free(r->info);
    tlr_free(r->label);
    tlr_free(r);
}

void tlr_router_set_level(struct tlr_router *r, enum tlr_cpu_level level)
{
    tlr_kernels_init(&r->kernels, level);
}

int tlr_router_check(const struct tlr_router *r, const struct tlr_model *m,
                     struct tlr_err *err)
{
    const struct tlr_file *f = tlr_model_file(m);
    uint32_t dim = tlr_model_config(m)->dim;
    if (r->w.dim != dim)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: trained for hidden states of width %" PRIu32
                           ", but those of %s have %" PRIu32
                           "; train a router for this model",
                           r->label, r->w.dim, tlr_file_label(f), dim);
    if (r->fingerprint != tlr_file_fingerprint(f))
        return tlr_err_set(
            err, TLR_EMISMATCH,
            "%s: trained for the model with fingerprint %016" PRIx64
            ", but %s has %016" PRIx64 ": another model, or the same in "
            "another quantisation; train a router on this one's states",
            r->label, r->fingerprint, tlr_file_label(f),
            tlr_file_fingerprint(f));
    return 0;
}

const struct tlr_router_weights *tlr_router_shape(const struct tlr_router *r)
{
    return &r->w;
}

struct tlr_calibration *tlr_router_calibration(struct tlr_router *r)
{
    return &r->calibration;
}

const char *tlr_router_info(const struct tlr_router *r)
{
    return r->info;
}

const char *tlr_router_label(const struct tlr_router *r)
{
    return r->label;
}

uint64_t tlr_router_fingerprint(const struct tlr_router *r)
{
    return r->fingerprint;
}

/* ---- evaluation ---- */

/* Scratch, in order: x and what rounding leaves of it, both rounded as one
 * group of two, W1 times the two. */
static size_t act_floats(const struct tlr_router *r)
{
    return tlr_act_bytes(2, r->n_cols) / sizeof(float);
}

size_t tlr_router_scratch(const struct tlr_router *r)
{
    return 2 * (size_t)r->n_cols + act_floats(r) + 2 * (size_t)r->w.n_hidden;
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* W1 times the rounded x and its rest, an item BAND rows. */
struct layer {
    const struct tlr_router *r;
    const float *act;
    float *y;
};

/* 64 rows of 896 columns are 60 KB, some microseconds of a thread's: enough to
 * be worth handing out, few enough for a late thread to do less. */
enum { BAND = 64 };

static void layer_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct layer *l = ctx;
    int n_hidden = (int)l->r->w.n_hidden, row = item * BAND;
    int n = n_hidden - row < BAND ? n_hidden - row : BAND;
    l->r->kernels.matmul[0](l->y + row, (size_t)n_hidden, l->r->tiles, row,
                            l->act, 2, n, (int)l->r->n_cols);
}

/* y[0..n_hidden) = W1 x, its rest behind it. */
static const float *hidden_layer(const struct tlr_router *r,
                                 struct tlr_pool *pool, const float *hidden,
                                 const float *features, float *scratch)
{
    float *x = scratch, *act = x + 2 * (size_t)r->n_cols;
    float *y = act + act_floats(r);
    uint32_t at = tlr_router_pad(r->w.dim);
    int n_cols = (int)r->n_cols;
    memset(x, 0, r->n_cols * sizeof *x);
    memcpy(x, hidden, r->w.dim * sizeof *x);
    for (uint32_t i = 0; i < r->w.n_features; i++)
        x[at + i] = features[i] * r->feature_scale[i];
    r->kernels.quantise(act, x + r->n_cols, x, r->n_cols, 1, n_cols);
    r->kernels.quantise(act, NULL, x, r->n_cols, 2, n_cols);
    struct layer l = {.r = r, .act = act, .y = y};
    int n_items = ((int)r->w.n_hidden + BAND - 1) / BAND;
    if (pool)
        tlr_pool_run(pool, layer_item, &l, n_items);
    for (int i = 0; !pool && i < n_items; i++)
        layer_item(&l, i, 0);
    return y;
}

float tlr_router_logit(const struct tlr_router *r, struct tlr_pool *pool,
                       const float *hidden, const float *features,
                       float *scratch)
{
    const struct tlr_router_weights *w = &r->w;
    double sum = w->b2;
    if (w->n_hidden == 0) {
        sum += dot(w->w2, hidden, w->dim);
    } else {
        const float *y = hidden_layer(r, pool, hidden, features, scratch);
        const float *rest = y + w->n_hidden;
        for (uint32_t i = 0; i < w->n_hidden; i++) {
            float h = y[i] + rest[i] + w->b1[i];
            sum += (double)w->w2[i] * (double)(h > 0 ? h : 0);
        }
    }
    return (float)(sum / (double)w->temperature);
}

/* ---- calibration ---- */

/* Half a percent apart up to 20 %, where routing pays; wider beyond. */
void tlr_calibration_clear(struct tlr_calibration *c)
{
    enum { N_FINE = 40 };
    memset(c, 0, sizeof *c);
    for (int i = 0; i < TLR_N_SHARES; i++) {
        c->share[i] = i < N_FINE
                          ? 0.005f * (float)(i + 1)
                          : 0.2f + 0.0325f * (float)(i + 1 - N_FINE);
        for (int p = 0; p < TLR_N_POLICIES; p++)
            c->tau[p][i] = NAN;
    }
}

bool tlr_calibration_has(const struct tlr_calibration *c,
                         enum tlr_policy_kind kind)
{
    return !isnan(c->tau[kind][0]);
}

int tlr_calibration_check(const struct tlr_calibration *c, const char *label,
                          struct tlr_err *err)
{
    for (int i = 0; i < TLR_N_SHARES; i++)
        if (!(c->share[i] > (i > 0 ? c->share[i - 1] : 0)) ||
            !(c->share[i] < 1))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: calibration: share %d: expected ascending "
                               "numbers between 0 and 1, found %g; calibrate "
                               "again (tlr calibrate)",
                               label, i, (double)c->share[i]);
    for (int p = 0; p < TLR_N_POLICIES; p++)
        for (int i = 0; tlr_calibration_has(c, p) && i < TLR_N_SHARES; i++)
            if (!isfinite(c->tau[p][i]) ||
                (i > 0 && c->tau[p][i] < c->tau[p][i - 1]))
                return tlr_err_set(err, TLR_EFORMAT,
                                   "%s: calibration: tau %d of %s: expected "
                                   "finite numbers that do not fall, found "
                                   "%g; calibrate again (tlr calibrate)",
                                   label, i, tlr_policy_name(p),
                                   (double)c->tau[p][i]);
    return 0;
}

int tlr_calibration_tau(const struct tlr_calibration *c,
                        enum tlr_policy_kind kind, double share, float *tau,
                        struct tlr_err *err)
{
    if (!(share >= 0 && share <= 1))
        return tlr_err_set(err, TLR_EUSAGE,
                           "routed share: expected 0 to 1, found %g", share);
    *tau = kind == TLR_POLICY_RANDOM ? (float)share : 0;
    if (kind == TLR_POLICY_RANDOM || kind == TLR_POLICY_ALWAYS ||
        kind == TLR_POLICY_NEVER)
        return 0;
    if (!c || !tlr_calibration_has(c, kind))
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "policy %s: no threshold is known for a share of "
                           "routed tokens; measure it (tlr calibrate), or give "
                           "a threshold (--tau)",
                           tlr_policy_name(kind));
    const float *s = c->share, *t = c->tau[kind];
    if (share == 0 || share == 1) {
        *tau = share > 0 ? INFINITY : -INFINITY;
        return 0;
    }
    int i = 1;
    while (i < TLR_N_SHARES - 1 && (double)s[i] < share)
        i++;
    double f = (share - (double)s[i - 1]) / ((double)s[i] - (double)s[i - 1]);
    f = f < 0 ? 0 : f > 1 ? 1 : f;
    *tau = (float)((double)t[i - 1] + f * ((double)t[i] - (double)t[i - 1]));
    return 0;
}
