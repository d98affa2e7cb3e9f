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

enum { TLR_EXPERT_TOK_MAX = 64 }; /* most tokens of one answer */

struct tlr_expert_reply {
    int32_t ids[TLR_EXPERT_TOK_MAX]; /* an end-of-text id is one of them */
    int n_tok;                       /* 1..asked for; less only after an end */
    uint64_t think_ns; /* spent by the large model, as far as it is known */
    uint64_t wire_ns;  /* the rest of the wait: network, queue, JSON */
};

struct tlr_expert_ops {
    /* The next n_tok (1..TLR_EXPERT_TOK_MAX) greedy tokens after ids[0..n), 1 <=
     * n.  A failure leaves the expert usable for another try. */
    int (*ask)(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err);
    /* The greedy token after every prefix ids[0..i], i = first..n-1, into
     * out[i - first]: labels.  NULL: the caller asks one by one. */
    int (*ask_each)(void *self, const int32_t *ids, size_t n, size_t first,
                    int32_t *out, struct tlr_err *err);
    void (*close)(void *self);
    /* ask_each, and how likely it thinks the id want[i - first] after ids[0..i]:
     * into p, in [0, 1].  Depends on nothing that was asked before.  NULL: it does
     * not say. */
    int (*score_each)(void *self, const int32_t *ids, size_t n, size_t first,
                      const int32_t *want, int32_t *out, float *p,
                      struct tlr_err *err);
};

struct tlr_expert {
    const struct tlr_expert_ops *ops;
    void *self;
    char name[256]; /* what messages and records call it */
};

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
