/* oracle.h - a large model that agrees with the small one as often as it is told,
 * and a wire of a set length to it.
 *
 * It is taught in one serial run that is not timed: at each doubtful position it
 * sees the small model's best tokens and settles on the first one (60 of 100), the
 * second to fourth (20, 7 and 3) or another.  After that it answers from a table,
 * as a function of the prefix, in no time of its own: no second model runs beside
 * the one that is timed.  A prefix that it was not taught lies behind a wrong
 * guess, and what it says there is never used.
 */
#ifndef TLR_BENCH_ESCALATE_ORACLE_H
#define TLR_BENCH_ESCALATE_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/tlr.h"
#include "router/expert.h"

enum { ORACLE_BLOCK = 30 }; /* lessons after which the shares are exact */

struct oracle {
    uint64_t *keys; /* hash of a prefix, 0: free */
    int32_t *ids;   /* what it says there */
    uint64_t n, n_top1, n_top4;
    /* Taught from this session while it is not NULL. */
    struct tlr_session *teacher;
};

int oracle_init(struct oracle *o, struct tlr_err *err);
void oracle_clear(struct oracle *o); /* a zeroed one is allowed */
/* What it says after ids[0..n); learnt first while there is a teacher. */
int oracle_answer(struct oracle *o, const int32_t *ids, size_t n, int32_t *id,
                  struct tlr_err *err);

/* An expert that has the oracle's answer latency_ms after the ask; nothing
 * computes meanwhile.  Any number of asks at once. */
struct wire {
    struct oracle *oracle;
    double latency_ms, think_ms; /* think: the part that is the large model's */
    struct {
        uint64_t ticket, begun_ns, ready_ns;
        int32_t id;
    } asks[16];
    uint64_t n_asks;
};
struct tlr_expert wire_expert(struct wire *w);

void sleep_until(uint64_t ns); /* of tlr_now_ns */

#endif
