/* policy.c - from what a step shows to one trust.
 *
 * The table says what each policy needs; nothing here runs the model.
 */
#include "router/policy.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "router/router.h"

#define POLICY_NAME(id, name) name,
static const char *const names[] = {TLR_POLICIES(POLICY_NAME)};
#undef POLICY_NAME

static const enum tlr_policy_need needs[TLR_N_POLICIES] = {
    [TLR_POLICY_MLP] = TLR_NEED_HIDDEN,
    [TLR_POLICY_MLP_PLUS] = TLR_NEED_TOP,
    [TLR_POLICY_DEFERRAL] = TLR_NEED_HIDDEN,
    [TLR_POLICY_ENTROPY] = TLR_NEED_LOGITS,
    [TLR_POLICY_MARGIN] = TLR_NEED_LOGITS,
    [TLR_POLICY_MAXPROB] = TLR_NEED_LOGITS,
    [TLR_POLICY_MAXLOGIT] = TLR_NEED_TOP,
    [TLR_POLICY_RANDOM] = TLR_NEED_HIDDEN,
    [TLR_POLICY_ALWAYS] = TLR_NEED_HIDDEN,
    [TLR_POLICY_NEVER] = TLR_NEED_HIDDEN,
};

const char *tlr_policy_name(enum tlr_policy_kind kind)
{
    return kind < TLR_N_POLICIES ? names[kind] : "unknown";
}

int tlr_policy_find(const char *name)
{
    for (int i = 0; i < TLR_N_POLICIES; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

enum tlr_policy_need tlr_policy_need(enum tlr_policy_kind kind)
{
    return needs[kind];
}

bool tlr_policy_is_trained(enum tlr_policy_kind kind)
{
    return kind == TLR_POLICY_MLP || kind == TLR_POLICY_MLP_PLUS ||
           kind == TLR_POLICY_DEFERRAL;
}

int tlr_policy_check(const struct tlr_policy *p, struct tlr_err *err)
{
    if (!tlr_policy_is_trained(p->kind))
        return 0;
    if (!p->router)
        return tlr_err_set(err, TLR_EUSAGE,
                           "policy %s: needs a trained router, found none; "
                           "train one (tlr train), or use entropy, margin or "
                           "maxprob",
                           names[p->kind]);
    enum tlr_policy_kind has = tlr_router_shape(p->router)->kind;
    if (has != p->kind)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "policy %s: the router is of kind %s; use --policy "
                           "%s, or train another",
                           names[p->kind], names[has], names[has]);
    return 0;
}

bool tlr_policy_asks(const struct tlr_policy *p, float trust)
{
    if (p->kind == TLR_POLICY_ALWAYS || p->kind == TLR_POLICY_NEVER)
        return p->kind == TLR_POLICY_ALWAYS;
    return trust < p->tau;
}

static bool all_finite(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* NaN where the network's input has no meaning. */
static float of_router(const struct tlr_policy *p, const float *hidden,
                       const float *features, float *scratch)
{
    const struct tlr_router_weights *w = tlr_router_shape(p->router);
    if (!all_finite(hidden, w->dim) ||
        (w->n_features > 0 && !all_finite(features, w->n_features)))
        return NAN;
    double logit = tlr_router_logit(p->router, p->pool, hidden, features, scratch);
    return (float)(1 / (1 + exp(-logit)));
}

/* 2^-24 times the upper 24 bits: every value is exact in f32. */
static float of_hash(uint64_t seed, uint32_t pos)
{
    return (float)(tlr_hash_u64(seed, pos) >> 40) * 0x1p-24f;
}

int tlr_policy_trust_of(const struct tlr_policy *p, const float *hidden,
                        const float *features,
                        const struct tlr_signals *signals, uint32_t pos,
                        float *scratch, float *trust, struct tlr_err *err)
{
    float t = NAN;
    switch (p->kind) {
    case TLR_POLICY_MLP:
    case TLR_POLICY_MLP_PLUS:
    case TLR_POLICY_DEFERRAL:
        t = of_router(p, hidden, features, scratch);
        break;
    case TLR_POLICY_ENTROPY:
        t = expf(-signals->entropy);
        break;
    case TLR_POLICY_MARGIN:
        t = signals->margin;
        break;
    case TLR_POLICY_MAXPROB:
        t = signals->max_prob;
        break;
    case TLR_POLICY_MAXLOGIT:
        t = signals ? signals->max_logit : features[0];
        break;
    case TLR_POLICY_RANDOM:
        t = of_hash(p->seed, pos);
        break;
    case TLR_POLICY_ALWAYS:
    case TLR_POLICY_NEVER:
        t = p->kind == TLR_POLICY_NEVER;
        break;
    case TLR_N_POLICIES:
        break;
    }
    *trust = t;
    if (isfinite(t))
        return 0;
    return tlr_err_set(err, TLR_EFORMAT,
                       "policy %s: position %" PRIu32 ": expected finite "
                       "numbers from the model, found NaN or infinity; is the "
                       "model file sound (tlr inspect --verify)?",
                       tlr_policy_name(p->kind), pos);
}
