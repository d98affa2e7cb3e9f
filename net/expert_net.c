/* expert_net.c - a server as an expert (router/expert.h): asks on their way.
 *
 * A submit builds the body in the caller's thread and returns; the network's thread
 * sends it, reads the reply into ids and decides on another attempt, all while the
 * caller computes.  A slot is one ask.  A slot whose reply nobody wants any more is
 * adrift: it ends by itself and is used again then, because ending it early would
 * cost the connection.  What the network's thread does of it is in expert_attempt.c.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"

/* ---- slots ---- */

/* Under the lock. */
static void release(struct tlr_net_slot *s)
{
    struct tlr_net *n = s->net;
    if (s->is_trial)
        tlr_breaker_forget(&n->breaker);
    tlr_net_count(n, &s->call);
    s->is_trial = s->is_used = s->is_adrift = false;
}

/* A free slot, with what has drifted to its end taken back; NULL: all in use. */
static struct tlr_net_slot *take_slot(struct tlr_net *n, struct tlr_err *err)
{
    struct tlr_net_slot *found = NULL;
    pthread_mutex_lock(&n->lock);
    for (int i = 0; i < TLR_NET_SLOTS; i++) {
        struct tlr_net_slot *s = &n->slots[i];
        if (s->is_adrift && tlr_http_wait(n->http, &s->call, 0))
            release(s);
        if (!found && !s->is_used)
            found = s;
    }
    if (found) {
        found->is_used = true;
        found->ticket = ++n->last_ticket;
    }
    pthread_mutex_unlock(&n->lock);
    if (!found) {
        tlr_err_set(err, TLR_ELIMIT, "%s: %d asks are on their way already",
                    n->url.base, TLR_NET_SLOTS);
        return NULL;
    }
    if (!found->is_made && tlr_http_call_init(n->http, &found->call, err)) {
        pthread_mutex_lock(&n->lock);
        found->is_used = false;
        pthread_mutex_unlock(&n->lock);
        return NULL;
    }
    found->is_made = true;
    return found;
}

static struct tlr_net_slot *slot_of(struct tlr_net *n, uint64_t ticket)
{
    struct tlr_net_slot *found = NULL;
    pthread_mutex_lock(&n->lock);
    for (int i = 0; i < TLR_NET_SLOTS && !found; i++)
        if (n->slots[i].is_used && !n->slots[i].is_adrift &&
            n->slots[i].ticket == ticket)
            found = &n->slots[i];
    pthread_mutex_unlock(&n->lock);
    return found;
}

static void give_back(struct tlr_net_slot *s)
{
    pthread_mutex_lock(&s->net->lock);
    release(s);
    pthread_mutex_unlock(&s->net->lock);
}

/* Leaves it to itself; of many such the oldest are ended. */
static void set_adrift(struct tlr_net_slot *s)
{
    struct tlr_net *n = s->net;
    struct tlr_net_slot *oldest = NULL;
    int n_adrift = 0;
    pthread_mutex_lock(&n->lock);
    s->is_adrift = true;
    s->draft = NULL;
    for (int i = 0; i < TLR_NET_SLOTS; i++) {
        struct tlr_net_slot *at = &n->slots[i];
        if (!at->is_adrift || tlr_http_wait(n->http, &at->call, 0))
            continue;
        n_adrift++;
        if (!oldest || at->ticket < oldest->ticket)
            oldest = at;
    }
    if (n_adrift > TLR_NET_ADRIFT)
        tlr_http_abort(n->http, &oldest->call);
    pthread_mutex_unlock(&n->lock);
}

/* ---- an ask ---- */

/* The prefix in words, for servers that want it so and for the audit. */
static int put_prefix(struct tlr_net_slot *s, const int32_t *ids, size_t n_ids,
                      struct tlr_err *err)
{
    struct tlr_net *n = s->net;
    const struct tlr_net_api *api = tlr_net_api(n->kind);
    bool by_text = n->by_text || !api->takes_ids;
    size_t n_tail = n_ids < TLR_SEAM_TAIL ? n_ids : TLR_SEAM_TAIL;
    tlr_buf_reset(&s->text);
    s->by_text = by_text;
    s->want.n_tail = (int)n_tail;
    memcpy(s->tail, ids + n_ids - n_tail, n_tail * sizeof *ids);
    if (by_text || n->audit)
        tlr_seam_prompt(&n->seam, ids, n_ids, by_text && api->adds_bos, &s->text,
                        s->want.begun, &s->want.n_begun);
    if (!by_text) /* the server has every byte */
        s->want.n_begun = 0;
    if (s->text.failed)
        return tlr_err_nomem(err, "prefix", s->text.n);
    if (by_text && n->kind == TLR_NET_OPENAI_CHAT)
        return tlr_seam_messages(&n->seam, s->text.ptr, s->text.n, &s->messages,
                                 err);
    return 0;
}

