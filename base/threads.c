/* threads.c - how many threads are worth starting.
 *
 * Matrix-vector work is bound by memory: a second thread on the same core adds
 * nothing, and one slow core makes all wait at the end of a region.  So:
 * physical performance cores that this process may use.  Facts come from
 * sched_getaffinity, sysfs (Documentation/admin-guide/cputopology.rst) and
 * cgroups (cgroup-v2.rst, sched-bwc.rst); macOS answers by sysctl.
 */
#include "base/threads.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <errno.h>
#include <sched.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "base/file.h"
#include "base/pool.h"

enum {
    PATH_BYTES = 4096,
    TEXT_BYTES = 4096,
    /* Below this share of the largest, in percent, a core is an efficiency
     * core.  Middle cores of three-step phones have about 0.8 of the largest
     * capacity, small ones under 0.5; dense server cores run at about two
     * thirds of the frequency and are as wide. */
    CAPACITY_SHARE = 60,
    FREQUENCY_SHARE = 60,
};

/* ---- cgroup quota ---------------------------------------------------------- */

static int quota_of(long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0) {
        return 0;
    }
    long long n = (quota_us - 1) / period_us + 1;
    return n > INT_MAX ? INT_MAX : (int)n;
}

int tlr_quota_v2(const char *cpu_max)
{
    char *end;
    long long quota = strtoll(cpu_max, &end, 10);
    if (end == cpu_max || *end != ' ') {
        return 0; /* "max": no limit */
    }
    return quota_of(quota, strtoll(end, NULL, 10));
}

int tlr_quota_v1(const char *quota_us, const char *period_us)
{
    return quota_of(strtoll(quota_us, NULL, 10), strtoll(period_us, NULL, 10));
}

/* Is name one of the comma-separated names in [list, end)? */
static bool in_list(const char *list, const char *end, const char *name)
{
    size_t len = strlen(name);
    while (list <= end) {
        size_t part = strcspn(list, ",:");
        if (part == len && strncmp(list, name, len) == 0) {
            return true;
        }
        list += part + 1;
    }
    return false;
}

/* Does path have ".." as one of its names? */
static bool climbs(const char *path, size_t len)
{
    for (size_t i = 0; i + 3 <= len; i++) {
        if (memcmp(path + i, "/..", 3) == 0 &&
            (i + 3 == len || path[i + 3] == '/')) {
            return true;
        }
    }
    return false;
}

bool tlr_cgroup_path(char *out, size_t cap, const char *proc_self_cgroup,
                     const char *controller)
{
    /* Lines are ID:CONTROLLERS:PATH; only the path may hold a colon. */
    const char *line = proc_self_cgroup;
    while (*line) {
        size_t line_len = strcspn(line, "\n");
        const char *names = memchr(line, ':', line_len);
        const char *path =
            names ? memchr(names + 1, ':',
                           line_len - (size_t)(names + 1 - line))
                  : NULL;
        if (path && in_list(names + 1, path, controller)) {
            size_t len = line_len - (size_t)(path + 1 - line);
            if (len == 0 || len >= cap || path[1] != '/' ||
                climbs(path + 1, len)) {
                return false;
            }
            memcpy(out, path + 1, len);
            out[len] = '\0';
            return true;
        }
        line += line_len + (line[line_len] == '\n');
    }
    return false;
}

/* First line of root + dir + name; false when it cannot be read. */
static bool read_in(char *text, size_t cap, const char *root, const char *dir,
                    const char *name)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s%s%s", root, dir, name);
    return n > 0 && (size_t)n < sizeof path &&
           tlr_read_text(text, cap, path) > 0;
}

static int least(int a, int b) /* where 0 is "no limit" */
{
    if (a == 0 || b == 0) {
        return a + b;
    }
    return a < b ? a : b;
}

