/* calibrate.c - see calibrate.h. */
#include "router/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { PILOT_ITEMS = 48 };

/* Shares of the small model's own positions that the grid's thresholds would
 * ask at; in the loop's text they come out elsewhere, which is the point. */
static const double grid_shares[TLR_CALIBRATE_GRID] = {
    0.004, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1,
    0.13,  0.17, 0.22, 0.28, 0.36,  0.46, 0.6,  0.8};

/* Trusts of one policy along the small model's own answers. */
struct sample {
    float *trusts;
    size_t n, cap;
};

struct job {
    const struct tlr_items *items;
    const struct tlr_eval_models *models;
    const struct tlr_calibrate_options *opt;
    struct sample samples[TLR_N_POLICIES]; /* as opt->kinds */
    size_t n_pilot, n_done;
};

static int add(struct sample *s, float trust, struct tlr_err *err)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4096;
        float *grown = tlr_realloc(s->trusts, cap, sizeof *grown);
        if (!grown)
            return tlr_err_nomem(err, "trusts", cap * sizeof *grown);
        s->trusts = grown;
        s->cap = cap;
    }
    s->trusts[s->n++] = trust;
    return 0;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell(struct job *j)
{
    j->n_done++;
    if (j->opt->progress)
        j->opt->progress(j->opt->ctx, j->n_done, j->n_pilot + j->items->n);
}

/* ---- the grid ---- */

static int sample_item(struct job *j, struct tlr_walk *w,
                       const struct tlr_ids *prompt, struct tlr_err *err)
{
    struct tlr_walk_path path;
    int rc = tlr_walk_begin(w, prompt->ids, prompt->n, 0, err);
    if (!rc)
        rc = tlr_walk_run(w, TLR_POLICY_NEVER, 0, &path, err);
    for (uint32_t i = 0; !rc && i < path.n_tok; i++)
        for (int k = 0; k < j->opt->n_kinds && !rc; k++)
            rc = add(&j->samples[k], tlr_walk_trust(w, j->opt->kinds[k], i),
                     err);
    return rc;
}

static int pilot(struct job *j, struct tlr_err *err)
{
    struct tlr_ids *prompts = tlr_calloc(j->n_pilot, sizeof *prompts);
    struct tlr_walk *w = NULL;
    struct tlr_walk_options o = {
        .max_prompt = 1, .max_tok = j->opt->max_tok, .n_ahead = 15,
        .n_policies = j->opt->n_kinds, .is_stopped = j->opt->is_stopped,
        .ctx = j->opt->ctx};
    struct tlr_session_options session = j->models->session;
    int rc = prompts ? 0
                     : tlr_err_nomem(err, "prompts",
                                     j->n_pilot * sizeof *prompts);
    for (int k = 0; k < j->opt->n_kinds; k++)
        o.policies[k] = (struct tlr_policy){
            .kind = j->opt->kinds[k],
            .router = j->models->routers[j->opt->kinds[k]]};
    for (size_t i = 0; i < j->n_pilot && !rc; i++) {
        rc = tlr_task_encode(j->models->slm, j->opt->task, j->opt->n_shots,
                             j->opt->raw, &j->items->items[i], &prompts[i],
                             NULL, err);
        if (prompts[i].n > o.max_prompt)
            o.max_prompt = (uint32_t)prompts[i].n;
    }
    session.n_threads = j->opt->n_jobs;
    if (!rc)
        rc = tlr_walk_new(&w, j->models->slm, &session, NULL, &o, err);
    for (size_t i = 0; i < j->n_pilot && !rc; i++) {
        rc = sample_item(j, w, &prompts[i], err);
        tell(j);
    }
    tlr_walk_free(w);
    for (size_t i = 0; prompts && i < j->n_pilot; i++)
        tlr_ids_clear(&prompts[i]);
    tlr_free(prompts);
    return rc;
}

/* ---- the loop at every point of the grid ---- */

static int item_done(void *ctx, size_t item, const struct tlr_outcome *outcomes,
                     struct tlr_err *err)
{
    (void)item;
    (void)outcomes;
    (void)err;
    tell(ctx);
    return 0;
}

static bool is_stopped(void *ctx)
{
    const struct job *j = ctx;
    return j->opt->is_stopped && j->opt->is_stopped(j->opt->ctx);
}

static void make_runs(struct job *j, struct tlr_eval_run *runs)
{
    for (int k = 0; k < j->opt->n_kinds; k++) {
        struct sample *s = &j->samples[k];
        qsort(s->trusts, s->n, sizeof *s->trusts, by_size);
        for (int g = 0; g < TLR_CALIBRATE_GRID; g++) {
            size_t at = (size_t)(grid_shares[g] * (double)s->n);
            runs[k * TLR_CALIBRATE_GRID + g] = (struct tlr_eval_run){
                j->opt->kinds[k], NAN, s->trusts[at < s->n ? at : s->n - 1]};
        }
    }
}

