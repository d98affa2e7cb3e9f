/* serve_reply.h - a job's results in the wire format that its client speaks. */
#ifndef TLR_NET_SERVE_REPLY_H
#define TLR_NET_SERVE_REPLY_H

#include <jansson.h>

#include "net/serve_request.h"

/* Growing bytes; zero it first. */
struct tlr_buffer {
    char *bytes;
    size_t n, cap;
};
int tlr_buffer_add(struct tlr_buffer *b, const char *bytes, size_t n,
                   struct tlr_err *err);
void tlr_buffer_clear(struct tlr_buffer *b);

struct tlr_reply {
    enum tlr_serve_api api;
    bool stream, has_usage, has_ids, is_batch;
    char id[80];
    int64_t created; /* Unix time */
    const char *model_name;
    const struct tlr_tokenizer *tokenizer;
    /* of a stream: */
    bool has_begun, has_ended;
    size_t n_sent_tok, n_sent_text;
};

/* Everything at once; the job is DONE and was not refused.  Under the lock. */
int tlr_reply_whole(const struct tlr_reply *r, const struct tlr_job *j,
                    struct tlr_buffer *out, struct tlr_err *err);

/* Server-sent events of what is new since the last call, perhaps none; the last
 * ones with has_ended.  Under the lock. */
int tlr_reply_events(struct tlr_reply *r, const struct tlr_job *j,
                     struct tlr_buffer *out, struct tlr_err *err);

/* OpenAI's error object; type follows from the status. */
int tlr_reply_error(struct tlr_buffer *out, int status, const char *code,
                    const char *param, const char *text, struct tlr_err *err);

/* A string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *tlr_reply_text(const char *bytes, size_t len);
/* The object's text into out; drops it.  NULL (out of memory) is an error. */
int tlr_reply_dump(struct tlr_buffer *out, json_t *root, struct tlr_err *err);

/* ---- serve_reply_parts.c: what the formats are made of ---- */

/* Of tokens [from, to). */
json_t *tlr_reply_ids(const struct tlr_job *j, size_t from, size_t to);
json_t *tlr_reply_chat_logprobs(const struct tlr_reply *r,
                                const struct tlr_job *j, size_t from,
                                size_t to);
json_t *tlr_reply_text_logprobs(const struct tlr_reply *r,
                                const struct tlr_job *j, size_t from,
                                size_t to);
/* SGLang's triples: [logprob, id, null], and the best ones of each position. */
json_t *tlr_reply_triples(const struct tlr_job *j);
json_t *tlr_reply_top_triples(const struct tlr_job *j);
/* The "tlr" object: how the tokens [from, to) were decided and, with whole, the
 * sums. */
json_t *tlr_reply_routing(const struct tlr_job *j, size_t from, size_t to,
                          bool whole);
bool tlr_reply_has_routing(const struct tlr_job *j);

#endif
