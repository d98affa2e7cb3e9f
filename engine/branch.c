/* branch.c - several continuations of one timeline, tried side by side.
 *
 * A branch has its own keys and values behind the shared ones, so starting,
 * dropping and keeping one copies no prefix.  All branches have one length and
 * advance together: that is what makes one pass over the weights serve all.
 */
#include <string.h>

#include "engine/forward.h"

static int check_branches(const struct tlr_session *s, const int32_t *ids,
                          int n, unsigned flags, struct tlr_err *err)
{
    int most = s->n_live > 0 ? s->n_live : (int)s->opt.n_branches;
    int least = s->n_live > 0 ? s->n_live : 1;
    if (n < least || n > most) {
        return tlr_err_set(err, n > most ? TLR_ELIMIT : TLR_EUSAGE,
                           "branches: expected %d to %d, found %d; the number "
                           "is fixed from the first token until they are kept "
                           "or dropped", least, most, n);
    }
    if (flags & ~(unsigned)TLR_STEP_LOGITS) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "step flags: expected 0 or TLR_STEP_LOGITS, found %u",
                           flags);
    }
    if (s->branch_len >= s->opt.branch_tok) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "branches: expected at most %u tokens each, found "
                           "%u; keep or drop them first",
                           (unsigned)s->opt.branch_tok,
                           (unsigned)s->branch_len + 1);
    }
    int rc = tlr_session_check_room(s, (uint64_t)s->branch_len + 1, err);
    return rc ? rc : tlr_session_check_ids(s, ids, (size_t)n, err);
}

int tlr_branch_decode(struct tlr_session *s, const int32_t *ids, int n,
                      unsigned flags, struct tlr_err *err)
{
    int rc = check_branches(s, ids, n, flags, err);
    if (rc) {
        return rc;
    }
    struct tlr_batch b = {.ids = ids, .n = n, .branches = true};
    tlr_forward(s, &b);
    for (int i = 0; i < n; i++) {
        s->branch_ids[(size_t)i * s->opt.branch_tok + s->branch_len] = ids[i];
    }
    s->n_live = n;
    s->branch_len++;
    tlr_forward_hidden(s, 0, n, s->row_hidden);
    s->branch_has_logits = flags & TLR_STEP_LOGITS;
    if (s->branch_has_logits) {
        tlr_forward_head(s, s->row_hidden, n, s->row_logits);
    }
    return 0;
}

const float *tlr_branch_hidden(const struct tlr_session *s, int branch)
{
    if (branch < 0 || branch >= s->n_live) {
        return NULL;
    }
    return s->row_hidden + (size_t)branch * s->model->config->dim;
}

const float *tlr_branch_logits(const struct tlr_session *s, int branch)
{
    if (branch < 0 || branch >= s->n_live || !s->branch_has_logits) {
        return NULL;
    }
    return s->row_logits + (size_t)branch * s->model->config->n_vocab;
}

uint32_t tlr_branch_len(const struct tlr_session *s)
{
    return s->branch_len;
}

int tlr_branch_keep(struct tlr_session *s, int branch, uint32_t n_tok,
                    struct tlr_err *err)
{
    if (branch < 0 || branch >= s->n_live || n_tok > s->branch_len) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "branches: expected one of %d and up to %u tokens, "
                           "found branch %d and %u tokens", s->n_live,
                           (unsigned)s->branch_len, branch, (unsigned)n_tok);
    }
    if (n_tok == 0) { /* the timeline's last token stays the last one */
        tlr_branch_drop(s);
        return 0;
    }
    tlr_kv_keep(&s->kv, (uint32_t)branch, n_tok, s->pos);
    memcpy(s->ids + s->pos, s->branch_ids + (size_t)branch * s->opt.branch_tok,
           n_tok * sizeof *s->ids);
    s->pos += n_tok;
    const struct tlr_config *c = s->model->config;
    bool is_whole = n_tok == s->branch_len;
    tlr_session_made(s, is_whole, is_whole && s->branch_has_logits);
    if (s->has_hidden) {
        memcpy(s->hidden, tlr_branch_hidden(s, branch),
               c->dim * sizeof *s->hidden);
    }
    if (s->has_logits) {
        memcpy(s->logits, tlr_branch_logits(s, branch),
               c->n_vocab * sizeof *s->logits);
    }
    tlr_branch_drop(s);
    return 0;
}

void tlr_branch_drop(struct tlr_session *s)
{
    s->n_live = 0;
    s->branch_len = 0;
    s->branch_has_logits = false;
}
