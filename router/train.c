/* train.c - see train.h: epochs, early stopping, and what comes of it. */
#include "router/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/train_data.h"
#include "router/train_net.h"
#include "router/train_report.h"
#include "router/train_state.h"

enum { WARMUP_STEPS = 50 };

struct run {
    const struct tlr_train_options *o;
    struct tlr_train_data data;
    struct tlr_train_state state;
    struct tlr_pool *pool;
    struct tlr_net *net;
    uint32_t batch;
    uint64_t n_batches; /* of an epoch; rows that fill no batch wait for the
                           next shuffle */
    double pos_weight;
    uint64_t *order;
    float *x, *grad;
    struct tlr_target *targets;
    double *z, *dz; /* of a batch */
    double *held;   /* logits of the held-out rows */
    char name[TLR_TRAIN_NAME_BYTES];
};

void tlr_train_defaults(struct tlr_train_options *o, enum tlr_policy_kind kind)
{
    *o = (struct tlr_train_options){
        .kind = kind,
        .loss = kind == TLR_POLICY_DEFERRAL ? TLR_LOSS_DEFERRAL : TLR_LOSS_BCE,
        .lr = 1e-3, .decay = 0.01, .dropout = 0.1, .pos_weight = 1,
        .tie_weight = 0.1,
        .valid = 0.15, .batch = 512, .epochs = 12, .patience = 3,
        .standardise = true, .seed = 1, .n_threads = 1,
    };
}

/* ---- setting up -------------------------------------------------------------------- */

static int check_options(const struct tlr_train_options *o, struct tlr_err *err)
{
    bool deferral = o->kind == TLR_POLICY_DEFERRAL;
    if (o->kind != TLR_POLICY_MLP && o->kind != TLR_POLICY_MLP_PLUS && !deferral)
        return tlr_err_set(err, TLR_EUSAGE,
                           "policy %s is not trained; expected mlp, mlp+ or "
                           "deferral", tlr_policy_name(o->kind));
    if (deferral != (o->loss == TLR_LOSS_DEFERRAL))
        return tlr_err_set(err, TLR_EUSAGE,
                           "the deferral head has a loss of its own: give "
                           "--loss bce or bt with mlp and mlp+ only");
    if (!(o->lr > 0) || !(o->decay >= 0) || !(o->dropout >= 0) ||
        !(o->dropout < 1) || !(o->pos_weight >= 0) ||
        !(o->tie_weight >= 0) || !(o->unlikely >= 0) || !(o->valid > 0) ||
        !(o->valid < 1) || o->batch < 2 || o->epochs < 1)
        return tlr_err_set(err, TLR_EUSAGE,
                           "training options out of range: lr > 0, decay >= 0, "
                           "0 <= dropout < 1, 0 < valid < 1, batch >= 2, "
                           "epochs >= 1");
    return 0;
}

/* All that the result depends on. */
static void name_run(struct run *r)
{
    const struct tlr_train_options *o = r->o;
    const struct tlr_dataset_info *info = tlr_dataset_info(r->data.d);
    snprintf(r->name, sizeof r->name,
             "data %016llx %016llx %08x, %s loss %d, lr %g decay %g dropout %g "
             "weight %g tie %g unlikely %g valid %g batch %u epochs %u "
             "patience %u hidden %u standardise %d constant %d seed %llu",
             (unsigned long long)info->fingerprint,
             (unsigned long long)info->source, tlr_dataset_digest(r->data.d),
             tlr_policy_name(o->kind), (int)o->loss, o->lr, o->decay,
             o->dropout, o->pos_weight, o->tie_weight, o->unlikely, o->valid,
             o->batch, o->epochs, o->patience, o->n_hidden, o->standardise, o->constant_lr,
             (unsigned long long)o->seed);
}

static void shape_of(const struct run *r, struct tlr_net_shape *s)
{
    const struct tlr_train_options *o = r->o;
    s->n_in = r->data.n_in;
    s->n_hidden = o->kind == TLR_POLICY_DEFERRAL ? 0
                  : o->n_hidden                  ? o->n_hidden
                                                 : 2 * r->data.dim;
    s->n_mid = s->n_hidden ? r->data.dim : 0;
}

static int allocate(struct run *r, const struct tlr_net_shape *shape,
                    struct tlr_err *err)
{
    size_t b = r->batch;
    r->order = tlr_calloc(r->data.n_train, sizeof *r->order);
    r->x = tlr_calloc(b * shape->n_in, sizeof *r->x);
    r->targets = tlr_calloc(b, sizeof *r->targets);
    r->z = tlr_calloc(b, sizeof *r->z);
    r->dz = tlr_calloc(b, sizeof *r->dz);
    r->grad = tlr_calloc(tlr_net_n_trained(shape), sizeof *r->grad);
    r->held = tlr_calloc(r->data.n_held, sizeof *r->held);
    if (!r->order || !r->x || !r->targets || !r->z || !r->dz || !r->grad ||
        !r->held)
        return tlr_err_nomem(err, "training", b * shape->n_in * 4ull);
    return 0;
}

