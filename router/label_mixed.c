/* label_mixed.c - see label.h: labels on text that both models wrote in turn.
 *
 * Gold chains show a router only what stands behind gold prefixes.  What it meets
 * are its own: mostly the small model's words, with the large one's where it asked
 * before.  So a chain is written as the joint loop would (the small model alone
 * where there is no policy yet), and at a share `mix` of the positions, by a seeded
 * hash, the other model writes: positions that no policy would reach are seen too.
 *
 * A position's label is the worth of one question there: the text is finished
 * behind the token that the chain does not have, by the same rule, and marked
 * beside the chain.  The chain itself is what comes of the other token.
 */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/label_internal.h"
#include "router/router.h"

/* Hashes of a position that must not fall together: which model writes, and which
 * positions are completed. */
enum { MIX_SALT = 0x6d6978 };

/* Writes on, token by token; ids is the text so far with its prompt. */
struct pen {
    struct tlr_labeller *l;
    struct tlr_ids *ids;
    uint32_t group;
    float *scratch; /* of the router */
};

static bool is_swapped(const struct pen *p)
{
    const struct tlr_label_options *o = p->l->options;
    uint64_t h = tlr_hash_u64(tlr_hash_u64(o->seed ^ MIX_SALT, p->group),
                              p->ids->n);
    return (double)(h >> 11) * 0x1p-53 < o->mix;
}

/* The next token, behind all of the text, which the session holds. */
static int write_one(const struct pen *p, struct tlr_err *err)
{
    struct tlr_labeller *l = p->l;
    int32_t ids[TLR_SIGNAL_TOP];
    float logits[TLR_SIGNAL_TOP], features[TLR_N_FEATURES], trust;
    bool asks = is_swapped(p);
    int rc = tlr_top(l->session, TLR_SIGNAL_TOP, ids, logits, err);
    if (!rc && l->policy) {
        tlr_features(logits, features);
        rc = tlr_policy_trust_of(l->policy, tlr_hidden(l->session), features,
                                 NULL, (uint32_t)p->ids->n, p->scratch, &trust,
                                 err);
        asks ^= !rc && tlr_policy_asks(l->policy, trust);
    }
    if (!rc && asks) {
        struct tlr_expert_reply reply;
        rc = tlr_expert_ask(l->expert, p->ids->ids, p->ids->n, 1,
                            tlr_model_n_ids(l->slm), &reply, err);
        ids[0] = reply.ids[0];
    }
    return rc ? rc : tlr_ids_push(p->ids, ids[0], err);
}

/* Until the chain's length, the end of the context or of the text.  The session
 * holds the text without its last token, unless it ends in the prompt. */
static int write_on(const struct pen *p, uint64_t *n_tok, struct tlr_err *err)
{
    struct tlr_labeller *l = p->l;
    const struct tlr_generation *g = tlr_model_generation(l->slm);
    size_t most = tlr_session_options_used(l->session)->n_ctx;
    int rc = 0;
    if (most > l->n_prompt + l->options->chain_tok) {
        most = l->n_prompt + l->options->chain_tok;
    }
    while (!rc && p->ids->n < most) {
        int32_t last = p->ids->ids[p->ids->n - 1];
        if (p->ids->n > l->n_prompt) {
            if (g && tlr_generation_is_eos(g, last)) {
                break;
            }
            rc = tlr_decode(l->session, last, 0, err);
        }
        rc = rc ? rc : write_one(p, err);
        (*n_tok)++;
    }
    return rc;
}

static int pen_new(struct pen *p, struct tlr_labeller *l, struct tlr_ids *ids,
                   uint32_t group, struct tlr_err *err)
{
    const struct tlr_router *router = l->policy ? l->policy->router : NULL;
    size_t n = router ? tlr_router_scratch(router) : 1;
    *p = (struct pen){l, ids, group, tlr_calloc(n, sizeof(float))};
    return p->scratch ? 0
                      : tlr_err_nomem(err, "router scratch", n * sizeof(float));
}

