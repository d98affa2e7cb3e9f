/* serve.h - a model behind an HTTP port.
 *
 * OpenAI's /v1/chat/completions, /v1/completions and /v1/models, SGLang's
 * /generate, /tokenize, /detokenize, /health, /metrics.  libmicrohttpd's one
 * event loop speaks with the clients; serve_scheduler.h computes.
 *
 * Safe by default: without API keys it binds to loopback addresses only and
 * answers only requests whose Host is one; no CORS; bounds on connections,
 * headers, bodies and the time a request may take to arrive.  Replies name no
 * path of this machine.
 */
#ifndef TLR_NET_SERVE_H
#define TLR_NET_SERVE_H

#include "net/serve_request.h"
#include "net/serve_scheduler.h"

enum { TLR_KEY_BYTES_MIN = 16, TLR_KEYS_MAX = 64 };

struct tlr_serve_options {
    const char *host; /* name or address */
    uint16_t port;    /* 0: any that is free */
    const char *model_name;
    /* [n_keys], as in "Authorization: Bearer KEY"; none: loopback only. */
    const char *const *keys;
    int n_keys;
    size_t max_body_bytes;
    int max_connections;
    int receive_s; /* most seconds from a connection's or the last request's end
                      to the whole of a request */
    struct tlr_request_limits limits; /* model; n_ctx is filled in */
    struct tlr_scheduler_options scheduler;
};

struct tlr_server;

/* Binds, and begins to answer.  Everything in the options must live longer. */
int tlr_server_start(struct tlr_server **out,
                     const struct tlr_serve_options *options,
                     struct tlr_err *err);
uint16_t tlr_server_port(const struct tlr_server *s);
struct tlr_scheduler *tlr_server_scheduler(struct tlr_server *s);

/* Takes no more connections; requests that come on old ones get 503, waiting
 * ones too. */
void tlr_server_drain(struct tlr_server *s);
/* Requests that are not answered to the end yet. */
int tlr_server_open_requests(struct tlr_server *s);
/* Ends what is left and frees; NULL is allowed. */
void tlr_server_free(struct tlr_server *s);

/* Keys of a file's text: a line each, blank ones and those that begin with #
 * left out.  Cuts the text up.  TLR_EFORMAT for one that is too short or not
 * printable. */
int tlr_keys_parse(char *text, const char *label, const char **keys,
                   int *n_keys, struct tlr_err *err);

#endif
