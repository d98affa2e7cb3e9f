/* eval_points.c - from outcomes to a table: shares, accuracies, intervals.
 *
 * Every statistic is a ratio of sums over items, so that items may count
 * differently (lm); intervals and comparisons draw items, not tokens.
 */
#include <math.h>

#include "base/mem.h"
#include "router/bootstrap.h"
#include "router/eval.h"

struct table {
    const struct tlr_eval_run *runs;
    const struct tlr_outcome *outcomes;
    size_t n_runs, n_items;
    struct tlr_resamples resamples;
    double *right; /* [n_runs, n_items] */
    double *judged; /* [n_items]: the same for all runs */
};

static const struct tlr_outcome *at(const struct table *t, size_t item,
                                    size_t run)
{
    return &t->outcomes[item * t->n_runs + run];
}

/* -1 when there is none. */
static long find_run(const struct table *t, enum tlr_policy_kind kind,
                     const struct tlr_eval_run *like)
{
    for (size_t r = 0; r < t->n_runs; r++)
        if (t->runs[r].kind == kind &&
            (!like || t->runs[r].share == like->share))
            return (long)r;
    return -1;
}

static const double *right_of(const struct table *t, size_t run)
{
    return t->right + run * t->n_items;
}

/* The plain sums of one run. */
static void sums(const struct table *t, size_t run, long always,
                 const struct tlr_eval_costs *costs, struct tlr_eval_point *p)
{
    double n_tok = 0, n_asked = 0, n_known = 0, n_agree = 0, n_strict = 0;
    double n_judged = 0, nll = 0, n_same = 0, n_choices = 0;
    for (size_t i = 0; i < t->n_items; i++) {
        const struct tlr_outcome *o = at(t, i, run);
        n_tok += o->n_tok;
        n_asked += o->n_asked;
        n_known += o->n_known;
        n_agree += o->n_agree;
        n_strict += o->n_strict;
        n_judged += o->n_judged;
        nll += o->nll;
        n_same += always >= 0 && o->choice == at(t, i, (size_t)always)->choice;
        n_choices += o->choice >= 0;
    }
    bool is_text = nll > 0;
    double n = (double)t->n_items;
    p->n = t->n_items;
    p->routed_share = n_tok > 0 ? n_asked / n_tok : 0;
    p->strict = n_strict / n_judged;
    p->agreement = n_known > 0 ? n_agree / n_known : NAN;
    p->answer_agreement = n_choices > 0 ? n_same / n : NAN;
    p->mean_tok = n_tok / n;
    p->perplexity = is_text ? exp(nll / n_judged) : NAN;
    p->seconds = NAN;
    if (!costs || is_text)
        return;
    double ms = n_asked * costs->ask_ms;
    if (p->run.kind != TLR_POLICY_ALWAYS)
        ms += n_tok * costs->slm_ms;
    if (n_asked > 0)
        ms += n_tok * costs->ask_tok_ms;
    p->seconds = ms / 1000 / n;
}

/* The policy that the others are compared with: the first that is one. */
static enum tlr_policy_kind reference(const struct table *t)
{
    for (size_t r = 0; r < t->n_runs; r++)
        if (t->runs[r].kind != TLR_POLICY_NEVER &&
            t->runs[r].kind != TLR_POLICY_ALWAYS)
            return t->runs[r].kind;
    return TLR_POLICY_NEVER;
}

static void statistics(struct table *t, size_t run, struct tlr_eval_point *p)
{
    long never = find_run(t, TLR_POLICY_NEVER, NULL);
    long always = find_run(t, TLR_POLICY_ALWAYS, NULL);
    long first = find_run(t, reference(t), &p->run);
    struct tlr_interval v =
        tlr_bootstrap_ratio(&t->resamples, right_of(t, run), t->judged);
    p->accuracy = v.value;
    p->low = v.low;
    p->high = v.high;
    p->gap = p->gap_low = p->gap_high = p->p = NAN;
    if (never >= 0 && always >= 0) {
        v = tlr_bootstrap_gap(&t->resamples, right_of(t, run),
                              right_of(t, (size_t)never),
                              right_of(t, (size_t)always), t->judged);
        p->gap = v.value;
        p->gap_low = v.low;
        p->gap_high = v.high;
    }
    if (first >= 0 && (size_t)first != run)
        p->p = tlr_bootstrap_p(&t->resamples, right_of(t, (size_t)first),
                               right_of(t, run), t->judged);
}

int tlr_eval_points(struct tlr_eval_point *points,
                    const struct tlr_eval_run *runs, size_t n_runs,
                    const struct tlr_outcome *outcomes, size_t n_items,
                    const struct tlr_eval_costs *costs, uint64_t seed,
                    struct tlr_err *err)
{
    struct table t = {.runs = runs, .outcomes = outcomes, .n_runs = n_runs,
                      .n_items = n_items};
    int rc = tlr_resamples_new(&t.resamples, n_items, seed, err);
    if (rc)
        return rc;
    t.right = tlr_calloc(n_runs * n_items, sizeof *t.right);
    t.judged = tlr_calloc(n_items, sizeof *t.judged);
    if (!t.right || !t.judged) {
        rc = tlr_err_nomem(err, "results", n_runs * n_items * sizeof *t.right);
        goto out;
    }
    for (size_t i = 0; i < n_items; i++) {
        t.judged[i] = at(&t, i, 0)->n_judged;
        for (size_t r = 0; r < n_runs; r++)
            t.right[r * n_items + i] = at(&t, i, r)->n_right;
    }
    long always = find_run(&t, TLR_POLICY_ALWAYS, NULL);
    for (size_t r = 0; r < n_runs; r++) {
        points[r].run = runs[r];
        sums(&t, r, always, costs, &points[r]);
        statistics(&t, r, &points[r]);
    }
out:
    tlr_free(t.right);
    tlr_free(t.judged);
    tlr_resamples_clear(&t.resamples);
    return rc;
}
