/* http.c - see http.h: the thread, and what callers hand it.
 *
 * One thread owns the multi handle and every easy handle; callers touch only the
 * state word of a call, under the lock.  The thread sleeps in curl_multi_poll and
 * is woken by curl_multi_wakeup, so a submitted call leaves at once while its
 * caller computes.  No signal reaches the thread.
 */
#include "net/http.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/version.h"
#include "net/http_internal.h"

/* ---- the thread ---- */

static void finish(struct tlr_http *h, struct tlr_http_state *s)
{
    uint64_t now = tlr_now_ns();
    s->call->times.total_ns = now - s->begun_ns;
    pthread_mutex_lock(&h->lock);
    s->phase = DONE;
    pthread_cond_broadcast(&h->done);
    if (h->notify)
        h->notify(h->notify_ctx);
    pthread_mutex_unlock(&h->lock);
}

/* The attempt is over: again later, or done. */
static void judge(struct tlr_http *h, struct tlr_http_state *s)
{
    struct tlr_http_call *c = s->call;
    int64_t wait_ns = c->after ? c->after(c->ctx, c) : -1;
    uint64_t now = tlr_now_ns();
    if (wait_ns < 0 || now + (uint64_t)wait_ns >= c->deadline_ns) {
        finish(h, s);
        return;
    }
    c->times.queue_ns += (uint64_t)wait_ns;
    s->due_ns = now + (uint64_t)wait_ns;
    pthread_mutex_lock(&h->lock);
    s->phase = RESTING;
    pthread_mutex_unlock(&h->lock);
}

static void launch(struct tlr_http *h, struct tlr_http_state *s)
{
    if (s->call->n_attempts == 0)
        s->call->times.queue_ns += tlr_now_ns() - s->begun_ns;
    pthread_mutex_lock(&h->lock);
    s->phase = SENT;
    pthread_mutex_unlock(&h->lock);
    s->call->code = tlr_attempt_start(h, s);
    if (s->call->code)
        finish(h, s); /* not even sent: no rule could make it better */
}

static void cut(struct tlr_http *h, struct tlr_http_state *s, enum phase was)
{
    if (was == SENT) {
        tlr_attempt_account(s);
        curl_multi_remove_handle(h->multi, s->easy);
    }
    s->call->code = TLR_ECANCELLED;
    tlr_err_clear(&s->call->err);
    tlr_err_set(&s->call->err, TLR_ECANCELLED, "%s: given up", h->label);
    finish(h, s);
}

/* Starts what is due and ends what is aborted; the time of the next due one. */
static uint64_t visit(struct tlr_http *h, bool *quits)
{
    uint64_t next = UINT64_MAX, now = tlr_now_ns();
    for (int i = 0; i < TLR_HTTP_CALLS; i++) {
        pthread_mutex_lock(&h->lock);
        struct tlr_http_state *s = h->calls[i];
        enum phase phase = s ? s->phase : IDLE;
        bool aborts = s && (s->is_aborted || h->quits);
        *quits = h->quits;
        pthread_mutex_unlock(&h->lock);
        if (phase == IDLE || phase == DONE)
            continue;
        if (aborts)
            cut(h, s, phase);
        else if (phase == QUEUED || (phase == RESTING && s->due_ns <= now))
            launch(h, s);
        else if (phase == RESTING && s->due_ns < next)
            next = s->due_ns;
    }
    return next;
}

static void collect(struct tlr_http *h)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(h->multi, &left))) {
        struct tlr_http_state *s = NULL;
        CURLcode result = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        char *mine = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &mine);
        s = (struct tlr_http_state *)(void *)mine;
        tlr_attempt_account(s);
        curl_multi_remove_handle(h->multi, s->easy);
        if (result != CURLE_OK)
            tlr_attempt_fail(h, s, result);
        judge(h, s);
    }
}

