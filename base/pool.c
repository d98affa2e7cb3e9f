/* pool.c - a fixed team of threads that runs one parallel region at a time.
 *
 * Each thread owns a contiguous part of the items and takes them from its
 * front, so that it streams through memory; one that is done takes from the
 * backs of the others' parts.  A part is one atomic number, lowered by
 * compare-and-swap.  A claim pins the region: fn and ctx are read only between
 * a claim and the report of it, and the caller changes them only when all
 * claims are reported.  So a thread that wakes late does no harm, and the
 * caller never waits for a thread that has taken nothing.
 */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/threads.h"

enum {
    MAX_THREADS = 1024,
    LINE_BYTES = 64,
    /* Longer than the gap between two regions of one token, much shorter than
     * a time slice.  While it yields, a waiting thread gives way to others. */
    SPIN_NS = 40000,
    YIELDS = 8,
    PAUSES_PER_LOOK = 16, /* between two looks at the clock */
};

struct worker {
    pthread_t thread;
    struct tlr_pool *pool;
    int index; /* 1 .. n_threads - 1; the caller is 0 */
};

/* Items [first, end) that nobody has claimed: end in the upper half. */
struct part {
    _Alignas(LINE_BYTES) _Atomic uint64_t range;
};

struct tlr_pool {
    /* Read by all, written between regions. */
    tlr_pool_fn fn;
    void *ctx;
    int n_threads;
    int n_started;    /* workers that exist */
    uint64_t spin_ns; /* 0 when threads outnumber processors */
    struct worker *workers;
    struct part *parts; /* [n_threads] */

    /* Each on a line of its own: threads look at the first all the time. */
    _Alignas(LINE_BYTES) atomic_int bell; /* regions begun, wraps */
    _Alignas(LINE_BYTES) atomic_int unfinished;
    _Alignas(LINE_BYTES) atomic_int n_asleep; /* workers in or before wait */
    atomic_int caller_asleep;
    atomic_int stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits a bounded time until *value is (or, with equal false, is not) what it
 * is compared with; true when so. */
static bool spin_until(const struct tlr_pool *pool, const atomic_int *value,
                       int with, bool equal)
{
    uint64_t start = pool->spin_ns ? tlr_now_ns() : 0;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            int now = atomic_load_explicit(value, memory_order_acquire);
            if ((now == with) == equal) {
                return true;
            }
            relax();
        }
    } while (pool->spin_ns && tlr_now_ns() - start < pool->spin_ns);
    for (int i = 0; i < YIELDS; i++) {
        int now = atomic_load_explicit(value, memory_order_acquire);
        if ((now == with) == equal) {
            return true;
        }
        sched_yield();
    }
    return false;
}

static uint64_t range_of(uint32_t first, uint32_t end)
{
    return (uint64_t)end << 32 | first;
}

/* Takes an item from the front (the owner) or the back of a part; -1: empty. */
static int claim(struct part *part, bool front)
{
    uint64_t range = atomic_load_explicit(&part->range, memory_order_relaxed);
    for (;;) {
        uint32_t first = (uint32_t)range, end = (uint32_t)(range >> 32);
        if (first >= end) {
            return -1;
        }
        uint64_t less =
            front ? range_of(first + 1, end) : range_of(first, end - 1);
        if (atomic_compare_exchange_weak_explicit(&part->range, &range, less,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            return (int)(front ? first : end - 1);
        }
    }
}

/* Runs items until none is left to claim; their number. */
static int run_items(struct tlr_pool *pool, int thread)
{
    int n_run = 0;
    for (int i = 0; i < pool->n_threads; i++) {
        struct part *part = &pool->parts[(thread + i) % pool->n_threads];
        for (int item; (item = claim(part, i == 0)) >= 0; n_run++) {
            pool->fn(pool->ctx, item, thread);
        }
    }
    return n_run;
}

/* The last report of a region wakes the caller if it sleeps. */
static void report(struct tlr_pool *pool, int n_run)
{
    if (n_run == 0 || atomic_fetch_sub(&pool->unfinished, n_run) != n_run) {
        return;
    }
    if (atomic_load(&pool->caller_asleep)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Sleepers say so first and look again after: with both orders sequentially
 * consistent, either they see the work or the caller sees them. */
static void sleep_for_work(struct tlr_pool *pool, int heard)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_asleep, 1);
    while (atomic_load(&pool->bell) == heard && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->work, &pool->mutex);
    }
    atomic_fetch_sub(&pool->n_asleep, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *arg)
{
    struct worker *self = arg;
    struct tlr_pool *pool = self->pool;
    int heard = 0;
    while (!atomic_load_explicit(&pool->stop, memory_order_acquire)) {
        if (!spin_until(pool, &pool->bell, heard, false)) {
            sleep_for_work(pool, heard);
        }
        heard = atomic_load_explicit(&pool->bell, memory_order_acquire);
        report(pool, run_items(pool, self->index));
    }
    return NULL;
}

static void wait_for_rest(struct tlr_pool *pool)
{
    if (spin_until(pool, &pool->unfinished, 0, true)) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_asleep, 1);
    while (atomic_load(&pool->unfinished) != 0) {
        pthread_cond_wait(&pool->done, &pool->mutex);
    }
    atomic_store(&pool->caller_asleep, 0);
    pthread_mutex_unlock(&pool->mutex);
}

