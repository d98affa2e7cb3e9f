/* serve_request.h - from the bytes of a request's body to a job.
 *
 * Hostile until checked: every field that would change the text is either obeyed
 * or refused by name; fields that do not are ignored.  Wire formats: OpenAI's
 * chat and text completions (with the fields that vLLM and SGLang add to them),
 * SGLang's /generate.
 */
#ifndef TLR_NET_SERVE_REQUEST_H
#define TLR_NET_SERVE_REQUEST_H

#include "net/serve_job.h"

enum tlr_serve_api { TLR_API_CHAT, TLR_API_TEXT, TLR_API_GENERATE };

struct tlr_request {
    enum tlr_serve_api api;
    struct tlr_job_ask ask;
    bool stream;
    bool has_usage;  /* stream_options.include_usage */
    bool has_ids;    /* return_token_ids */
    bool is_batch;   /* generate: the prompt was a list of one */
    char id[64];     /* generate: the client's own (rid), "" for ours */
};

/* What a client did wrong. */
struct tlr_fault {
    int status;        /* of HTTP */
    const char *code;  /* of OpenAI's error object; NULL: null */
    char param[48];    /* the field; "" where none is to blame */
    unsigned retry_s;  /* with 429: when to try again; 0: soon */
    char text[320];
};

/* What requests are checked against. */
struct tlr_request_limits {
    const struct tlr_model *model;
    uint32_t n_ctx;
    uint64_t seed; /* of requests that bring none */
    /* Routing: the server's own policy and mode, which a request may change. */
    enum tlr_joint_mode mode;
    struct tlr_policy policy;
    struct tlr_router *router; /* read only; NULL: none */
    bool has_llm;
};

/* 0, or TLR_EFORMAT with *fault filled (another code: ours is the fault, err
 * says what).  Clear the request also after a failure. */
int tlr_request_parse(struct tlr_request *out, enum tlr_serve_api api,
                      struct tlr_bytes body,
                      const struct tlr_request_limits *limits,
                      struct tlr_fault *fault, struct tlr_err *err);
void tlr_request_clear(struct tlr_request *r);

/* /tokenize: {"prompt" or "content": text, "add_special_tokens": bool} or
 * {"messages": [...]}, and /detokenize: {"tokens": [...]}. */
int tlr_request_tokenize(struct tlr_ids *out, struct tlr_bytes body,
                         const struct tlr_request_limits *limits,
                         struct tlr_fault *fault, struct tlr_err *err);
int tlr_request_detokenize(struct tlr_ids *out, struct tlr_bytes body,
                           const struct tlr_request_limits *limits,
                           struct tlr_fault *fault, struct tlr_err *err);

#endif