static int prepare(struct tlr_net_slot *s, const int32_t *ids, size_t n_ids,
                   int n_tok, struct tlr_err *err)
{
    struct tlr_net *n = s->net;
    struct tlr_http_call *c = &s->call;
    int rc = put_prefix(s, ids, n_ids, err);
    if (rc)
        return rc;
    s->n_prefix = n_ids;
    s->is_auto = n_tok == TLR_EXPERT_AUTO;
    if (s->is_auto) /* a text's tokens are not ours, nor their probabilities */
        n_tok = s->by_text || n->tells_no_p ? 1 : TLR_EXPERT_AUTO_MAX;
    s->n_asked = s->want.n_tok = n_tok;
    s->want.n_slack = n->kind == TLR_NET_LLAMACPP ? 8 : 1;
    s->n_rounds = 0;
    s->n_ids = 0;
    tlr_net_attempt_build(s, ids);
    c->path = tlr_net_api(n->kind)->path;
    c->is_post = true;
    c->before = tlr_net_attempt_before;
    c->after = tlr_net_attempt_after;
    c->ctx = s;
    c->deadline_ns = tlr_now_ns() + (uint64_t)(n->o.timeout_s * 1e9);
    return c->body.failed ? tlr_err_nomem(err, "request", c->body.n) : 0;
}

/* May anything leave now?  And what the server is, if that is not known yet. */
static int pass_breaker(struct tlr_net *n, bool *is_trial, struct tlr_err *err)
{
    uint64_t now = tlr_now_ns(), until = 0;
    pthread_mutex_lock(&n->lock);
    bool allows = tlr_breaker_allows(&n->breaker, now, is_trial);
    char why[sizeof n->failure];
    until = n->breaker.until_ns;
    snprintf(why, sizeof why, "%s", n->failure);
    pthread_mutex_unlock(&n->lock);
    if (!allows)
        return tlr_err_set(err, TLR_EIO, "%s; left alone for %.1f s more", why,
                           until > now ? (double)(until - now) * 1e-9 : 0);
    struct tlr_err cause = TLR_ERR_INIT;
    int rc = tlr_net_connect(n, &cause);
    if (rc) {
        pthread_mutex_lock(&n->lock);
        snprintf(n->failure, sizeof n->failure, "%.250s", cause.text);
        if (rc == TLR_ECANCELLED)
            tlr_breaker_forget(&n->breaker);
        else
            tlr_breaker_note(&n->breaker, false, (double)NAN, tlr_now_ns());
        pthread_mutex_unlock(&n->lock);
    }
    return rc ? tlr_err_set(err, rc, "%s", cause.text) : 0;
}

static int begin(struct tlr_net *n, const int32_t *ids, size_t n_ids, int n_tok,
                 bool is_warm, const struct tlr_net_draft *draft,
                 uint64_t *ticket, struct tlr_err *err)
{
    bool is_trial = false;
    int rc = pass_breaker(n, &is_trial, err);
    if (rc)
        return rc;
    struct tlr_err why = TLR_ERR_INIT;
    struct tlr_net_slot *s = take_slot(n, &why);
    if (!s) {
        pthread_mutex_lock(&n->lock);
        if (is_trial)
            tlr_breaker_forget(&n->breaker);
        pthread_mutex_unlock(&n->lock);
        return tlr_err_set(err, why.code, "%s", why.text);
    }
    s->is_trial = is_trial;
    s->is_warm = is_warm;
    s->draft = draft;
    rc = prepare(s, ids, n_ids, n_tok, err);
    if (rc) {
        memset(&s->call.times, 0, sizeof s->call.times);
        s->call.sent_bytes = s->call.received_bytes = s->call.n_connects = 0;
        give_back(s);
        return rc;
    }
    *ticket = s->ticket;
    tlr_http_submit(n->http, &s->call);
    return 0;
}

/* ---- the expert ---- */

static int send(struct tlr_net *n, const int32_t *ids, size_t n_ids, int n_tok,
                const struct tlr_net_draft *draft, uint64_t *ticket,
                struct tlr_err *err)
{
    int rc = begin(n, ids, n_ids, n_tok, false, draft, ticket, err);
    pthread_mutex_lock(&n->lock);
    n->account.n_asks++;
    n->account.n_failed += rc && rc != TLR_ELIMIT;
    pthread_mutex_unlock(&n->lock);
    return rc;
}

static int submit(void *self, const int32_t *ids, size_t n_ids, int n_tok,
                  uint64_t *ticket, struct tlr_err *err)
{
    return send(self, ids, n_ids, n_tok, NULL, ticket, err);
}

