/* decode.h - the joint loop: step, trust, keep or ask, commit, account.
 *
 * One call makes one token.  The small model runs its step for every token,
 * whoever wrote it, because its KV cache must hold them all; what is saved is the
 * head when the hidden state alone says ask, and the large model's time when it
 * says keep.  Greedy decoding is exact: the same prefix, policy and models make
 * the same ids, with or without explain.
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

enum tlr_joint_mode {
    TLR_JOINT,
    TLR_SMALL_ONLY, /* plain decoding: no policy, no expert */
    TLR_LARGE_ONLY  /* the expert writes all; the small model does not run */
};

/* One token, as --explain, --json and eval report it. */
struct tlr_joint_token {
    int32_t id;         /* what stands in the text */
    int32_t slm, llm;   /* what each would write; -1 where it was not made */
    bool is_llm;        /* the large model wrote it */
    bool is_asked;      /* the policy says ask (also where no expert is) */
    bool is_failed;     /* the expert failed: the small model's token stands */
    float trust;        /* NaN in the modes without a policy */
    struct tlr_signals signals; /* with explain, else NaN and best -1 */
    uint64_t slm_ns;    /* step, head and sampling */
    uint64_t router_ns; /* policy beyond that */
    uint64_t llm_ns;    /* reply.think_ns */
    uint64_t wire_ns;   /* the rest of the wait for the reply */
};

/* Sums over all tokens so far; with explain, times hold what was only asked to
 * be shown. */
struct tlr_joint_totals {
    uint64_t n_tok, n_asked, n_llm, n_failed;
    uint64_t slm_ns, router_ns, llm_ns, wire_ns;
};

struct tlr_joint_options {
    enum tlr_joint_mode mode;
    struct tlr_policy policy;
    struct tlr_expert *expert;   /* NULL: marks what it would ask, keeps all */
    struct tlr_sampler *sampler; /* of the small model's tokens; NULL: greedy */
    /* LARGE_ONLY: the ids to go on from; NULL in the other modes, and where the
     * session holds them. */
    const int32_t *prompt;
    size_t n_prompt;
    bool explain;  /* signals and both candidates for every token: costs a head
                      and, with an expert, an ask at every position */
    bool require_expert; /* its failure ends the run instead */
};

struct tlr_joint;

/* The session already holds the prompt (its head need not have run).  Everything
 * is allocated here; a step allocates nothing.  Policy, expert and sampler must
 * outlive it. */
int tlr_joint_new(struct tlr_joint **out, struct tlr_session *s,
                  const struct tlr_model *m,
                  const struct tlr_joint_options *options,
                  struct tlr_err *err);
void tlr_joint_free(struct tlr_joint *j); /* NULL is allowed */

/* The next token.  It is not in the session yet: the next call appends it first,
 * so the last one of a text costs no step.  TLR_ELIMIT when the context is full.
 * An expert that fails does not fail the call, unless it is required, writes
 * alone or was cancelled. */
int tlr_joint_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err);

/* Tokens of the text up to and without the one of the last call. */
uint32_t tlr_joint_pos(const struct tlr_joint *j);
struct tlr_joint_totals tlr_joint_read(const struct tlr_joint *j);
/* Why the expert failed last; "" if it did not. */
const char *tlr_joint_failure(const struct tlr_joint *j);

#endif
