/* engine_bench.c - see engine_bench.h.
 *
 * Each repetition is a prefill at `depth`, then `n_gen` decode steps at `depth`
 * again, as in llama-bench's pp and tg: the two do not lengthen each other's
 * context.
 */
#include "bench/engine_bench.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "kernels/kernels.h"

enum { ID_SEED = 20, WARM_TOKENS = 4 };

struct run {
    struct tlr_session *s;
    const struct tlr_bench_options *o;
    int32_t *ids; /* [n_ids], of which any part serves as a text */
    uint32_t n_ids;
    struct tlr_profile *profiles; /* [TLR_BENCH_N_PHASES] of the result */
    uint64_t *profile_ns;         /* their counts, one after the other */
};

static int check_cancelled(const struct run *r, struct tlr_err *err)
{
    if (r->o->cancelled && r->o->cancelled())
        return tlr_err_set(err, TLR_ECANCELLED, "bench");
    return 0;
}

static int time_prefill(const struct run *r, double *ms, struct tlr_err *err)
{
    int rc = tlr_rewind(r->s, r->o->depth, err);
    uint64_t begun = tlr_now_ns();
    if (!rc)
        rc = tlr_prefill(r->s, r->ids, r->o->n_prompt, TLR_STEP_LOGITS, err);
    *ms = tlr_ms_between(begun, tlr_now_ns());
    return rc ? rc : check_cancelled(r, err);
}

static int time_decode(const struct run *r, uint32_t n, double *ms,
                       struct tlr_err *err)
{
    int rc = tlr_rewind(r->s, r->o->depth, err);
    uint64_t begun = tlr_now_ns();
    for (uint32_t i = 0; i < n && !rc; i++) {
        int32_t id;
        float logit;
        rc = tlr_decode(r->s, r->ids[i], 0, err);
        if (!rc)
            rc = tlr_top(r->s, 1, &id, &logit, err); /* greedy */
        if (!rc)
            rc = check_cancelled(r, err);
    }
    *ms = tlr_ms_between(begun, tlr_now_ns());
    return rc;
}

