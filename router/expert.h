/* expert.h - the large model, as the routing loop sees it.
 *
 * An expert continues a prefix of token ids; how it does that (a second model
 * on this machine, a server behind a URL, a test's table) is its own business.
 * It shares the small model's vocabulary: whoever opens one checks that.
 * One thread uses an expert at a time; eval opens one for each worker.
 */
#ifndef TLR_ROUTER_EXPERT_H
#define TLR_ROUTER_EXPERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    TLR_EXPERT_TOK_MAX = 64, /* most tokens of one answer */
    /* Asked for in place of a number: the first token, and further ones while it is
     * unsure itself (tlr_expert_is_unsure of the one before), four at most.  One that
     * cannot tell gives one. */
    TLR_EXPERT_AUTO = -1,
    TLR_EXPERT_AUTO_MAX = 4
};

/* Times run from the submit (or the ask) and are filled in, as far as they are
 * known, also where the ask failed: that wait was waited, too. */
struct tlr_expert_reply {
    int32_t ids[TLR_EXPERT_TOK_MAX]; /* an end-of-text id is one of them */
    int n_tok; /* 1..asked for; less after an end, and by text, where its tokens
                  need not be as many as ours */
    uint64_t think_ns; /* spent by the large model, as far as it is known */
    uint64_t wire_ns;  /* the rest of the wait: network, queue, JSON */
    /* Of it, for experts behind a network, else 0: before the request began to
     * leave, without the next; name, TCP and TLS, 0 on a warm connection; from
     * the request's first byte to the reply's. */
    uint64_t queue_ns, connect_ns, first_byte_ns;
    int cached_tok;    /* of the prefix, found in the server's cache, 0: unknown */
};

/* What left this device and came back, since the expert was opened; asks that
 * were cancelled, failed or tried again count, too. */
struct tlr_expert_account {
    uint64_t n_asks, n_requests, n_retries, n_failed, n_cancelled;
    uint64_t n_connections;
    uint64_t sent_bytes, received_bytes; /* of HTTP bodies and headers */
    uint64_t sent_tok, reply_tok, cached_tok;
};

struct tlr_expert_ops {
    /* The next n_tok (1..TLR_EXPERT_TOK_MAX, or TLR_EXPERT_AUTO) greedy tokens after
     * ids[0..n), 1 <= n.  A failure leaves the expert usable for another try. */
    int (*ask)(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err);
    /* The greedy token after every prefix ids[0..i], i = first..n-1, into
     * out[i - first]: labels.  NULL, or TLR_ENOTFOUND: the caller asks one by
     * one. */
    int (*ask_each)(void *self, const int32_t *ids, size_t n, size_t first,
                    int32_t *out, struct tlr_err *err);
    void (*close)(void *self);
    /* ask_each, and how likely it thinks the id want[i - first] after ids[0..i]:
     * into p, in [0, 1].  Depends on nothing that was asked before.  NULL: it does
     * not say. */
    int (*score_each)(void *self, const int32_t *ids, size_t n, size_t first,
                      const int32_t *want, int32_t *out, float *p,
                      struct tlr_err *err);

    /* ---- asking without standing still: all three, or all NULL ---- */

    /* ask, begun: returns at once with a ticket above 0.  ids are copied.
     * TLR_ELIMIT: as many are in flight as it carries, nothing was sent; try
     * again when one is done.  Other codes: that ask has failed. */
    int (*submit)(void *self, const int32_t *ids, size_t n, int n_tok,
                  uint64_t *ticket, struct tlr_err *err);
    /* The reply: waits up to timeout_ms (0: looks only; below 0: until the
     * expert's own deadline).  TLR_EPENDING, with err as it was: not there yet.
     * Else the ticket is spent: 0, or the ask has failed.  Tickets may be waited
     * for in any order; all of them make progress meanwhile, and between calls. */
    int (*wait)(void *self, uint64_t ticket, int timeout_ms,
                struct tlr_expert_reply *out, struct tlr_err *err);
    /* The reply is not wanted any more: spends the ticket at once. */
    void (*cancel)(void *self, uint64_t ticket);

    /* ---- what else a server can do; each may be NULL ---- */

