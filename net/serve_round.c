/* serve_round.c - the scheduler's thread, one round after the other: a piece of one
 * prompt, one step of all texts, one token of each.
 *
 * Only this thread touches sessions, samplers and joint loops; it holds the lock to
 * write a token and to let a job go, never while it computes.  While others decode,
 * a prompt is read in small pieces, so that nobody's text stands still for long.  A
 * text that waits for the large model stays in its slot and takes no part in the
 * step (router/decode.h: parks); when nobody has anything else to do, the thread
 * sleeps until a reply, a request or a while later.
 */
#include <time.h>

#include "base/clock.h"
#include "net/serve_scheduler_internal.h"

enum {
    PIECE_ALONE = 256, /* tokens of a prompt between two looks at the others */
    PIECE_BESIDE = 32
};

static void wake(struct tlr_scheduler *s, struct tlr_job *j)
{
    tlr_scheduler_lock(s);
    if (j->wake)
        j->wake(j->ctx);
    tlr_scheduler_unlock(s);
}

/* ---- prompts ---- */

static bool is_reading(const struct tlr_slot *slot)
{
    return slot->job && !slot->joint;
}

/* A piece of one prompt, each slot in turn.  Whether there was one. */
static bool read_prompts(struct tlr_scheduler *s, bool others_decode)
{
    struct tlr_slot *slot = NULL;
    for (int i = 0; i < s->o.n_slots && !slot; i++) {
        s->turn = (s->turn + 1) % s->o.n_slots;
        if (is_reading(&s->slots[s->turn]))
            slot = &s->slots[s->turn];
    }
    if (!slot)
        return false;
    struct tlr_err err = TLR_ERR_INIT;
    if (tlr_slot_read(slot, others_decode ? PIECE_BESIDE : PIECE_ALONE, &err))
        tlr_desk_fail(s, slot, &err);
    return true;
}

/* ---- one token each ---- */

static bool is_decoding(const struct tlr_slot *slot)
{
    return slot->job && slot->joint;
}

/* Appends the last tokens of all texts in one pass, and makes of the head what all
 * of them need: one that draws from all logits makes them for the others, too.  A
 * text alone looks for itself. */
static void step_together(struct tlr_scheduler *s)
{
    struct tlr_session *sessions[TLR_MAX_TOGETHER];
    struct tlr_slot *slots[TLR_MAX_TOGETHER];
    int32_t ids[TLR_MAX_TOGETHER];
    struct tlr_err err = TLR_ERR_INIT;
    int n = 0, n_top = 1;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_slot *slot = &s->slots[i];
        int32_t id = is_decoding(slot) ? tlr_joint_pending(slot->joint) : -1;
        if (id < 0)
            continue;
        int k = tlr_slot_n_top(slot);
        n_top = k && n_top ? (k > n_top ? k : n_top) : 0;
        slots[n] = slot;
        sessions[n] = slot->session;
        ids[n++] = id;
    }
    if (n == 0)
        return;
    int rc = tlr_decode_together(sessions, ids, n,
                                 n > 1 && !n_top ? TLR_STEP_LOGITS : 0, &err);
    if (!rc && n > 1 && n_top)
        rc = tlr_top_together(sessions, n, n_top, &err);
    for (int i = 0; i < n; i++) {
        if (rc)
            tlr_desk_fail(s, slots[i], &err);
        else
            tlr_joint_appended(slots[i]->joint);
    }
    tlr_scheduler_lock(s);
    s->metrics.n_steps++;
    s->metrics.step_tok += (uint64_t)n;
    tlr_scheduler_unlock(s);
}

/* False: it can do nothing before the large model answers. */
static bool next_token(struct tlr_scheduler *s, struct tlr_slot *slot)
{
    struct tlr_err err = TLR_ERR_INIT;
    int finish;
    int rc = tlr_slot_next(slot, &finish, &err);
    if (rc == TLR_EPENDING)
        return !tlr_joint_is_waiting(slot->joint);
    if (rc)
        tlr_desk_fail(s, slot, &err);
    else if (finish >= 0)
        tlr_desk_free(s, slot, (enum tlr_job_finish)finish);
    else
        wake(s, slot->job);
    return true;
}

/* Whether anybody has something else to do than to wait; *n_parked do not. */
static bool decode_all(struct tlr_scheduler *s, int *n_parked)
{
    int n = 0;
    *n_parked = 0;
    step_together(s);
    for (int i = 0; i < s->o.n_slots; i++) {
        if (!is_decoding(&s->slots[i]))
            continue;
        n++;
        *n_parked += !next_token(s, &s->slots[i]);
    }
    return n > *n_parked;
}

/* ---- the thread ---- */

/* Under the lock: waits for news or a while. */
static void sleep_a_while(struct tlr_scheduler *s)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += TLR_DESK_LOOK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->work, &s->lock, &until);
}

/* One round; false: the thread ends. */
static bool go_round(struct tlr_scheduler *s)
{
    tlr_scheduler_lock(s);
    s->has_news = false; /* what comes from here on is looked at once more */
    tlr_scheduler_unlock(s);
    tlr_desk_look_around(s);
    tlr_desk_admit(s);
    bool others_decode = false;
    for (int i = 0; i < s->o.n_slots; i++)
        others_decode = others_decode || is_decoding(&s->slots[i]);
    int n_parked;
    bool has_read = read_prompts(s, others_decode);
    bool is_busy = decode_all(s, &n_parked) || has_read;
    tlr_scheduler_lock(s);
    s->metrics.n_parked = n_parked;
    s->metrics.kv_tok = 0;
    for (int i = 0; i < s->o.n_slots; i++)
        s->metrics.kv_tok += tlr_pos(s->slots[i].session);
    if (!is_busy && !s->has_news && !s->is_ending)
        sleep_a_while(s);
    bool goes_on = !s->is_ending;
    tlr_scheduler_unlock(s);
    return goes_on;
}

void *tlr_round_run(void *scheduler)
{
    struct tlr_scheduler *s = scheduler;
    while (go_round(s))
        continue;
    for (int i = 0; i < s->o.n_slots; i++)
        if (s->slots[i].job)
            tlr_desk_free(s, &s->slots[i], TLR_JOB_REFUSED);
    tlr_scheduler_drain(s);
    tlr_desk_admit(s);
    return NULL;
}
