/* oracle.c - see oracle.h. */
#include "tests/router/oracle.h"

#include "base/hash.h"

static uint64_t hash_ids(uint64_t seed, const int32_t *ids, size_t n)
{
    uint64_t h = tlr_hash_u64(seed, n);
    for (size_t i = 0; i < n; i++)
        h = tlr_hash_u64(h, (uint64_t)ids[i]);
    return h;
}

static double uniform(uint64_t h)
{
    return (double)(h >> 11) * 0x1p-53;
}

static int32_t best_token(struct oracle *o, const int32_t *ids, size_t n,
                          int rank)
{
    int32_t best[2];
    float logits[2];
    size_t same = 0;
    while (same < tlr_pos(o->own) && same < n - 1 &&
           tlr_ids_of(o->own)[same] == ids[same])
        same++;
    MUST(tlr_rewind(o->own, (uint32_t)same, &must_err));
    for (; same < n; same++)
        MUST(tlr_decode(o->own, ids[same], 0, &must_err));
    MUST(tlr_top(o->own, 2, best, logits, &must_err));
    return best[rank];
}

/* The answer for a prefix. */
static int decide(struct oracle *o, const int32_t *ids, size_t n, int32_t *id)
{
    uint64_t h = hash_ids(o->seed, ids, n);
    double u = uniform(h);
    if (u < o->fail)
        return o->fail_code;
    u -= o->fail;
    if (u < o->end) {
        *id = o->end_id;
        return 0;
    }
    u -= o->end;
    if (u < o->agree + o->second) {
        *id = best_token(o, ids, n, u < o->agree ? 0 : 1);
        return 0;
    }
    *id = (int32_t)(tlr_hash_u64(h, 1) % tlr_model_n_ids(o->like));
    return 0;
}

static int say(int rc, struct tlr_err *err)
{
    return tlr_err_set(err, rc, "oracle: no answer");
}

/* How many tokens an answer has at most. */
static int length(const struct oracle *o, const int32_t *ids, size_t n,
                  int n_tok)
{
    uint64_t h = hash_ids(o->seed + 2, ids, n);
    int most = uniform(h) < o->shorter ? 1 + (int)(tlr_hash_u64(h, 1) % 6)
                                       : TLR_BURST_MAX;
    return n_tok < most ? n_tok : most;
}

static int oracle_ask(void *self, const int32_t *ids, size_t n, int n_tok,
                      struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct oracle *o = self;
    int32_t all[256 + TLR_EXPERT_TOK_MAX];
    bool is_auto = n_tok == TLR_EXPERT_AUTO;
    ck_assert_uint_le(n, 256);
    memcpy(all, ids, n * sizeof *ids);
    int rc = o->budget == 0 ? TLR_ELIMIT : decide(o, all, n, &all[n]);
    o->budget -= o->budget > 0;
    if (rc)
        return say(rc, err);
    int most = length(o, ids, n, is_auto ? TLR_EXPERT_AUTO_MAX : n_tok), k = 1;
    o->n_most_tok = most > o->n_most_tok ? most : o->n_most_tok;
    for (; k < most && all[n + (size_t)k - 1] != o->end_id; k++) {
        size_t at = n + (size_t)k;
        double p = uniform(hash_ids(o->seed + 3, all, at));
        if (is_auto && !tlr_expert_is_unsure(p))
            break;
        if (decide(o, all, at, &all[at])) /* a burst that began ends well */
            all[at] = all[at - 1];
    }
    memcpy(out->ids, all + n, (size_t)k * sizeof *all);
    out->n_tok = k;
    return 0;
}

static int oracle_submit(void *self, const int32_t *ids, size_t n, int n_tok,
                         uint64_t *ticket, struct tlr_err *err)
{
    struct oracle *o = self;
    struct tlr_expert_reply reply = {.n_tok = 0};
    struct tlr_err why = TLR_ERR_INIT;
    uint64_t line = tlr_hash_u64(o->schedule + 1, (uint64_t)o->n_tried++);
    if (o->n_open == o->carries || uniform(line) < o->busy)
        return say(TLR_ELIMIT, err);
    ck_assert_int_lt(o->n_submitted, ORACLE_TICKETS);
    int rc = oracle_ask(o, ids, n, n_tok, &reply, &why);
    uint64_t h = tlr_hash_u64(o->schedule, (uint64_t)o->n_submitted);
    if (rc && uniform(tlr_hash_u64(h, 1)) < o->lost_on_submit)
        return say(rc, err);
    o->tickets[o->n_submitted].rc = rc;
    memcpy(o->tickets[o->n_submitted].ids, reply.ids,
           sizeof o->tickets[0].ids);
    o->tickets[o->n_submitted].n_tok = reply.n_tok;
    o->tickets[o->n_submitted].is_open = true;
    o->tickets[o->n_submitted].ready =
        o->now + h % ((uint64_t)o->most_ticks + 1);
    *ticket = (uint64_t)++o->n_submitted;
    o->n_open++;
    o->n_most_open = o->n_open > o->n_most_open ? o->n_open : o->n_most_open;
    return 0;
}

static int oracle_wait(void *self, uint64_t ticket, int timeout_ms,
                       struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct oracle *o = self;
    size_t i = (size_t)ticket - 1;
    ck_assert(i < ORACLE_TICKETS && o->tickets[i].is_open);
    o->now++;
    if (timeout_ms < 0 && o->now < o->tickets[i].ready)
        o->now = o->tickets[i].ready;
    if (o->now < o->tickets[i].ready)
        return TLR_EPENDING;
    o->tickets[i].is_open = false;
    o->n_open--;
    memcpy(out->ids, o->tickets[i].ids, sizeof o->tickets[i].ids);
    out->n_tok = o->tickets[i].n_tok;
    return o->tickets[i].rc ? say(o->tickets[i].rc, err) : 0;
}

static void oracle_cancel(void *self, uint64_t ticket)
{
    struct oracle *o = self;
    ck_assert(o->tickets[ticket - 1].is_open);
    o->tickets[ticket - 1].is_open = false;
    o->n_open--;
    o->n_cancelled++;
}

struct tlr_expert oracle_open(struct oracle *o)
{
    static const struct tlr_expert_ops ops = {.ask = oracle_ask,
                                              .submit = oracle_submit,
                                              .wait = oracle_wait,
                                              .cancel = oracle_cancel};
    o->own = new_session(o->like, (struct tlr_session_options){.n_ctx = 256});
    return (struct tlr_expert){.ops = &ops, .self = o, .name = "oracle"};
}

void oracle_close(struct oracle *o)
{
    ck_assert_int_eq(o->n_open, 0);
    tlr_session_free(o->own);
}
