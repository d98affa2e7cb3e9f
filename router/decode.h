/* decode.h - the joint loop: step, trust, keep or ask, commit, account.
 *
 * One call makes one token.  The small model runs its step for every token,
 * whoever wrote it, because its KV cache must hold them all; what is saved is the
 * head when the hidden state alone says ask, and the large model's time when it
 * says keep.  Greedy decoding is exact: the same prefix, policy and models make
 * the same ids, with or without explain.
 *
 * A question to the large model may be for several tokens (a burst): they all
 * stand in the text as its own, one a call, without the policy's being asked again.
 *
 * While the large model thinks, the small one goes on from its own guess
 * (optimistic.c), where the expert can be asked without standing still.  That
 * changes times and nothing else: tokens, their records and the sums of records
 * are the serial loop's, to the bit, for sampled text too.
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
    bool is_asked;      /* the policy says ask (also where no expert is); false of a
                           burst's tokens behind the first, which have no trust */
    bool is_failed;     /* the expert failed: the small model's token stands */
    float trust;        /* NaN in the modes without a policy */
    struct tlr_signals signals; /* with explain, else NaN and best -1 */
    uint64_t slm_ns;    /* step, head and sampling */
    uint64_t router_ns; /* policy beyond that */
    uint64_t llm_ns;    /* reply.think_ns */
    uint64_t wire_ns;   /* the rest of the wait for the reply */
    /* Of llm_ns + wire_ns, what the loop stood still for or worked in vain; the
     * rest was hidden behind work that the text needed. */
    uint64_t exposed_ns;
    uint64_t queue_ns, connect_ns, first_byte_ns; /* as in the reply */
    int cached_tok;
};

/* Sums over all tokens so far; with explain, times hold what was only asked to
 * be shown. */
struct tlr_joint_totals {
    uint64_t n_tok, n_asked, n_llm, n_failed;
    uint64_t slm_ns, router_ns, llm_ns, wire_ns, exposed_ns;
    uint64_t queue_ns, connect_ns, first_byte_ns, cached_tok;
    /* What was done beside the text: asks made (n_asked with an expert, and those
     * whose reply was of no use), tokens taken back and the small model's time
     * for them. */
    uint64_t n_calls, n_redone, lost_ns;
    uint64_t n_branches; /* times that another guess than the first was the right
                            one, and the work behind it was there */
};

/* How far the loop may run ahead of a reply. */
struct tlr_speculation {
    double calls; /* most asks for one that is needed: 1 asks nothing ahead, 0 is
                     the serial loop */
    int n_flight; /* most asks at once, 1..TLR_FLIGHT_MAX; 0: by calls */
    int n_lanes; /* timelines that are followed at once, up to TLR_LANE_MAX, each with
                    a session of its own; one where a sampler draws */
    uint32_t max_tok; /* tokens of the text that are wanted, nothing is asked
                         beyond; 0: unknown */
};
enum { TLR_FLIGHT_MAX = 8, TLR_LANE_MAX = 4, TLR_BURST_MAX = 16 };

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
    /* Taken for zero with explain, which asks at every position, and for an
     * expert that cannot be asked without standing still. */
    struct tlr_speculation ahead;
    /* Tokens that one question is for, 1..TLR_BURST_MAX, or TLR_EXPERT_AUTO; 0: 1.  Less
     * where the text (ahead.max_tok) or the context ends before. */
    int burst;
    /* For callers with several texts: where nothing is left to do but to wait
     * for the expert, and after each step that runs ahead, tlr_joint_next returns
     * TLR_EPENDING. */
    bool parks;
};

struct tlr_joint;

/* The session already holds the prompt (its head need not have run).  Everything
 * is allocated here; a step allocates nothing.  Policy, expert and sampler must
 * outlive it. */
int tlr_joint_new(struct tlr_joint **out, struct tlr_session *s,
                  const struct tlr_model *m,
                  const struct tlr_joint_options *options,
                  struct tlr_err *err);
/* Stops, too, so the session must still be there.  NULL is allowed. */
void tlr_joint_free(struct tlr_joint *j);
/* Drops what runs ahead of the text: asks are cancelled, and the session holds
 * the text without its last token, as the serial loop leaves it. */
void tlr_joint_stop(struct tlr_joint *j);

/* The next token.  It is not in the session yet: the next call appends it first,
 * so the last one of a text costs no step.  TLR_ELIMIT when the context is full.
 * An expert that fails does not fail the call, unless it is required, writes
 * alone or was cancelled.  TLR_EPENDING, with err as it was: call again; other
 * texts may take steps meanwhile. */
int tlr_joint_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err);

/* For callers that step several texts together (tlr_decode_together): the token
 * that the next call would append to the session, else -1; and the word that it is
 * there now. */
int32_t tlr_joint_pending(const struct tlr_joint *j);
/* How many of the best ids the next token is made from (tlr_top_together); 0: all
 * logits. */
int tlr_joint_n_top(const struct tlr_joint *j);
void tlr_joint_appended(struct tlr_joint *j);
/* After TLR_EPENDING: the next call has nothing to do before a reply is there. */
bool tlr_joint_is_waiting(const struct tlr_joint *j);

/* Tokens of the text up to and without the one of the last call. */
uint32_t tlr_joint_pos(const struct tlr_joint *j);
struct tlr_joint_totals tlr_joint_read(const struct tlr_joint *j);
/* Why the expert failed last; "" if it did not. */
const char *tlr_joint_failure(const struct tlr_joint *j);

#endif
