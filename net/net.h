/* net.h - a large model behind a URL.
 *
 * A struct tlr_net is one server: connection, thread, what was found out about it,
 * budgets and counts.  Experts on it (router/expert.h) may be used by as many
 * threads as one likes, each expert by one.  Ordinary failure is an answer that did
 * not come: the ask fails with its reason, the caller goes on.
 */
#ifndef TLR_NET_NET_H
#define TLR_NET_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "router/expert.h"

struct tlr_model;
struct tlr_net;

struct tlr_net_options {
    const char *url;      /* rules: url.h */
    const char *api;      /* "auto", "sglang", "vllm", "llamacpp", "openai" */
    const char *model;    /* NULL: what the server lists first */
    const char *key;      /* NULL: none; sent as a bearer token, shown nowhere */
    const char *ca_file;  /* NULL: the system's authorities */
    const char *audit;    /* file; NULL: none */
    bool audit_no_text;
    bool insecure;        /* certificates are not checked */
    bool gzip;            /* long questions are packed, until they are refused */
    bool plain_http;      /* http to hosts other than loopback */
    bool offline;         /* nothing is opened: TLR_EUSAGE */
    double timeout_s;     /* of one ask with all its attempts */
    double connect_s;
    int n_attempts;       /* of one ask, at least 1 */
    /* Budgets; 0: none.  price of a million tokens, in any money. */
    uint64_t max_calls, max_tok;
    double max_wait_s, max_cost, price_in, price_out;
    /* Asked ten times a second while an ask waits; true ends it with
     * TLR_ECANCELLED.  May be NULL. */
    bool (*is_stopped)(void *ctx);
    void *ctx;
};
#define TLR_NET_OPTIONS_INIT                                                   \
    {                                                                          \
        .api = "auto", .timeout_s = 10, .connect_s = 3, .n_attempts = 3        \
    }

/* Checks the options and opens nothing but files: no byte leaves.  What the
 * strings point to is copied; `like`, the small model, must outlive it. */
int tlr_net_open(struct tlr_net **out, const struct tlr_net_options *o,
                 const struct tlr_model *like, struct tlr_err *err);
void tlr_net_close(struct tlr_net *n); /* after its experts; NULL is allowed */

/* Finds out what the server speaks and whether it cuts text into the same tokens.
 * Asks do it where it was not done yet. */
int tlr_net_connect(struct tlr_net *n, struct tlr_err *err);

/* An expert on it.  Of a server that is known by now to check drafts (SGLang, by ids)
 * one that can be asked about all positions of a text at once. */
int tlr_net_expert(struct tlr_net *n, struct tlr_expert *out,
                   struct tlr_err *err);

/* "http://127.0.0.1:8080, sglang, model NAME, by tokens"; valid until close. */
const char *tlr_net_about(const struct tlr_net *n);
/* A number that names server and model, for records. */
uint64_t tlr_net_fingerprint(const struct tlr_net *n);
/* Like tlr_expert_account_of, of all its experts. */
void tlr_net_account(const struct tlr_net *n, struct tlr_expert_account *out);
/* What was spent at the prices given; 0 without. */
double tlr_net_cost(const struct tlr_net *n);

#endif