static int begin(struct run *r, const struct tlr_dataset *d,
                 struct tlr_err *err)
{
    const struct tlr_train_options *o = r->o;
    struct tlr_net_shape shape;
    int rc = check_options(o, err);
    if (!rc)
        rc = tlr_train_data_new(&r->data, d, o, err);
    if (rc)
        return rc;
    uint64_t n = r->data.n_train;
    shape_of(r, &shape);
    r->batch = o->batch < n ? o->batch : (uint32_t)n;
    r->n_batches = n / r->batch;
    r->pos_weight = o->pos_weight > 0 ? o->pos_weight
                                      : ((double)n - r->data.train_ones) /
                                            r->data.train_ones;
    name_run(r);
    rc = allocate(r, &shape, err);
    if (!rc)
        rc = tlr_train_state_new(&r->state, &shape, o->seed, err);
    if (!rc)
        rc = tlr_pool_new(&r->pool, o->n_threads, err);
    if (!rc)
        rc = tlr_net_new(&r->net, &shape, r->batch, r->pool, err);
    return rc;
}

static void end(struct run *r)
{
    tlr_net_free(r->net);
    tlr_pool_free(r->pool);
    tlr_train_state_clear(&r->state);
    tlr_free(r->order);
    tlr_free(r->x);
    tlr_free(r->grad);
    tlr_free(r->targets);
    tlr_free(r->z);
    tlr_free(r->dz);
    tlr_free(r->held);
    tlr_train_data_clear(&r->data);
}

/* ---- one epoch ----------------------------------------------------------------------- */

static double rate_at(const struct run *r, uint64_t step)
{
    const struct tlr_train_options *o = r->o;
    double total = (double)r->n_batches * o->epochs;
    double warm = step < WARMUP_STEPS ? (double)step / WARMUP_STEPS : 1;
    return o->constant_lr
               ? o->lr
               : o->lr * warm * 0.5 * (1 + cos(M_PI * (double)(step - 1) / total));
}

static int tell(const struct run *r, uint64_t batches, double valid_loss,
                struct tlr_err *err)
{
    struct tlr_train_progress p = {
        .rows_done = (r->state.epoch * r->n_batches + batches) * r->batch,
        .rows_at_most = r->o->epochs * r->n_batches * r->batch,
        .epoch = r->state.epoch + 1, .valid_loss = valid_loss };
    if (r->o->progress && r->o->progress(r->o->ctx, &p))
        return tlr_err_set(err, TLR_ECANCELLED,
                           "training stopped in epoch %u%s", p.epoch,
                           r->o->checkpoint ? "; the same command goes on"
                                            : "");
    return 0;
}

static void step(struct run *r, const uint64_t *rows, double *loss)
{
    struct tlr_train_state *s = &r->state;
    uint64_t mask_seed = tlr_hash_u64(r->o->seed ^ 0x64726f70, ++s->step);
    struct tlr_adamw adam = { rate_at(r, s->step), r->o->decay, s->step };
    tlr_train_load(&r->data, r->pool, rows, r->batch, true, r->x, r->targets);
    tlr_net_forward(r->net, s->params, r->x, r->batch,
                    s->shape.n_hidden ? r->o->dropout : 0, mask_seed, r->z);
    *loss += tlr_loss(r->o->loss, r->z, r->targets, r->batch, r->pos_weight,
                      r->dz);
    tlr_net_backward(r->net, s->params, r->x, r->batch, r->dz, r->grad);
    tlr_adamw_step(r->pool, &adam, tlr_net_n_decayed(&s->shape), s->n_trained,
                   s->params, r->grad, s->m, s->v);
}

static int train_epoch(struct run *r, double valid_loss, double *loss,
                       struct tlr_err *err)
{
    memcpy(r->order, r->data.train, r->data.n_train * sizeof *r->order);
    tlr_train_shuffle(r->order, r->data.n_train, r->o->seed, r->state.epoch);
    *loss = 0;
    for (uint64_t b = 0; b < r->n_batches; b++) {
        step(r, r->order + b * r->batch, loss);
        int rc = tell(r, b + 1, valid_loss, err);
        if (rc)
            return rc;
    }
    *loss /= (double)r->n_batches;
    if (isfinite(*loss))
        return 0;
    return tlr_err_set(err, TLR_EFORMAT,
                       "training diverged in epoch %u (loss is not a number); "
                       "give a smaller --lr than %g", r->state.epoch + 1,
                       r->o->lr);
}

/* ---- judging it ---------------------------------------------------------------------- */