/* Quota of one cgroup folder, v2 or v1, whichever files it has. */
static int quota_of_folder(const char *root, const char *dir)
{
    char text[64], period[64];
    if (read_in(text, sizeof text, root, dir, "/cpu.max")) {
        return tlr_quota_v2(text);
    }
    if (read_in(text, sizeof text, root, dir, "/cpu.cfs_quota_us") &&
        read_in(period, sizeof period, root, dir, "/cpu.cfs_period_us")) {
        return tlr_quota_v1(text, period);
    }
    return 0;
}

/* Of path below mount and of each parent: any of them can throttle us.  In a
 * container the path may not exist below the mount; its root does. */
static int quota_up_from(const char *root, const char *mount, const char *path)
{
    char dir[PATH_BYTES];
    int n = snprintf(dir, sizeof dir, "%s%s", mount, path);
    if (n < 0 || (size_t)n >= sizeof dir) {
        return 0;
    }
    int quota = 0;
    for (;;) {
        quota = least(quota, quota_of_folder(root, dir));
        char *slash = strrchr(dir + strlen(mount), '/');
        if (!slash) {
            return quota;
        }
        *slash = '\0';
    }
}

int tlr_quota_cpus(const char *root)
{
    static const struct {
        const char *mount, *controller;
    } places[] = {
        {"/sys/fs/cgroup", ""},
        {"/sys/fs/cgroup/unified", ""},
        {"/sys/fs/cgroup/cpu", "cpu"},
        {"/sys/fs/cgroup/cpu,cpuacct", "cpu"},
    };
    char text[TEXT_BYTES], path[PATH_BYTES];
    if (!read_in(text, sizeof text, root, "", "/proc/self/cgroup")) {
        return 0;
    }
    int quota = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!tlr_cgroup_path(path, sizeof path, text, places[i].controller)) {
            path[0] = '\0';
        }
        quota = least(quota, quota_up_from(root, places[i].mount, path));
    }
    return quota;
}

/* ---- cores ----------------------------------------------------------------- */

bool tlr_cpus_parse(struct tlr_cpus *out, const char *list)
{
    memset(out, 0, sizeof *out);
    while (*list && *list != '\n') {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        bool good = end != list && *list >= '0' && *list <= '9';
        if (good && *end == '-') {
            list = end + 1;
            last = strtoul(list, &end, 10);
            good = *list >= '0' && *list <= '9';
        }
        if (!good || last < first || last >= TLR_CPUS_MAX ||
            (*end && *end != ',' && *end != '\n')) {
            memset(out, 0, sizeof *out);
            return false;
        }
        for (unsigned long i = first; i <= last; i++) {
            out->has[i] = true;
        }
        list = end + (*end == ',');
    }
    return true;
}

/* Number in root/sys/devices/system/cpu/cpuN/name, -1 when there is none. */
static long cpu_number(const char *root, int cpu, const char *name)
{
    char dir[64], text[TEXT_BYTES];
    snprintf(dir, sizeof dir, "/sys/devices/system/cpu/cpu%d/", cpu);
    if (!read_in(text, sizeof text, root, dir, name)) {
        return -1;
    }
    char *end;
    long n = strtol(text, &end, 10);
    return end == text ? -1 : n;
}

/* Keeps the processors whose number is near the largest; false, and nothing
 * changed, where one has no number. */
static bool keep_large(const char *root, struct tlr_cpus *cpus,
                       const char *name, long share)
{
    static const long unread = -2;
    long largest = 0, value[TLR_CPUS_MAX];
    for (int i = 0; i < TLR_CPUS_MAX; i++) {
        value[i] = cpus->has[i] ? cpu_number(root, i, name) : unread;
        if (value[i] == -1) {
            return false;
        }
        largest = value[i] > largest ? value[i] : largest;
    }
    for (int i = 0; i < TLR_CPUS_MAX; i++) {
        cpus->has[i] = cpus->has[i] && value[i] >= largest / 100 * share;
    }
    return true;
}

