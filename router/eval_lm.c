/* eval_lm.c - plain text: how well the mixture predicts it, teacher-forced.
 *
 * Every position but the last predicts the next token of the text.  Where trust <
 * tau the large model's distribution stands, else the small one's:
 *
 *     perplexity = exp(mean of -log p_mixture(token | tokens before))
 *
 * One pass of each model makes the numbers of all runs.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/sampler.h"
#include "router/eval_internal.h"
#include "router/trusts.h"

struct position {
    int32_t slm, llm;        /* likeliest tokens */
    float slm_nll, llm_nll;  /* of the text's token */
    float trusts[TLR_N_POLICIES];
};

struct tlr_eval_lm {
    const struct tlr_eval_options *opt;
    struct tlr_session *slm, *llm;
    uint32_t n_ids, n_vocab_slm, n_vocab_llm;
    struct tlr_trusts trusts;
    struct position *at; /* [n_ctx] */
    /* while a pass runs */
    const int32_t *ids;
    int rc;
    struct tlr_err *err;
};

static int take_slm(void *ctx, size_t index, const float *hidden,
                    const float *logits)
{
    struct tlr_eval_lm *lm = ctx;
    struct position *p = &lm->at[index];
    lm->rc = tlr_trusts_at(&lm->trusts, hidden, logits, (uint32_t)index + 1,
                           p->trusts, &p->slm, lm->err);
    p->slm_nll = (float)(tlr_log_sum_exp(logits, lm->n_vocab_slm) -
                         (double)logits[lm->ids[index + 1]]);
    return lm->rc || (lm->opt->is_stopped && lm->opt->is_stopped(lm->opt->ctx));
}

static int take_llm(void *ctx, size_t index, const float *hidden,
                    const float *logits)
{
    struct tlr_eval_lm *lm = ctx;
    struct position *p = &lm->at[index];
    (void)hidden;
    p->llm = tlr_argmax(logits, lm->n_ids);
    p->llm_nll = (float)(tlr_log_sum_exp(logits, lm->n_vocab_llm) -
                         (double)logits[lm->ids[index + 1]]);
    return lm->opt->is_stopped && lm->opt->is_stopped(lm->opt->ctx);
}

static int pass(struct tlr_eval_lm *lm, struct tlr_session *s, size_t n,
                tlr_each_fn each, struct tlr_err *err)
{
    lm->rc = 0;
    lm->err = err;
    int rc = tlr_rewind(s, 0, err);
    if (!rc)
        rc = tlr_prefill_each(s, lm->ids, n - 1, each, lm, err);
    return lm->rc ? lm->rc : rc;
}

static void count(const struct tlr_eval_lm *lm, size_t n,
                  const struct tlr_eval_run *run, struct tlr_outcome *o)
{
    struct tlr_policy p = {.kind = run->kind, .tau = run->tau};
    *o = (struct tlr_outcome){.choice = -1};
    for (size_t i = 0; i + 1 < n; i++) {
        const struct position *at = &lm->at[i];
        bool asks = tlr_policy_asks(&p, at->trusts[run->kind]);
        int32_t id = asks ? at->llm : at->slm;
        o->n_judged++;
        o->n_tok++;
        o->n_known++;
        o->n_asked += asks;
        o->n_right += id == lm->ids[i + 1];
        o->n_agree += id == at->llm;
        o->nll += (double)(asks ? at->llm_nll : at->slm_nll);
    }
    o->n_strict = o->n_right;
}

int tlr_eval_lm_item(struct tlr_eval_lm *lm, const int32_t *ids, size_t n,
                     uint64_t seed, struct tlr_outcome *outcomes,
                     struct tlr_err *err)
{
    int rc = 0;
    lm->ids = ids;
    lm->trusts.seed = seed;
    if (n > 1)
        rc = pass(lm, lm->slm, n, take_slm, err);
    if (!rc && n > 1)
        rc = pass(lm, lm->llm, n, take_llm, err);
    for (size_t r = 0; r < lm->opt->n_runs && !rc; r++)
        count(lm, n, &lm->opt->runs[r], &outcomes[r]);
    return rc;
}

static int open_sessions(struct tlr_eval_lm *lm,
                         const struct tlr_eval_models *models, uint32_t n_ctx,
                         struct tlr_err *err)
{
    struct tlr_session_options o = models->session;
    o.n_ctx = n_ctx;
    o.n_threads = 1;
    int rc = tlr_session_new(&lm->slm, models->slm, &o, err);
    o.kv = TLR_KV_AUTO; /* those given are the small model's */
    o.act = TLR_ACT_AUTO;
    return rc ? rc : tlr_session_new(&lm->llm, models->llm, &o, err);
}

int tlr_eval_lm_new(struct tlr_eval_lm **out,
                    const struct tlr_eval_models *models,
                    const struct tlr_eval_options *options, uint32_t n_ctx,
                    struct tlr_err *err)
{
    struct tlr_policy policies[TLR_N_POLICIES];
    int n = tlr_eval_policies(models, options, policies);
    struct tlr_eval_lm *lm = tlr_calloc(1, sizeof *lm);
    *out = NULL;
    if (!lm)
        return tlr_err_nomem(err, "text", sizeof *lm);
    lm->opt = options;
    lm->n_ids = tlr_model_n_ids(models->slm);
    lm->n_vocab_slm = tlr_model_config(models->slm)->n_vocab;
    int rc = models->llm ? 0
                         : tlr_err_set(err, TLR_EUNSUPPORTED,
                                       "task lm: needs the large model's "
                                       "probabilities; give it as --llm "
                                       "model:FILE");
    if (!rc) {
        lm->n_vocab_llm = tlr_model_config(models->llm)->n_vocab;
        lm->at = tlr_calloc(n_ctx, sizeof *lm->at);
        if (!lm->at)
            rc = tlr_err_nomem(err, "text", n_ctx * sizeof *lm->at);
    }
    if (!rc)
        rc = open_sessions(lm, models, n_ctx, err);
    if (!rc)
        rc = tlr_trusts_init(&lm->trusts, policies, n,
                             tlr_file_label(tlr_model_file(models->slm)),
                             lm->n_ids, err);
    if (rc) {
        tlr_eval_lm_free(lm);
        return rc;
    }
    *out = lm;
    return 0;
}

void tlr_eval_lm_free(struct tlr_eval_lm *lm)
{
    if (!lm)
        return;
    tlr_session_free(lm->slm);
    tlr_session_free(lm->llm);
    tlr_trusts_clear(&lm->trusts);
    tlr_free(lm->at);
    tlr_free(lm);
}
