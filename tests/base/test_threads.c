/* test_threads.c - machines played by texts and by folders of our own. */
#if defined(__linux__)
#include <sched.h>
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/pool.h"
#include "base/threads.h"
#include "tests/support/tlr_check.h"

static char root[600];

static void fresh_root(void)
{
    snprintf(root, sizeof root, "%s/root-XXXXXX", tlr_test_tmpdir());
    ck_assert_ptr_nonnull(mkdtemp(root));
}

/* Writes text to root + the formatted name, making its folders. */
static void put(const char *text, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void put(const char *text, const char *fmt, ...)
{
    char path[2000];
    size_t len = (size_t)snprintf(path, sizeof path, "%s", root);
    va_list args;
    va_start(args, fmt);
    vsnprintf(path + len, sizeof path - len, fmt, args);
    va_end(args);
    for (char *p = path + len + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0700);
            *p = '/';
        }
    }
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

START_TEST(quota_texts)
{
    ck_assert_int_eq(tlr_quota_v2("max 100000\n"), 0);
    ck_assert_int_eq(tlr_quota_v2("200000 100000\n"), 2);
    ck_assert_int_eq(tlr_quota_v2("200001 100000\n"), 3);
    ck_assert_int_eq(tlr_quota_v2("50000 100000\n"), 1);
    ck_assert_int_eq(tlr_quota_v2("1 1000000"), 1);
    ck_assert_int_eq(tlr_quota_v2("999999999999999 1"), 2147483647);
    const char *odd[] = {"",       "\n",       "max",      "100000", "100000 0",
                         "0 1000", "-1 10000", "100000 x", "x 1",    "1000,10"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        ck_assert_msg(tlr_quota_v2(odd[i]) == 0, "\"%s\"", odd[i]);
    }
    ck_assert_int_eq(tlr_quota_v1("-1\n", "100000\n"), 0);
    ck_assert_int_eq(tlr_quota_v1("150000\n", "100000\n"), 2);
    ck_assert_int_eq(tlr_quota_v1("100000\n", "0\n"), 0);
    ck_assert_int_eq(tlr_quota_v1("", ""), 0);
}
END_TEST

START_TEST(cgroup_texts)
{
    const char *text = "12:cpuset:/set\n"
                       "4:cpu,cpuacct:/docker/a:b\n"
                       "3:name=systemd:/sys\n"
                       "0::/user.slice/app\n";
    char path[64];
    ck_assert(tlr_cgroup_path(path, sizeof path, text, "cpu"));
    ck_assert_str_eq(path, "/docker/a:b");
    ck_assert(tlr_cgroup_path(path, sizeof path, text, "cpuacct"));
    ck_assert_str_eq(path, "/docker/a:b");
    ck_assert(tlr_cgroup_path(path, sizeof path, text, ""));
    ck_assert_str_eq(path, "/user.slice/app");
    ck_assert(!tlr_cgroup_path(path, sizeof path, text, "memory"));
    ck_assert(!tlr_cgroup_path(path, sizeof path, text, "cp"));
    ck_assert(tlr_cgroup_path(path, 16, text, ""));
    ck_assert(!tlr_cgroup_path(path, 15, text, "")); /* no room for the NUL */
    const char *odd[] = {"",        "\n",         "0::",         "0:/",
                         "0",       "0::relative", "0::/../up",   "0::/a/..",
                         "0::/..",  ":::",        "1:cpu:/only", "0:\n:/"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        ck_assert_msg(!tlr_cgroup_path(path, sizeof path, odd[i], ""),
                      "\"%s\"", odd[i]);
    }
    ck_assert(tlr_cgroup_path(path, sizeof path, "0::/a..b/..c", ""));
}
END_TEST

START_TEST(quota_v2_of_parents)
{
    ck_assert_int_eq(tlr_quota_cpus(root), 0); /* nothing there at all */
    put("0::/a/b\n", "/proc/self/cgroup");
    ck_assert_int_eq(tlr_quota_cpus(root), 0);
    put("max 100000\n", "/sys/fs/cgroup/a/b/cpu.max");
    ck_assert_int_eq(tlr_quota_cpus(root), 0);
    put("350000 100000\n", "/sys/fs/cgroup/a/cpu.max");
    ck_assert_int_eq(tlr_quota_cpus(root), 4);
    put("600000 100000\n", "/sys/fs/cgroup/a/b/cpu.max");
    ck_assert_int_eq(tlr_quota_cpus(root), 4);
    put("200000 100000\n", "/sys/fs/cgroup/a/b/cpu.max");
    ck_assert_int_eq(tlr_quota_cpus(root), 2);
    put("100000 100000\n", "/sys/fs/cgroup/cpu.max");
    ck_assert_int_eq(tlr_quota_cpus(root), 1);
}
END_TEST

/* In a container: the path is the host's, the folder is mounted as the root. */
START_TEST(quota_v1_in_a_container)
{
    put("4:cpu,cpuacct:/docker/0123\n0::/\n", "/proc/self/cgroup");
    put("250000\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us");
    ck_assert_int_eq(tlr_quota_cpus(root), 0); /* no period */
    put("100000\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us");
    ck_assert_int_eq(tlr_quota_cpus(root), 3);
    put("200000\n", "/sys/fs/cgroup/cpu/docker/0123/cpu.cfs_quota_us");
    put("100000\n", "/sys/fs/cgroup/cpu/docker/0123/cpu.cfs_period_us");
    ck_assert_int_eq(tlr_quota_cpus(root), 2);
}
END_TEST

