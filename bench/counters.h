/* counters.h - what the processor counts while this thread works. */
#ifndef TLR_BENCH_COUNTERS_H
#define TLR_BENCH_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

struct tlr_counts {
    uint64_t cycles, instructions, llc_misses;
};

struct tlr_counters {
    int fds[3]; /* -1: the machine or its owner does not allow it */
};

/* false: nothing can be counted here (no Linux, no counters in a virtual
 * machine, perf_event_paranoid above 2); using it is harmless then. */
bool tlr_counters_open(struct tlr_counters *c);
void tlr_counters_begin(const struct tlr_counters *c);
/* Since begin, in user space; 0 for what is not counted. */
void tlr_counters_end(const struct tlr_counters *c, struct tlr_counts *out);
void tlr_counters_close(struct tlr_counters *c);

#endif
