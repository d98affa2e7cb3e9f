/* expert_model.c - a second model on this machine as the expert.
 *
 * Its session keeps what it last saw.  A new prefix shares all but its end with
 * the old one, so an ask costs the tokens since the last ask; tokens that were
 * guessed behind an earlier prefix are taken back the same way.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "engine/tlr.h"
#include "router/expert.h"

struct local {
    struct tlr_session *session;
    const struct tlr_generation *own, *like; /* NULL: no end of text */
    uint32_t n_ids;
};

/* ---- the same tokens ---- */

static int check_token(const struct tlr_tokenizer *a,
                       const struct tlr_tokenizer *b, int32_t id,
                       const char *a_name, const char *b_name,
                       struct tlr_err *err)
{
    struct tlr_bytes x = tlr_token_bytes(a, id), y = tlr_token_bytes(b, id);
    if (x.len == y.len && (x.len == 0 || memcmp(x.ptr, y.ptr, x.len) == 0) &&
        tlr_token_is_special(a, id) == tlr_token_is_special(b, id))
        return 0;
    return tlr_err_set(err, TLR_EMISMATCH,
                       "%s: token %d is '%.*s', that of %s is '%.*s': the two "
                       "models need the same tokenizer",
                       a_name, (int)id, (int)x.len, (const char *)x.ptr,
                       b_name, (int)y.len, (const char *)y.ptr);
}

static int check_vocabulary(const struct tlr_model *llm,
                            const struct tlr_model *like, struct tlr_err *err)
{
    const struct tlr_tokenizer *a = tlr_model_tokenizer(llm);
    const struct tlr_tokenizer *b = tlr_model_tokenizer(like);
    const char *a_name = tlr_file_label(tlr_model_file(llm));
    const char *b_name = tlr_file_label(tlr_model_file(like));
    uint32_t n = tlr_model_n_ids(llm), n_like = tlr_model_n_ids(like);
    uint32_t both = n < n_like ? n : n_like;
    int rc = 0;
    for (uint32_t i = 0; a && b && i < both && !rc; i++)
        rc = check_token(a, b, (int32_t)i, a_name, b_name, err);
    if (!rc && (n != n_like || !a != !b))
        rc = tlr_err_set(err, TLR_EMISMATCH,
                         "%s: has %" PRIu32 " tokens%s, %s has %" PRIu32
                         "%s: the two models need the same tokenizer",
                         a_name, n, a ? "" : " without names", b_name, n_like,
                         b ? "" : " without names");
    return rc;
}

/* ---- answers ---- */

/* Makes the timeline ids[0..n) up to and with ids[upto - 1], recomputing at
 * least the tokens from `again` on. */
static int follow(struct local *l, const int32_t *ids, size_t upto,
                  size_t again, struct tlr_err *err)
{
    const int32_t *has = tlr_ids_of(l->session);
    size_t keep = 0, most = tlr_pos(l->session);
    most = most < again ? most : again;
    while (keep < most && has[keep] == ids[keep])
        keep++;
    int rc = tlr_rewind(l->session, (uint32_t)keep, err);
    if (!rc && keep < upto)
        rc = tlr_prefill(l->session, ids + keep, upto - keep, 0, err);
    return rc;
}

/* An end of text of the large model's own is told in the small one's words. */
static int32_t translate(const struct local *l, int32_t id)
{
    if (l->own && l->like && l->like->n_eos > 0 &&
        tlr_generation_is_eos(l->own, id) &&
        !tlr_generation_is_eos(l->like, id))
        return l->like->eos[0];
    return id;
}

static bool is_end(const struct local *l, int32_t id)
{
    return l->like && tlr_generation_is_eos(l->like, id);
}

/* How sure it is of its best token, which takes all logits. */
static int probability(struct local *l, int32_t id, double *p,
                       struct tlr_err *err)
{
    int rc = tlr_run_head(l->session, err);
    if (rc)
        return rc;
    const float *logits = tlr_logits(l->session);
    *p = exp((double)logits[id] - tlr_log_sum_exp(logits, l->n_ids));
    return 0;
}

