/* trusts.c - see trusts.h. */
#include "router/trusts.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "router/router.h"

int tlr_trusts_init(struct tlr_trusts *t, const struct tlr_policy *policies,
                    int n_policies, const char *label, uint32_t n_ids,
                    struct tlr_err *err)
{
    size_t n_scratch = 1;
    memset(t, 0, sizeof *t);
    t->n_policies = n_policies;
    t->label = label;
    t->n_ids = n_ids;
    for (int i = 0; i < n_policies; i++) {
        const struct tlr_policy *p = &policies[i];
        t->policies[i] = *p;
        t->needs_logits |= tlr_policy_need(p->kind) == TLR_NEED_LOGITS ||
                           p->kind == TLR_POLICY_MAXLOGIT;
        t->needs_features |= p->kind == TLR_POLICY_MLP_PLUS;
        size_t n = p->router ? tlr_router_scratch(p->router) : 0;
        n_scratch = n > n_scratch ? n : n_scratch;
    }
    t->scratch = tlr_alloc_aligned(n_scratch * sizeof *t->scratch);
    return t->scratch ? 0
                      : tlr_err_nomem(err, "router scratch",
                                      n_scratch * sizeof *t->scratch);
}

void tlr_trusts_clear(struct tlr_trusts *t)
{
    tlr_free(t->scratch);
    memset(t, 0, sizeof *t);
}

int tlr_trusts_at(struct tlr_trusts *t, const float *hidden,
                  const float *logits, uint32_t n, float *out, int32_t *best,
                  struct tlr_err *err)
{
    struct tlr_signals signals = {.best = -1};
    float top[TLR_SIGNAL_TOP], features[TLR_N_FEATURES];
    if (t->needs_logits)
        tlr_signals_of(logits, t->n_ids, &signals);
    else
        signals.best = tlr_argmax(logits, t->n_ids);
    if (signals.best < 0 || !isfinite(logits[signals.best]))
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: position %u: expected finite logits; is the "
                           "file sound (tlr inspect --verify)?",
                           t->label, (unsigned)n);
    if (t->needs_features) {
        tlr_top_logits(logits, t->n_ids, top);
        tlr_features(top, features);
    }
    *best = signals.best;
    for (int i = 0; i < t->n_policies; i++) {
        struct tlr_policy p = t->policies[i];
        p.seed = tlr_hash_u64(p.seed, t->seed);
        int rc = tlr_policy_trust_of(&p, hidden,
                                     t->needs_features ? features : NULL,
                                     t->needs_logits ? &signals : NULL, n,
                                     t->scratch, &out[p.kind], err);
        if (rc)
            return rc;
    }
    return 0;
}
