/* together.c - one token of several sessions in one pass over the weights.
 *
 * The pass runs in the scratch and on the threads of one of them, the host; the
 * others lend their timelines, and get their row of the results back.  Bits are
 * those of single steps because every kernel promises a row the same bits in any
 * company, and because attention treats each row as a step of its own session.
 */
#include <string.h>

#include "engine/forward.h"

_Static_assert((int)TLR_MAX_TOGETHER == (int)TLR_MAX_BRANCHES,
               "a step of up to TLR_MAX_BRANCHES rows has the bits of single "
               "ones, for every type of weights");

static int check_pair(struct tlr_session *const *sessions, int i,
                      struct tlr_err *err)
{
    const struct tlr_session *s = sessions[i], *first = sessions[0];
    for (int k = 0; k < i; k++) {
        if (sessions[k] == s) {
            return tlr_err_set(err, TLR_EUSAGE,
                               "step together: sessions %d and %d are one; "
                               "expected different ones", k, i);
        }
    }
    if (s->model != first->model || s->opt.act != first->opt.act ||
        s->opt.cpu_level != first->opt.cpu_level) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "step together: session %d: expected the model, "
                           "instruction set and rounding of session 0, found "
                           "another", i);
    }
    return 0;
}

static int check_n(int n, struct tlr_err *err)
{
    if (n >= 1 && n <= TLR_MAX_TOGETHER) {
        return 0;
    }
    return tlr_err_set(err, n < 1 ? TLR_EUSAGE : TLR_ELIMIT,
                       "step together: expected 1 to %d sessions, found %d",
                       (int)TLR_MAX_TOGETHER, n);
}

static int check_together(struct tlr_session *const *sessions,
                          const int32_t *ids, int n, unsigned flags,
                          struct tlr_err *err)
{
    int bad = check_n(n, err);
    if (bad) {
        return bad;
    }
    if (flags & ~(unsigned)TLR_STEP_LOGITS) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "step flags: expected 0 or TLR_STEP_LOGITS, found %u",
                           flags);
    }
    for (int i = 0; i < n; i++) {
        int rc = check_pair(sessions, i, err);
        if (!rc) {
            rc = tlr_session_check_room(sessions[i], 1, err);
        }
        if (!rc) {
            rc = tlr_session_check_ids(sessions[i], ids + i, 1, err);
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static struct tlr_session *host_of(struct tlr_session *const *sessions, int n)
{
    struct tlr_session *host = sessions[0];
    for (int i = 1; i < n; i++) {
        if (sessions[i]->opt.n_ctx > host->opt.n_ctx) {
            host = sessions[i];
        }
    }
    return host;
}

/* Row i of the host's results becomes those of session i. */
static void take_row(struct tlr_session *s, const struct tlr_session *host,
                     int i, bool has_logits)
{
    const struct tlr_config *c = s->model->config;
    memcpy(s->hidden, host->row_hidden + (size_t)i * c->dim,
           c->dim * sizeof *s->hidden);
    tlr_session_made(s, true, has_logits);
    if (has_logits) {
        memcpy(s->logits, host->row_logits + (size_t)i * c->n_vocab,
               c->n_vocab * sizeof *s->logits);
    }
}

int tlr_decode_together(struct tlr_session *const *sessions, const int32_t *ids,
                        int n, unsigned flags, struct tlr_err *err)
{
    int rc = check_together(sessions, ids, n, flags, err);
    if (rc) {
        return rc;
    }
    if (n == 1) {
        return tlr_decode(sessions[0], ids[0], flags, err);
    }
    struct tlr_session *host = host_of(sessions, n);
    struct tlr_batch b = {.ids = ids, .n = n, .owners = sessions};
    for (int i = 0; i < n; i++) {
        tlr_branch_drop(sessions[i]);
    }
    tlr_forward(host, &b);
    tlr_forward_hidden(host, 0, n, host->row_hidden);
    if (flags & TLR_STEP_LOGITS) {
        tlr_forward_head(host, host->row_hidden, n, host->row_logits);
    }
    for (int i = 0; i < n; i++) {
        struct tlr_session *s = sessions[i];
        s->ids[s->pos++] = ids[i];
        take_row(s, host, i, flags & TLR_STEP_LOGITS);
    }
    return 0;
}

int tlr_top_together(struct tlr_session *const *sessions, int n, int k,
                     struct tlr_err *err)
{
    int rc = check_n(n, err);
    for (int i = 0; i < n && !rc; i++) {
        rc = check_pair(sessions, i, err);
        rc = rc ? rc : tlr_top_check(sessions[i], k, err);
        if (!rc && sessions[i]->n_live > 0) {
            rc = tlr_err_set(err, TLR_EUSAGE,
                             "best ids: session %d: expected no branches, found "
                             "%d; keep or drop them first", i,
                             sessions[i]->n_live);
        }
    }
    if (rc) {
        return rc;
    }
    struct tlr_session *host = host_of(sessions, n);
    size_t dim = host->model->config->dim;
    struct tlr_best *found[TLR_MAX_TOGETHER];
    for (int i = 0; i < n; i++) {
        memcpy(host->row_hidden + (size_t)i * dim, sessions[i]->hidden,
               dim * sizeof *host->row_hidden);
        found[i] = &sessions[i]->found;
    }
    tlr_top_rows(host, n, k, found);
    return 0;
}