static int ask(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct local *l = self;
    uint64_t begun = tlr_now_ns();
    bool is_auto = n_tok == TLR_EXPERT_AUTO, goes_on = true;
    int most = is_auto ? TLR_EXPERT_AUTO_MAX : n_tok;
    int rc = follow(l, ids, n, n - 1, err);
    for (int i = 0; i < most && goes_on && !rc; i++) {
        int32_t id;
        float logit;
        double p = NAN;
        if (i > 0)
            rc = tlr_decode(l->session, out->ids[i - 1], 0, err);
        if (!rc)
            rc = tlr_top(l->session, 1, &id, &logit, err);
        if (!rc && is_auto && i + 1 < most)
            rc = probability(l, id, &p, err);
        if (rc)
            break;
        out->ids[i] = translate(l, id);
        out->n_tok = i + 1;
        goes_on = !is_end(l, out->ids[i]) &&
                  (!is_auto || tlr_expert_is_unsure(p));
    }
    out->think_ns = tlr_now_ns() - begun;
    return rc;
}

struct each {
    const struct local *l;
    int32_t *out;
};

static int take_best(void *ctx, size_t index, const float *hidden,
                     const float *logits)
{
    (void)hidden;
    const struct each *e = ctx;
    e->out[index] = translate(e->l, tlr_argmax(logits, e->l->n_ids));
    return 0;
}

static int ask_each(void *self, const int32_t *ids, size_t n, size_t first,
                    int32_t *out, struct tlr_err *err)
{
    struct local *l = self;
    struct each e = {l, out};
    int rc = follow(l, ids, first, first, err);
    return rc ? rc
              : tlr_prefill_each(l->session, ids + first, n - first, take_best,
                                 &e, err);
}

struct scores {
    const struct local *l;
    const int32_t *want;
    int32_t *out;
    float *p;
};

static int take_score(void *ctx, size_t index, const float *hidden,
                      const float *logits)
{
    (void)hidden;
    const struct scores *e = ctx;
    double all = tlr_log_sum_exp(logits, e->l->n_ids);
    double p = exp((double)logits[e->want[index]] - all);
    e->out[index] = translate(e->l, tlr_argmax(logits, e->l->n_ids));
    e->p[index] = (float)(p > 1 ? 1 : p); /* a NaN stays one */
    return 0;
}

static int score_each(void *self, const int32_t *ids, size_t n, size_t first,
                      const int32_t *want, int32_t *out, float *p,
                      struct tlr_err *err)
{
    struct local *l = self;
    struct scores e = {l, want, out, p};
    /* From nothing: the bits of f32 matrices depend on how many tokens come at
     * once, and labels may not depend on the question before. */
    int rc = follow(l, ids, first, 0, err);
    return rc ? rc
              : tlr_prefill_each(l->session, ids + first, n - first, take_score,
                                 &e, err);
}

static void close_local(void *self)
{
    struct local *l = self;
    tlr_session_free(l->session);
    tlr_free(l);
}

int tlr_expert_open_model(struct tlr_expert *out, const struct tlr_model *llm,
                          const struct tlr_model *like,
                          const struct tlr_session_options *options,
                          struct tlr_err *err)
{
    static const struct tlr_expert_ops ops = {.ask = ask,
                                              .ask_each = ask_each,
                                              .close = close_local,
                                              .score_each = score_each};
    memset(out, 0, sizeof *out);
    int rc = check_vocabulary(llm, like, err);
    if (rc)
        return rc;
    struct local *l = tlr_calloc(1, sizeof *l);
    if (!l)
        return tlr_err_nomem(err, "expert", sizeof *l);
    rc = tlr_session_new(&l->session, llm, options, err);
    if (rc) {
        tlr_free(l);
        return rc;
    }
    l->own = tlr_model_generation(llm);
    l->like = tlr_model_generation(like);
    l->n_ids = tlr_model_n_ids(llm);
    out->ops = &ops;
    out->self = l;
    snprintf(out->name, sizeof out->name, "%s",
             tlr_file_label(tlr_model_file(llm)));
    return 0;
}