void tlr_pool_run(struct tlr_pool *pool, tlr_pool_fn fn, void *ctx,
                  int n_items)
{
    if (pool->n_started == 0 || n_items <= 1) {
        for (int i = 0; i < n_items; i++) {
            fn(ctx, i, 0);
        }
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    atomic_store_explicit(&pool->unfinished, n_items, memory_order_relaxed);
    uint32_t first = 0;
    for (int i = 0; i < pool->n_threads; i++) {
        uint32_t end = (uint32_t)((uint64_t)n_items * ((uint64_t)i + 1) /
                                  (uint64_t)pool->n_threads);
        /* Publishes the lines above: a late thread may claim at once. */
        atomic_store_explicit(&pool->parts[i].range, range_of(first, end),
                              memory_order_release);
        first = end;
    }
    atomic_fetch_add(&pool->bell, 1);
    if (atomic_load(&pool->n_asleep) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
    report(pool, run_items(pool, 0));
    wait_for_rest(pool);
}

/* Asynchronous signals are for the thread that made the pool; faults and the
 * profiler's clock stay with whoever causes them. */
static void block_signals(sigset_t *before)
{
    static const int kept[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,
                               SIGTRAP, SIGABRT, SIGPROF};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        sigdelset(&set, kept[i]);
    }
    pthread_sigmask(SIG_BLOCK, &set, before);
}

/* 0 or the errno of the thread that could not be started. */
static int start_workers(struct tlr_pool *pool)
{
    sigset_t before;
    int errnum = 0;
    block_signals(&before);
    for (int i = 1; i < pool->n_threads && !errnum; i++) {
        struct worker *w = &pool->workers[i - 1];
        w->pool = pool;
        w->index = i;
        errnum = pthread_create(&w->thread, NULL, work, w);
        pool->n_started += !errnum;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return errnum;
}

int tlr_pool_new(struct tlr_pool **out, int n_threads, struct tlr_err *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "threads: expected 1 to %d, found %d", MAX_THREADS,
                           n_threads);
    }
    struct tlr_pool *pool = tlr_alloc_aligned(sizeof *pool);
    struct worker *workers =
        tlr_calloc((size_t)n_threads, sizeof workers[0]);
    struct part *parts =
        tlr_alloc_aligned((size_t)n_threads * sizeof parts[0]);
    if (!pool || !workers || !parts) {
        tlr_free(pool);
        tlr_free(workers);
        tlr_free(parts);
        return tlr_err_nomem(err, "threads", sizeof *pool);
    }
    *pool = (struct tlr_pool){.n_threads = n_threads, .workers = workers,
                              .parts = parts};
    for (int i = 0; i < n_threads; i++) {
        atomic_init(&parts[i].range, 0);
    }
    int n_cpus = tlr_max_threads(), quota = tlr_quota_cpus("");
    n_cpus = quota > 0 && quota < n_cpus ? quota : n_cpus;
    pool->spin_ns = n_threads > n_cpus ? 0 : SPIN_NS;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    int errnum = start_workers(pool);
    if (errnum) {
        int n_started = pool->n_started;
        tlr_pool_free(pool);
        return tlr_err_set_errno(err, TLR_ELIMIT, errnum,
                                 "threads: %d of %d could be started, use "
                                 "fewer",
                                 n_started + 1, n_threads);
    }
    *out = pool;
    return 0;
}

void tlr_pool_free(struct tlr_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->mutex);
    tlr_free(pool->workers);
    tlr_free(pool->parts);
    tlr_free(pool);
}

int tlr_pool_threads(const struct tlr_pool *pool)
{
    return pool->n_threads;
}
