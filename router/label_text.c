/* label_text.c - see label.h: an item's ids, and texts that a model finishes.
 *
 * A position's prefix is what decoding would hold there: the prompt as tlr run
 * encodes it, then the chain's ids, encoded by themselves as a reply's are.
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "router/decode.h"
#include "router/label_internal.h"

/* ---- ids ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Behind a raw prompt that ends in a word, the chain begins a new one. */
static int encode_chain(struct tlr_labeller *l, const struct tlr_item *item,
                        struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(l->slm);
    const char *chain = item->chain;
    size_t n = strlen(chain), n_prompt = strlen(item->prompt);
    while (n > 0 && is_blank(chain[n - 1])) {
        n--;
    }
    while (n > 0 && is_blank(*chain)) {
        chain++;
        n--;
    }
    if (!l->options->raw || n_prompt == 0 ||
        is_blank(item->prompt[n_prompt - 1])) {
        return tlr_encode(tok, chain, n, 0, &l->ids, err);
    }
    char *spaced = tlr_calloc(n + 1, 1);
    if (!spaced) {
        return tlr_err_nomem(err, "chain of thought", n + 1);
    }
    spaced[0] = ' ';
    memcpy(spaced + 1, chain, n);
    int rc = tlr_encode(tok, spaced, n + 1, 0, &l->ids, err);
    tlr_free(spaced);
    return rc;
}

/* What ends a reply: the special token that the template puts behind one, if the
 * model stops there, else its first end of text; -1: none. */
static int32_t end_of_turn(const struct tlr_labeller *l)
{
    const struct tlr_generation *g = tlr_model_generation(l->slm);
    const struct tlr_chat *chat = tlr_model_chat(l->slm);
    if (!g || g->n_eos == 0) {
        return -1;
    }
    if (!l->options->raw && chat) {
        const char *suffix = chat->suffix[TLR_ROLE_ASSISTANT];
        size_t start = 0, pos = 0;
        int32_t id = tlr_tokenizer_next_added(tlr_model_tokenizer(l->slm),
                                              suffix, strlen(suffix), &start,
                                              &pos);
        if (id >= 0 && tlr_generation_is_eos(g, id)) {
            return id;
        }
    }
    return g->eos[0];
}

static bool ends(const struct tlr_labeller *l, int32_t id)
{
    const struct tlr_generation *g = tlr_model_generation(l->slm);
    return g && tlr_generation_is_eos(g, id);
}

/* The large model's own greedy chain, its end of text included. */
static int write_chain(struct tlr_labeller *l, struct tlr_err *err)
{
    uint32_t left = l->options->chain_tok;
    int rc = 0;
    bool ended = false;
    while (left > 0 && !ended && !rc) {
        struct tlr_expert_reply reply;
        int n = left < TLR_EXPERT_TOK_MAX ? (int)left : TLR_EXPERT_TOK_MAX;
        rc = tlr_expert_ask(l->expert, l->ids.ids, l->ids.n, n,
                            tlr_model_n_ids(l->slm), &reply, err);
        for (int i = 0; !rc && i < reply.n_tok && !ended; i++) {
            rc = tlr_ids_push(&l->ids, reply.ids[i], err);
            ended = ends(l, reply.ids[i]);
        }
        left -= rc ? 0 : (uint32_t)reply.n_tok;
    }
    return rc;
}

int tlr_label_encode(struct tlr_labeller *l, const struct tlr_item *item,
                     uint32_t group, struct tlr_err *err)
{
    uint32_t n_ctx = tlr_session_options_used(l->session)->n_ctx;
    l->ids.n = 0;
    int rc = tlr_task_encode(l->slm, l->options->task, l->options->n_shots,
                             l->options->raw, item, &l->ids, &l->n_shared, err);
    l->n_prompt = l->ids.n;
    if (!rc && l->n_prompt == 0) {
        rc = tlr_err_set(err, TLR_EFORMAT, "%s: line %zu: the prompt is empty",
                         l->options->path, item->line);
    }
    if (!rc && l->options->llm_chains) {
        rc = write_chain(l, err);
    } else if (!rc && l->options->mixed_chains) {
        rc = tlr_label_write_mixed(l, group, err);
    } else if (!rc) {
        rc = encode_chain(l, item, err);
        int32_t end = end_of_turn(l);
        if (!rc && end >= 0) {
            rc = tlr_ids_push(&l->ids, end, err);
        }
    }
    if (!rc && l->ids.n > n_ctx) {
        rc = tlr_err_set(err, TLR_ELIMIT,
                         "%s: line %zu: prompt and chain have %zu tokens, the "
                         "context %" PRIu32 "; give a larger --ctx",
                         l->options->path, item->line, l->ids.n, n_ctx);
    }
    return rc;
}

