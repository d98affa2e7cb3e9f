/* api.h - the wire formats: a question becomes a body, a body an answer.
 *
 * One file a format.  Pure functions on bytes: no socket, no clock, no state, so
 * tests and fuzzers need no server.  What an answer means for the text (the seam,
 * the end of the text) is seam.c's.
 */
#ifndef TLR_NET_API_H
#define TLR_NET_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/buf.h"
#include "net/json.h"

/* X(ID, name): in the order of --llm-api. */
#define TLR_NET_APIS(X)                                                        \
    X(SGLANG, "sglang")                                                        \
    X(VLLM, "vllm")                                                            \
    X(LLAMACPP, "llamacpp")                                                    \
    X(OPENAI, "openai")
#define TLR_NET_API_ENUM(id, name) TLR_NET_##id,
enum tlr_net_api_kind {
    TLR_NET_AUTO = -1,
    TLR_NET_APIS(TLR_NET_API_ENUM) TLR_NET_OPENAI_CHAT, /* openai's other one */
    TLR_NET_N_APIS
};

/* More ids than any ask has, because llama.cpp finishes a character. */
enum { TLR_NET_IDS_MAX = 160, TLR_NET_TEXT_MAX = 64 << 10 };

struct tlr_net_ask {
    const int32_t *ids; /* the prefix, where the server takes ids */
    size_t n_ids;
    const char *text;   /* the prefix as text; NULL: by ids */
    size_t n_text;
    int n_tok;          /* to make */
    bool wants_p;       /* how likely each is; not by text */
    size_t n_checked;   /* the last ids of the prefix, a draft: what the model would
                           write in the place of each is wanted, too.  Formats
                           with checks_drafts; less than n_ids */
    const char *messages; /* the prefix as a JSON list of chat messages, for
                             the chat format; NUL-terminated */
    const char *model;  /* "" where the server has one only */
    bool is_warm;       /* only fill the cache */
    bool is_strict;     /* openai: the standard's fields only */
};

enum tlr_net_finish {
    TLR_NET_GOES_ON,  /* the reply does not say, or stopped at no end */
    TLR_NET_AT_LIMIT, /* n_tok tokens were made */
    TLR_NET_AT_END    /* the model ended the text */
};

struct tlr_net_answer {
    int32_t ids[TLR_NET_IDS_MAX];
    int n_ids;          /* -1: the reply has no ids */
    double p[TLR_NET_IDS_MAX]; /* of the ids, the server's probability of each; NAN:
                                  not told */
    /* Of the prefix's last n_rivals ids: the id that stands there, and the one that
     * the model finds likeliest in its place, -1 where it is not told.  NULL:
     * nothing is told of the prefix. */
    int32_t *drafted, *rivals;
    size_t n_rivals;
    struct tlr_buf text;
    bool has_text;
    enum tlr_net_finish finish;
    int32_t end_id;     /* the id that ended it, where told; else -1 */
    long long n_cached; /* prompt tokens that were in the server's cache; -1 */
    double server_ms;   /* the server's own count of its time; NAN */
    char model[160];    /* that the reply names; "" */
};

struct tlr_net_api {
    const char *name, *path;
    void (*build)(struct tlr_buf *out, const struct tlr_net_ask *ask);
    /* answer was begun; on failure err says what the reply lacks. */
    int (*read)(struct tlr_net_answer *out, const json_t *root,
                struct tlr_err *err);
    bool takes_ids;
    bool checks_drafts;
    bool adds_bos; /* puts the begin-of-text token before a text prompt */
    const char *tokenize_path; /* POST; NULL: none */
    const char *tokenize_text; /* key of the text; the reply has "tokens" */
    const char *tokenize_more; /* further members, each with its comma */
};

const struct tlr_net_api *tlr_net_api(enum tlr_net_api_kind kind);
/* The kind with that name, TLR_NET_AUTO for "auto" and names unknown. */
enum tlr_net_api_kind tlr_net_api_find(const char *name);

void tlr_net_answer_begin(struct tlr_net_answer *a); /* text keeps its memory */
void tlr_net_answer_clear(struct tlr_net_answer *a);

/* A reply's bytes into a begun answer. */
int tlr_net_parse(const struct tlr_net_api *api, struct tlr_bytes body,
                  struct tlr_net_answer *out, struct tlr_err *err);

/* ---- what formats share ---- */

/* The probability of the id at i, from its logarithm; anything else is not told. */
void tlr_net_take_log_p(struct tlr_net_answer *a, size_t i, const json_t *log_p);
int tlr_net_take_text(struct tlr_net_answer *a, const char *text, size_t n,
                      struct tlr_err *err);
/* OpenAI's words for why a text ended. */
void tlr_net_take_finish(struct tlr_net_answer *a, const char *reason);
/* The one choice of an OpenAI-style reply, and what stands beside it. */
const json_t *tlr_net_choice(struct tlr_net_answer *a, const json_t *root,
                             struct tlr_err *err);

extern const struct tlr_net_api tlr_net_api_sglang, tlr_net_api_vllm,
    tlr_net_api_llamacpp, tlr_net_api_openai, tlr_net_api_openai_chat;

#endif
