/* clock.h - monotonic time and the process's memory peak. */
#ifndef TLR_BASE_CLOCK_H
#define TLR_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start; never goes back. */
uint64_t tlr_now_ns(void);

/* Milliseconds between two tlr_now_ns readings. */
double tlr_ms_between(uint64_t from_ns, uint64_t to_ns);

/* Largest resident set of this process so far, in bytes; 0 if unknown. */
uint64_t tlr_peak_rss_bytes(void);

#endif