    /* A text that will be asked about: lets the server fill its prefix cache.
     * Returns at once; nothing is told of how it went. */
    void (*warm)(void *self, const int32_t *ids, size_t n);
    void (*account)(const void *self, struct tlr_expert_account *out);
    /* From now on `call` is called whenever an ask may be done, in any thread and
     * for moments only; NULL: no more, and none is running when this returns.
     * Of experts that share a server the last one's holds. */
    void (*notify)(void *self, void (*call)(void *ctx), void *ctx);
    /* Somebody stood still for a reply without standing in wait(): counts as a
     * wait where waits are budgeted. */
    void (*waited)(void *self, uint64_t ns);
};

struct tlr_expert {
    const struct tlr_expert_ops *ops;
    void *self;
    char name[256]; /* what messages and records call it */
    /* A budget of calls, tokens or money is set: nothing may be asked that might
     * not be kept. */
    bool is_budgeted;
};

/* Whether a token that it gave the probability p leaves it unsure: below one half.  A
 * NaN, of one that does not say, is not. */
bool tlr_expert_is_unsure(double p);

/* Checked wrappers: a reply outside the vocabulary (0 <= id < n_ids), or of a
 * wrong length, is TLR_EFORMAT with the expert's name. */
int tlr_expert_ask(struct tlr_expert *e, const int32_t *ids, size_t n,
                   int n_tok, uint32_t n_ids, struct tlr_expert_reply *out,
                   struct tlr_err *err);
int tlr_expert_ask_each(struct tlr_expert *e, const int32_t *ids, size_t n,
                        size_t first, uint32_t n_ids, int32_t *out,
                        struct tlr_err *err);
/* p is NaN where the expert does not say; want 0 <= id < n_ids. */
int tlr_expert_score_each(struct tlr_expert *e, const int32_t *ids, size_t n,
                          size_t first, uint32_t n_ids, const int32_t *want,
                          int32_t *out, float *p, struct tlr_err *err);
/* An ask on its way.  Zeroed: none. */
struct tlr_expert_ticket {
    uint64_t id; /* of the expert; 0: none, or an expert that asks at once */
    int n_tok;   /* asked for; 0: none */
    int rc;      /* of an expert that asks at once, like what follows */
    struct tlr_expert_reply reply;
    struct tlr_err why;
};
bool tlr_expert_is_async(const struct tlr_expert *e);
/* Where the expert cannot, submit asks and stands still, and wait hands the
 * reply out.  A failed submit leaves no ticket; wait spends it except with
 * TLR_EPENDING, which leaves err alone.  cancel takes also one that is spent. */
int tlr_expert_submit(struct tlr_expert *e, const int32_t *ids, size_t n,
                      int n_tok, uint32_t n_ids, struct tlr_expert_ticket *out,
                      struct tlr_err *err);
int tlr_expert_wait(struct tlr_expert *e, struct tlr_expert_ticket *t,
                    int timeout_ms, uint32_t n_ids,
                    struct tlr_expert_reply *out, struct tlr_err *err);
void tlr_expert_cancel(struct tlr_expert *e, struct tlr_expert_ticket *t);
void tlr_expert_warm(struct tlr_expert *e, const int32_t *ids, size_t n);
void tlr_expert_notify(struct tlr_expert *e, void (*call)(void *ctx),
                       void *ctx);
void tlr_expert_waited(struct tlr_expert *e, uint64_t ns);
/* Zeros where the expert keeps none. */
void tlr_expert_account_of(const struct tlr_expert *e,
                           struct tlr_expert_account *out);
void tlr_expert_close(struct tlr_expert *e); /* a zeroed one is allowed */

/* ---- expert_model.c: a second model on this machine ---- */

struct tlr_model;
struct tlr_session_options;

/* The model stays the caller's and must outlive the expert; its tokenizer must
 * name the same tokens as `like`'s (TLR_EMISMATCH with the first difference).
 * The session keeps the longest common prefix from ask to ask, so an ask costs
 * the tokens since the last one.  options may be NULL. */
int tlr_expert_open_model(struct tlr_expert *out, const struct tlr_model *llm,
                          const struct tlr_model *like,
                          const struct tlr_session_options *options,
                          struct tlr_err *err);

#endif
