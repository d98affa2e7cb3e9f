/* serve_job.h - one request's work: what was asked for, and what came of it.
 *
 * Two threads hold a job: the scheduler, which writes it, and the HTTP server,
 * which reads it.  What the job was asked (struct tlr_job_ask) never changes
 * after the submit; everything else is read and written under the scheduler's
 * lock.  Whoever is last frees it.
 */
#ifndef TLR_NET_SERVE_JOB_H
#define TLR_NET_SERVE_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/text.h"
#include "router/decode.h"

enum { TLR_JOB_STOPS_MAX = 16, TLR_JOB_TOP_MAX = 20 };

struct tlr_job_ask {
    struct tlr_ids prompt; /* 1 .. n_ctx - 1 ids, all of which exist */
    struct tlr_generation generation;
    uint64_t seed;
    uint32_t max_tokens; /* >= 1; the end of the context ends the text anyway */
    bool ignore_eos;
    struct tlr_bytes stops[TLR_JOB_STOPS_MAX]; /* not empty; in stop_bytes */
    int n_stops;
    char *stop_bytes;
    bool has_logprobs;
    int n_top; /* 0..TLR_JOB_TOP_MAX; logprobs of the best ids beside it */
    enum tlr_joint_mode mode;
    struct tlr_policy policy; /* with TLR_JOINT */
    bool records;             /* the reply lists the tokens' decisions */
    bool explain;             /* of decode.h: both candidates everywhere */
};

/* One token, the end-of-text token included. */
struct tlr_job_token {
    struct tlr_joint_token joint;
    uint32_t begin, end; /* its part of the text, before stop strings cut it */
    uint32_t at_ms;      /* since the submit */
    float logprob;       /* NaN: not asked for */
};

enum tlr_job_state { TLR_JOB_WAITING, TLR_JOB_RUNNING, TLR_JOB_DONE };
enum tlr_job_finish {
    TLR_JOB_STOP,      /* end-of-text token or stop string */
    TLR_JOB_LENGTH,    /* max_tokens or the context's end */
    TLR_JOB_CANCELLED, /* its client went away */
    TLR_JOB_REFUSED,   /* the server stops and had not begun with it */
    TLR_JOB_FAILED     /* failure says why; not for the client's eyes */
};

struct tlr_job {
    struct tlr_job_ask ask;
    int n_holders;
    enum tlr_job_state state;
    enum tlr_job_finish finish; /* once DONE */
    bool is_cancelled;
    struct tlr_job_token *tokens; /* [n] */
    size_t n, cap;
    float *top_logprobs; /* [n][ask.n_top] */
    int32_t *top_ids;
    struct tlr_text text;
    size_t n_text_tok; /* tokens without the end-of-text one */
    int stop;          /* index of the stop string that ended it, -1 */
    uint32_t n_cached; /* tokens of the prompt that were still there */
    struct tlr_joint_totals totals;
    uint64_t submit_ns, begin_ns, first_ns, last_ns; /* tlr_now_ns; 0: not yet */
    char failure[256];
    /* Called without the lock when there is more to read; hangs up when the
     * reader has gone (under the lock). */
    void (*wake)(void *ctx);
    /* Whether the reader is still there; under the lock. */
    bool (*is_alive)(void *ctx);
    void *ctx;
};

/* Takes the ask over (also on failure).  One holder. */
int tlr_job_new(struct tlr_job **out, struct tlr_job_ask *ask,
                struct tlr_err *err);
void tlr_job_ask_clear(struct tlr_job_ask *ask); /* zeroed is allowed */
void tlr_job_free(struct tlr_job *j);            /* whoever is last */

/* Room for one more token; its text is added by the caller. */
int tlr_job_push(struct tlr_job *j, const struct tlr_job_token *t,
                 const int32_t *top_ids, const float *top_logprobs,
                 struct tlr_err *err);

#endif
