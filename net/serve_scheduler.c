/* serve_scheduler.c - see serve_scheduler.h.
 *
 * Only the thread below touches sessions, samplers and joint loops; it holds
 * the lock to take a job, to write a token and to let it go, never while it
 * computes.  While others decode, a prompt is read in small pieces, so that
 * nobody's text stands still for long.
 */
#include "net/serve_scheduler.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/serve_slot.h"

enum {
    PIECE_ALONE = 256, /* tokens of a prompt between two looks at the others */
    PIECE_BESIDE = 32,
    LOOK_NS = 100000000, /* between looks at whether readers are still there */
    RETRY_MOST_S = 60
};

struct tlr_scheduler {
    const struct tlr_model *model;
    struct tlr_scheduler_options o;
    struct tlr_slot slots[TLR_MAX_TOGETHER];
    int turn; /* slot whose prompt is read next */
    pthread_t thread;
    bool has_thread, has_lock;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct tlr_job **queue; /* [n_queue + n_slots], the first comes first */
    int n_waiting;
    bool is_draining, is_ending;
    struct tlr_metrics metrics;
    double mean_s; /* of the last requests, decaying; 0: none yet */
    uint64_t looked_ns;
    struct tlr_memory memory; /* of all slots */
};

void tlr_scheduler_lock(struct tlr_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
}

void tlr_scheduler_unlock(struct tlr_scheduler *s)
{
    pthread_mutex_unlock(&s->lock);
}

static void complain(struct tlr_scheduler *s, const char *what)
{
    if (s->o.log)
        s->o.log(s->o.log_ctx, what);
}

/* ---- holders ---- */

/* Under the lock.  Whether that was the last one. */
static bool let_go(struct tlr_job *j)
{
    return --j->n_holders == 0;
}

static void wake(struct tlr_scheduler *s, struct tlr_job *j)
{
    tlr_scheduler_lock(s);
    if (j->wake)
        j->wake(j->ctx);
    tlr_scheduler_unlock(s);
}

void tlr_scheduler_leave(struct tlr_scheduler *s, struct tlr_job *j)
{
    tlr_scheduler_lock(s);
    j->is_cancelled = true;
    j->wake = NULL;
    j->is_alive = NULL;
    bool last = let_go(j);
    pthread_cond_signal(&s->work);
    tlr_scheduler_unlock(s);
    if (last)
        tlr_job_free(j);
}

/* ---- the end of a job ---- */

static int n_running(const struct tlr_scheduler *s)
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
    bool last = let_go(j);
    tlr_scheduler_unlock(s);
    if (last)
        tlr_job_free(j);
}

static void free_slot(struct tlr_scheduler *s, struct tlr_slot *slot,
                      enum tlr_job_finish finish)
{
    struct tlr_job *j = slot->job;
    tlr_slot_end(slot);
    tlr_scheduler_lock(s);
    slot->job = NULL;
    tlr_scheduler_unlock(s);
    end_job(s, j, finish);
}

static void fail_slot(struct tlr_scheduler *s, struct tlr_slot *slot,
                      const struct tlr_err *why)
{
    tlr_scheduler_lock(s);
    snprintf(slot->job->failure, sizeof slot->job->failure, "%.200s",
             why->text);
    tlr_scheduler_unlock(s);
    complain(s, why->text);
    free_slot(s, slot, TLR_JOB_FAILED);
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
static struct tlr_slot *take_next(struct tlr_scheduler *s, struct tlr_job **refused)
{
    *refused = NULL;
    if (n_running(s) == s->o.n_slots && !s->is_draining)
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
        fail_slot(s, slot, &err);
}

static void admit(struct tlr_scheduler *s)
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

/* ---- prompts ---- */

static bool is_reading(const struct tlr_slot *slot)
{
    return slot->job && !slot->joint;
}

/* A piece of one prompt, each slot in turn. */
static void read_prompts(struct tlr_scheduler *s, bool others_decode)
{
    struct tlr_slot *slot = NULL;
    for (int i = 0; i < s->o.n_slots && !slot; i++) {
        s->turn = (s->turn + 1) % s->o.n_slots;
        if (is_reading(&s->slots[s->turn]))
            slot = &s->slots[s->turn];
    }
    if (!slot)
        return;
    struct tlr_err err = TLR_ERR_INIT;
    if (tlr_slot_read(slot, others_decode ? PIECE_BESIDE : PIECE_ALONE, &err))
        fail_slot(s, slot, &err);
}

/* ---- one token each ---- */

/* Appends the last tokens of all texts in one pass. */
static int step_together(struct tlr_scheduler *s, struct tlr_err *err)
{
    struct tlr_session *sessions[TLR_MAX_TOGETHER];
    struct tlr_joint *joints[TLR_MAX_TOGETHER];
    int32_t ids[TLR_MAX_TOGETHER];
    int n = 0;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_slot *slot = &s->slots[i];
        int32_t id = slot->joint ? tlr_joint_pending(slot->joint) : -1;
        if (id < 0)
            continue;
        sessions[n] = slot->session;
        joints[n] = slot->joint;
        ids[n++] = id;
    }
    if (n == 0)
        return 0;
    /* One text alone searches the head; several share a full pass. */
    int rc = tlr_decode_together(sessions, ids, n,
                                 n > 1 ? TLR_STEP_LOGITS : 0, err);
    for (int i = 0; i < n && !rc; i++)
        tlr_joint_appended(joints[i]);
    tlr_scheduler_lock(s);
    s->metrics.n_steps++;
    s->metrics.step_tok += (uint64_t)n;
    tlr_scheduler_unlock(s);
    return rc;
}

