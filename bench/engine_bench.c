/* engine_bench.c - see engine_bench.h.
 *
 * Each repetition is a prefill at `depth`, then `n_gen` decode steps at `depth`
 * again, as in llama-bench's pp and tg: the two do not lengthen each other's
 * context.
 */
#include "bench/engine_bench.h"

#include <math.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

enum { ID_SEED = 20, WARM_TOKENS = 4 };

struct run {
    struct tlr_session *s;
    const struct tlr_bench_options *o;
    int32_t *ids; /* [n_ids], of which any part serves as a text */
    uint32_t n_ids;
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
        rc = tlr_decode(r->s, r->ids[i], TLR_STEP_LOGITS, err);
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
    int rc = tlr_rewind(r->s, r->o->depth, err);
    uint64_t begun = tlr_now_ns();
    for (uint32_t i = 0; i < n && !rc; i++) {
        if (i > 0 && i % most == 0)
            tlr_branch_drop(r->s);
        rc = tlr_branch_decode(r->s, r->ids + i, (int)k, TLR_STEP_LOGITS, err);
        if (!rc)
            rc = check_cancelled(r, err);
    }
    *ms = tlr_ms_between(begun, tlr_now_ns());
    tlr_branch_drop(r->s);
    return rc;
}

static void rate_add(struct tlr_bench_rate *sum, uint32_t n, double ms)
{
    double v = ms > 0 ? n * 1000.0 / ms : 0;
    sum->mean += v;
    sum->sd += v * v;
}

/* From sums to mean and sample standard deviation. */
static void rate_finish(struct tlr_bench_rate *r, uint32_t n)
{
    double mean = r->mean / n;
    double variance = n > 1 ? (r->sd - n * mean * mean) / (n - 1) : 0;
    r->mean = mean;
    r->sd = variance > 0 ? sqrt(variance) : 0;
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

static int measure(const struct run *r, struct tlr_bench_result *out,
                   struct tlr_err *err)
{
    const struct tlr_bench_options *o = r->o;
    double ms, decode_ms = 0, branch_ms = 0;
    int rc = warm_up(r, err);
    for (uint32_t i = 0; i < o->n_reps && !rc; i++) {
        if (o->n_prompt > 0) {
            rc = time_prefill(r, &ms, err);
            rate_add(&out->prefill, o->n_prompt, ms);
            out->ttft_ms += ms / o->n_reps;
        }
        if (o->n_gen > 0 && !rc) {
            rc = time_decode(r, o->n_gen, &ms, err);
            rate_add(&out->decode, o->n_gen, ms);
            decode_ms += ms;
        }
        if (o->n_branches > 0 && o->n_gen > 0 && !rc) {
            rc = time_branches(r, o->n_gen, &ms, err);
            branch_ms += ms;
        }
    }
    if (rc)
        return rc;
    rate_finish(&out->prefill, o->n_reps);
    rate_finish(&out->decode, o->n_reps);
    out->branch_ratio = decode_ms > 0 ? branch_ms / decode_ms : 0;
    return 0;
}

uint32_t tlr_bench_positions(const struct tlr_bench_options *o)
{
    return o->depth + (o->n_prompt > o->n_gen ? o->n_prompt : o->n_gen);
}

int tlr_bench_engine(struct tlr_bench_result *out, struct tlr_session *s,
                     const struct tlr_model *m,
                     const struct tlr_bench_options *o, struct tlr_err *err)
{
    struct run r = { .s = s, .o = o };
    r.n_ids = tlr_bench_positions(o) + o->n_branches + 1;
    *out = (struct tlr_bench_result){ 0 };
    r.ids = tlr_calloc(r.n_ids, sizeof *r.ids);
    if (!r.ids)
        return tlr_err_nomem(err, "ids to bench with", r.n_ids * 4ull);
    for (uint32_t i = 0; i < r.n_ids; i++)
        r.ids[i] = (int32_t)(tlr_hash_u64(ID_SEED, i) % tlr_model_n_ids(m));
    int rc = measure(&r, out, err);
    tlr_free(r.ids);
    return rc;
}
