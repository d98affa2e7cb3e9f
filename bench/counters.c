/* counters.c - see counters.h; perf_event_open(2), as one group. */
#include "bench/counters.h"

#if defined(__linux__)
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_one(uint64_t event, int group)
{
    struct perf_event_attr a;
    memset(&a, 0, sizeof a);
    a.type = PERF_TYPE_HARDWARE;
    a.size = sizeof a;
    a.config = event;
    a.disabled = group < 0;
    a.exclude_kernel = 1;
    a.exclude_hv = 1;
    return (int)syscall(SYS_perf_event_open, &a, 0, -1, group, 0);
}

bool tlr_counters_open(struct tlr_counters *c)
{
    static const uint64_t events[] = { PERF_COUNT_HW_CPU_CYCLES,
                                       PERF_COUNT_HW_INSTRUCTIONS,
                                       PERF_COUNT_HW_CACHE_MISSES };
    c->fds[0] = open_one(events[0], -1);
    for (int i = 1; i < 3; i++)
        c->fds[i] = c->fds[0] < 0 ? -1 : open_one(events[i], c->fds[0]);
    return c->fds[0] >= 0;
}

void tlr_counters_begin(const struct tlr_counters *c)
{
    if (c->fds[0] < 0)
        return;
    ioctl(c->fds[0], PERF_EVENT_IOC_RESET, PERF_IOC_FLAG_GROUP);
    ioctl(c->fds[0], PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP);
}

void tlr_counters_end(const struct tlr_counters *c, struct tlr_counts *out)
{
    uint64_t values[3] = { 0 };
    if (c->fds[0] >= 0)
        ioctl(c->fds[0], PERF_EVENT_IOC_DISABLE, PERF_IOC_FLAG_GROUP);
    for (int i = 0; i < 3; i++)
        if (c->fds[i] >= 0 && read(c->fds[i], &values[i], 8) != 8)
            values[i] = 0;
    *out = (struct tlr_counts){ values[0], values[1], values[2] };
}

void tlr_counters_close(struct tlr_counters *c)
{
    for (int i = 0; i < 3; i++) {
        if (c->fds[i] >= 0)
            close(c->fds[i]);
        c->fds[i] = -1;
    }
}

#else
bool tlr_counters_open(struct tlr_counters *c)
{
    for (int i = 0; i < 3; i++)
        c->fds[i] = -1;
    return false;
}

void tlr_counters_begin(const struct tlr_counters *c)
{
    (void)c;
}

void tlr_counters_end(const struct tlr_counters *c, struct tlr_counts *out)
{
    (void)c;
    *out = (struct tlr_counts){ 0, 0, 0 };
}

void tlr_counters_close(struct tlr_counters *c)
{
    (void)c;
}
#endif