static void next_token(struct tlr_scheduler *s, struct tlr_slot *slot)
{
    struct tlr_err err = TLR_ERR_INIT;
    int finish;
    if (tlr_slot_next(slot, &finish, &err))
        fail_slot(s, slot, &err);
    else if (finish >= 0)
        free_slot(s, slot, (enum tlr_job_finish)finish);
    else
        wake(s, slot->job);
}

static bool is_decoding(const struct tlr_slot *slot)
{
    return slot->job && slot->joint;
}

static void decode_all(struct tlr_scheduler *s)
{
    struct tlr_err err = TLR_ERR_INIT;
    int rc = step_together(s, &err);
    for (int i = 0; i < s->o.n_slots; i++) {
        if (!is_decoding(&s->slots[i]))
            continue;
        if (rc)
            fail_slot(s, &s->slots[i], &err);
        else
            next_token(s, &s->slots[i]);
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

/* Cancelled jobs leave their slots at once, those in the queue with it. */
static void look_around(struct tlr_scheduler *s)
{
    uint64_t now = tlr_now_ns();
    bool ask = now - s->looked_ns > LOOK_NS;
    s->looked_ns = ask ? now : s->looked_ns;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_slot *slot = &s->slots[i];
        tlr_scheduler_lock(s);
        bool left = slot->job && (ask ? is_left(slot->job)
                                      : slot->job->is_cancelled);
        tlr_scheduler_unlock(s);
        if (left)
            free_slot(s, slot, TLR_JOB_CANCELLED);
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

/* ---- the thread ---- */

/* Under the lock: waits for a new job or a while. */
static void sleep_a_while(struct tlr_scheduler *s)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->work, &s->lock, &until);
}

static void *run(void *arg)
{
    struct tlr_scheduler *s = arg;
    for (;;) {
        look_around(s);
        admit(s);
        bool decodes = false;
        for (int i = 0; i < s->o.n_slots; i++)
            decodes = decodes || is_decoding(&s->slots[i]);
        read_prompts(s, decodes);
        decode_all(s);
        tlr_scheduler_lock(s);
        bool is_ending = s->is_ending;
        if (!is_ending && n_running(s) == 0 && s->n_waiting == 0)
            sleep_a_while(s);
        s->metrics.kv_tok = 0;
        for (int i = 0; i < s->o.n_slots; i++)
            s->metrics.kv_tok += tlr_pos(s->slots[i].session);
        tlr_scheduler_unlock(s);
        if (is_ending)
            break;
    }
    for (int i = 0; i < s->o.n_slots; i++)
        if (s->slots[i].job)
            free_slot(s, &s->slots[i], TLR_JOB_REFUSED);
    tlr_scheduler_drain(s);
    admit(s);
    return NULL;
}

/* ---- from outside ---- */

/* Under the lock: seconds until a place in the queue may be free. */
static unsigned guess_retry(const struct tlr_scheduler *s)
{
    double each = s->mean_s > 0 ? s->mean_s : 1;
    double wait = each / s->o.n_slots;
    return wait < 1 ? 1 : wait > RETRY_MOST_S ? RETRY_MOST_S : (unsigned)wait;
}

struct tlr_memory tlr_scheduler_memory(const struct tlr_scheduler *s)
{
    return s->memory;
}

int tlr_scheduler_submit(struct tlr_scheduler *s, struct tlr_job *j,
                         unsigned *retry_s, struct tlr_err *err)
{
    int rc = 0;
    tlr_scheduler_lock(s);
    int n_free = s->o.n_slots - n_running(s);
    *retry_s = guess_retry(s);
    if (s->is_draining) {
        rc = tlr_err_set(err, TLR_ECANCELLED, "the server is stopping");
    } else if (s->n_waiting >= s->o.n_queue + n_free) {
        s->metrics.n_full++;
        rc = tlr_err_set(err, TLR_ELIMIT,
                         "%d requests are running and %d waiting; try again "
                         "in %u s", s->o.n_slots, s->n_waiting, *retry_s);
    } else {
        j->n_holders++;
        s->queue[s->n_waiting++] = j;
        pthread_cond_signal(&s->work);
    }
    tlr_scheduler_unlock(s);
    return rc;
}

void tlr_scheduler_drain(struct tlr_scheduler *s)
{
    tlr_scheduler_lock(s);
    s->is_draining = true;
    pthread_cond_signal(&s->work);
    tlr_scheduler_unlock(s);
}

int tlr_scheduler_load(struct tlr_scheduler *s)
{
    tlr_scheduler_lock(s);
    int n = n_running(s) + s->n_waiting;
    tlr_scheduler_unlock(s);
    return n;
}

void tlr_scheduler_metrics(struct tlr_scheduler *s, struct tlr_metrics *out)
{
    tlr_scheduler_lock(s);
    *out = s->metrics;
    out->n_running = n_running(s);
    out->n_waiting = s->n_waiting;
    out->n_slots = s->o.n_slots;
    out->kv_cap_tok = (uint64_t)s->o.n_slots * tlr_scheduler_ctx(s);
    tlr_scheduler_unlock(s);
}

uint32_t tlr_scheduler_ctx(const struct tlr_scheduler *s)
{
    return tlr_session_options_used(s->slots[0].session)->n_ctx;
}

const struct tlr_session_options *
tlr_scheduler_session_options(const struct tlr_scheduler *s)
{
    return tlr_session_options_used(s->slots[0].session);
}

/* While nothing runs yet. */
static int count_memory(struct tlr_scheduler *s, struct tlr_err *err)
{
    struct tlr_memory *out = &s->memory;
    for (int i = 0; i < s->o.n_slots; i++) {
        struct tlr_memory one;
        int rc = tlr_session_estimate(
            s->model, tlr_session_options_used(s->slots[i].session), &one, err);
        if (rc)
            return rc;
        out->weights_bytes = one.weights_bytes;
        out->kv_bytes += one.kv_bytes;
        out->scratch_bytes += one.scratch_bytes;
    }
    out->total_bytes =
        out->weights_bytes + out->kv_bytes + out->scratch_bytes;
    return 0;
}

static int open_slots(struct tlr_scheduler *s, struct tlr_err *err)
{
    struct tlr_session_options so = s->o.session;
    int rc = 0;
    for (int i = 0; i < s->o.n_slots && !rc; i++) {
        struct tlr_slot *slot = &s->slots[i];
        slot->model = s->model;
        slot->lock = &s->lock;
        slot->metrics = &s->metrics;
        slot->expert = s->o.experts ? &s->o.experts[i] : NULL;
        slot->require_llm = s->o.require_llm;
        slot->ahead = s->o.ahead;
        so.lender = s->slots[0].session;
        rc = tlr_session_new(&slot->session, s->model, &so, err);
    }
    return rc;
}

int tlr_scheduler_new(struct tlr_scheduler **out, const struct tlr_model *m,
                      const struct tlr_scheduler_options *options,
                      struct tlr_err *err)
{
    *out = NULL;
    if (options->n_slots < 1 || options->n_slots > TLR_MAX_TOGETHER ||
        options->n_queue < 0)
        return tlr_err_set(err, TLR_EUSAGE,
                           "server: expected 1 to %d slots, found %d",
                           (int)TLR_MAX_TOGETHER, options->n_slots);
    struct tlr_scheduler *s = tlr_calloc(1, sizeof *s);
    if (!s)
        return tlr_err_nomem(err, "server", sizeof *s);
    s->model = m;
    s->o = *options;
    s->queue = tlr_calloc((size_t)(s->o.n_queue + s->o.n_slots),
                          sizeof(struct tlr_job *));
    int rc = s->queue ? open_slots(s, err)
                      : tlr_err_nomem(err, "queue", (unsigned)s->o.n_queue);
    rc = rc ? rc : count_memory(s, err);
    if (!rc) {
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->work, NULL);
        s->has_lock = true;
        int errnum = pthread_create(&s->thread, NULL, run, s);
        s->has_thread = errnum == 0;
        if (errnum)
            rc = tlr_err_set_errno(err, TLR_EIO, errnum, "server: thread");
    }
    if (rc) {
        tlr_scheduler_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void tlr_scheduler_stop(struct tlr_scheduler *s)
{
    if (!s || !s->has_thread)
        return;
    tlr_scheduler_lock(s);
    s->is_ending = s->is_draining = true;
    pthread_cond_signal(&s->work);
    tlr_scheduler_unlock(s);
    pthread_join(s->thread, NULL);
    s->has_thread = false;
}

void tlr_scheduler_free(struct tlr_scheduler *s)
{
    if (!s)
        return;
    tlr_scheduler_stop(s);
    for (int i = s->o.n_slots - 1; i >= 0; i--)
        tlr_session_free(s->slots[i].session);
    if (s->has_lock) {
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->work);
    }
    tlr_free(s->queue);
    tlr_free(s);
}
