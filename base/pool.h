/* pool.h - the threads that share the work of one token.
 *
 * Started once per session, woken for every parallel region: workers spin for
 * a bounded time, then sleep, so an oversubscribed machine is not burnt down.
 * Each thread begins with its own run of neighbouring items and takes from the
 * others' ends when it is done (a slow core does fewer).
 * What an item computes may not depend on which thread runs it; that is what
 * makes results independent of the number of threads.
 */
#ifndef TLR_BASE_POOL_H
#define TLR_BASE_POOL_H

#include "base/err.h"

struct tlr_pool;

/* item in [0, n_items); thread in [0, n_threads) names scratch memory. */
typedef void (*tlr_pool_fn)(void *ctx, int item, int thread);

/* n_threads >= 1 counts the calling thread; 1 starts none. */
int tlr_pool_new(struct tlr_pool **out, int n_threads, struct tlr_err *err);
void tlr_pool_free(struct tlr_pool *pool); /* NULL is allowed */
int tlr_pool_threads(const struct tlr_pool *pool);

/* Runs fn for every item and returns when all are done.  Called by one thread
 * at a time, never from inside fn. */
void tlr_pool_run(struct tlr_pool *pool, tlr_pool_fn fn, void *ctx,
                  int n_items);

/* Physical performance cores inside the affinity mask and the cgroup CPU quota
 * (rounded up), at least 1: the right number of threads without a flag. */
int tlr_default_threads(void);

/* Logical processors inside the affinity mask: more threads than this is
 * refused by the CLI. */
int tlr_max_threads(void);

#endif
