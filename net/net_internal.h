/* net_internal.h - what client.c, probe.c and the expert share. */
#ifndef TLR_NET_NET_INTERNAL_H
#define TLR_NET_NET_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "net/api.h"
#include "net/audit.h"
#include "net/http.h"
#include "net/net.h"
#include "net/retry.h"
#include "net/seam.h"
#include "net/url.h"

enum {
    TLR_NET_SLOTS = TLR_HTTP_CALLS - 1, /* one call is the probe's */
    TLR_NET_ADRIFT = 4 /* cancelled asks that may still run to their end: that
                          costs the server a token and saves a connection */
};

/* A draft of the caller's, checked in one ask (expert.h: ask_each); he stands still
 * meanwhile. */
struct tlr_net_draft {
    const int32_t *ids;
    size_t n, first;
    int32_t *out; /* [n - first] */
};

/* One ask on its way. */
struct tlr_net_slot {
    struct tlr_net *net;
    struct tlr_http_call call;
    bool is_made;     /* the call was initialised */
    bool is_used, is_adrift; /* under the net's lock */
    bool is_warm, is_trial;
    bool by_text;     /* the prefix goes out as text */
    bool is_auto;     /* TLR_EXPERT_AUTO */
    const struct tlr_net_draft *draft; /* the caller's thread only; NULL: none */
    uint64_t ticket;
    size_t n_prefix;
    int n_asked;      /* tokens that the server is asked for */
    int n_rounds;     /* how often the text held no whole token of ours */
    struct tlr_seam_want want;
    int32_t tail[TLR_SEAM_TAIL];
    struct tlr_buf text, messages; /* the prefix in words */
    struct tlr_net_answer answer;
    int32_t ids[TLR_EXPERT_TOK_MAX];
    int n_ids;
};

struct tlr_net {
    struct tlr_net_options o;
    struct tlr_url url;
    struct tlr_seam seam;
    struct tlr_http *http;
    struct tlr_audit *audit;
    char *key; /* to keep it out of what a server writes */
    char about[1024];
    /* found out by the probe, then constant */
    pthread_mutex_t probing;
    bool is_known;
    enum tlr_net_api_kind kind;
    char model[256];
    bool by_text, is_strict;
    atomic_bool tells_no_p; /* seen in a reply that should have had probabilities */
    atomic_bool takes_no_gzip; /* it refused a packed question */
    atomic_bool checks_no_drafts; /* likewise, what it would have written itself */
    bool is_pinned; /* the user named the model */
    struct tlr_http_call probe;
    /* under the lock */
    pthread_mutex_t lock;
    struct tlr_breaker breaker;
    struct tlr_budget budget;
    struct tlr_expert_account account;
    uint64_t round_trip_ns; /* shortest seen; 0: none */
    uint64_t last_ticket, n_good;
    char failure[300]; /* why an ask failed last */
    struct tlr_net_slot slots[TLR_NET_SLOTS];
};

/* ---- client.c ---- */

/* Turns a transfer that is over into an error, where its status or its kind of
 * content is no answer: 0, or the code, which is also the call's. */
int tlr_net_check_reply(struct tlr_net *n, struct tlr_http_call *c);
/* Adds a finished call's bytes to the account, under the lock. */
void tlr_net_count(struct tlr_net *n, const struct tlr_http_call *c);
bool tlr_net_is_stopped(const struct tlr_net *n);
/* Waits for a call while nothing stops it: TLR_ECANCELLED. */
int tlr_net_await(struct tlr_net *n, struct tlr_http_call *c, struct tlr_err *err);

/* ---- expert_attempt.c ---- */

/* The request's body; ids may be NULL where the prefix goes by text. */
void tlr_net_attempt_build(struct tlr_net_slot *s, const int32_t *ids);
/* Of http.h's calls; ctx is the slot. */
int tlr_net_attempt_before(void *ctx, struct tlr_http_call *c,
                           struct tlr_err *err);
int64_t tlr_net_attempt_after(void *ctx, struct tlr_http_call *c);

/* ---- probe.c ---- */

/* net->kind, model, by_text, is_strict. */
int tlr_net_probe(struct tlr_net *n, struct tlr_err *err);

#endif
