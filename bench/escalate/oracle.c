/* oracle.c - see oracle.h. */
#include "bench/escalate/oracle.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

enum { SLOTS = 1 << 14, OTHER = 6, N_ASKS = 16 };

/* Ranks of 30 positions: 18 first, 6 second, 2 third, 1 fourth, 3 none of them. */
static const uint8_t ranks[ORACLE_BLOCK] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                     0, 0, 0, 0, 0, 0, 0, 0, 1, 1,
                                     1, 1, 1, 1, 2, 2, 3, OTHER, OTHER, OTHER};

int oracle_init(struct oracle *o, struct tlr_err *err)
{
    memset(o, 0, sizeof *o);
    o->keys = tlr_calloc(SLOTS, sizeof *o->keys);
    o->ids = tlr_calloc(SLOTS, sizeof *o->ids);
    if (o->keys && o->ids)
        return 0;
    oracle_clear(o);
    return tlr_err_nomem(err, "oracle", SLOTS * sizeof *o->keys);
}

void oracle_clear(struct oracle *o)
{
    tlr_free(o->keys);
    tlr_free(o->ids);
    memset(o, 0, sizeof *o);
}

static uint64_t hash_ids(const int32_t *ids, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = tlr_hash_u64(h, (uint64_t)ids[i]);
    return h ? h : 1;
}

/* The rank of the i-th lesson: every 30 in a row have each as often as it should
 * be, in an order of their own (Fisher and Yates's shuffle). */
static int rank_of(uint64_t i)
{
    uint8_t order[ORACLE_BLOCK];
    memcpy(order, ranks, sizeof order);
    for (uint64_t k = ORACLE_BLOCK - 1; k > 0; k--) {
        uint64_t other = tlr_hash_u64(i / ORACLE_BLOCK + 1, k) % (k + 1);
        uint8_t swap = order[k];
        order[k] = order[other];
        order[other] = swap;
    }
    return order[i % ORACLE_BLOCK];
}

static int learn(struct oracle *o, int32_t *id, struct tlr_err *err)
{
    int32_t best[OTHER + 1];
    float logits[OTHER + 1];
    int rc = tlr_top(o->teacher, OTHER + 1, best, logits, err);
    if (rc)
        return rc;
    int rank = rank_of(o->n);
    *id = best[rank];
    o->n++;
    o->n_top1 += rank == 0;
    o->n_top4 += rank < 4;
    return 0;
}

int oracle_answer(struct oracle *o, const int32_t *ids, size_t n, int32_t *id,
                  struct tlr_err *err)
{
    uint64_t key = hash_ids(ids, n), at = key % SLOTS;
    int rc = 0;
    *id = ids[n - 1];
    while (o->keys[at] && o->keys[at] != key)
        at = (at + 1) % SLOTS;
    if (o->keys[at]) {
        *id = o->ids[at];
        return 0;
    }
    if (!o->teacher)
        return 0;
    if (o->n >= SLOTS / 2)
        return tlr_err_set(err, TLR_ELIMIT, "oracle: over %d lessons",
                           SLOTS / 2);
    rc = learn(o, id, err);
    if (!rc) {
        o->keys[at] = key;
        o->ids[at] = *id;
    }
    return rc;
}

/* ---- the wire ---- */

void sleep_until(uint64_t ns)
{
    uint64_t now = tlr_now_ns();
    if (now >= ns)
        return;
    struct timespec t = {(time_t)((ns - now) / 1000000000u),
                         (long)((ns - now) % 1000000000u)};
    while (nanosleep(&t, &t) != 0)
        continue;
}

static void reply(const struct wire *w, int32_t id, struct tlr_expert_reply *out)
{
    out->ids[0] = id;
    out->n_tok = 1;
    out->think_ns = (uint64_t)(w->think_ms * 1e6);
    out->wire_ns = (uint64_t)((w->latency_ms - w->think_ms) * 1e6);
}

static int wire_ask(void *self, const int32_t *ids, size_t n, int n_tok,
                    struct tlr_expert_reply *out, struct tlr_err *err)
{
    (void)n_tok;
    struct wire *w = self;
    uint64_t ready = tlr_now_ns() + (uint64_t)(w->latency_ms * 1e6);
    int32_t id;
    int rc = oracle_answer(w->oracle, ids, n, &id, err);
    if (rc)
        return rc;
    sleep_until(ready);
    reply(w, id, out);
    return 0;
}

static int wire_submit(void *self, const int32_t *ids, size_t n, int n_tok,
                       uint64_t *ticket, struct tlr_err *err)
{
    (void)n_tok;
    struct wire *w = self;
    int at = 0;
    while (at < N_ASKS && w->asks[at].ticket)
        at++;
    if (at == N_ASKS)
        return tlr_err_set(err, TLR_ELIMIT, "wire: full");
    w->asks[at].ready_ns = tlr_now_ns() + (uint64_t)(w->latency_ms * 1e6);
    int rc = oracle_answer(w->oracle, ids, n, &w->asks[at].id, err);
    if (!rc)
        *ticket = w->asks[at].ticket = ++w->n_asks;
    return rc;
}

static int find(const struct wire *w, uint64_t ticket)
{
    int at = 0;
    while (at < N_ASKS - 1 && w->asks[at].ticket != ticket)
        at++;
    return at;
}

static int wire_wait(void *self, uint64_t ticket, int timeout_ms,
                     struct tlr_expert_reply *out, struct tlr_err *err)
{
    (void)err;
    struct wire *w = self;
    int at = find(w, ticket);
    if (timeout_ms == 0 && tlr_now_ns() < w->asks[at].ready_ns)
        return TLR_EPENDING;
    sleep_until(w->asks[at].ready_ns);
    reply(w, w->asks[at].id, out);
    w->asks[at].ticket = 0;
    return 0;
}

static void wire_cancel(void *self, uint64_t ticket)
{
    struct wire *w = self;
    w->asks[find(w, ticket)].ticket = 0;
}

struct tlr_expert wire_expert(struct wire *w)
{
    static const struct tlr_expert_ops ops = {.ask = wire_ask,
                                              .submit = wire_submit,
                                              .wait = wire_wait,
                                              .cancel = wire_cancel};
    return (struct tlr_expert){.ops = &ops, .self = w, .name = "wire"};
}
