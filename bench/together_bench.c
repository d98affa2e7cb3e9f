/* together_bench.c - what decoding several sessions in one pass brings: tokens
 * per second of 1, 2, 4, ... sessions together.
 *
 * Decoding is greedy: the head is searched, for all sessions in one pass.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/engine_bench.h"

struct party {
    struct tlr_session *sessions[TLR_MAX_TOGETHER]; /* the first is borrowed */
    const struct tlr_bench_options *o;
    const int32_t *ids;
};

static int open_party(struct party *p, struct tlr_session *s,
                      const struct tlr_model *m, struct tlr_err *err)
{
    struct tlr_session_options so = *tlr_session_options_used(s);
    so.lender = s;
    so.n_branches = 0;
    p->sessions[0] = s;
    int rc = 0;
    for (uint32_t i = 0; i < p->o->n_sessions && !rc; i++) {
        if (i > 0)
            rc = tlr_session_new(&p->sessions[i], m, &so, err);
        if (!rc)
            rc = tlr_rewind(p->sessions[i], 0, err);
        if (!rc && p->o->depth > 0)
            rc = tlr_prefill(p->sessions[i], p->ids, p->o->depth, 0, err);
    }
    return rc;
}

static int step(const struct party *p, uint32_t at, uint32_t n,
                struct tlr_err *err)
{
    int32_t id;
    float logit;
    int rc = tlr_decode_together(p->sessions, p->ids + at, (int)n, 0, err);
    if (!rc)
        rc = tlr_top_together(p->sessions, (int)n, 1, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = tlr_top(p->sessions[i], 1, &id, &logit, err);
    if (!rc && p->o->cancelled && p->o->cancelled())
        rc = tlr_err_set(err, TLR_ECANCELLED, "bench");
    return rc;
}

/* Tokens per second of n_steps steps of n sessions. */
static int time_steps(const struct party *p, uint32_t n, uint32_t n_steps,
                      double *tok_s, struct tlr_err *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = tlr_rewind(p->sessions[i], p->o->depth, err);
    uint64_t begun = tlr_now_ns();
    for (uint32_t i = 0; i < n_steps && !rc; i++)
        rc = step(p, i, n, err);
    double ms = tlr_ms_between(begun, tlr_now_ns());
    *tok_s = ms > 0 ? n * n_steps * 1000.0 / ms : 0;
    return rc;
}

static int measure(struct party *p, uint32_t n, struct tlr_bench_rate *rate,
                   struct tlr_err *err)
{
    double *v = tlr_calloc(p->o->n_reps, sizeof *v);
    if (!v)
        return tlr_err_nomem(err, "times", p->o->n_reps * 8ull);
    double warm;
    int rc = time_steps(p, n, 1, &warm, err);
    for (uint32_t i = 0; i < p->o->n_reps && !rc; i++)
        rc = time_steps(p, n, p->o->n_gen, &v[i], err);
    if (!rc)
        *rate = tlr_bench_rate_of(v, p->o->n_reps);
    tlr_free(v);
    return rc;
}

int tlr_bench_together(struct tlr_bench_result *out, struct tlr_session *s,
                       const struct tlr_model *m, const int32_t *ids,
                       const struct tlr_bench_options *o, struct tlr_err *err)
{
    struct party p = { .o = o, .ids = ids };
    int rc = open_party(&p, s, m, err);
    for (uint32_t n = 1; n <= o->n_sessions && !rc;) {
        struct tlr_bench_together *row = &out->together[out->n_together++];
        row->n_sessions = n;
        rc = measure(&p, n, &row->rate, err);
        uint32_t next = 2 * n;
        n = n < o->n_sessions && next > o->n_sessions ? o->n_sessions : next;
    }
    for (uint32_t i = 1; i < o->n_sessions; i++)
        tlr_session_free(p.sessions[i]);
    return rc;
}
