/* server.h - an LLM server that is a hash, and a line that breaks on purpose.
 *
 * Listens on a port of its own on loopback, in threads of the test's process.  It
 * speaks all the wire formats; its next token is a function of the prefix, so that
 * a test knows what any server would answer.  Every k-th answer may be spoiled.
 */
#ifndef TLR_TESTS_NET_SERVER_H
#define TLR_TESTS_NET_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "net/api.h"
#include "net/seam.h"
#include "router/expert.h"

/* What a spoiled answer is like, and whether asking again may help. */
#define FAULTS(X)                                                              \
    X(NONE, true)                                                              \
    X(DROP, true)        /* closes without a byte */                           \
    X(RESET, true)       /* the same, by RST */                                \
    X(TRUNCATE, true)    /* half of the promised bytes, then closes */         \
    X(SHORT_LENGTH, true) /* promises fewer bytes than it has */               \
    X(HANG, true)        /* takes the question and says nothing */             \
    X(TRICKLE, true)     /* a byte now and then */                             \
    X(HTML, true)        /* 200 with a page */                                 \
    X(NOT_JSON, true)    /* 200, application/json, a page */                   \
    X(STATUS_429, true)  /* with Retry-After: 0 */                             \
    X(STATUS_500, true)                                                        \
    X(STATUS_502, true)                                                        \
    X(STATUS_503, true)                                                        \
    X(STATUS_400, false)                                                       \
    X(STATUS_404, false)                                                       \
    X(REDIRECT, false)   /* to itself, where the right answer would wait */    \
    X(HUGE, false)       /* 2 MiB of JSON */                                   \
    X(HUGE_HEADER, false)                                                      \
    X(BAD_UTF8, true)                                                          \
    X(DEEP, true)        /* 5,000 levels */                                    \
    X(TWICE, true)       /* keys that come twice */                            \
    X(NUL, true)                                                               \
    X(TRAILING, true)    /* a second object behind the first */                \
    X(BAD_ID, false)     /* an id outside the vocabulary */                    \
    X(MANY_IDS, false)   /* far more tokens than asked for */                  \
    X(NO_TOKEN, true)    /* empty, and not the end of the text */              \
    X(ERROR_200, true)   /* {"error": ...} with status 200 */
#define FAULT_ENUM(id, again) FAULT_##id,
enum fault { FAULTS(FAULT_ENUM) N_FAULTS };
#undef FAULT_ENUM

/* What the model would have written in the place of the prompt's last tokens. */
enum server_rivals {
    RIVALS_NONE,   /* not told: a server or a gateway that drops the fields */
    RIVALS_NULL,   /* from logprob_start_len on, the first of them null */
    RIVALS_AFTER,  /* from the one behind it on */
    RIVALS_ALL,    /* of the whole prompt */
    RIVALS_OTHERS, /* of another prompt */
    RIVALS_HOLES   /* some are null */
};

struct server_options {
    enum tlr_net_api_kind kind;
    struct tlr_seam seam;    /* its tokenizer, end of text, n_ids */
    const char *key;         /* wanted as a bearer token; NULL: none */
    bool is_anonymous;       /* no list of models, no page that names it */
    bool cannot_tokenize;    /* no /tokenize */
    bool cuts_otherwise;     /* /tokenize gives other ids */
    bool hides_ids;          /* answers by text though asked by ids */
    bool tells_p;            /* how likely its tokens are, where it is asked */
    enum server_rivals rivals; /* how SGLang's tells them of a draft */
    bool leaves_end_out;     /* the id of the end is not in the ids */
    bool is_strict;          /* 400 for fields beyond OpenAI's standard */
    bool chat_only;          /* 404 for /v1/completions */
    bool unpacks;            /* gzip; else it is no JSON to it */
    bool closes_idle;        /* closes after each answer without saying so */
    const char *content;     /* what every answer says as its text; NULL: its own */
};

struct server;

struct server *server_start(const struct server_options *o);
void server_stop(struct server *s);
const char *server_url(const struct server *s);

/* Spoils every `every`-th answer to a question from now on; ms: of HANG, TRICKLE. */
void server_spoil(struct server *s, enum fault f, int every, int ms);
/* Spoils that share of the answers instead, each in a way of its own: the same ones
 * for the same seed and order of questions. */
void server_spoil_mixed(struct server *s, double share, uint64_t seed);
/* Waits so long before each answer. */
void server_delay(struct server *s, int ms);

struct server_counts {
    int n_requests, n_questions, n_connections, n_spoiled, n_with_key, n_packed;
    uint64_t body_bytes;
};
struct server_counts server_counts(const struct server *s);

/* The same large model without a line: by ids, or by text as a server sees it. */
struct hash_expert {
    const struct server_options *o;
    bool by_text;
    int fail_every; /* 0: never; k: every k-th ask */
    int n_asks;
};
struct tlr_expert hash_expert(struct hash_expert *e);

#endif
