/* expert.c - see expert.h: what every expert's answer is held to. */
#include "router/expert.h"

#include <math.h>
#include <string.h>

static int check_id(const struct tlr_expert *e, int32_t id, uint32_t n_ids,
                    struct tlr_err *err)
{
    if (id >= 0 && (uint32_t)id < n_ids)
        return 0;
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: answer: expected token ids below %u, found %d; do "
                       "the two models share a tokenizer?",
                       e->name, n_ids, (int)id);
}

bool tlr_expert_is_unsure(double p)
{
    return p < 0.5;
}

static int check_ask(const struct tlr_expert *e, size_t n, int n_tok,
                     struct tlr_err *err)
{
    if (n > 0 && (n_tok == TLR_EXPERT_AUTO ||
                  (n_tok >= 1 && n_tok <= TLR_EXPERT_TOK_MAX)))
        return 0;
    return tlr_err_set(err, TLR_EUSAGE,
                       "%s: asked for %d tokens after %zu; expected 1 to %d "
                       "after at least one",
                       e->name, n_tok, n, TLR_EXPERT_TOK_MAX);
}

static int check_reply(const struct tlr_expert *e, int n_tok, uint32_t n_ids,
                       const struct tlr_expert_reply *r, struct tlr_err *err)
{
    int rc = 0, most = n_tok == TLR_EXPERT_AUTO ? TLR_EXPERT_AUTO_MAX : n_tok;
    if (r->n_tok < 1 || r->n_tok > most)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: answer: expected 1 to %d tokens, found %d",
                           e->name, most, r->n_tok);
    for (int i = 0; i < r->n_tok && !rc; i++)
        rc = check_id(e, r->ids[i], n_ids, err);
    return rc;
}

int tlr_expert_ask(struct tlr_expert *e, const int32_t *ids, size_t n,
                   int n_tok, uint32_t n_ids, struct tlr_expert_reply *out,
                   struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    int rc = check_ask(e, n, n_tok, err);
    if (!rc)
        rc = e->ops->ask(e->self, ids, n, n_tok, out, err);
    return rc ? rc : check_reply(e, n_tok, n_ids, out, err);
}

/* ---- without standing still ---- */

bool tlr_expert_is_async(const struct tlr_expert *e)
{
    return e->ops->submit && e->ops->wait && e->ops->cancel;
}

int tlr_expert_submit(struct tlr_expert *e, const int32_t *ids, size_t n,
                      int n_tok, uint32_t n_ids, struct tlr_expert_ticket *out,
                      struct tlr_err *err)
{
    out->id = 0;
    out->n_tok = 0;
    out->rc = check_ask(e, n, n_tok, err);
    if (out->rc)
        return out->rc;
    if (tlr_expert_is_async(e)) {
        int rc = e->ops->submit(e->self, ids, n, n_tok, &out->id, err);
        out->n_tok = rc ? 0 : n_tok;
        return rc;
    }
    tlr_err_clear(&out->why);
    out->rc = tlr_expert_ask(e, ids, n, n_tok, n_ids, &out->reply, &out->why);
    out->n_tok = n_tok;
    return 0;
}

int tlr_expert_wait(struct tlr_expert *e, struct tlr_expert_ticket *t,
                    int timeout_ms, uint32_t n_ids,
                    struct tlr_expert_reply *out, struct tlr_err *err)
{
    int n_tok = t->n_tok;
    if (n_tok == 0)
        return tlr_err_set(err, TLR_EUSAGE, "%s: waited for nothing", e->name);
    if (t->id == 0) {
        *out = t->reply;
        t->n_tok = 0;
        return t->rc ? tlr_err_set(err, t->rc, "%s", t->why.text) : 0;
    }
    memset(out, 0, sizeof *out);
    int rc = e->ops->wait(e->self, t->id, timeout_ms, out, err);
    if (rc == TLR_EPENDING)
        return rc;
    t->id = 0;
    t->n_tok = 0;
    return rc ? rc : check_reply(e, n_tok, n_ids, out, err);
}

void tlr_expert_cancel(struct tlr_expert *e, struct tlr_expert_ticket *t)
{
    if (t->id)
        e->ops->cancel(e->self, t->id);
    t->id = 0;
    t->n_tok = 0;
}

void tlr_expert_warm(struct tlr_expert *e, const int32_t *ids, size_t n)
{
    if (e->ops->warm && n > 0)
        e->ops->warm(e->self, ids, n);
}

void tlr_expert_notify(struct tlr_expert *e, void (*call)(void *ctx), void *ctx)
{
    if (e->ops->notify)
        e->ops->notify(e->self, call, ctx);
}

void tlr_expert_waited(struct tlr_expert *e, uint64_t ns)
{
    if (e->ops->waited)
        e->ops->waited(e->self, ns);
}

void tlr_expert_account_of(const struct tlr_expert *e,
                           struct tlr_expert_account *out)
{
    memset(out, 0, sizeof *out);
    if (e->ops->account)
        e->ops->account(e->self, out);
}

/* ---- many positions ---- */

int tlr_expert_ask_each(struct tlr_expert *e, const int32_t *ids, size_t n,
                        size_t first, uint32_t n_ids, int32_t *out,
                        struct tlr_err *err)
{
    int rc = 0;
    if (n == 0 || first >= n)
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: asked after positions %zu to %zu", e->name,
                           first, n);
    if (e->ops->ask_each) {
        struct tlr_err why = TLR_ERR_INIT;
        rc = e->ops->ask_each(e->self, ids, n, first, out, &why);
        if (rc && rc != TLR_ENOTFOUND)
            return tlr_err_set(err, rc, "%s", why.text);
        for (size_t i = first; i < n && !rc; i++)
            rc = check_id(e, out[i - first], n_ids, err);
        if (rc != TLR_ENOTFOUND)
            return rc;
        rc = 0;
    }
    for (size_t i = first; i < n && !rc; i++) {
        struct tlr_expert_reply reply;
        rc = tlr_expert_ask(e, ids, i + 1, 1, n_ids, &reply, err);
        if (!rc)
            out[i - first] = reply.ids[0];
    }
    return rc;
}

int tlr_expert_score_each(struct tlr_expert *e, const int32_t *ids, size_t n,
                          size_t first, uint32_t n_ids, const int32_t *want,
                          int32_t *out, float *p, struct tlr_err *err)
{
    if (!e->ops->score_each) {
        for (size_t i = first; i < n; i++)
            p[i - first] = NAN;
        return tlr_expert_ask_each(e, ids, n, first, n_ids, out, err);
    }
    if (first >= n)
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: asked after positions %zu to %zu", e->name,
                           first, n);
    int rc = e->ops->score_each(e->self, ids, n, first, want, out, p, err);
    for (size_t i = first; i < n && !rc; i++) {
        rc = check_id(e, out[i - first], n_ids, err);
        if (!rc && !(p[i - first] >= 0 && p[i - first] <= 1))
            rc = tlr_err_set(err, TLR_EFORMAT,
                             "%s: position %zu: expected a probability, found "
                             "%g; is the model sound?",
                             e->name, i + 1, (double)p[i - first]);
    }
    return rc;
}

void tlr_expert_close(struct tlr_expert *e)
{
    if (e->ops && e->ops->close)
        e->ops->close(e->self);
    memset(e, 0, sizeof *e);
}
