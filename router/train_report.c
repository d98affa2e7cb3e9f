/* train_report.c - see train_report.h. */
#include "router/train_report.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static const enum tlr_policy_kind signal_kinds[TLR_TRAIN_SIGNALS] = {
    TLR_POLICY_ENTROPY, TLR_POLICY_MARGIN, TLR_POLICY_MAXPROB,
    TLR_POLICY_MAXLOGIT
};
static const double report_shares[TLR_TRAIN_SHARES] = {
    0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30, 0.50
};

/* Checked numbers in, so the policies that need no router cannot fail. */
static float signal_trust(enum tlr_policy_kind kind, const struct tlr_row *row)
{
    struct tlr_policy p = { .kind = kind };
    float trust = 0;
    tlr_policy_trust_of(&p, NULL, row->features, &row->signals, row->pos, NULL,
                        &trust, NULL);
    return trust;
}

struct judge {
    const struct tlr_train_data *data;
    const double *z; /* [n_held] */
    double slope, shift;
    struct tlr_scored *scored; /* [n_held] */
    double *valid_z;           /* [n_valid] */
    struct tlr_target *targets;
};

/* Scores of a policy at the held-out rows, sorted: all of them, or those with a
 * target.  Returns how many. */
static size_t score_rows(struct judge *j, enum tlr_policy_kind kind,
                         bool is_router, bool all)
{
    size_t n = 0;
    uint64_t v = 0;
    for (uint64_t i = 0; i < j->data->n_held; i++) {
        uint64_t at = j->data->held[i];
        bool has_target = v < j->data->n_valid && j->data->valid[v] == at;
        v += has_target;
        if (!all && !has_target)
            continue;
        struct tlr_row row;
        tlr_train_row(j->data, at, &row);
        j->scored[n].score =
            is_router ? (float)(1 / (1 + exp(-(j->slope * j->z[i] + j->shift))))
                      : signal_trust(kind, &row);
        j->scored[n++].label = row.label;
    }
    tlr_scored_sort(j->scored, n);
    return n;
}

static void thresholds(struct tlr_calibration *c, enum tlr_policy_kind kind,
                       const struct tlr_scored *s, size_t n)
{
    for (int i = 0; i < TLR_N_SHARES; i++)
        c->tau[kind][i] = tlr_share_tau(s, n, (double)c->share[i]);
}

static void calibrate(struct judge *j, enum tlr_policy_kind kind,
                      struct tlr_calibration *c)
{
    tlr_calibration_clear(c);
    c->n_positions = j->data->n_held;
    thresholds(c, kind, j->scored, score_rows(j, kind, true, true));
    for (int s = 0; s < TLR_TRAIN_SIGNALS; s++)
        thresholds(c, signal_kinds[s], j->scored,
                   score_rows(j, signal_kinds[s], false, true));
}

static void measure(struct judge *j, enum tlr_policy_kind kind,
                    struct tlr_train_report *r)
{
    struct judge raw = *j;
    raw.slope = 1;
    raw.shift = 0;
    size_t n = score_rows(&raw, kind, true, false);
    r->ece_before = tlr_ece(j->scored, n);
    n = score_rows(j, kind, true, false);
    r->ece_after = tlr_ece(j->scored, n);
    r->auroc = tlr_auroc(j->scored, n);
    r->auprc = tlr_auprc_ask(j->scored, n);
    for (int i = 0; i < TLR_TRAIN_SHARES; i++)
        r->shares[i] = tlr_share_at(j->scored, n, report_shares[i]);
    size_t ones = 0;
    for (size_t i = 0; i < n; i++)
        ones += j->scored[i].label;
    r->share_ask = 1 - (double)ones / (double)n;
    for (int s = 0; s < TLR_TRAIN_SIGNALS; s++) {
        n = score_rows(j, signal_kinds[s], false, false);
        r->signal[s] = signal_kinds[s];
        r->signal_auroc[s] = tlr_auroc(j->scored, n);
        r->signal_auprc[s] = tlr_auprc_ask(j->scored, n);
    }
}

/* Deferral's probability is not one of labels: it keeps temperature 1. */
static void fit(struct judge *j, const struct tlr_train_options *o,
                struct tlr_router_weights *w)
{
    uint64_t v = 0;
    double temperature = 1, shift = 0;
    for (uint64_t i = 0; i < j->data->n_held && v < j->data->n_valid; i++) {
        if (j->data->held[i] != j->data->valid[v])
            continue;
        struct tlr_row row;
        tlr_train_row(j->data, j->data->held[i], &row);
        j->targets[v].weight = row.weight;
        j->targets[v].label = row.label;
        j->valid_z[v++] = j->z[i];
    }
    if (o->loss != TLR_LOSS_DEFERRAL)
        tlr_loss_calibrate(j->valid_z, j->targets, v, &temperature, &shift);
    /* trust = s((z + b2) / T): the offset goes in before the division. */
    w->temperature = (float)temperature;
    w->b2 += (float)(shift * temperature);
    j->slope = 1 / (double)w->temperature;
    j->shift = shift;
}

int tlr_train_judge(const struct tlr_train_data *data,
                    const struct tlr_train_options *o, const double *held,
                    struct tlr_router_weights *w,
                    struct tlr_calibration *calibration,
                    struct tlr_train_report *report, struct tlr_err *err)
{
    struct judge j = { .data = data, .z = held };
    int rc = 0;
    j.scored = tlr_calloc(data->n_held, sizeof *j.scored);
    j.valid_z = tlr_calloc(data->n_valid, sizeof *j.valid_z);
    j.targets = tlr_calloc(data->n_valid, sizeof *j.targets);
    if (!j.scored || !j.valid_z || !j.targets) {
        rc = tlr_err_nomem(err, "training report", data->n_held * 40);
    } else {
        fit(&j, o, w);
        measure(&j, o->kind, report);
        calibrate(&j, o->kind, calibration);
        report->temperature = (double)w->temperature;
    }
    tlr_free(j.scored);
    tlr_free(j.valid_z);
    tlr_free(j.targets);
    return rc;
}
