/* serve_scheduler_internal.h - what the scheduler's three files share:
 * serve_scheduler.c (what others ask of it), serve_desk.c (who gets a slot and
 * who leaves it), serve_round.c (what its thread computes).
 */
#ifndef TLR_NET_SERVE_SCHEDULER_INTERNAL_H
#define TLR_NET_SERVE_SCHEDULER_INTERNAL_H

#include <pthread.h>

#include "net/serve_scheduler.h"
#include "net/serve_slot.h"

struct tlr_scheduler {
    const struct tlr_model *model;
    struct tlr_scheduler_options o;
    struct tlr_slot slots[TLR_MAX_TOGETHER];
    int turn; /* slot whose prompt is read next */
    pthread_t thread;
    bool has_thread, has_lock;
    uint64_t looked_ns;      /* when the thread looked after the readers last */
    struct tlr_memory memory; /* of all slots */
    pthread_mutex_t lock; /* of what follows, and of all jobs */
    pthread_cond_t work;
    bool has_news; /* since the thread's last look: it does not sleep now */
    struct tlr_job **queue; /* [n_queue + n_slots], the first comes first */
    int n_waiting;
    bool is_draining, is_ending;
    struct tlr_metrics metrics;
    double mean_s; /* of the last requests, decaying; 0: none yet */
};

/* Under the lock: the thread looks round once more before it sleeps. */
void tlr_scheduler_stir(struct tlr_scheduler *s);

/* ---- serve_desk.c ---- */

/* Under the lock. */
int tlr_desk_running(const struct tlr_scheduler *s);
/* Under the lock: one holder less; whether that was the last one, who frees. */
bool tlr_desk_let_go(struct tlr_job *j);

/* In the thread, without the lock.  Gives slots to those who wait. */
void tlr_desk_admit(struct tlr_scheduler *s);
/* Cancelled jobs leave their slots at once, those in the queue with it; every
 * LOOK_NS readers are asked whether they are still there. */
void tlr_desk_look_around(struct tlr_scheduler *s);
void tlr_desk_free(struct tlr_scheduler *s, struct tlr_slot *slot,
                   enum tlr_job_finish finish);
void tlr_desk_fail(struct tlr_scheduler *s, struct tlr_slot *slot,
                   const struct tlr_err *why);

enum { TLR_DESK_LOOK_NS = 100000000 };

/* ---- serve_round.c ---- */

void *tlr_round_run(void *scheduler); /* the thread */

#endif
