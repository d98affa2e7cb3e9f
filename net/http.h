/* http.h - one server, and a thread that talks to it.
 *
 * A call is one question with all its attempts: the thread sends it, waits,
 * tries again when the caller's rule says so, and tells when it is done.  Several
 * calls may be on their way; connections are kept alive and shared by them.
 * Owns sockets, time limits, TLS, the bound on a reply's size.  Knows nothing of
 * tokens or JSON.  libcurl does the talking.
 */
#ifndef TLR_NET_HTTP_H
#define TLR_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/buf.h"

enum {
    TLR_HTTP_CALLS = 64,           /* at the same time */
    TLR_HTTP_REPLY_MAX = 1 << 20,  /* bytes of a reply's body */
    TLR_HTTP_HEADERS_MAX = 64 << 10
};

struct tlr_http;
struct tlr_http_call;

struct tlr_http_options {
    const char *base;    /* scheme://host[:port][/path], checked (url.h) */
    const char *label;   /* what messages call the server */
    const char *key;     /* NULL: none; copied, wiped when freed */
    const char *ca_file; /* NULL: the system's */
    bool insecure;       /* no check of certificates */
    bool direct;         /* past any proxy: loopback */
    uint64_t connect_ms; /* for a connection to stand */
};

/* Of one call, all attempts: what the wait was made of. */
struct tlr_http_times {
    uint64_t queue_ns;      /* before the first attempt was sent, and between
                               attempts */
    uint64_t connect_ns;    /* name, TCP, TLS */
    uint64_t first_byte_ns; /* from the request sent to the reply's first byte */
    uint64_t total_ns;      /* from submit to done */
    uint64_t round_trip_ns; /* that TCP took to connect; 0: it did not */
};

struct tlr_http_call {
    /* in */
    const char *path;      /* "/generate"; appended to the base */
    bool is_post;
    struct tlr_buf body;   /* JSON */
    struct tlr_buf packed; /* the same by gzip, sent in its place; empty: not */
    uint64_t deadline_ns;  /* tlr_now_ns; no attempt goes on beyond it */
    /* Both run in the thread and may be NULL.  before: an error ends the call,
     * nothing is sent.  after: judges the attempt (code, err, status, reply),
     * which it may turn into another error; returns nanoseconds to wait until the
     * next attempt, or -1: done. */
    int (*before)(void *ctx, struct tlr_http_call *c, struct tlr_err *err);
    int64_t (*after)(void *ctx, struct tlr_http_call *c);
    void *ctx;
    /* out, of the last attempt; to be read when done */
    int code;              /* 0: there is a reply, whatever its status */
    struct tlr_err err;
    long status;
    struct tlr_buf reply;
    char type[64];         /* Content-Type */
    double retry_after_s;  /* NAN: not said */
    int n_attempts;
    uint64_t sent_bytes, received_bytes; /* of all attempts, with headers */
    uint64_t n_connects;
    struct tlr_http_times times;
    struct tlr_http_state *state; /* the thread's */
};

/* Starts the thread; opens no connection. */
int tlr_http_open(struct tlr_http **out, const struct tlr_http_options *o,
                  struct tlr_err *err);
/* Ends what is on its way and the thread; NULL is allowed. */
void tlr_http_close(struct tlr_http *h);

/* Makes room for a call's transfers; the call must be zeroed.  It may be
 * submitted again and again, once at a time. */
int tlr_http_call_init(struct tlr_http *h, struct tlr_http_call *c,
                       struct tlr_err *err);
void tlr_http_call_clear(struct tlr_http *h, struct tlr_http_call *c);

void tlr_http_submit(struct tlr_http *h, struct tlr_http_call *c);
/* Whether it is done, after waiting at most timeout_ms for it (0: a look). */
bool tlr_http_wait(struct tlr_http *h, struct tlr_http_call *c,
                   uint64_t timeout_ms);
/* `call` is called, under a lock, when any call is done; NULL: no more.  It must
 * not call back, and nobody who holds what it waits for may be in here. */
void tlr_http_notify(struct tlr_http *h, void (*call)(void *ctx), void *ctx);
/* Ends a call that is not done: at the latest a moment later it is, with
 * TLR_ECANCELLED.  Costs its connection. */
void tlr_http_abort(struct tlr_http *h, struct tlr_http_call *c);

#endif
