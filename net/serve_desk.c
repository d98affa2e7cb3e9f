/* serve_desk.c - who gets a slot, and who leaves it: serve_scheduler_internal.h.
 *
 * All of it runs in the scheduler's thread.  A job has two holders, this side and
 * its reader; the last one to let go frees it.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "net/serve_scheduler_internal.h"

/* ---- the end of a job ---- */

bool tlr_desk_let_go(struct tlr_job *j)
{
    return --j->n_holders == 0;
}

int tlr_desk_running(const struct tlr_scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->o.n_slots; i++)
        n += s->slots[i].job != NULL;
    return n;
}

/* Under the lock. */
static void count_end(struct tlr_scheduler *s, const struct tlr_job *j)
{
    struct tlr_metrics *m = &s->metrics;
    m->n_finished[j->finish]++;
    if (j->begin_ns == 0)
        return;
    double seconds = (double)(tlr_now_ns() - j->begin_ns) * 1e-9;
    s->mean_s = s->mean_s > 0 ? 0.8 * s->mean_s + 0.2 * seconds : seconds;
    tlr_histogram_add(&m->whole,
                      (double)(tlr_now_ns() - j->submit_ns) * 1e-9);
    if (j->ask.mode != TLR_SMALL_ONLY) {
        m->joint_tok += j->totals.n_tok;
        m->asked_tok += j->totals.n_asked;
        m->routed_tok += j->totals.n_llm;
        m->failed_tok += j->totals.n_failed;
    }
}

/* The scheduler's part in the job ends. */
static void end_job(struct tlr_scheduler *s, struct tlr_job *j,
                    enum tlr_job_finish finish)
{
    tlr_scheduler_lock(s);
    j->state = TLR_JOB_DONE;
    j->finish = finish;
    count_end(s, j);
    if (j->wake)
        j->wake(j->ctx);
    bool last = tlr_desk_let_go(j);
    tlr_scheduler_unlock(s);
    if (last)
        tlr_job_free(j);
}

void tlr_desk_free(struct tlr_scheduler *s, struct tlr_slot *slot,
                   enum tlr_job_finish finish)
{
    struct tlr_job *j = slot->job;
    tlr_slot_end(slot);
    tlr_scheduler_lock(s);
    slot->job = NULL;
    tlr_scheduler_unlock(s);
    end_job(s, j, finish);
}

void tlr_desk_fail(struct tlr_scheduler *s, struct tlr_slot *slot,
                   const struct tlr_err *why)
{
    tlr_scheduler_lock(s);
    snprintf(slot->job->failure, sizeof slot->job->failure, "%.200s",
             why->text);
    tlr_scheduler_unlock(s);
    if (s->o.log)
        s->o.log(s->o.log_ctx, why->text);
    tlr_desk_free(s, slot, TLR_JOB_FAILED);
}

/* ---- from the queue to a slot ---- */

/* The free slot whose timeline goes along with the prompt for longest; of
 * equals the one that was not used for longest. */
static struct tlr_slot *best_slot(struct tlr_scheduler *s,
                                  const struct tlr_ids *prompt)
{
    struct tlr_slot *best = NULL;
    size_t most = 0;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_slot *slot = &s->slots[i];
        if (slot->job)
            continue;
        size_t n = tlr_slot_common(slot, prompt);
        if (!best || n > most ||
            (n == most && slot->used_ns < best->used_ns)) {
            best = slot;
            most = n;
        }
    }
    return best;
}

/* Under the lock. */
static struct tlr_job *pop(struct tlr_scheduler *s)
{
    if (s->n_waiting == 0)
        return NULL;
    struct tlr_job *j = s->queue[0];
    s->n_waiting--;
    memmove(s->queue, s->queue + 1, (size_t)s->n_waiting * sizeof *s->queue);
    return j;
}

/* Under the lock: slot and job belong together from here on. */
static struct tlr_slot *take_next(struct tlr_scheduler *s,
                                  struct tlr_job **refused)
{
    *refused = NULL;
    if (tlr_desk_running(s) == s->o.n_slots && !s->is_draining)
        return NULL;
    struct tlr_job *j = pop(s);
    if (!j)
        return NULL;
    if (s->is_draining || j->is_cancelled) {
        *refused = j;
        return NULL;
    }
    struct tlr_slot *slot = best_slot(s, &j->ask.prompt);
    slot->job = j;
    j->state = TLR_JOB_RUNNING;
    j->begin_ns = tlr_now_ns();
    return slot;
}

static void begin(struct tlr_scheduler *s, struct tlr_slot *slot)
{
    struct tlr_err err = TLR_ERR_INIT;
    if (tlr_slot_begin(slot, &err))
        tlr_desk_fail(s, slot, &err);
}

void tlr_desk_admit(struct tlr_scheduler *s)
{
    for (;;) {
        struct tlr_job *refused;
        tlr_scheduler_lock(s);
        struct tlr_slot *slot = take_next(s, &refused);
        bool cancelled = refused && refused->is_cancelled;
        tlr_scheduler_unlock(s);
        if (refused)
            end_job(s, refused, cancelled ? TLR_JOB_CANCELLED
                                          : TLR_JOB_REFUSED);
        else if (slot)
            begin(s, slot);
        else
            return;
    }
}

/* ---- those who went away ---- */

/* Under the lock. */
static bool is_left(struct tlr_job *j)
{
    if (!j->is_cancelled && j->is_alive && !j->is_alive(j->ctx))
        j->is_cancelled = true;
    return j->is_cancelled;
}

void tlr_desk_look_around(struct tlr_scheduler *s)
{
    uint64_t now = tlr_now_ns();
    bool ask = now - s->looked_ns > TLR_DESK_LOOK_NS;
    s->looked_ns = ask ? now : s->looked_ns;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_slot *slot = &s->slots[i];
        tlr_scheduler_lock(s);
        bool left = slot->job && (ask ? is_left(slot->job)
                                      : slot->job->is_cancelled);
        tlr_scheduler_unlock(s);
        if (left)
            tlr_desk_free(s, slot, TLR_JOB_CANCELLED);
    }
    for (int i = 0;;) {
        struct tlr_job *gone = NULL;
        tlr_scheduler_lock(s);
        while (i < s->n_waiting && !gone) {
            struct tlr_job *j = s->queue[i];
            if (ask ? is_left(j) : j->is_cancelled) {
                gone = j;
                s->n_waiting--;
                memmove(s->queue + i, s->queue + i + 1,
                        (size_t)(s->n_waiting - i) * sizeof *s->queue);
            } else {
                i++;
            }
        }
        tlr_scheduler_unlock(s);
        if (!gone)
            return;
        end_job(s, gone, TLR_JOB_CANCELLED);
    }
}
