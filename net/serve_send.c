/* serve_send.c - replies that are there as a whole. */
#include <stdio.h>
#include <string.h>

#include "net/serve_exchange.h"

void tlr_fault_of(struct tlr_fault *f, int status, const char *code,
                  const char *text)
{
    f->status = status;
    f->code = code;
    snprintf(f->text, sizeof f->text, "%.300s", text);
}

static void log_line(struct tlr_exchange *x, const char *line)
{
    const struct tlr_scheduler_options *o = &x->server->o.scheduler;
    if (o->log)
        o->log(o->log_ctx, line);
}

enum MHD_Result tlr_send(struct tlr_exchange *x, int status,
                         const char *content_type, const char *bytes,
                         size_t n)
{
    static const char nothing[] = "";
    struct tlr_server *s = x->server;
    /* copied; the library takes a pointer that is not const */
    union {
        const char *in;
        void *out;
    } data = {n > 0 ? bytes : nothing};
    struct MHD_Response *r =
        MHD_create_response_from_buffer(n, data.out, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", content_type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (strncmp(content_type, "text/html", 9) == 0)
        MHD_add_response_header(r, "Content-Security-Policy",
                                "default-src 'none'; connect-src 'self'; "
                                "img-src data:; style-src 'unsafe-inline'; "
                                "script-src 'unsafe-inline'; base-uri 'none'; "
                                "form-action 'none'; frame-ancestors 'none'");
    if (status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u",
                 x->fault.retry_s > 0 ? x->fault.retry_s : 1);
        MHD_add_response_header(r, "Retry-After", seconds);
    }
    tlr_scheduler_lock(s->scheduler);
    s->n_http[status / 100 % 6]++;
    tlr_scheduler_unlock(s->scheduler);
    enum MHD_Result sent =
        MHD_queue_response(x->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return sent;
}

static enum MHD_Result send_buffer(struct tlr_exchange *x, int status, int rc,
                                   struct tlr_buffer *b)
{
    enum MHD_Result sent =
        rc ? MHD_NO : tlr_send(x, status, "application/json", b->bytes, b->n);
    tlr_buffer_clear(b);
    return sent;
}

enum MHD_Result tlr_send_json(struct tlr_exchange *x, int status, json_t *root)
{
    struct tlr_buffer b = {.bytes = NULL};
    return send_buffer(x, status, tlr_reply_dump(&b, root, NULL), &b);
}

enum MHD_Result tlr_send_fault(struct tlr_exchange *x,
                               const struct tlr_fault *fault)
{
    struct tlr_buffer b = {.bytes = NULL};
    int rc = tlr_reply_error(&b, fault->status, fault->code, fault->param,
                             fault->text, NULL);
    return send_buffer(x, fault->status, rc, &b);
}

enum MHD_Result tlr_send_failure(struct tlr_exchange *x,
                                 const struct tlr_err *err)
{
    struct tlr_fault fault = {.status = 0};
    tlr_fault_of(&fault, 500, "internal_error",
                 "the server failed; its log says why");
    log_line(x, err->text);
    return tlr_send_fault(x, &fault);
}