static int fold(const struct run *r, float *params,
                struct tlr_router_weights *w, struct tlr_err *err)
{
    const struct tlr_net_shape *s = &r->state.shape;
    struct tlr_net_params p;
    tlr_net_view(&p, s, params);
    struct tlr_citer c = { s->n_in, s->n_hidden, s->n_mid, r->data.mean,
                           r->data.scale, p.w1, p.b1, p.gamma, p.beta, p.mean,
                           p.var, p.w2, p.b2, p.w3, p.b3[0] };
    *w = (struct tlr_router_weights){ .kind = r->o->kind, .dim = r->data.dim,
                                      .n_features = r->data.n_features };
    return tlr_citer_fold(w, &c, err);
}

/* Logits of rows [n], and with loss the mean loss over their batches. */
static void evaluate(struct run *r, const struct tlr_router_weights *w,
                     const uint64_t *rows, uint64_t n, double *z, double *loss)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i += r->batch) {
        uint32_t m = n - i < r->batch ? (uint32_t)(n - i) : r->batch;
        tlr_train_load(&r->data, r->pool, rows + i, m, false, r->x, r->targets);
        tlr_net_eval(r->net, w, r->x, m, z ? z + i : r->z);
        if (loss)
            sum += m * tlr_loss(r->o->loss, z ? z + i : r->z, r->targets, m,
                                r->pos_weight, NULL);
    }
    if (loss)
        *loss = sum / (double)n;
}

static int validate(struct run *r, double *loss, struct tlr_err *err)
{
    struct tlr_router_weights w;
    int rc = fold(r, r->state.params, &w, err);
    if (rc)
        return rc;
    evaluate(r, &w, r->data.valid, r->data.n_valid, NULL, loss);
    tlr_router_weights_clear(&w);
    return 0;
}

static int one_epoch(struct run *r, double *valid_loss, struct tlr_err *err)
{
    struct tlr_train_state *s = &r->state;
    double train_loss;
    int rc = train_epoch(r, *valid_loss, &train_loss, err);
    if (!rc)
        rc = validate(r, valid_loss, err);
    if (rc)
        return rc;
    s->epoch++;
    if (*valid_loss < s->best_loss) {
        s->best_loss = *valid_loss;
        s->best_train_loss = train_loss;
        s->best_epoch = s->epoch;
        memcpy(s->best, s->params, s->n_all * sizeof *s->best);
    }
    return r->o->checkpoint
               ? tlr_train_state_save(s, r->name, r->o->checkpoint, err)
               : 0;
}

/* The weights of the labels shift the best logit by log P; taken off, the logit
 * is that of the labels' own frequency. */
static int finish(struct run *r, struct tlr_router_weights *w,
                  struct tlr_calibration *calibration,
                  struct tlr_train_report *report, struct tlr_err *err)
{
    int rc = fold(r, r->state.best, w, err);
    if (rc)
        return rc;
    if (r->o->loss == TLR_LOSS_BCE)
        w->b2 -= (float)log(r->pos_weight);
    evaluate(r, w, r->data.held, r->data.n_held, r->held, NULL);
    rc = tlr_train_judge(&r->data, r->o, r->held, w, calibration, report, err);
    if (rc)
        tlr_router_weights_clear(w);
    return rc;
}

static void describe(const struct run *r, struct tlr_train_report *report)
{
    const struct tlr_dataset_info *info = tlr_dataset_info(r->data.d);
    report->n_rows = info->n_rows;
    report->n_train = r->data.n_train;
    report->n_valid = r->data.n_valid;
    report->n_groups = info->n_groups;
    report->n_groups_valid = r->data.n_groups_valid;
    report->n_parameters = r->state.n_trained;
    report->pos_weight = r->o->loss == TLR_LOSS_BCE ? r->pos_weight : 1;
    report->epochs = r->state.epoch;
    report->best_epoch = r->state.best_epoch;
    report->train_loss = r->state.best_train_loss;
    report->valid_loss = r->state.best_loss;
}

int tlr_train(const struct tlr_dataset *d, const struct tlr_train_options *o,
              struct tlr_router_weights *w,
              struct tlr_calibration *calibration,
              struct tlr_train_report *report, struct tlr_err *err)
{
    struct run r = { .o = o };
    double valid_loss = NAN;
    memset(report, 0, sizeof *report);
    memset(w, 0, sizeof *w);
    int rc = begin(&r, d, err);
    if (!rc && o->checkpoint && !o->fresh) {
        rc = tlr_train_state_load(&r.state, r.name, o->checkpoint, err);
        report->resumed_at = r.state.epoch;
        rc = rc == TLR_ENOTFOUND ? 0 : rc;
    }
    while (!rc && r.state.epoch < o->epochs &&
           r.state.epoch - r.state.best_epoch < o->patience)
        rc = one_epoch(&r, &valid_loss, err);
    if (!rc && r.state.best_epoch == 0)
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "training: no epoch had a finite validation loss; give "
                         "a smaller --lr than %g", o->lr);
    if (!rc)
        rc = finish(&r, w, calibration, report, err);
    if (!rc)
        describe(&r, report);
    end(&r);
    return rc;
}
