/* policy.h - how far the small model is trusted at one position.
 *
 * Every policy makes one number, the trust: the higher, the more the small
 * model's token deserves to stand; trust < tau asks the large one.  mlp and
 * deferral read the final-norm hidden state only and are known before the LM
 * head is paid for; the others need the head (mlp+ its best logits, entropy and
 * maxprob all of them).
 *
 *   mlp       temperature-calibrated P(small model is good enough), CITER's MLP
 *             (arXiv 2502.01976 section 3) folded to W1 x + b1, ReLU, w2 x + b2
 *   mlp+      the same with the features below behind the hidden state
 *   deferral  Co-LLM's head (arXiv 2403.03870 section 2): 1 - P(defer), linear
 *   entropy   exp(-H(p)), p the softmax of the logits: 1 over the number of
 *             tokens it hesitates between
 *   margin    p of the best token minus p of the second
 *   maxprob   p of the best token
 *   maxlogit  the best logit itself
 *   random    a hash of seed and position, uniform in [0, 1)
 *   always    0, asks whatever tau is        never   1, does not
 */
#ifndef TLR_ROUTER_POLICY_H
#define TLR_ROUTER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TLR_POLICIES(X)                                                        \
    X(MLP, "mlp")                                                              \
    X(MLP_PLUS, "mlp+")                                                        \
    X(DEFERRAL, "deferral")                                                    \
    X(ENTROPY, "entropy")                                                      \
    X(MARGIN, "margin")                                                        \
    X(MAXPROB, "maxprob")                                                      \
    X(MAXLOGIT, "maxlogit")                                                    \
    X(RANDOM, "random")                                                        \
    X(ALWAYS, "always")                                                        \
    X(NEVER, "never")
#define TLR_POLICY_ENUM(id, name) TLR_POLICY_##id,
enum tlr_policy_kind { TLR_POLICIES(TLR_POLICY_ENUM) TLR_N_POLICIES };
#undef TLR_POLICY_ENUM

const char *tlr_policy_name(enum tlr_policy_kind kind);
/* -1 when there is none of that name. */
int tlr_policy_find(const char *name);
/* What the policy must see of a step. */
enum tlr_policy_need { TLR_NEED_HIDDEN, TLR_NEED_TOP, TLR_NEED_LOGITS };
enum tlr_policy_need tlr_policy_need(enum tlr_policy_kind kind);

/* ---- signals: numbers of one position's logits ---- */

/* Features of mlp+, from the best TLR_SIGNAL_TOP logits l[0] >= l[1] >= ...:
 * [0] l[0], [1] l[0] - l[1], ..., [15] l[0] - l[15], [16] the entropy of the
 * softmax over these 16, [17] its largest probability. */
enum { TLR_SIGNAL_TOP = 16, TLR_N_FEATURES = TLR_SIGNAL_TOP + 2 };
/* The best TLR_SIGNAL_TOP of logits f32 [n_ids], best first; -INFINITY where
 * there are fewer. */
void tlr_top_logits(const float *logits, uint32_t n_ids, float *top);
/* top [TLR_SIGNAL_TOP], best first; out [TLR_N_FEATURES]. */
void tlr_features(const float *top, float *out);

struct tlr_signals {
    float entropy;          /* nats, of the softmax over all ids */
    float max_prob, margin; /* margin: p1 - p2 */
    float max_logit;
    int32_t best;           /* argmax, lowest id of equals */
};
/* logits f32 [n_ids]; in double inside, NaN logits make NaN signals. */
void tlr_signals_of(const float *logits, uint32_t n_ids,
                    struct tlr_signals *out);

/* ---- one decision ---- */

struct tlr_router; /* router.h */
struct tlr_pool;   /* base/pool.h */

struct tlr_policy {
    enum tlr_policy_kind kind;
    float tau;
    uint64_t seed;                   /* random */
    const struct tlr_router *router; /* mlp, mlp+, deferral; else NULL */
    struct tlr_pool *pool; /* that a large router is shared out to; NULL: the
                              caller's thread computes it.  The joint loop puts
                              its session's here. */
};

/* mlp, mlp+ and deferral: computed by a trained router of that kind. */
bool tlr_policy_is_trained(enum tlr_policy_kind kind);
/* TLR_EUSAGE without the router it needs, TLR_EMISMATCH with one of another
 * kind.  What follows takes a policy that passed. */
int tlr_policy_check(const struct tlr_policy *p, struct tlr_err *err);

/* Trust at one position, from what a step showed: hidden [dim] (trained
 * policies), features [TLR_N_FEATURES] (mlp+; maxlogit without signals), signals
 * (entropy, margin, maxprob), pos the position of the proposed token, that is
 * the number of tokens before it (random).  What a policy does not need may be
 * NULL.  scratch is the caller's, tlr_router_scratch floats.  NaN or infinity
 * on the way in is TLR_EFORMAT.  Allocates nothing. */
int tlr_policy_trust_of(const struct tlr_policy *p, const float *hidden,
                        const float *features,
                        const struct tlr_signals *signals, uint32_t pos,
                        float *scratch, float *trust, struct tlr_err *err);

/* Whether the large model is asked: trust < tau, but always at any tau and never
 * at none. */
bool tlr_policy_asks(const struct tlr_policy *p, float trust);

#endif