/* n steps of all branches, over as many sets of branches as they take. */
static int time_branches(const struct run *r, uint32_t n, double *ms,
                         struct tlr_err *err)
{
    uint32_t k = r->o->n_branches;
    uint32_t most = tlr_session_options_used(r->s)->branch_tok;
    int32_t best[TLR_MAX_BRANCHES];
    float logits[TLR_MAX_BRANCHES];
    int rc = tlr_rewind(r->s, r->o->depth, err);
    uint64_t begun = tlr_now_ns();
    for (uint32_t i = 0; i < n && !rc; i++) {
        if (i > 0 && i % most == 0)
            tlr_branch_drop(r->s);
        rc = tlr_branch_decode(r->s, r->ids + i, (int)k, 0, err);
        if (!rc)
            rc = tlr_branch_top(r->s, 1, best, logits, err); /* greedy */
        if (!rc)
            rc = check_cancelled(r, err);
    }
    *ms = tlr_ms_between(begun, tlr_now_ns());
    tlr_branch_drop(r->s);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct tlr_bench_rate tlr_bench_rate_of(double *v, uint32_t n)
{
    struct tlr_bench_rate r = { 0 };
    if (n == 0)
        return r;
    qsort(v, n, sizeof *v, by_value);
    for (uint32_t i = 0; i < n; i++)
        r.mean += v[i] / n;
    double squares = 0;
    for (uint32_t i = 0; i < n; i++)
        squares += (v[i] - r.mean) * (v[i] - r.mean);
    r.sd = n > 1 ? sqrt(squares / (n - 1)) : 0;
    r.median = (v[n / 2] + v[(n - 1) / 2]) / 2;
    r.min = v[0];
    r.max = v[n - 1];
    return r;
}

/* The first thing a session does: a short prompt and the choice of a token. */
static int first_token(const struct run *r, uint64_t *at_ns,
                       struct tlr_err *err)
{
    int32_t id;
    float logit;
    int rc = tlr_prefill(r->s, r->ids, r->o->n_first, 0, err);
    if (!rc)
        rc = tlr_top(r->s, 1, &id, &logit, err);
    *at_ns = tlr_now_ns();
    return rc;
}

static int warm_up(const struct run *r, struct tlr_err *err)
{
    double ms;
    int rc = tlr_rewind(r->s, 0, err);
    if (!rc && r->o->depth > 0)
        rc = tlr_prefill(r->s, r->ids, r->o->depth, 0, err);
    if (!rc && r->o->n_prompt > 0)
        rc = time_prefill(r, &ms, err);
    if (!rc && r->o->n_gen > 0)
        rc = time_decode(r, r->o->n_gen < WARM_TOKENS ? r->o->n_gen
                                                      : WARM_TOKENS, &ms, err);
    return rc;
}

/* Adds what the session has counted since tlr_profile_start. */
static int profile_add(const struct run *r, struct tlr_profile *sum,
                       struct tlr_err *err)
{
    struct tlr_profile p = tlr_profile_read(r->s);
    size_t n = ((size_t)p.n_layers + 1) * TLR_N_PROFILE_OPS;
    uint64_t *ns = r->profile_ns + (sum - r->profiles) * (ptrdiff_t)n;
    for (size_t i = 0; i < n; i++)
        ns[i] += p.ns[i];
    sum->n_layers = p.n_layers;
    sum->n_steps += p.n_steps;
    sum->n_tok += p.n_tok;
    sum->total_ns += p.total_ns;
    sum->ns = ns;
    return tlr_profile_start(r->s, err);
}

/* What the repetitions gave, in sums that rate_of wants apart. */
struct samples {
    double *prefill, *decode, *step_ms, *branch_ms; /* [n_reps] each */
};

static int repeat(const struct run *r, uint32_t i, struct samples *to,
                  struct tlr_err *err)
{
    const struct tlr_bench_options *o = r->o;
    double ms;
    int rc = 0;
    if (o->n_prompt > 0) {
        rc = time_prefill(r, &ms, err);
        to->prefill[i] = ms > 0 ? o->n_prompt * 1000.0 / ms : 0;
        if (!rc && o->profile)
            rc = profile_add(r, &r->profiles[TLR_BENCH_PREFILL], err);
    }
    if (o->n_gen > 0 && !rc) {
        rc = time_decode(r, o->n_gen, &ms, err);
        to->decode[i] = ms > 0 ? o->n_gen * 1000.0 / ms : 0;
        to->step_ms[i] = ms;
        if (!rc && o->profile)
            rc = profile_add(r, &r->profiles[TLR_BENCH_DECODE], err);
    }
    if (o->n_branches > 0 && o->n_gen > 0 && !rc) {
        rc = time_branches(r, o->n_gen, &to->branch_ms[i], err);
        if (!rc && o->profile)
            rc = profile_add(r, &r->profiles[TLR_BENCH_BRANCHES], err);
    }
    return rc;
}

static int measure(const struct run *r, struct tlr_bench_result *out,
                   struct tlr_err *err)
{
    const struct tlr_bench_options *o = r->o;
    uint32_t n = o->n_reps;
    double *v = tlr_calloc((size_t)n * 4, sizeof *v);
    if (!v)
        return tlr_err_nomem(err, "times", n * 32ull);
    struct samples to = { v, v + n, v + 2 * (size_t)n, v + 3 * (size_t)n };
    int rc = o->n_first > 0 ? first_token(r, &out->first_token_ns, err) : 0;
    if (!rc)
        rc = warm_up(r, err);
    if (!rc && o->profile)
        rc = tlr_profile_start(r->s, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = repeat(r, i, &to, err);
    if (!rc) {
        out->prefill = tlr_bench_rate_of(to.prefill, o->n_prompt > 0 ? n : 0);
        out->decode = tlr_bench_rate_of(to.decode, o->n_gen > 0 ? n : 0);
        out->ttft_ms = out->prefill.median > 0
                           ? o->n_prompt * 1000.0 / out->prefill.median : 0;
        double step = tlr_bench_rate_of(to.step_ms, n).median;
        out->branch_ratio = step > 0 ? tlr_bench_rate_of(to.branch_ms, n).median / step
                                     : 0;
    }
    tlr_free(v);
    return rc;
}

uint32_t tlr_bench_positions(const struct tlr_bench_options *o)
{
    uint32_t n = o->depth + (o->n_prompt > o->n_gen ? o->n_prompt : o->n_gen);
    return n > o->n_first ? n : o->n_first;
}

void tlr_bench_result_clear(struct tlr_bench_result *r)
{
    tlr_free(r->profile_ns);
    *r = (struct tlr_bench_result){ .profile_ns = NULL };
}

int tlr_bench_engine(struct tlr_bench_result *out, struct tlr_session *s,
                     const struct tlr_model *m,
                     const struct tlr_bench_options *o, struct tlr_err *err)
{
    struct run r = { .s = s, .o = o };
    size_t n_ns = ((size_t)tlr_model_config(m)->n_layers + 1) *
                  TLR_N_PROFILE_OPS * TLR_BENCH_N_PHASES;
    r.n_ids = tlr_bench_positions(o) + o->n_branches + o->n_sessions + 1;
    *out = (struct tlr_bench_result){ .profile_ns = NULL };
    r.ids = tlr_calloc(r.n_ids, sizeof *r.ids);
    out->profile_ns = tlr_calloc(n_ns, sizeof *out->profile_ns);
    r.profiles = out->profiles;
    r.profile_ns = out->profile_ns;
    int rc = 0;
    if (!r.ids || !out->profile_ns)
        rc = tlr_err_nomem(err, "ids to bench with", r.n_ids * 4ull);
    for (uint32_t i = 0; i < r.n_ids && !rc; i++)
        r.ids[i] = (int32_t)(tlr_hash_u64(ID_SEED, i) % tlr_model_n_ids(m));
    if (!rc)
        rc = measure(&r, out, err);
    if (!rc && o->n_sessions > 0 && o->n_gen > 0)
        rc = tlr_bench_together(out, s, m, r.ids, o, err);
    tlr_free(r.ids);
    return rc;
}
