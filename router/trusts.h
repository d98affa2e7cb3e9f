/* trusts.h - several policies' trust at one position, from one step's results.
 *
 * Computes what the policies share once (signals, best logits) and only what one
 * of them needs.
 */
#ifndef TLR_ROUTER_TRUSTS_H
#define TLR_ROUTER_TRUSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "router/policy.h"

struct tlr_trusts {
    struct tlr_policy policies[TLR_N_POLICIES];
    int n_policies;
    const char *label; /* the model's, for messages */
    uint32_t n_ids;
    uint64_t seed;     /* mixed with that of random */
    bool needs_logits, needs_features;
    float *scratch;
};

/* The policies stay the caller's; label must outlive it. */
int tlr_trusts_init(struct tlr_trusts *t, const struct tlr_policy *policies,
                    int n_policies, const char *label, uint32_t n_ids,
                    struct tlr_err *err);
void tlr_trusts_clear(struct tlr_trusts *t); /* a zeroed one is allowed */

/* hidden f32 [dim], logits f32 [n_ids or more] at the prefix of n tokens; out
 * [TLR_N_POLICIES], by kind, the given policies only.  best: the likeliest id.
 * TLR_EFORMAT when the numbers are not finite. */
int tlr_trusts_at(struct tlr_trusts *t, const float *hidden,
                  const float *logits, uint32_t n, float *out, int32_t *best,
                  struct tlr_err *err);

#endif
