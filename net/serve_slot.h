/* serve_slot.h - one session of the server and the text it is writing. */
#ifndef TLR_NET_SERVE_SLOT_H
#define TLR_NET_SERVE_SLOT_H

#include <pthread.h>

#include "net/serve_job.h"
#include "net/serve_metrics.h"

struct tlr_slot {
    const struct tlr_model *model;
    pthread_mutex_t *lock;       /* of jobs and metrics */
    struct tlr_metrics *metrics;
    struct tlr_session *session; /* the scheduler's thread only, like the rest */
    struct tlr_expert *expert;   /* NULL: none */
    bool require_llm;
    struct tlr_speculation ahead;
    int burst;
    struct tlr_job *job;         /* NULL: free; changed under the lock */
    struct tlr_joint *joint;     /* NULL: still reading the prompt */
    struct tlr_sampler *sampler;
    size_t n_read;               /* of the prompt */
    uint64_t used_ns;            /* when its last job ended */
};

/* Tokens of the prompt that the slot's timeline begins with; the last one never
 * counts, because its hidden state is needed. */
size_t tlr_slot_common(const struct tlr_slot *slot,
                       const struct tlr_ids *prompt);

/* Gets ready for slot->job: keeps what its prompt has in common. */
int tlr_slot_begin(struct tlr_slot *slot, struct tlr_err *err);

/* Reads up to `most` more tokens of the prompt; afterwards joint is there if
 * these were the last. */
int tlr_slot_read(struct tlr_slot *slot, size_t most, struct tlr_err *err);

/* How many of the best ids the next token's line is made from; 0: all logits. */
int tlr_slot_n_top(const struct tlr_slot *slot);

/* Picks the next token, after the last one is in the session, and writes it into
 * the job.  *finish: enum tlr_job_finish where it ends the text, else -1.
 * TLR_EPENDING as tlr_joint_next: there is no token yet. */
int tlr_slot_next(struct tlr_slot *slot, int *finish, struct tlr_err *err);

/* Frees what belongs to the job, and not the job. */
void tlr_slot_end(struct tlr_slot *slot);

#endif