int tlr_label_write_mixed(struct tlr_labeller *l, uint32_t group,
                          struct tlr_err *err)
{
    struct pen p;
    uint64_t n_tok = 0;
    int rc = pen_new(&p, l, &l->ids, group, err);
    if (!rc) {
        rc = tlr_label_hold(l, l->ids.n, err);
    }
    if (!rc) {
        rc = write_on(&p, &n_tok, err);
    }
    tlr_free(p.scratch);
    return rc;
}

/* Where the models agree nothing can be bought; what they differ on is open. */
static void find_differences(const struct tlr_generation *g,
                             struct tlr_label_rows *out)
{
    for (uint32_t i = 0; i < out->n; i++) {
        struct tlr_row *row = &out->rows[i];
        bool both_end = g && tlr_generation_is_eos(g, row->slm) &&
                        tlr_generation_is_eos(g, row->llm);
        bool agree = row->slm == row->llm || both_end;
        row->what = agree ? TLR_CASE_TIE : TLR_CASE_OPEN;
        row->label = agree;
    }
}

/* ids [n]: prompt and text. */
static int mark(struct tlr_labeller *l, const struct tlr_item *item,
                const struct tlr_ids *ids, bool *is_right, struct tlr_err *err)
{
    size_t len = 0;
    int rc = tlr_label_text(l, ids->ids + l->n_prompt, ids->n - l->n_prompt,
                            &len, err);
    if (!rc) {
        *is_right = tlr_item_right(item, l->options->task, l->text, len, false);
    }
    return rc;
}

/* The chain up to pos, another token there, and what then comes. */
static int mark_other(const struct pen *p, const struct tlr_item *item,
                      uint32_t pos, int32_t token, bool *is_right,
                      uint64_t *n_tok, struct tlr_err *err)
{
    struct tlr_labeller *l = p->l;
    int rc = tlr_rewind(l->session, pos, err);
    l->reply.n = 0;
    for (uint32_t i = 0; i < pos && !rc; i++) {
        rc = tlr_ids_push(&l->reply, l->ids.ids[i], err);
    }
    rc = rc ? rc : tlr_ids_push(&l->reply, token, err);
    rc = rc ? rc : write_on(p, n_tok, err);
    return rc ? rc : mark(l, item, &l->reply, is_right, err);
}

/* One question's worth: +1, 0 or -1 right answers. */
static int weigh(const struct pen *p, const struct tlr_item *item,
                 bool chain_right, struct tlr_row *row, uint64_t *n_tok,
                 struct tlr_err *err)
{
    bool kept = chain_right, asked = chain_right;
    int rc = 0;
    if (row->gold != row->slm) {
        rc = mark_other(p, item, row->pos, row->slm, &kept, n_tok, err);
    }
    if (!rc && row->gold != row->llm) {
        rc = mark_other(p, item, row->pos, row->llm, &asked, n_tok, err);
    }
    row->what = kept == asked ? TLR_CASE_TIE : TLR_CASE_OUTCOME;
    row->label = kept || !asked;
    return rc;
}

int tlr_label_mixed(struct tlr_labeller *l, const struct tlr_item *item,
                    uint32_t group, struct tlr_label_rows *out,
                    struct tlr_err *err)
{
    struct pen p;
    bool chain_right = false;
    find_differences(tlr_model_generation(l->slm), out);
    tlr_label_choose(l->options, group, out);
    int rc = pen_new(&p, l, &l->reply, group, err);
    if (!rc) {
        rc = mark(l, item, &l->ids, &chain_right, err);
    }
    /* From the last to the first: what a completion writes over in the cache,
     * none of the positions before it needs. */
    for (uint32_t i = out->n; i-- > 0 && !rc;) {
        if (out->rows[i].what == TLR_CASE_OUTCOME) {
            rc = weigh(&p, item, chain_right, &out->rows[i],
                       &out->n_completion_tok, err);
        }
    }
    tlr_free(p.scratch);
    return rc;
}
