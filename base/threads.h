/* threads.h - how many threads this machine lets us use, piece by piece.
 *
 * Inside base/ and its tests only: everybody else asks tlr_default_threads and
 * tlr_max_threads of pool.h.  Texts of the kernel are parsed by pure functions,
 * and file lookups take the root folder ("" or a test's), so that any machine
 * can be played.
 */
#ifndef TLR_BASE_THREADS_H
#define TLR_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

enum { TLR_CPUS_MAX = 4096 };

/* One flag per logical processor. */
struct tlr_cpus {
    bool has[TLR_CPUS_MAX];
};

/* Processors granted by a cgroup, rounded up; 0: no limit, or not understood.
 * v2: "200000 100000" or "max 100000" (cpu.max).  v1: cpu.cfs_quota_us and
 * cpu.cfs_period_us. */
int tlr_quota_v2(const char *cpu_max);
int tlr_quota_v1(const char *quota_us, const char *period_us);

/* Path of this process in the hierarchy of controller ("cpu"; "" is v2), from
 * the text of /proc/self/cgroup.  False when it is not there, does not fit, or
 * leads outside what we can see (".."). */
bool tlr_cgroup_path(char *out, size_t cap, const char *proc_self_cgroup,
                     const char *controller);

/* Smallest quota of our cgroup and its parents under root; 0: none. */
int tlr_quota_cpus(const char *root);

/* "0-3,8,10-11" of the kernel; false when malformed (out is then empty). */
bool tlr_cpus_parse(struct tlr_cpus *out, const char *list);

/* Distinct performance cores among the allowed processors, from root/sys; at
 * least 1. */
int tlr_count_cores(const char *root, const struct tlr_cpus *allowed);

#endif
