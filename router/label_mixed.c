/* label_mixed.c - see label.h: labels on text that both models wrote in turn.
 *
 * Gold chains show a router only what stands behind gold prefixes.  What it meets
 * are its own: mostly the small model's words, with the large one's where it asked
 * before.  So a chain is written as the joint loop would (the small model alone
 * where there is no policy yet), and at a share `mix` of the positions, by a seeded
 * hash, the other model writes: positions that no policy would reach are seen too.
 *
 * A position's label is the worth of one question there: both continuations are
 * written to their end and marked.  Asking pays only where it turns a wrong answer
 * into a right one.
 */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/label_internal.h"
#include "router/router.h"

/* Hashes of a position that must not fall together: which model writes, and which
 * positions are completed. */
enum { MIX_SALT = 0x6d6978 };

static bool is_swapped(const struct tlr_labeller *l, uint32_t group)
{
    uint64_t h = tlr_hash_u64(tlr_hash_u64(l->options->seed ^ MIX_SALT, group),
                              l->ids.n);
    return (double)(h >> 11) * 0x1p-53 < l->options->mix;
}

/* The next token of a mixed chain, behind all of l->ids, which the session
 * holds. */
static int write_one(struct tlr_labeller *l, uint32_t group, float *scratch,
                     struct tlr_err *err)
{
    int32_t ids[TLR_SIGNAL_TOP];
    float logits[TLR_SIGNAL_TOP], features[TLR_N_FEATURES], trust;
    bool asks = is_swapped(l, group);
    int rc = tlr_top(l->session, TLR_SIGNAL_TOP, ids, logits, err);
    if (!rc && l->policy) {
        tlr_features(logits, features);
        rc = tlr_policy_trust_of(l->policy, tlr_hidden(l->session), features,
                                 NULL, (uint32_t)l->ids.n, scratch, &trust,
                                 err);
        asks ^= !rc && tlr_policy_asks(l->policy, trust);
    }
    if (!rc && asks) {
        struct tlr_expert_reply reply;
        rc = tlr_expert_ask(l->expert, l->ids.ids, l->ids.n, 1,
                            tlr_model_n_ids(l->slm), &reply, err);
        ids[0] = reply.ids[0];
    }
    return rc ? rc : tlr_ids_push(&l->ids, ids[0], err);
}

int tlr_label_write_mixed(struct tlr_labeller *l, uint32_t group,
                          struct tlr_err *err)
{
    const struct tlr_generation *g = tlr_model_generation(l->slm);
    uint32_t n_ctx = tlr_session_options_used(l->session)->n_ctx;
    const struct tlr_router *router = l->policy ? l->policy->router : NULL;
    size_t n_scratch = router ? tlr_router_scratch(router) : 1;
    float *scratch = tlr_calloc(n_scratch, sizeof *scratch);
    if (!scratch) {
        return tlr_err_nomem(err, "router scratch", n_scratch * sizeof *scratch);
    }
    int rc = tlr_rewind(l->session, 0, err);
    if (!rc) {
        rc = tlr_prefill(l->session, l->ids.ids, l->ids.n, 0, err);
    }
    for (uint32_t i = 0; i < l->options->chain_tok && !rc; i++) {
        rc = write_one(l, group, scratch, err);
        if (rc || l->ids.n == n_ctx ||
            (g && tlr_generation_is_eos(g, l->ids.ids[l->ids.n - 1]))) {
            break;
        }
        rc = tlr_decode(l->session, l->ids.ids[l->ids.n - 1], 0, err);
    }
    tlr_free(scratch);
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
        row->what = agree ? TLR_CASE_SLM_RIGHT : TLR_CASE_OPEN;
        row->label = agree;
    }
}

/* One question's worth; the large model's text is not written where the small
 * one's is right already. */
static int weigh(struct tlr_labeller *l, const struct tlr_item *item,
                 struct tlr_row *row, uint64_t *n_tok, struct tlr_err *err)
{
    bool kept_right = false, asked_right = false;
    int rc = tlr_label_complete(l, item, row->pos, row->slm, &kept_right,
                                n_tok, err);
    if (!rc && !kept_right) {
        rc = tlr_label_complete(l, item, row->pos, row->llm, &asked_right,
                                n_tok, err);
    }
    row->label = kept_right || !asked_right;
    return rc;
}

int tlr_label_mixed(struct tlr_labeller *l, const struct tlr_item *item,
                    uint32_t group, struct tlr_label_rows *out,
                    struct tlr_err *err)
{
    int rc = 0;
    find_differences(tlr_model_generation(l->slm), out);
    tlr_label_choose(l->options, group, out);
    /* From the last to the first: what a completion writes over in the cache,
     * none of the positions before it needs. */
    for (uint32_t i = out->n; i-- > 0 && !rc;) {
        if (out->rows[i].what == TLR_CASE_OUTCOME) {
            rc = weigh(l, item, &out->rows[i], &out->n_completion_tok, err);
        }
    }
    return rc;
}
