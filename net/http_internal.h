/* http_internal.h - what http.c and http_attempt.c share. */
#ifndef TLR_NET_HTTP_INTERNAL_H
#define TLR_NET_HTTP_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>

#include "net/http.h"

enum phase { IDLE, QUEUED, SENT, RESTING, DONE };

struct tlr_http_state {
    enum phase phase; /* under the lock */
    bool is_aborted;  /* under the lock */
    CURL *easy;
    struct tlr_http_call *call;
    struct curl_slist *headers;
    struct curl_slist encoding; /* before them, where the body is packed */
    char why[CURL_ERROR_SIZE];
    uint64_t begun_ns, due_ns; /* due: RESTING until then */
    size_t header_bytes;
    bool is_too_long;
};

struct tlr_http {
    struct tlr_http_options o; /* strings are own copies */
    char *base, *label, *key, *ca_file;
    CURLM *multi;
    pthread_t thread;
    bool has_thread, has_sync;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool quits; /* under the lock, like the next two */
    void (*notify)(void *ctx);
    void *notify_ctx;
    struct tlr_http_state *calls[TLR_HTTP_CALLS]; /* under the lock */
};

/* Forgets the last attempt's reply. */
void tlr_attempt_begin(struct tlr_http_call *c);
/* 0 when the attempt is on its way, else the call's error. */
int tlr_attempt_start(struct tlr_http *h, struct tlr_http_state *s);
/* Adds what the attempt moved and how long it took to the call's sums. */
void tlr_attempt_account(struct tlr_http_state *s);
/* Says why it failed. */
void tlr_attempt_fail(struct tlr_http *h, struct tlr_http_state *s,
                      CURLcode result);

#endif
