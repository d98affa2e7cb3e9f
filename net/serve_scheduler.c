/* serve_scheduler.c - see serve_scheduler.h: what other threads ask of the
 * scheduler, its opening and its end. */
#include <string.h>

#include "base/mem.h"
#include "net/serve_scheduler_internal.h"

enum { RETRY_MOST_S = 60 };

void tlr_scheduler_lock(struct tlr_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
}

void tlr_scheduler_unlock(struct tlr_scheduler *s)
{
    pthread_mutex_unlock(&s->lock);
}

void tlr_scheduler_stir(struct tlr_scheduler *s)
{
    s->has_news = true;
    pthread_cond_signal(&s->work);
}

/* A reply of the large model may be there: in the network's thread. */
static void notice(void *ctx)
{
    struct tlr_scheduler *s = ctx;
    tlr_scheduler_lock(s);
    tlr_scheduler_stir(s);
    tlr_scheduler_unlock(s);
}

static void listen_to_experts(struct tlr_scheduler *s, void (*call)(void *))
{
    for (int i = 0; i < s->o.n_slots && s->o.experts; i++)
        tlr_expert_notify(&s->o.experts[i], call, s);
}

/* ---- jobs ---- */

void tlr_scheduler_leave(struct tlr_scheduler *s, struct tlr_job *j)
{
    tlr_scheduler_lock(s);
    j->is_cancelled = true;
    j->wake = NULL;
    j->is_alive = NULL;
    bool last = tlr_desk_let_go(j);
    tlr_scheduler_stir(s);
    tlr_scheduler_unlock(s);
    if (last)
        tlr_job_free(j);
}

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
    int n_free = s->o.n_slots - tlr_desk_running(s);
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
        tlr_scheduler_stir(s);
    }
    tlr_scheduler_unlock(s);
    return rc;
}

void tlr_scheduler_drain(struct tlr_scheduler *s)
{
    tlr_scheduler_lock(s);
    s->is_draining = true;
    tlr_scheduler_stir(s);
    tlr_scheduler_unlock(s);
}

int tlr_scheduler_load(struct tlr_scheduler *s)
{
    tlr_scheduler_lock(s);
    int n = tlr_desk_running(s) + s->n_waiting;
    tlr_scheduler_unlock(s);
    return n;
}

void tlr_scheduler_metrics(struct tlr_scheduler *s, struct tlr_metrics *out)
{
    tlr_scheduler_lock(s);
    *out = s->metrics;
    out->n_running = tlr_desk_running(s);
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
        slot->burst = s->o.burst;
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
        listen_to_experts(s, notice);
        int errnum = pthread_create(&s->thread, NULL, tlr_round_run, s);
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
    tlr_scheduler_stir(s);
    tlr_scheduler_unlock(s);
    pthread_join(s->thread, NULL);
    s->has_thread = false;
}

void tlr_scheduler_free(struct tlr_scheduler *s)
{
    if (!s)
        return;
    tlr_scheduler_stop(s);
    if (s->has_lock)
        listen_to_experts(s, NULL);
    for (int i = s->o.n_slots - 1; i >= 0; i--)
        tlr_session_free(s->slots[i].session);
    if (s->has_lock) {
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->work);
    }
    tlr_free(s->queue);
    tlr_free(s);
}
