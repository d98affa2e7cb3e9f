/* test_file_in.c - what is mapped or read, and what is refused by name. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"

/* A name in the test folder; the last four are valid. */
static const char *at(const char *name)
{
    static char paths[4][1024];
    static int n;
    char *path = paths[n++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", tlr_test_tmpdir(), name);
    return path;
}

static void put(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void check_refused(const char *path, int code, const char *reason)
{
    struct tlr_map map = {(const uint8_t *)"x", 1};
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_map_open(&map, path, true, &err), code);
    ck_assert_ptr_null(map.ptr);
    ck_assert_msg(strncmp(err.text, path, strlen(path)) == 0, "%s", err.text);
    ck_assert_msg(strstr(err.text, reason) != NULL, "%s", err.text);
}

START_TEST(what_is_not_a_file)
{
    check_refused(at("none"), TLR_ENOTFOUND, "No such file");
    check_refused(at("none/below"), TLR_ENOTFOUND, "No such file");
    check_refused(tlr_test_tmpdir(), TLR_EIO, "found a directory");
    check_refused("/dev/null", TLR_EIO, "expected a regular file");
    const char *fifo = at("in.fifo"), *empty = at("in.empty");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    check_refused(fifo, TLR_EIO, "expected a regular file"); /* no waiting */
    put(empty, "", 0);
    check_refused(empty, TLR_EFORMAT, "is empty");
    const char *dangling = at("in.dangling");
    ck_assert_int_eq(symlink("nowhere", dangling), 0);
    check_refused(dangling, TLR_ENOTFOUND, "No such file");
    const char *loop = at("in.loop");
    ck_assert_int_eq(symlink("in.loop", loop), 0);
    check_refused(loop, TLR_EIO, "cannot be opened");
}
END_TEST

START_TEST(maps_whole_file)
{
    enum { LEN = 3 * 4096 + 17 };
    uint8_t data[LEN];
    for (int i = 0; i < LEN; i++) {
        data[i] = (uint8_t)(i * 7 + i / 256);
    }
    put(at("in.data"), data, LEN);
    ck_assert_int_eq(symlink("in.data", at("in.link")), 0);
    ck_assert_int_eq(symlink("in.link", at("in.link2")), 0);
    const char *names[] = {"in.data", "in.link", "in.link2"};
    for (int i = 0; i < 6; i++) {
        struct tlr_map map;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_msg(tlr_map_open(&map, at(names[i / 2]), i % 2, &err) == 0,
                      "%s", err.text);
        ck_assert_uint_eq(map.len, LEN);
        ck_assert_mem_eq(map.ptr, data, LEN);
        tlr_map_close(&map);
        ck_assert_ptr_null(map.ptr);
        tlr_map_close(&map);
    }
}
END_TEST

/* Loading is told apart from the first token: nothing is left to be read. */
START_TEST(populated_pages_are_here)
{
    enum { PAGES = 512 };
    if (getenv("TLR_EMULATED"))
        TLR_LACKS("qemu-user says Rss 0 in /proc/self/smaps");
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *data = calloc(PAGES, page);
    put(at("in.pages"), data, PAGES * page);
    free(data);
    struct tlr_map map;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_map_open(&map, at("in.pages"), true, &err), 0);
    char line[512];
    unsigned long rss_kb = 0;
    bool here = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    if (!f) {
        tlr_map_close(&map);
        TLR_SKIP("no /proc/self/smaps on this system");
    }
    while (fgets(line, sizeof line, f)) {
        here = here || strstr(line, "in.pages");
        if (here && sscanf(line, "Rss: %lu kB", &rss_kb) == 1) {
            break;
        }
    }
    fclose(f);
    ck_assert_uint_eq(rss_kb * 1024, PAGES * page);
    tlr_map_close(&map);
}
END_TEST

START_TEST(descriptor_stays_open)
{
    put(at("in.fd"), "hello", 5);
    int fd = open(at("in.fd"), O_RDONLY);
    struct tlr_map map;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_map_open_fd(&map, fd, "label", false, &err), 0);
    char c;
    ck_assert_int_eq(read(fd, &c, 1), 1);
    close(fd);
    ck_assert_mem_eq(map.ptr, "hello", 5);
    tlr_map_close(&map);
    ck_assert_int_eq(tlr_map_open_fd(&map, fd, "label", false, &err), TLR_EIO);
    ck_assert_ptr_eq(strstr(err.text, "label: "), err.text);
}
END_TEST

START_TEST(write_only_descriptor)
{
    int fd = open(at("in.wo"), O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    struct tlr_map map;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_map_open_fd(&map, fd, "wo", true, &err), TLR_EIO);
    ck_assert_ptr_null(map.ptr);
    close(fd);
}
END_TEST

