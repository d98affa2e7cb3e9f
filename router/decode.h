/* decode.h - the joint loop: step, trust, keep or ask, commit, account.
 *
 * One call makes one token.  The small model always runs its step (its KV cache
 * must hold every token, whoever wrote it); what is saved is the head when the
 * hidden state alone says ask, and the large model's time when it says keep.
 * Greedy decoding is exact: the same prefix, policy and models make the same ids.
 */
#ifndef TLR_ROUTER_DECODE_H
#define TLR_ROUTER_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/sampler.h"
#include "engine/tlr.h"
#include "router/expert.h"
#include "router/policy.h"

enum tlr_joint_mode { TLR_JOINT, TLR_SMALL_ONLY, TLR_LARGE_ONLY };

/* One token, as --explain, --json and eval report it. */
struct tlr_joint_token {
    int32_t id;         /* what stands in the text */
    int32_t slm, llm;   /* what each would write; -1 where it was not made */
    bool is_llm;        /* the large model wrote it */
    bool is_asked;      /* it was asked (or would have been, without an expert) */
    bool is_failed;     /* the expert failed: the small model's token stands */
    float trust;        /* NaN in the modes without a policy */
    struct tlr_signals signals; /* with explain; else zero */
    uint64_t slm_ns;    /* step, head and sampling */
    uint64_t router_ns; /* policy beyond that */
    uint64_t llm_ns;    /* reply.think_ns */
    uint64_t wire_ns;
};

struct tlr_joint_totals {
    uint64_t n_tok, n_asked, n_llm, n_failed;
    uint64_t slm_ns, router_ns, llm_ns, wire_ns;
};

struct tlr_joint_options {
    enum tlr_joint_mode mode;
    struct tlr_policy policy;
    struct tlr_expert *expert;   /* NULL: marks what it would ask, keeps all */
    struct tlr_sampler *sampler; /* NULL: greedy */
    bool explain;  /* signals and both candidates for every token: costs a head
                      and, with an expert, an ask at every position */
    bool require_expert; /* its failure ends the run instead */
};

struct tlr_joint;

/* The session already holds the prompt (prefilled without head).  Everything is
 * allocated here; a step allocates nothing. */
int tlr_joint_new(struct tlr_joint **out, struct tlr_session *s,
                  const struct tlr_model *m,
                  const struct tlr_joint_options *options,
                  struct tlr_err *err);
void tlr_joint_free(struct tlr_joint *j); /* NULL is allowed */

/* The next token.  It is not in the session yet: the next call appends it first,
 * so the last one of a text costs no step. */
int tlr_joint_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err);
struct tlr_joint_totals tlr_joint_read(const struct tlr_joint *j);

#endif
