/* test_pool.c - every item exactly once, on threads that are really there.
 *
 * Under config=tsan the plain (not atomic) cells below also prove that a
 * region's results are visible when tlr_pool_run returns.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/pool.h"
#include "tests/support/tlr_check.h"

enum { MAX_ITEMS = 700, MAX_TEAM = 64 };

struct region {
    int times[MAX_ITEMS];
    int n_threads;
    atomic_int in_use[MAX_TEAM]; /* a thread number names scratch memory */
    atomic_int n_wrong;
};

static struct tlr_pool *new_pool(int n_threads)
{
    struct tlr_pool *pool;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_pool_new(&pool, n_threads, &err) == 0, "%s", err.text);
    ck_assert_int_eq(tlr_pool_threads(pool), n_threads);
    return pool;
}

static void count_item(void *ctx, int item, int thread)
{
    struct region *r = ctx;
    if (thread < 0 || thread >= r->n_threads ||
        atomic_exchange(&r->in_use[thread], 1)) {
        atomic_fetch_add(&r->n_wrong, 1);
        return;
    }
    r->times[item]++;
    atomic_store(&r->in_use[thread], 0);
}

static void run_and_check(struct tlr_pool *pool, int n_items)
{
    struct region r = {.n_threads = tlr_pool_threads(pool)};
    tlr_pool_run(pool, count_item, &r, n_items);
    ck_assert_int_eq(atomic_load(&r.n_wrong), 0);
    for (int i = 0; i < MAX_ITEMS; i++) {
        if (r.times[i] != (i < n_items)) {
            ck_abort_msg("%d items: item %d ran %d times", n_items, i,
                         r.times[i]);
        }
    }
}

START_TEST(every_item_once)
{
    struct tlr_pool *pool = new_pool(_i);
    for (int n = 0; n < MAX_ITEMS; n = n < 20 ? n + 1 : n * 2 - 3) {
        run_and_check(pool, n);
    }
    for (int i = 0; i < 5000; i++) {
        run_and_check(pool, 1 + i % 9);
    }
    tlr_pool_free(pool);
}
END_TEST

/* Long enough for every waiting thread to fall asleep. */
static void nap(void)
{
    const struct timespec time = {.tv_nsec = 2000000};
    nanosleep(&time, NULL);
}

START_TEST(sleepers_wake)
{
    struct tlr_pool *pool = new_pool(_i);
    for (int i = 0; i < 30; i++) {
        nap();
        run_and_check(pool, 5);
        run_and_check(pool, 50);
    }
    tlr_pool_free(pool);
}
END_TEST

START_TEST(more_threads_than_processors)
{
    struct tlr_pool *pool = new_pool(MAX_TEAM);
    for (int i = 0; i < 300; i++) {
        run_and_check(pool, i);
    }
    tlr_pool_free(pool);
}
END_TEST

START_TEST(freed_at_once)
{
    for (int i = 0; i < 200; i++) {
        struct tlr_pool *pool = new_pool(1 + i % 4);
        if (i % 3 == 0) {
            run_and_check(pool, 3);
        }
        tlr_pool_free(pool);
    }
    tlr_pool_free(NULL);
}
END_TEST

struct meeting {
    atomic_int n_here, n_open, n_shut, calls_of[MAX_TEAM];
    int n_expected;
    bool late; /* the workers end long after the caller */
};

/* Ends only when every thread of the pool is in an item of its own. */
static void meet(void *ctx, int item, int thread)
{
    struct meeting *m = ctx;
    (void)item;
    atomic_fetch_add(&m->calls_of[thread], 1);
    atomic_fetch_add(&m->n_here, 1);
    while (atomic_load(&m->n_here) < m->n_expected) {
        sched_yield();
    }
    if (thread > 0) {
        sigset_t set;
        if (m->late) {
            nap();
        }
        pthread_sigmask(SIG_BLOCK, NULL, &set);
        atomic_fetch_add(&m->n_shut, sigismember(&set, SIGINT) &&
                                         sigismember(&set, SIGTERM));
        atomic_fetch_add(&m->n_open, !sigismember(&set, SIGSEGV) &&
                                         !sigismember(&set, SIGBUS));
    }
}

START_TEST(all_threads_take_part)
{
    struct tlr_pool *pool = new_pool(_i);
    for (int i = 0; i < 20; i++) {
        struct meeting m = {.n_expected = _i, .late = i % 4 == 1};
        if (i % 4 == 2) {
            nap(); /* a bell that wakes nobody would leave the caller alone */
        }
        tlr_pool_run(pool, meet, &m, _i);
        for (int t = 0; t < _i; t++) {
            ck_assert_int_eq(atomic_load(&m.calls_of[t]), 1);
        }
        /* Ctrl-C reaches the thread that can act on it. */
        ck_assert_int_eq(atomic_load(&m.n_shut), _i - 1);
        ck_assert_int_eq(atomic_load(&m.n_open), _i - 1);
    }
    tlr_pool_free(pool);
    sigset_t own;
    pthread_sigmask(SIG_BLOCK, NULL, &own);
    ck_assert(!sigismember(&own, SIGINT));
}
END_TEST

struct begin {
    atomic_int n_here, first_of[MAX_TEAM];
    int n_expected;
};

