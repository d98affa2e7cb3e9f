/* label_run.c - see label.h: many items by several threads, written in order.
 *
 * A thread takes the next item and leaves its rows in a slot of a ring; the
 * calling thread writes slot after slot.  No thread runs further ahead than the
 * ring is long, so memory stays bounded.  Items are taken in order and each one
 * taken is finished, so what is written has no gap, also after a stop.
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "router/label.h"

enum { SLOTS_PER_JOB = 4, PROGRESS_MS = 200 };

struct slot {
    struct tlr_label_rows rows;
    bool is_done;
};

struct board {
    const struct tlr_label_run *run;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot *slots;
    uint32_t n_slots;
    uint32_t next;    /* item that is taken next */
    uint32_t written; /* items below it are in the file */
    bool stop;
    int rc; /* of the failed item that comes first */
    uint32_t failed;
    struct tlr_err err;
};

struct worker {
    struct board *board;
    struct tlr_labeller *labeller;
    pthread_t thread;
};

/* The next item, once its slot is free; false: no more. */
static bool take(struct board *b, uint32_t *item)
{
    pthread_mutex_lock(&b->lock);
    while (!b->stop && b->next < b->run->items->n &&
           b->next - b->written >= b->n_slots) {
        pthread_cond_wait(&b->changed, &b->lock);
    }
    bool found = !b->stop && b->next < b->run->items->n;
    if (found) {
        *item = b->next++;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

static void put(struct board *b, uint32_t item, int rc,
                const struct tlr_err *err)
{
    pthread_mutex_lock(&b->lock);
    if (rc) {
        b->stop = true;
        if (!b->rc || item < b->failed) {
            b->rc = rc;
            b->failed = item;
            b->err = *err;
        }
    } else {
        b->slots[item % b->n_slots].is_done = true;
    }
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct board *b = w->board;
    uint32_t item;
    while (take(b, &item)) {
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_label_item(w->labeller, &b->run->items->items[item], item,
                                &b->slots[item % b->n_slots].rows, &err);
        put(b, item, rc, &err);
    }
    return NULL;
}

static void count(struct tlr_label_counts *c, const struct tlr_label_rows *rows)
{
    c->n_items++;
    c->n_rows += rows->n;
    c->n_completion_tok += rows->n_completion_tok;
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct tlr_row *row = &rows->rows[i];
        c->n_case[row->what]++;
        if (row->what != TLR_CASE_OPEN) {
            *(row->label ? &c->n_keep : &c->n_ask) += 1;
        }
    }
}

/* Waits until the next slot can be written or some time has passed; true when
 * it can.  *ended: nothing is left to come. */
static bool wait_for_slot(struct board *b, struct slot *slot, bool *ended)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PROGRESS_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&b->lock);
    int timed = 0;
    *ended = false;
    while (!slot->is_done && !timed && !*ended) {
        *ended = b->written == b->run->items->n ||
                 (b->rc && b->failed == b->written) ||
                 (b->stop && b->next == b->written);
        if (!*ended) {
            timed = pthread_cond_timedwait(&b->changed, &b->lock, &until);
        }
    }
    bool ready = slot->is_done;
    pthread_mutex_unlock(&b->lock);
    return ready;
}

static void stop(struct board *b)
{
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* Writes slot after slot until there is nothing more. */
static int write_all(struct board *b, struct tlr_label_counts *counts,
                     struct tlr_err *err)
{
    const struct tlr_label_run *run = b->run;
    bool ended = false, cancelled = false;
    int rc = 0;
    while (!rc && !ended) {
        struct slot *slot = &b->slots[b->written % b->n_slots];
        if (wait_for_slot(b, slot, &ended)) {
            rc = tlr_dataset_group(run->writer, b->written, slot->rows.rows,
                                   slot->rows.hidden, slot->rows.n, err);
            if (rc) {
                break;
            }
            count(counts, &slot->rows);
            pthread_mutex_lock(&b->lock);
            slot->is_done = false;
            b->written++;
            pthread_cond_broadcast(&b->changed);
            pthread_mutex_unlock(&b->lock);
        }
        if (!cancelled && run->progress(run->ctx, b->written, counts)) {
            cancelled = true;
            stop(b);
        }
    }
    stop(b);
    return rc ? rc : cancelled ? TLR_ECANCELLED : 0;
}

static int start(struct board *b, struct worker *workers, int *n_started,
                 struct tlr_err *err)
{
    for (int i = 0; i < b->run->n_jobs; i++) {
        workers[i] = (struct worker){b, &b->run->labellers[i], 0};
        int code = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        if (code) {
            return tlr_err_set_errno(err, TLR_ENOMEM, code,
                                     "job %d: no thread", i + 1);
        }
        *n_started = i + 1;
    }
    return 0;
}

int tlr_label_run(const struct tlr_label_run *run, uint32_t *done,
                  struct tlr_label_counts *counts, struct tlr_err *err)
{
    struct board b = {.run = run, .next = run->first, .written = run->first,
                      .n_slots = (uint32_t)run->n_jobs * SLOTS_PER_JOB};
    struct worker *workers =
        tlr_calloc((size_t)run->n_jobs, sizeof *workers);
    int n_started = 0, rc;
    memset(counts, 0, sizeof *counts);
    b.slots = tlr_calloc(b.n_slots, sizeof *b.slots);
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.changed, NULL);
    rc = workers && b.slots ? start(&b, workers, &n_started, err)
                            : tlr_err_nomem(err, "jobs", sizeof *workers);
    if (!rc) {
        rc = write_all(&b, counts, err);
    } else {
        stop(&b);
    }
    for (int i = 0; i < n_started; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    if (b.rc && (!rc || rc == TLR_ECANCELLED)) {
        rc = tlr_err_set(err, b.rc, "%s", b.err.text);
    }
    *done = b.written;
    for (uint32_t i = 0; b.slots && i < b.n_slots; i++) {
        tlr_label_rows_clear(&b.slots[i].rows);
    }
    pthread_cond_destroy(&b.changed);
    pthread_mutex_destroy(&b.lock);
    tlr_free(b.slots);
    tlr_free(workers);
    return rc;
}
