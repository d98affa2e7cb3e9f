/* clock.c - monotonic time and the process's memory peak. */
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/file.h"

uint64_t tlr_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double tlr_ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(int64_t)(to_ns - from_ns) * 1e-6;
}

uint64_t tlr_peak_rss_bytes(void)
{
    /* Linux carries ru_maxrss over exec: a small program started by a large
     * one would report its parent.  VmHWM is of this image alone. */
    char status[4096];
    if (tlr_read_text(status, sizeof status, "/proc/self/status") > 0) {
        const char *line = strstr(status, "\nVmHWM:");
        if (line) {
            return strtoull(line + 7, NULL, 10) * 1024;
        }
    }
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < 0) {
        return 0;
    }
#if defined(__APPLE__)
    return (uint64_t)usage.ru_maxrss;
#else
    return (uint64_t)usage.ru_maxrss * 1024;
#endif
}