static void note_begin(void *ctx, int item, int thread)
{
    struct begin *b = ctx;
    int none = -1;
    if (!atomic_compare_exchange_strong(&b->first_of[thread], &none, item)) {
        return;
    }
    atomic_fetch_add(&b->n_here, 1);
    while (atomic_load(&b->n_here) < b->n_expected) {
        sched_yield();
    }
}

/* While all are in their first item nobody has taken another's. */
START_TEST(threads_begin_with_their_own_part)
{
    struct tlr_pool *pool = new_pool(4);
    for (int i = 0; i < 20; i++) {
        struct begin b = {.n_expected = 4};
        for (int t = 0; t < 4; t++) {
            atomic_init(&b.first_of[t], -1);
        }
        tlr_pool_run(pool, note_begin, &b, 64);
        for (int t = 0; t < 4; t++) {
            ck_assert_int_eq(atomic_load(&b.first_of[t]), 16 * t);
        }
    }
    tlr_pool_free(pool);
}
END_TEST

struct wait {
    atomic_int n_done;
    int item, n_items;
};

/* One item ends only when all others have. */
static void wait_for_others(void *ctx, int item, int thread)
{
    struct wait *w = ctx;
    (void)thread;
    while (item == w->item && atomic_load(&w->n_done) < w->n_items - 1) {
        sched_yield();
    }
    atomic_fetch_add(&w->n_done, 1);
}

/* Whichever thread is held up, by whichever item, others take what it leaves;
 * else this does not end. */
START_TEST(items_are_stolen)
{
    struct tlr_pool *pool = new_pool(_i);
    enum { ITEMS = 24 };
    for (int item = 0; item < ITEMS; item++) {
        struct wait w = {.item = item, .n_items = ITEMS};
        tlr_pool_run(pool, wait_for_others, &w, ITEMS);
        ck_assert_int_eq(atomic_load(&w.n_done), ITEMS);
    }
    tlr_pool_free(pool);
}
END_TEST

static void *use_own_pool(void *arg)
{
    struct tlr_pool *pool = arg;
    for (int i = 0; i < 500; i++) {
        run_and_check(pool, i % 40);
    }
    return NULL;
}

START_TEST(two_pools_side_by_side)
{
    struct tlr_pool *a = new_pool(2), *b = new_pool(3);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, use_own_pool, a), 0);
    use_own_pool(b);
    pthread_join(thread, NULL);
    tlr_pool_free(a);
    tlr_pool_free(b);
}
END_TEST

START_TEST(bad_numbers_are_refused)
{
    const int numbers[] = {0, -1, 1025, 2147483647, -2147483647 - 1};
    for (int i = 0; i < 5; i++) {
        struct tlr_pool *pool;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_int_eq(tlr_pool_new(&pool, numbers[i], &err), TLR_EUSAGE);
        ck_assert_ptr_null(pool);
        ck_assert_ptr_nonnull(strstr(err.text, "expected 1 to 1024"));
    }
}
END_TEST

START_TEST(out_of_memory)
{
    struct tlr_pool *pool = NULL;
    int k = 0, rc;
    do {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k++);
        rc = tlr_pool_new(&pool, 3, &err);
        tlr_mem_fail_after(-1);
        ck_assert(rc == 0 || (rc == TLR_ENOMEM && !pool));
    } while (rc && k < 20);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_gt(k, 1);
    run_and_check(pool, 10);
    tlr_pool_free(pool);
}
END_TEST

#if defined(__GLIBC__) && UINTPTR_MAX > UINT32_MAX
/* With stacks of a quarter of the address space the system soon says no. */
START_TEST(threads_run_out)
{
    if (getenv("TLR_EMULATED"))
        TLR_LACKS("qemu-user searches for ever for a stack of 2^45 bytes");
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, (size_t)1 << 45);
    ck_assert_int_eq(pthread_setattr_default_np(&attr), 0);
    struct tlr_pool *pool;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_pool_new(&pool, 9, &err), TLR_ELIMIT);
    ck_assert_ptr_null(pool);
    ck_assert_ptr_nonnull(strstr(err.text, "of 9 could be started"));
}
END_TEST
#endif

Suite *suite_pool(void);
Suite *suite_pool(void)
{
    Suite *s = suite_create("pool");
    TCase *t = tcase_create("pool");
    tcase_add_loop_test(t, every_item_once, 1, 5);
    tcase_add_loop_test(t, sleepers_wake, 2, 5);
    tcase_add_test(t, more_threads_than_processors);
    tcase_add_test(t, freed_at_once);
    tcase_add_loop_test(t, all_threads_take_part, 1, 5);
    tcase_add_test(t, threads_begin_with_their_own_part);
    tcase_add_test(t, two_pools_side_by_side);
    tcase_add_test(t, bad_numbers_are_refused);
    tcase_add_test(t, out_of_memory);
#if defined(__GLIBC__) && UINTPTR_MAX > UINT32_MAX
    tcase_add_test(t, threads_run_out);
#endif
    suite_add_tcase(s, t);
    t = tcase_create("stealing");
    tcase_set_timeout(t, 60); /* a failure is a wait without end */
    tcase_add_loop_test(t, items_are_stolen, 2, 5);
    suite_add_tcase(s, t);
    return s;
}