static void *serve(void *arg)
{
    struct tlr_http *h = arg;
    for (;;) {
        bool quits = false;
        int running;
        uint64_t next = visit(h, &quits);
        if (quits)
            return NULL;
        curl_multi_perform(h->multi, &running);
        collect(h);
        /* What collect made due is seen by a visit before the sleep. */
        uint64_t now = tlr_now_ns(), ms = 1000;
        uint64_t again = visit(h, &quits);
        next = again < next ? again : next;
        if (next != UINT64_MAX)
            ms = next > now ? (next - now) / 1000000 + 1 : 0;
        curl_multi_poll(h->multi, NULL, 0, ms < 1000 ? (int)ms : 1000, NULL);
    }
}

/* ---- opening ---- */

static CURLcode global_result;
static void begin_curl(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int copy_options(struct tlr_http *h, const struct tlr_http_options *o,
                        struct tlr_err *err)
{
    h->o = *o;
    h->base = tlr_strdup(o->base);
    h->label = tlr_strdup(o->label);
    h->key = o->key ? tlr_strdup(o->key) : NULL;
    h->ca_file = o->ca_file ? tlr_strdup(o->ca_file) : NULL;
    if (!h->base || !h->label || (o->key && !h->key) ||
        (o->ca_file && !h->ca_file))
        return tlr_err_nomem(err, "network", strlen(o->base));
    return 0;
}

/* The thread takes no signal: Ctrl-C is the main thread's, and a connection that
 * breaks while it is written to is an error and not SIGPIPE. */
static int start_thread(struct tlr_http *h, struct tlr_err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&h->thread, NULL, serve, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    h->has_thread = rc == 0;
    return rc ? tlr_err_set_errno(err, TLR_EIO, rc, "network: no thread") : 0;
}

int tlr_http_open(struct tlr_http **out, const struct tlr_http_options *o,
                  struct tlr_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* libcurl's own state */
    *out = NULL;
    pthread_once(&once, begin_curl);
    if (global_result != CURLE_OK)
        return tlr_err_set(err, TLR_EUNSUPPORTED, "libcurl: %s",
                           curl_easy_strerror(global_result));
    struct tlr_http *h = tlr_calloc(1, sizeof *h);
    if (!h)
        return tlr_err_nomem(err, "network", sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(&h->done, &attr);
    pthread_condattr_destroy(&attr);
    int rc = copy_options(h, o, err);
    if (!rc && !(h->multi = curl_multi_init()))
        rc = tlr_err_nomem(err, "network", 0);
    if (!rc)
        rc = start_thread(h, err);
    if (rc) {
        tlr_http_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

static void wipe(char *secret)
{
    volatile char *p = secret;
    while (p && *p)
        *p++ = '\0';
}

void tlr_http_close(struct tlr_http *h)
{
    if (!h)
        return;
    if (h->has_thread) {
        pthread_mutex_lock(&h->lock);
        h->quits = true;
        pthread_mutex_unlock(&h->lock);
        curl_multi_wakeup(h->multi);
        pthread_join(h->thread, NULL);
    }
    if (h->multi)
        curl_multi_cleanup(h->multi);
    pthread_cond_destroy(&h->done);
    pthread_mutex_destroy(&h->lock);
    wipe(h->key);
    tlr_free(h->base);
    tlr_free(h->label);
    tlr_free(h->key);
    tlr_free(h->ca_file);
    tlr_free(h);
}

/* ---- calls ---- */

static bool add_header(struct tlr_http_state *s, const char *line)
{
    struct curl_slist *grown = curl_slist_append(s->headers, line);
    if (grown)
        s->headers = grown;
    return grown != NULL;
}

static bool add_headers(struct tlr_http *h, struct tlr_http_state *s)
{
    char line[2048];
    bool ok = add_header(s, "Content-Type: application/json") &&
              add_header(s, "Accept: application/json") &&
              add_header(s, "User-Agent: tlr/" TLR_VERSION) &&
              add_header(s, "Expect:"); /* no wait for 100-continue */
    if (!ok || !h->key)
        return ok;
    int n = snprintf(line, sizeof line, "Authorization: Bearer %s", h->key);
    ok = n > 0 && (size_t)n < sizeof line && add_header(s, line);
    wipe(line);
    return ok;
}

int tlr_http_call_init(struct tlr_http *h, struct tlr_http_call *c,
                       struct tlr_err *err)
{
    struct tlr_http_state *s = tlr_calloc(1, sizeof *s);
    if (!s)
        return tlr_err_nomem(err, h->label, sizeof *s);
    s->call = c;
    s->easy = curl_easy_init();
    bool ok = s->easy && add_headers(h, s);
    pthread_mutex_lock(&h->lock);
    int at = 0;
    while (ok && at < TLR_HTTP_CALLS && h->calls[at])
        at++;
    if (ok && at < TLR_HTTP_CALLS)
        h->calls[at] = s;
    pthread_mutex_unlock(&h->lock);
    c->state = s;
    if (ok && at < TLR_HTTP_CALLS)
        return 0;
    tlr_http_call_clear(h, c);
    return ok ? tlr_err_set(err, TLR_ELIMIT, "%s: more than %d questions at "
                            "the same time", h->label, TLR_HTTP_CALLS)
              : tlr_err_nomem(err, h->label, sizeof *s);
}

void tlr_http_call_clear(struct tlr_http *h, struct tlr_http_call *c)
{
    struct tlr_http_state *s = c->state;
    if (s && s->phase != IDLE) {
        tlr_http_abort(h, c);
        while (!tlr_http_wait(h, c, 1000))
            continue;
    }
    pthread_mutex_lock(&h->lock);
    for (int i = 0; s && i < TLR_HTTP_CALLS; i++)
        if (h->calls[i] == s)
            h->calls[i] = NULL;
    pthread_mutex_unlock(&h->lock);
    if (s) {
        for (struct curl_slist *l = s->headers; l; l = l->next)
            wipe(l->data);
        curl_slist_free_all(s->headers);
        curl_easy_cleanup(s->easy);
        tlr_free(s);
    }
    tlr_buf_clear(&c->body);
    tlr_buf_clear(&c->packed);
    tlr_buf_clear(&c->reply);
    memset(c, 0, sizeof *c);
}

void tlr_http_submit(struct tlr_http *h, struct tlr_http_call *c)
{
    struct tlr_http_state *s = c->state;
    tlr_attempt_begin(c);
    c->n_attempts = 0;
    c->sent_bytes = c->received_bytes = c->n_connects = 0;
    memset(&c->times, 0, sizeof c->times);
    s->begun_ns = tlr_now_ns();
    pthread_mutex_lock(&h->lock);
    s->is_aborted = false;
    s->phase = QUEUED;
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
}

static struct timespec when(uint64_t timeout_ms)
{
    struct timespec t;
#if defined(__APPLE__)
    clock_gettime(CLOCK_REALTIME, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    t.tv_sec += (time_t)(timeout_ms / 1000);
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

bool tlr_http_wait(struct tlr_http *h, struct tlr_http_call *c,
                   uint64_t timeout_ms)
{
    struct tlr_http_state *s = c->state;
    struct timespec until = when(timeout_ms);
    pthread_mutex_lock(&h->lock);
    while (s->phase != DONE && timeout_ms > 0)
        if (pthread_cond_timedwait(&h->done, &h->lock, &until) == ETIMEDOUT)
            break;
    bool is_done = s->phase == DONE || s->phase == IDLE;
    pthread_mutex_unlock(&h->lock);
    return is_done;
}

void tlr_http_notify(struct tlr_http *h, void (*call)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&h->lock);
    h->notify = call;
    h->notify_ctx = ctx;
    pthread_mutex_unlock(&h->lock);
}

void tlr_http_abort(struct tlr_http *h, struct tlr_http_call *c)
{
    pthread_mutex_lock(&h->lock);
    c->state->is_aborted = true;
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
}
