/* expert_attempt.c - one ask's attempts, in the network's thread: what is spent and
 * written down before one leaves, what its reply says, and whether there is another.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "net/net_internal.h"

/* What is sent is taken from the budget and written down before it leaves. */
int tlr_net_attempt_before(void *ctx, struct tlr_http_call *c, struct tlr_err *err)
{
    struct tlr_net_slot *s = ctx;
    struct tlr_net *n = s->net;
    struct tlr_err why = TLR_ERR_INIT;
    const struct tlr_buf *body = c->packed.n > 0 ? &c->packed : &c->body;
    struct tlr_audit_entry e = {.path = c->path, .n_bytes = body->n,
                                .n_tok = s->n_prefix, .text = s->text.ptr,
                                .n_text = s->text.n};
    pthread_mutex_lock(&n->lock);
    int rc = tlr_budget_take(&n->budget, s->n_prefix, (uint64_t)s->n_asked,
                             &why);
    if (!rc) {
        n->account.n_requests++;
        n->account.n_retries += c->n_attempts > 0;
        n->account.sent_tok += s->n_prefix;
    }
    n->account.n_failed += rc != 0;
    pthread_mutex_unlock(&n->lock);
    if (!rc)
        rc = tlr_audit_add(n->audit, &e, &why);
    return rc ? tlr_err_set(err, rc, "%s: %s", n->url.base, why.text) : 0;
}

/* Less than a packet is not worth packing. */
enum { GZIP_LEAST = 1400 };

/* ids may be NULL where the prefix goes by text. */
void tlr_net_attempt_build(struct tlr_net_slot *s, const int32_t *ids)
{
    const struct tlr_net *n = s->net;
    struct tlr_net_ask ask = {
        .ids = ids, .n_ids = s->n_prefix, .n_tok = s->n_asked,
        .wants_p = s->is_auto && s->n_asked > 1,
        .n_checked = s->draft ? s->draft->n - s->draft->first - 1 : 0,
        .text = s->by_text ? s->text.ptr : NULL, .n_text = s->text.n,
        .messages = s->messages.ptr, .model = n->model, .is_warm = s->is_warm,
        .is_strict = n->is_strict};
    tlr_buf_reset(&s->call.body);
    tlr_net_api(n->kind)->build(&s->call.body, &ask);
    tlr_buf_reset(&s->call.packed);
    if (n->o.gzip && !n->takes_no_gzip && s->call.body.n >= GZIP_LEAST)
        tlr_buf_gzip(&s->call.packed, s->call.body.ptr, s->call.body.n);
}

/* Stock servers do not unpack questions: most say that it is no JSON. */
static bool refuses_gzip(struct tlr_http_call *c, long status)
{
    static const long words[] = {400, 413, 415, 422, 500, 501};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (c->packed.n > 0 && status == words[i])
            return true;
    return false;
}

/* Names change by date or path behind one endpoint; another family does not. */
static bool is_model(const struct tlr_net *n, const char *named)
{
    size_t k = strlen(n->model);
    return !n->is_pinned || !named[0] || k == 0 ||
           strncmp(named, n->model, k) == 0;
}

/* The reply as ids of ours: 0, TLR_EPENDING, or what is wrong with it. */
static int read_reply(struct tlr_net_slot *s)
{
    struct tlr_net *n = s->net;
    struct tlr_http_call *c = &s->call;
    struct tlr_err why = TLR_ERR_INIT;
    int rc = tlr_net_check_reply(n, c);
    if (rc || s->is_warm)
        return rc;
    struct tlr_bytes body = {(const uint8_t *)c->reply.ptr, c->reply.n};
    tlr_net_answer_begin(&s->answer);
    rc = tlr_net_parse(tlr_net_api(n->kind), body, &s->answer, &why);
    if (!rc && s->by_text) { /* its ids, if any, are of another vocabulary */
        s->answer.n_ids = -1;
        if (!s->answer.has_text)
            rc = tlr_err_set(&why, TLR_EFORMAT, "reply: expected a text");
    }
    if (!rc && !is_model(n, s->answer.model))
        rc = tlr_err_set(&why, TLR_EMISMATCH,
                         "reply: expected one of model %s, found one of %s",
                         n->model, s->answer.model);
    if (!rc)
        rc = tlr_seam_answer(&n->seam, &s->answer, &s->want, s->ids, &s->n_ids,
                             &why);
    if (rc == TLR_EPENDING)
        return rc;
    if (!rc && s->is_auto && s->n_asked > 1 &&
        (s->answer.n_ids < 0 || isnan(s->answer.p[0])))
        n->tells_no_p = true; /* one token at a time, then */
    c->code = rc;
    if (rc)
        tlr_err_set(&c->err, rc, "%s: %s", n->url.base,
                    n->key && strstr(why.text, n->key) ? "reply: malformed"
                                                       : why.text);
    return rc;
}

/* Four tokens hold any character, twelve any of a few that print nothing. */
static bool ask_for_more(struct tlr_net_slot *s)
{
    static const int more[] = {4, 12};
    if (!s->by_text || s->n_rounds == 2) {
        s->call.code = tlr_err_set(
            &s->call.err, TLR_EMISMATCH,
            "%s: reply: %d tokens without any text, and not the end of it",
            s->net->url.base, s->n_asked);
        return false;
    }
    s->n_asked = s->want.n_tok + more[s->n_rounds++];
    tlr_net_attempt_build(s, NULL);
    return !s->call.body.failed;
}

static void note_end(struct tlr_net_slot *s, bool is_good)
{
    struct tlr_net *n = s->net;
    struct tlr_http_call *c = &s->call;
    /* A server that answers, but with another token than can be used, is up. */
    bool is_up = is_good || c->code == TLR_EMISMATCH;
    pthread_mutex_lock(&n->lock);
    tlr_breaker_note(&n->breaker, is_up, is_up ? (double)NAN : c->retry_after_s,
                     tlr_now_ns());
    s->is_trial = false;
    n->account.n_failed += !is_good;
    if (!is_good)
        snprintf(n->failure, sizeof n->failure, "%.250s", c->err.text);
    if (is_good) {
        n->n_good++;
        n->account.reply_tok += (uint64_t)(s->is_warm ? 0 : s->n_ids);
        if (s->answer.n_cached > 0 && !s->is_warm)
            n->account.cached_tok += (uint64_t)s->answer.n_cached;
    }
    pthread_mutex_unlock(&n->lock);
}

/* One attempt is over: nanoseconds until the next, -1: the ask is. */
int64_t tlr_net_attempt_after(void *ctx, struct tlr_http_call *c)
{
    struct tlr_net_slot *s = ctx;
    struct tlr_net *n = s->net;
    long status = c->code ? 0 : c->status;
    int transfer = c->code;
    if (refuses_gzip(c, status)) {
        n->takes_no_gzip = true;
        tlr_buf_reset(&c->packed);
        return 0;
    }
    int rc = read_reply(s);
    bool again = !transfer && status != 200 ? tlr_retry_may_help(0, status)
                                            : tlr_retry_may_help(rc, 0);
    if (rc == TLR_EPENDING && ask_for_more(s))
        return 0;
    rc = c->code;
    if (rc && again && !s->is_trial && !s->is_warm &&
        c->n_attempts < n->o.n_attempts) {
        int64_t wait = tlr_retry_wait_ns(c->n_attempts, c->retry_after_s,
                                         tlr_hash_u64(s->ticket, tlr_now_ns()));
        if (tlr_now_ns() + (uint64_t)wait < c->deadline_ns)
            return wait;
    }
    note_end(s, rc == 0);
    return -1;
}