static int measure(struct job *j, const struct tlr_eval_run *runs,
                   size_t n_runs, struct tlr_outcome *outcomes,
                   struct tlr_err *err)
{
    uint8_t *done = tlr_calloc(j->items->n, 1);
    struct tlr_eval_options o = {
        .task = j->opt->task, .runs = runs, .n_runs = n_runs,
        .max_tok = j->opt->max_tok, .n_jobs = j->opt->n_jobs, .n_ahead = -1,
        .raw = j->opt->raw, .n_shots = j->opt->n_shots, .shares_only = true,
        .each = item_done,
        .is_stopped = is_stopped, .ctx = j};
    int rc = done ? tlr_eval(j->items, j->models, &o, outcomes, done, NULL,
                             err)
                  : tlr_err_nomem(err, "items", j->items->n);
    tlr_free(done);
    return rc;
}

static void shares_of(const struct tlr_outcome *outcomes, size_t n_items,
                      size_t n_runs, const struct tlr_eval_run *runs,
                      struct tlr_calibrate_point *points, uint64_t *n_positions)
{
    *n_positions = 0;
    for (size_t r = 0; r < n_runs; r++) {
        uint64_t n_tok = 0, n_asked = 0;
        for (size_t i = 0; i < n_items; i++) {
            n_tok += outcomes[i * n_runs + r].n_tok;
            n_asked += outcomes[i * n_runs + r].n_asked;
        }
        *n_positions += n_tok;
        points[r] = (struct tlr_calibrate_point){
            runs[r].tau, n_tok ? (double)n_asked / (double)n_tok : 0};
    }
}

/* ---- the curve turned round ---- */

void tlr_calibration_shares(float share[TLR_N_SHARES])
{
    const double first = 0.0025, last = 0.9;
    for (int i = 0; i < TLR_N_SHARES; i++)
        share[i] = (float)(first *
                           pow(last / first, (double)i / (TLR_N_SHARES - 1)));
}

void tlr_calibration_fit(const struct tlr_calibrate_point *points, int n,
                         float low, float high,
                         const float share[TLR_N_SHARES],
                         float tau[TLR_N_SHARES])
{
    for (int i = 0; i < TLR_N_SHARES; i++) {
        double from = 0, to = 0, tau_from = (double)low, tau_to = (double)low;
        double want = (double)share[i];
        for (int k = 0; k <= n && to < want; k++) {
            from = to;
            tau_from = tau_to;
            to = k < n ? fmax(from, points[k].share) : 1;
            tau_to = (double)(k < n ? points[k].tau : high);
        }
        double part = to > from ? (want - from) / (to - from) : 0;
        tau[i] = (float)(tau_from + part * (tau_to - tau_from));
    }
}

static void fit_all(const struct job *j,
                    const struct tlr_calibrate_point *points,
                    struct tlr_calibration *out)
{
    for (int p = 0; p < TLR_N_POLICIES; p++)
        for (int i = 0; i < TLR_N_SHARES; i++)
            out->tau[p][i] = NAN;
    tlr_calibration_shares(out->share);
    for (int k = 0; k < j->opt->n_kinds; k++) {
        const struct sample *s = &j->samples[k];
        tlr_calibration_fit(points + k * TLR_CALIBRATE_GRID,
                            TLR_CALIBRATE_GRID, s->trusts[0],
                            s->trusts[s->n - 1], out->share,
                            out->tau[j->opt->kinds[k]]);
    }
}

int tlr_calibrate(const struct tlr_items *items,
                  const struct tlr_eval_models *models,
                  const struct tlr_calibrate_options *options,
                  struct tlr_calibration *out,
                  struct tlr_calibrate_point *points, struct tlr_err *err)
{
    struct job j = {.items = items, .models = models, .opt = options};
    size_t n_runs = (size_t)options->n_kinds * TLR_CALIBRATE_GRID;
    struct tlr_eval_run runs[TLR_N_POLICIES * TLR_CALIBRATE_GRID];
    struct tlr_calibrate_point all[TLR_N_POLICIES * TLR_CALIBRATE_GRID];
    struct tlr_outcome *outcomes =
        tlr_calloc(items->n * n_runs, sizeof *outcomes);
    int rc = outcomes ? 0
                      : tlr_err_nomem(err, "outcomes",
                                      items->n * n_runs * sizeof *outcomes);
    if (!rc && (items->n == 0 || n_runs == 0 || options->task == TLR_TASK_LM))
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "calibration: expected questions and policies, found "
                         "%zu and %d", items->n, options->n_kinds);
    j.n_pilot = items->n < PILOT_ITEMS ? items->n : PILOT_ITEMS;
    if (!rc)
        rc = pilot(&j, err);
    if (!rc) {
        make_runs(&j, runs);
        rc = measure(&j, runs, n_runs, outcomes, err);
    }
    if (!rc) {
        shares_of(outcomes, items->n, n_runs, runs, all, &out->n_positions);
        fit_all(&j, all, out);
        if (points)
            memcpy(points, all, n_runs * sizeof *all);
    }
    for (int k = 0; k < TLR_N_POLICIES; k++)
        tlr_free(j.samples[k].trusts);
    tlr_free(outcomes);
    return rc;
}

double tlr_share_for_speed(double slm_ms, double ask_ms, double tok_s)
{
    double share = (1000 / tok_s - slm_ms) / ask_ms;
    return share < 0 ? 0 : share > 1 ? 1 : share;
}
