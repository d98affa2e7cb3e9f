/* serve_exchange.h - one request on its way through the server, and the routes.
 *
 * libmicrohttpd's thread owns an exchange; the scheduler reaches it only through
 * the two callbacks of its job, under the scheduler's lock.
 */
#ifndef TLR_NET_SERVE_EXCHANGE_H
#define TLR_NET_SERVE_EXCHANGE_H

#include <microhttpd.h>

#include "net/serve.h"
#include "net/serve_reply.h"
#include "net/serve_watch.h"

struct tlr_server {
    struct tlr_serve_options o;
    struct MHD_Daemon *daemon;
    struct tlr_scheduler *scheduler;
    struct tlr_watch *watch;
    uint64_t seed;      /* of requests that bring none; counts up */
    uint64_t n_requests; /* so far; their ids */
    uint64_t n_http[6];  /* under the scheduler's lock, like what follows */
    int n_open;
    int64_t created;
    uint16_t port;
    int listen_fd; /* taken from the daemon by drain; -1 */
};

struct tlr_exchange {
    struct tlr_server *server;
    struct MHD_Connection *connection;
    const struct tlr_route *route;
    char url[128]; /* its beginning */
    struct tlr_fault fault; /* status 0: none so far */
    struct tlr_buffer body;
    size_t n_discarded;
    bool is_received;
    struct tlr_job *job; /* NULL: none, or let go */
    struct tlr_reply reply;
    bool is_suspended;   /* under the scheduler's lock */
    struct tlr_buffer out; /* of a stream: events, sent up to out_at */
    size_t out_at;
};

struct tlr_route {
    const char *method, *path;
    bool is_open; /* without a key */
    enum MHD_Result (*answer)(struct tlr_exchange *x);
};

/* The route, or NULL with the fault filled (404, 405). */
const struct tlr_route *tlr_route_find(const char *method, const char *path,
                                       struct tlr_fault *fault);

/* Made of net/web/index.html. */
extern const unsigned char tlr_web_page[];
extern const unsigned tlr_web_page_bytes;

/* ---- serve_send.c: replies ---- */

void tlr_fault_of(struct tlr_fault *f, int status, const char *code,
                  const char *text);
enum MHD_Result tlr_send(struct tlr_exchange *x, int status,
                         const char *content_type, const char *bytes,
                         size_t n);
enum MHD_Result tlr_send_json(struct tlr_exchange *x, int status, json_t *root);
enum MHD_Result tlr_send_fault(struct tlr_exchange *x,
                               const struct tlr_fault *fault);
/* What went wrong is ours: the log gets err, the client 500. */
enum MHD_Result tlr_send_failure(struct tlr_exchange *x,
                                 const struct tlr_err *err);

/* ---- serve_generate.c: requests that make text ---- */

enum MHD_Result tlr_answer_chat(struct tlr_exchange *x);
enum MHD_Result tlr_answer_text(struct tlr_exchange *x);
enum MHD_Result tlr_answer_generate(struct tlr_exchange *x);
/* The job is there: its reply, as far as it has come. */
enum MHD_Result tlr_answer_job(struct tlr_exchange *x);
void tlr_exchange_leave(struct tlr_exchange *x);

#endif
