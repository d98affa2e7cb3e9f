/* serve_scheduler.h - who computes when: one thread, a few slots, one queue.
 *
 * A slot is a session; all of them borrow the threads and scratch of the first.
 * Each round gives one slot a piece of its prompt and then all that are decoding
 * one token together, in one pass over the weights.  A request waits in the
 * queue, first come first served, until a slot is free, and gets the one whose
 * timeline has most in common with its prompt.
 */
#ifndef TLR_NET_SERVE_SCHEDULER_H
#define TLR_NET_SERVE_SCHEDULER_H

#include "net/serve_job.h"
#include "net/serve_metrics.h"

struct tlr_scheduler;

struct tlr_scheduler_options {
    struct tlr_session_options session; /* of each slot */
    int n_slots;                        /* 1..TLR_MAX_TOGETHER */
    int n_queue;                        /* requests that may wait, >= 0 */
    /* The large model, for jobs that route: [n_slots] experts, or NULL. */
    struct tlr_expert *experts;
    bool require_llm; /* its failure ends the text */
    struct tlr_speculation ahead; /* while it thinks */
    int burst;                    /* tokens of a question, as in decode.h */
    /* One line about a failure that clients are told nothing of; any thread. */
    void (*log)(void *ctx, const char *line);
    void *log_ctx;
};

/* Starts the thread.  The model and the experts must live longer. */
int tlr_scheduler_new(struct tlr_scheduler **out, const struct tlr_model *m,
                      const struct tlr_scheduler_options *options,
                      struct tlr_err *err);
/* Ends the thread, and what runs and waits (TLR_JOB_REFUSED); jobs still in
 * other hands stay readable.  NULL is allowed, here and below. */
void tlr_scheduler_stop(struct tlr_scheduler *s);
/* Stops it, and frees; nobody holds a job any more. */
void tlr_scheduler_free(struct tlr_scheduler *s);

/* What all slots together may take, weights included; borrowed scratch counts
 * once. */
struct tlr_memory tlr_scheduler_memory(const struct tlr_scheduler *s);

uint32_t tlr_scheduler_ctx(const struct tlr_scheduler *s);
const struct tlr_session_options *
tlr_scheduler_session_options(const struct tlr_scheduler *s);

/* Guards every job; held for moments only. */
void tlr_scheduler_lock(struct tlr_scheduler *s);
void tlr_scheduler_unlock(struct tlr_scheduler *s);

/* Becomes a second holder and puts the job into the queue.  TLR_ELIMIT: the
 * queue is full; *retry_s is then a guess at when it is not. */
int tlr_scheduler_submit(struct tlr_scheduler *s, struct tlr_job *j,
                         unsigned *retry_s, struct tlr_err *err);

/* The other holder lets go: what it still had to do is not done, its callbacks
 * are not called any more. */
void tlr_scheduler_leave(struct tlr_scheduler *s, struct tlr_job *j);

/* Waiting jobs are refused, no new one is taken (TLR_ECANCELLED), running ones
 * end as they would.  Returns at once. */
void tlr_scheduler_drain(struct tlr_scheduler *s);
/* Running and waiting jobs. */
int tlr_scheduler_load(struct tlr_scheduler *s);

/* Copies of the counters, and of what is now. */
void tlr_scheduler_metrics(struct tlr_scheduler *s, struct tlr_metrics *out);

#endif