START_TEST(small_files)
{
    size_t lens[] = {0, 1, 4095, 4096, 4097, 100000};
    char *data = malloc(100000);
    for (size_t i = 0; i < 100000; i++) {
        data[i] = (char)(i % 251);
    }
    for (int i = 0; i < 6; i++) {
        size_t len = lens[i], got;
        char *text;
        struct tlr_err err = TLR_ERR_INIT;
        put(at("in.small"), data, len);
        ck_assert_int_eq(tlr_read_file(&text, &got, at("in.small"), len, &err),
                         0);
        ck_assert_uint_eq(got, len);
        ck_assert(len == 0 || memcmp(text, data, len) == 0);
        ck_assert_int_eq(text[len], 0);
        tlr_free(text);
        ck_assert_int_eq(
            tlr_read_file(&text, &got, at("in.small"), SIZE_MAX, &err), 0);
        ck_assert_uint_eq(got, len);
        tlr_free(text);
        if (len > 0) {
            ck_assert_int_eq(
                tlr_read_file(&text, &got, at("in.small"), len - 1, &err),
                TLR_ELIMIT);
            ck_assert_ptr_null(text);
            ck_assert_ptr_nonnull(strstr(err.text, "expected at most"));
        }
    }
    free(data);
}
END_TEST

START_TEST(small_files_refused)
{
    char *text;
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_read_file(&text, &len, at("none"), 9, &err),
                     TLR_ENOTFOUND);
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_read_file(&text, &len, tlr_test_tmpdir(), 9, &err),
                     TLR_EIO);
    ck_assert_ptr_nonnull(strstr(err.text, "directory"));
    ck_assert_ptr_null(text);
    tlr_err_clear(&err);
    put(at("in.oom"), "text", 4);
    tlr_mem_fail_after(0);
    ck_assert_int_eq(tlr_read_file(&text, &len, at("in.oom"), 9, &err),
                     TLR_ENOMEM);
    tlr_mem_fail_after(-1);
}
END_TEST

/* Standard input, in pieces and without a known size. */
static void *feed(void *arg)
{
    const int fd = *(int *)arg;
    for (int i = 0; i < 20000; i++) {
        if (write(fd, "0123456789", 10) != 10) {
            break;
        }
    }
    close(fd);
    return NULL;
}

START_TEST(standard_input)
{
    int ends[2];
    pthread_t thread;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[0], 0), 0);
    close(ends[0]);
    ck_assert_int_eq(pthread_create(&thread, NULL, feed, &ends[1]), 0);
    char *text;
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_read_file(&text, &len, "-", 1 << 20, &err), 0);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(len, 200000);
    for (size_t i = 0; i < len; i++) {
        if (text[i] != (char)('0' + i % 10)) {
            ck_abort_msg("byte %zu is wrong", i);
        }
    }
    tlr_free(text);
}
END_TEST

static void ignore(int sig)
{
    (void)sig;
}

struct nagging {
    pthread_t target;
    atomic_int enough;
};

static void *nag(void *arg)
{
    struct nagging *n = arg;
    while (!atomic_load(&n->enough)) {
        pthread_kill(n->target, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

/* Ctrl-C must end the wait for a prompt. */
START_TEST(interrupted)
{
    int ends[2];
    pthread_t thread;
    struct nagging n = {.target = pthread_self()};
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGUSR1, &action, NULL);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[0], 0), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, nag, &n), 0);
    char *text;
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_read_file(&text, &len, "-", 100, &err),
                     TLR_ECANCELLED);
    atomic_store(&n.enough, 1);
    pthread_join(thread, NULL);
    ck_assert_str_eq(err.text, "standard input: interrupted");
}
END_TEST

START_TEST(text_of_the_kernel)
{
    char text[8];
    put(at("in.text"), "0123456789", 10);
    ck_assert_int_eq(tlr_read_text(text, sizeof text, at("in.text")), 7);
    ck_assert_str_eq(text, "0123456");
    put(at("in.text"), "01", 2);
    ck_assert_int_eq(tlr_read_text(text, sizeof text, at("in.text")), 2);
    ck_assert_str_eq(text, "01");
    ck_assert_int_eq(tlr_read_text(text, sizeof text, at("none")), -1);
    ck_assert_int_eq(tlr_read_text(text, sizeof text, tlr_test_tmpdir()), -1);
}
END_TEST

Suite *suite_file_in(void);
Suite *suite_file_in(void)
{
    Suite *s = suite_create("file_in");
    TCase *t = tcase_create("file_in");
    tcase_add_test(t, what_is_not_a_file);
    tcase_add_test(t, maps_whole_file);
    tcase_add_test(t, populated_pages_are_here);
    tcase_add_test(t, descriptor_stays_open);
    tcase_add_test(t, write_only_descriptor);
    tcase_add_test(t, small_files);
    tcase_add_test(t, small_files_refused);
    tcase_add_test(t, standard_input);
    tcase_add_test(t, interrupted);
    tcase_add_test(t, text_of_the_kernel);
    suite_add_tcase(s, t);
    return s;
}
