/* serve_generate.c - requests that make text: submit, wait, stream.
 *
 * While a text is made its connection is suspended, which the library does not
 * poll; the scheduler resumes it when there is something to send, and looks
 * whether the client is still there in the meantime.  A client that has closed
 * its sending half counts as gone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "net/serve_exchange.h"

enum { BLOCK_BYTES = 16384 };

/* ---- callbacks of the job, under the scheduler's lock ---- */

static void on_news(void *ctx)
{
    struct tlr_exchange *x = ctx;
    if (!x->is_suspended ||
        (!x->reply.stream && x->job->state != TLR_JOB_DONE))
        return;
    x->is_suspended = false;
    MHD_resume_connection(x->connection);
}

static bool on_look(void *ctx)
{
    struct tlr_exchange *x = ctx;
    char byte;
    if (!x->is_suspended)
        return true;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    ssize_t n = info ? recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
                     : 0;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK ||
                               errno == EINTR));
}

void tlr_exchange_leave(struct tlr_exchange *x)
{
    if (x->job)
        tlr_scheduler_leave(x->server->scheduler, x->job);
    x->job = NULL;
}

/* ---- streams ---- */

/* Under the lock: events that are new, or the wait for some. */
static ssize_t refill(struct tlr_exchange *x)
{
    x->out.n = x->out_at = 0;
    if (x->reply.has_ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (tlr_reply_events(&x->reply, x->job, &x->out, NULL))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (x->out.n == 0) {
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
    }
    return 0;
}

static ssize_t read_stream(void *ctx, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    struct tlr_exchange *x = ctx;
    tlr_scheduler_lock(x->server->scheduler);
    ssize_t n = x->out_at == x->out.n ? refill(x) : 0;
    if (n == 0 && x->out.n > x->out_at) {
        size_t left = x->out.n - x->out_at;
        n = (ssize_t)(left < max ? left : max);
        memcpy(buf, x->out.bytes + x->out_at, (size_t)n);
        x->out_at += (size_t)n;
    }
    tlr_scheduler_unlock(x->server->scheduler);
    return n;
}

static enum MHD_Result begin_stream(struct tlr_exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_stream, x, NULL);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/event-stream");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    tlr_scheduler_lock(x->server->scheduler);
    x->server->n_http[2]++;
    tlr_scheduler_unlock(x->server->scheduler);
    enum MHD_Result sent = MHD_queue_response(x->connection, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return sent;
}

/* ---- the reply ---- */

static enum MHD_Result send_unfinished(struct tlr_exchange *x,
                                       enum tlr_job_finish finish)
{
    bool refused = finish == TLR_JOB_REFUSED;
    struct tlr_fault f = {.status = 0};
    if (refused)
        tlr_fault_of(&f, 503, "stopping", "the server is stopping");
    else
        tlr_fault_of(&f, 500, "internal_error",
                     "the server failed; its log says why");
    return tlr_send_fault(x, &f);
}

static enum MHD_Result send_whole(struct tlr_exchange *x)
{
    struct tlr_buffer b = {.bytes = NULL};
    struct tlr_err err = TLR_ERR_INIT;
    tlr_scheduler_lock(x->server->scheduler);
    enum tlr_job_finish finish = x->job->finish;
    int rc = finish <= TLR_JOB_LENGTH
                 ? tlr_reply_whole(&x->reply, x->job, &b, &err)
                 : 0;
    tlr_scheduler_unlock(x->server->scheduler);
    enum MHD_Result sent =
        rc                         ? tlr_send_failure(x, &err)
        : finish <= TLR_JOB_LENGTH ? tlr_send(x, 200, "application/json",
                                              b.bytes, b.n)
                                   : send_unfinished(x, finish);
    tlr_buffer_clear(&b);
    return sent;
}

/* A stream begins with its first token, so that what fails before has a status
 * of its own. */
enum MHD_Result tlr_answer_job(struct tlr_exchange *x)
{
    tlr_scheduler_lock(x->server->scheduler);
    const struct tlr_job *j = x->job;
    bool is_done = j->state == TLR_JOB_DONE;
    bool can_stream = x->reply.stream && j->n > 0;
    if (!is_done && !can_stream) {
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
    }
    tlr_scheduler_unlock(x->server->scheduler);
    if (can_stream)
        return begin_stream(x);
    return is_done ? send_whole(x) : MHD_YES;
}

/* ---- the request ---- */

static void describe(struct tlr_exchange *x, const struct tlr_request *q)
{
    static const char *const kinds[] = {"chatcmpl-", "cmpl-", ""};
    struct tlr_server *s = x->server;
    struct tlr_reply *r = &x->reply;
    *r = (struct tlr_reply){.api = q->api, .stream = q->stream,
                            .has_usage = q->has_usage, .has_ids = q->has_ids,
                            .is_batch = q->is_batch,
                            .created = (int64_t)time(NULL),
                            .model_name = s->o.model_name,
                            .tokenizer = tlr_model_tokenizer(s->o.limits.model)};
    if (q->id[0])
        snprintf(r->id, sizeof r->id, "%s", q->id);
    else
        snprintf(r->id, sizeof r->id, "%s%016llx%08llx", kinds[q->api],
                 (unsigned long long)s->seed,
                 (unsigned long long)s->n_requests);
}

static enum MHD_Result submit(struct tlr_exchange *x, struct tlr_job_ask *ask)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_job *j = NULL;
    int rc = tlr_job_new(&j, ask, &err);
    if (rc)
        return tlr_send_failure(x, &err);
    j->wake = on_news;
    j->is_alive = on_look;
    j->ctx = x;
    x->job = j;
    rc = tlr_scheduler_submit(x->server->scheduler, j, &x->fault.retry_s, &err);
    if (!rc)
        return tlr_answer_job(x);
    tlr_exchange_leave(x);
    struct tlr_fault f = {.status = 0};
    tlr_fault_of(&f, rc == TLR_ELIMIT ? 429 : 503,
                 rc == TLR_ELIMIT ? "queue_full" : "stopping", err.text);
    return tlr_send_fault(x, &f);
}

static enum MHD_Result answer(struct tlr_exchange *x, enum tlr_serve_api api)
{
    struct tlr_server *s = x->server;
    struct tlr_request_limits limits = s->o.limits;
    struct tlr_request q;
    struct tlr_fault fault = {.status = 0};
    struct tlr_err err = TLR_ERR_INIT;
    limits.seed = ++s->seed;
    s->n_requests++;
    int rc = tlr_request_parse(
        &q, api,
        (struct tlr_bytes){(const uint8_t *)x->body.bytes, x->body.n}, &limits,
        &fault, &err);
    tlr_buffer_clear(&x->body);
    enum MHD_Result sent;
    if (rc) {
        sent = fault.status ? tlr_send_fault(x, &fault)
                            : tlr_send_failure(x, &err);
    } else {
        describe(x, &q);
        sent = submit(x, &q.ask);
    }
    tlr_request_clear(&q);
    return sent;
}

enum MHD_Result tlr_answer_chat(struct tlr_exchange *x)
{
    return answer(x, TLR_API_CHAT);
}

enum MHD_Result tlr_answer_text(struct tlr_exchange *x)
{
    return answer(x, TLR_API_TEXT);
}

enum MHD_Result tlr_answer_generate(struct tlr_exchange *x)
{
    return answer(x, TLR_API_GENERATE);
}