START_TEST(processor_lists)
{
    struct tlr_cpus c;
    ck_assert(tlr_cpus_parse(&c, "0-3,8,10-11\n"));
    for (int i = 0; i < 16; i++) {
        ck_assert(c.has[i] == (i < 4 || i == 8 || i == 10 || i == 11));
    }
    ck_assert(tlr_cpus_parse(&c, "4095"));
    ck_assert(c.has[4095] && !c.has[0]);
    ck_assert(tlr_cpus_parse(&c, ""));
    const char *odd[] = {"x",    "1-",   "-1",        "3-1",
                         "4096", "1,,2", "1-2-3",     "0-99999999999999999999",
                         "1 2",  "+1",   "1-+2",      "0x1"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        ck_assert_msg(!tlr_cpus_parse(&c, odd[i]), "\"%s\"", odd[i]);
        ck_assert(!c.has[0] && !c.has[1]);
    }
}
END_TEST

/* A machine of n processors; with two per core, i and i + n / 2 share one. */
static void put_machine(int n, int per_core, bool new_kernel)
{
    for (int i = 0; i < n; i++) {
        char list[64];
        int cores = n / per_core;
        snprintf(list, sizeof list, per_core == 2 ? "%d,%d\n" : "%d\n",
                 i % cores, i % cores + cores);
        put(list, "/sys/devices/system/cpu/cpu%d/topology/%s", i,
            new_kernel ? "core_cpus_list" : "thread_siblings_list");
        put("0\n", "/sys/devices/system/cpu/cpu%d/topology/core_id", i);
    }
}

static struct tlr_cpus first_n(int n)
{
    struct tlr_cpus c = {{false}};
    memset(c.has, true, (size_t)n);
    return c;
}

START_TEST(cores_not_siblings)
{
    put_machine(16, 2, _i);
    struct tlr_cpus all = first_n(16), half = first_n(8), mixed = {{false}};
    ck_assert_int_eq(tlr_count_cores(root, &all), 8);
    ck_assert_int_eq(tlr_count_cores(root, &half), 8);
    mixed.has[1] = mixed.has[9] = mixed.has[15] = true; /* 1 and 9 share */
    ck_assert_int_eq(tlr_count_cores(root, &mixed), 2);
    struct tlr_cpus none = {{false}};
    ck_assert_int_eq(tlr_count_cores(root, &none), 1);
}
END_TEST

START_TEST(no_topology)
{
    struct tlr_cpus c = first_n(5);
    ck_assert_int_eq(tlr_count_cores(root, &c), 5);
}
END_TEST

START_TEST(hybrid_by_name)
{
    put_machine(8, 1, true);
    put("0-3\n", "/sys/devices/cpu_core/cpus");
    put("4-7\n", "/sys/devices/cpu_atom/cpus");
    struct tlr_cpus all = first_n(8), slow = {{false}};
    ck_assert_int_eq(tlr_count_cores(root, &all), 4);
    slow.has[5] = slow.has[6] = true; /* the mask has no others */
    ck_assert_int_eq(tlr_count_cores(root, &slow), 2);
}
END_TEST

static void put_numbers(const char *name, const int *numbers, int n)
{
    for (int i = 0; i < n; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d\n", numbers[i]);
        put(text, "/sys/devices/system/cpu/cpu%d/%s", i, name);
    }
}

START_TEST(hybrid_by_numbers)
{
    const int phone[] = {250, 250, 250, 250, 830, 830, 830, 1024};
    const int equal[] = {1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024};
    const int favoured[] = {5800000, 5800000, 5500000, 5500000,
                            5500000, 5500000, 5500000, 5500000};
    const int slow[] = {5000000, 5000000, 2400000, 2400000,
                        2400000, 2400000, 2400000, 2400000};
    struct tlr_cpus all = first_n(8), little = first_n(4);
    put_machine(8, 1, true);
    put_numbers("cpufreq/cpuinfo_max_freq", favoured, 8);
    ck_assert_int_eq(tlr_count_cores(root, &all), 8);
    put_numbers("cpufreq/cpuinfo_max_freq", slow, 8);
    ck_assert_int_eq(tlr_count_cores(root, &all), 2);
    put_numbers("cpu_capacity", equal, 8); /* asked first where it is known */
    ck_assert_int_eq(tlr_count_cores(root, &all), 8);
    put_numbers("cpu_capacity", phone, 8);
    ck_assert_int_eq(tlr_count_cores(root, &all), 4);
    ck_assert_int_eq(tlr_count_cores(root, &little), 4);
}
END_TEST

START_TEST(this_machine)
{
    int n = tlr_default_threads(), max = tlr_max_threads();
    ck_assert_int_ge(n, 1);
    ck_assert_int_le(n, max);
    ck_assert_int_le(max, TLR_CPUS_MAX);
#if defined(__linux__)
    cpu_set_t set;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    ck_assert_int_eq(max, CPU_COUNT(&set));
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &set)) { /* one processor is all we have */
            CPU_ZERO(&set);
            CPU_SET(i, &set);
            ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
            ck_assert_int_eq(tlr_max_threads(), 1);
            ck_assert_int_eq(tlr_default_threads(), 1);
            break;
        }
    }
#endif
}
END_TEST

Suite *suite_threads(void);
Suite *suite_threads(void)
{
    Suite *s = suite_create("threads");
    TCase *t = tcase_create("threads");
    tcase_add_checked_fixture(t, fresh_root, NULL);
    tcase_add_test(t, quota_texts);
    tcase_add_test(t, cgroup_texts);
    tcase_add_test(t, quota_v2_of_parents);
    tcase_add_test(t, quota_v1_in_a_container);
    tcase_add_test(t, processor_lists);
    tcase_add_loop_test(t, cores_not_siblings, 0, 2);
    tcase_add_test(t, no_topology);
    tcase_add_test(t, hybrid_by_name);
    tcase_add_test(t, hybrid_by_numbers);
    tcase_add_test(t, this_machine);
    suite_add_tcase(s, t);
    return s;
}