static uint64_t at_most(uint64_t v, uint64_t most)
{
    return v < most ? v : most;
}

/* How many of the reply's tokens are taken.  Probabilities beside a text are not of
 * our tokens. */
static int n_taken(const struct tlr_net_slot *s)
{
    if (!s->is_auto)
        return s->n_ids;
    int n = 1;
    while (n < s->n_ids && s->answer.n_ids >= 0 &&
           tlr_expert_is_unsure(s->answer.p[n - 1]))
        n++;
    return n;
}

/* What the wait was made of.  Where the server does not count its own time, it is
 * what lies between request and reply beyond a round trip. */
static void fill_reply(const struct tlr_net_slot *s,
                       struct tlr_expert_reply *out, uint64_t round_trip_ns)
{
    const struct tlr_http_times *t = &s->call.times;
    uint64_t think = t->first_byte_ns > round_trip_ns
                         ? t->first_byte_ns - round_trip_ns
                         : 0;
    if (!s->call.code && s->answer.server_ms >= 0 &&
        s->answer.server_ms < 1e9)
        think = (uint64_t)(s->answer.server_ms * 1e6);
    memset(out, 0, sizeof *out);
    out->think_ns = at_most(think, t->first_byte_ns);
    out->wire_ns = t->total_ns - at_most(out->think_ns, t->total_ns);
    out->queue_ns = t->queue_ns;
    out->connect_ns = t->connect_ns;
    out->first_byte_ns = t->first_byte_ns;
    if (s->call.code)
        return;
    out->n_tok = n_taken(s);
    memcpy(out->ids, s->ids, (size_t)out->n_tok * sizeof *s->ids);
    if (s->answer.n_cached > 0)
        out->cached_tok = (int)at_most((uint64_t)s->answer.n_cached,
                                       s->n_prefix);
}

/* What the model would have written at each place of the draft.  TLR_ENOTFOUND: the
 * server does not tell. */
static int take_rivals(const struct tlr_net_slot *s, struct tlr_err *err)
{
    const struct tlr_net_draft *d = s->draft;
    const struct tlr_net_answer *a = &s->answer;
    size_t n = d->n - d->first - 1;
    if (a->n_rivals < n)
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "%s: reply: expected %zu likeliest tokens of the "
                           "prompt (input_top_logprobs), found %zu",
                           s->net->url.base, n, a->n_rivals);
    const int32_t *drafted = a->drafted + a->n_rivals - n;
    const int32_t *rivals = a->rivals + a->n_rivals - n;
    for (size_t i = 0; i < n; i++)
        if (drafted[i] != d->ids[d->first + 1 + i])
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: reply: expected token %d of the prompt to "
                               "be id %d, found %d", s->net->url.base,
                               (int)(d->first + 1 + i),
                               (int)d->ids[d->first + 1 + i], (int)drafted[i]);
    memcpy(d->out, rivals, n * sizeof *rivals);
    d->out[n] = s->ids[0];
    return 0;
}

static int spend(struct tlr_net_slot *s, struct tlr_expert_reply *out,
                 struct tlr_err *err)
{
    int rc = s->call.code;
    pthread_mutex_lock(&s->net->lock);
    uint64_t round_trip_ns = s->net->round_trip_ns;
    pthread_mutex_unlock(&s->net->lock);
    fill_reply(s, out, round_trip_ns);
    if (rc)
        tlr_err_set(err, rc, "%s", s->call.err.text);
    else if (s->draft)
        rc = take_rivals(s, err);
    s->draft = NULL;
    give_back(s);
    return rc;
}

static void waited(void *self, uint64_t ns)
{
    struct tlr_net *n = self;
    pthread_mutex_lock(&n->lock);
    n->budget.wait_ns += ns;
    pthread_mutex_unlock(&n->lock);
}

static uint64_t wait_left(struct tlr_net *n)
{
    pthread_mutex_lock(&n->lock);
    uint64_t left = tlr_budget_wait_left(&n->budget);
    pthread_mutex_unlock(&n->lock);
    return left;
}

/* No more waiting is paid for: what is not there by now fails, whether it was asked
 * for ahead or is stood still for. */
static int give_up(struct tlr_net_slot *s, struct tlr_expert_reply *out,
                   struct tlr_err *err)
{
    struct tlr_net *n = s->net;
    struct tlr_err why = TLR_ERR_INIT;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&n->lock);
    int rc = tlr_budget_waited(&n->budget, &why);
    n->account.n_cancelled++;
    pthread_mutex_unlock(&n->lock);
    set_adrift(s);
    return tlr_err_set(err, rc, "%s: %s", n->url.base, why.text);
}