int tlr_label_hold(struct tlr_labeller *l, size_t n, struct tlr_err *err)
{
    struct tlr_session *s = l->session;
    const int32_t *ids = l->ids.ids;
    size_t shared = l->n_shared < n ? l->n_shared : 0;
    bool holds = shared > 0 && l->n_held == shared && tlr_pos(s) >= shared &&
                 memcmp(tlr_ids_of(s), ids, shared * sizeof *ids) == 0;
    int rc = tlr_rewind(s, holds ? (uint32_t)shared : 0, err);
    l->n_held = 0;
    if (!rc && !holds && shared > 0) {
        rc = tlr_prefill(s, ids, shared, 0, err);
    }
    if (!rc && n > shared) {
        rc = tlr_prefill(s, ids + shared, n - shared, 0, err);
    }
    l->n_held = rc ? 0 : shared;
    return rc;
}

/* ---- completions ---- */

/* One more token of the small model alone, or of both. */
struct writer {
    struct tlr_labeller *l;
    struct tlr_joint *joint; /* NULL: alone */
    int32_t id;              /* last one, not in the session yet */
};

static int next_alone(struct writer *w, struct tlr_err *err)
{
    float logit;
    int rc = tlr_decode(w->l->session, w->id, 0, err);
    return rc ? rc : tlr_top(w->l->session, 1, &w->id, &logit, err);
}

static int next_joint(struct writer *w, struct tlr_err *err)
{
    struct tlr_joint_token token;
    int rc = 0;
    if (!w->joint) {
        struct tlr_joint_options o = {.mode = TLR_JOINT,
                                      .policy = *w->l->policy,
                                      .expert = w->l->expert,
                                      .require_expert = true};
        rc = tlr_prefill(w->l->session, &w->id, 1, 0, err);
        if (!rc) {
            rc = tlr_joint_new(&w->joint, w->l->session, w->l->slm, &o, err);
        }
    }
    if (!rc) {
        rc = tlr_joint_next(w->joint, &token, err);
    }
    if (!rc) {
        w->id = token.id;
    }
    return rc;
}

int tlr_label_text(struct tlr_labeller *l, const int32_t *ids, size_t n,
                   size_t *len, struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(l->slm);
    for (size_t i = 0; i < n; i++) {
        struct tlr_bytes b = tlr_token_bytes(tok, ids[i]);
        if (tlr_token_is_special(tok, ids[i])) {
            continue;
        }
        if (*len + b.len > l->text_cap) {
            size_t cap = 2 * (*len + b.len) + 256;
            char *more = tlr_realloc(l->text, cap, 1);
            if (!more) {
                return tlr_err_nomem(err, "completion", cap);
            }
            l->text = more;
            l->text_cap = cap;
        }
        if (b.len > 0) {
            memcpy(l->text + *len, b.ptr, b.len);
        }
        *len += b.len;
    }
    return 0;
}

int tlr_label_complete(struct tlr_labeller *l, const struct tlr_item *item,
                       uint32_t pos, int32_t token, bool *is_right,
                       uint64_t *n_tok, struct tlr_err *err)
{
    uint32_t n_ctx = tlr_session_options_used(l->session)->n_ctx;
    struct writer w = {l, NULL, token};
    size_t len = 0;
    l->reply.n = 0;
    int rc = tlr_rewind(l->session, pos, err);
    for (uint32_t i = 0; !rc && !ends(l, w.id); i++) {
        rc = tlr_ids_push(&l->reply, w.id, err);
        if (rc || i == l->options->completion_tok ||
            pos + l->reply.n >= n_ctx) {
            break;
        }
        rc = l->policy ? next_joint(&w, err) : next_alone(&w, err);
        (*n_tok)++;
    }
    tlr_joint_free(w.joint);
    if (!rc) {
        rc = tlr_label_text(l, l->ids.ids + l->n_prompt, pos - l->n_prompt,
                            &len, err);
    }
    if (!rc) {
        rc = tlr_label_text(l, l->reply.ids, l->reply.n, &len, err);
    }
    if (!rc) {
        *is_right = tlr_item_right(item, l->options->task, l->text, len, false);
    }
    return rc;
}