/* Takes efficiency cores out of cpus, unless there are no others. */
static void keep_performance(const char *root, struct tlr_cpus *cpus)
{
    char text[TEXT_BYTES];
    struct tlr_cpus fast;
    /* Hybrid Intel names its performance cores. */
    if (read_in(text, sizeof text, root, "/sys/devices/cpu_core", "/cpus") &&
        tlr_cpus_parse(&fast, text)) {
        bool any = false;
        for (int i = 0; i < TLR_CPUS_MAX; i++) {
            fast.has[i] = fast.has[i] && cpus->has[i];
            any = any || fast.has[i];
        }
        if (any) {
            *cpus = fast;
        }
        return;
    }
    if (!keep_large(root, cpus, "cpu_capacity", CAPACITY_SHARE)) {
        keep_large(root, cpus, "cpufreq/cpuinfo_max_freq", FREQUENCY_SHARE);
    }
}

/* The lowest processor that shares a core with cpu: the core's name.  Core
 * numbers of their own repeat from one package or die to the next. */
static int core_of(const char *root, int cpu)
{
    long first = cpu_number(root, cpu, "topology/core_cpus_list");
    if (first < 0) {
        first = cpu_number(root, cpu, "topology/thread_siblings_list");
    }
    return first >= 0 && first < TLR_CPUS_MAX ? (int)first : cpu;
}

int tlr_count_cores(const char *root, const struct tlr_cpus *allowed)
{
    struct tlr_cpus cpus = *allowed;
    bool seen[TLR_CPUS_MAX] = {false};
    int n = 0;
    keep_performance(root, &cpus);
    for (int i = 0; i < TLR_CPUS_MAX; i++) {
        if (cpus.has[i]) {
            int core = core_of(root, i);
            n += !seen[core];
            seen[core] = true;
        }
    }
    return n > 0 ? n : 1;
}

/* ---- this machine ---------------------------------------------------------- */

static int online(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > TLR_CPUS_MAX ? TLR_CPUS_MAX : (int)n;
}

#if defined(__linux__)

/* The affinity mask; false when the kernel's does not fit. */
static bool affinity(struct tlr_cpus *out)
{
    size_t size = CPU_ALLOC_SIZE(TLR_CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(TLR_CPUS_MAX);
    memset(out, 0, sizeof *out);
    if (!set) {
        return false;
    }
    bool good = sched_getaffinity(0, size, set) == 0;
    for (int i = 0; good && i < TLR_CPUS_MAX; i++) {
        out->has[i] = CPU_ISSET_S((size_t)i, size, set);
    }
    CPU_FREE(set);
    return good;
}

int tlr_max_threads(void)
{
    struct tlr_cpus cpus;
    if (!affinity(&cpus)) {
        return online();
    }
    int n = 0;
    for (int i = 0; i < TLR_CPUS_MAX; i++) {
        n += cpus.has[i];
    }
    return n > 0 ? n : 1;
}

int tlr_default_threads(void)
{
    struct tlr_cpus cpus;
    int n = affinity(&cpus) ? tlr_count_cores("", &cpus) : online();
    return least(n, tlr_quota_cpus(""));
}

#elif defined(__APPLE__)

static int sysctl_int(const char *name)
{
    int n = 0;
    size_t size = sizeof n;
    return sysctlbyname(name, &n, &size, NULL, 0) == 0 && n > 0 ? n : 0;
}

int tlr_max_threads(void)
{
    int n = sysctl_int("hw.logicalcpu");
    return n ? n : online();
}

int tlr_default_threads(void)
{
    int n = sysctl_int("hw.perflevel0.physicalcpu"); /* Apple silicon */
    n = n ? n : sysctl_int("hw.physicalcpu");
    return n ? n : online();
}

#else

int tlr_max_threads(void)
{
    return online();
}

int tlr_default_threads(void)
{
    return online();
}

#endif