static int wait(void *self, uint64_t ticket, int timeout_ms,
                struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct tlr_net *n = self;
    struct tlr_net_slot *s = slot_of(n, ticket);
    if (!s)
        return tlr_err_set(err, TLR_EUSAGE, "%s: no ask has this ticket",
                           n->url.base);
    uint64_t begun = tlr_now_ns(), left = wait_left(n);
    uint64_t most = timeout_ms < 0 ? UINT64_MAX
                                   : (uint64_t)timeout_ms * 1000000;
    most = at_most(most, left);
    uint64_t end = most < UINT64_MAX - begun ? begun + most : UINT64_MAX;
    bool is_done = tlr_http_wait(n->http, &s->call, 0), is_stopped = false;
    for (uint64_t now = begun; !is_done && !is_stopped && now < end;
         now = tlr_now_ns()) {
        uint64_t ms = at_most((end - now) / 1000000 + 1, 100);
        is_done = tlr_http_wait(n->http, &s->call, ms);
        is_stopped = !is_done && tlr_net_is_stopped(n);
    }
    waited(n, tlr_now_ns() - begun);
    if (is_stopped) {
        tlr_http_abort(n->http, &s->call);
        while (!tlr_http_wait(n->http, &s->call, 1000))
            continue;
        return spend(s, out, err);
    }
    if (is_done)
        return spend(s, out, err);
    return wait_left(n) > 0 ? TLR_EPENDING : give_up(s, out, err);
}

static void cancel(void *self, uint64_t ticket)
{
    struct tlr_net *n = self;
    struct tlr_net_slot *s = slot_of(n, ticket);
    if (!s)
        return;
    pthread_mutex_lock(&n->lock);
    n->account.n_cancelled++;
    pthread_mutex_unlock(&n->lock);
    set_adrift(s);
}

static int ask(void *self, const int32_t *ids, size_t n_ids, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err)
{
    uint64_t ticket;
    int rc = submit(self, ids, n_ids, n_tok, &ticket, err);
    return rc ? rc : wait(self, ticket, -1, out, err);
}

/* One call for all positions.  TLR_ENOTFOUND where the server does not tell what it
 * would have written in the place of a prompt's tokens, and for a single position,
 * which needs nothing of the kind. */
static int ask_each(void *self, const int32_t *ids, size_t n_ids, size_t first,
                    int32_t *out, struct tlr_err *err)
{
    struct tlr_net *n = self;
    struct tlr_net_draft d = {ids, n_ids, first, out};
    struct tlr_expert_reply reply;
    uint64_t ticket;
    if (n_ids - first < 2 || n->checks_no_drafts)
        return TLR_ENOTFOUND;
    int rc = send(n, ids, n_ids, 1, &d, &ticket, err);
    rc = rc ? rc : wait(n, ticket, -1, &reply, err);
    if (rc == TLR_ENOTFOUND)
        n->checks_no_drafts = true;
    return rc;
}

static void warm(void *self, const int32_t *ids, size_t n_ids)
{
    struct tlr_net *n = self;
    uint64_t ticket;
    if (begin(n, ids, n_ids, 1, true, NULL, &ticket, NULL))
        return;
    struct tlr_net_slot *s = slot_of(n, ticket);
    if (s)
        set_adrift(s);
}

static void account(const void *self, struct tlr_expert_account *out)
{
    tlr_net_account(self, out);
}

static void notify(void *self, void (*call)(void *ctx), void *ctx)
{
    struct tlr_net *n = self;
    tlr_http_notify(n->http, call, ctx);
}

/* The server stays open: it is tlr_net_close's. */
static void close_expert(void *self)
{
    (void)self;
}

int tlr_net_expert(struct tlr_net *n, struct tlr_expert *out,
                   struct tlr_err *err)
{
    static const struct tlr_expert_ops ops = {
        .ask = ask, .close = close_expert, .submit = submit, .wait = wait,
        .cancel = cancel, .warm = warm, .account = account, .notify = notify,
        .waited = waited};
    static const struct tlr_expert_ops checking = {
        .ask = ask, .ask_each = ask_each, .close = close_expert,
        .submit = submit, .wait = wait, .cancel = cancel, .warm = warm,
        .account = account, .notify = notify, .waited = waited};
    (void)err;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&n->probing);
    bool checks = n->is_known && !n->by_text &&
                  tlr_net_api(n->kind)->checks_drafts;
    pthread_mutex_unlock(&n->probing);
    out->ops = checks ? &checking : &ops;
    out->self = n;
    out->is_budgeted = n->budget.max_calls || n->budget.max_tok ||
                       n->budget.max_cost > 0;
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1,
             n->url.base);
    return 0;
}
