/* test_file_out.c - the new file or the old one, never anything between. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"

static char dir[600], path[700]; /* of this test: each has a fresh folder */

static void fresh_folder(void)
{
    snprintf(dir, sizeof dir, "%s/out-XXXXXX", tlr_test_tmpdir());
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model.bin", dir);
}

static int n_entries(void)
{
    DIR *d = opendir(dir);
    int n = -2; /* . and .. */
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static void put_old(void)
{
    FILE *f = fopen(path, "wb");
    fputs("old", f);
    fclose(f);
}

static void check_content(const char *want, size_t want_len)
{
    char *text;
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_read_file(&text, &len, path, 1 << 24, &err) == 0, "%s",
                  err.text);
    ck_assert_uint_eq(len, want_len);
    ck_assert_mem_eq(text, want, len);
    tlr_free(text);
}

static struct tlr_out *begin(void)
{
    struct tlr_out *o;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_out_begin(&o, path, &err) == 0, "%s", err.text);
    return o;
}

START_TEST(commit_replaces)
{
    struct tlr_err err = TLR_ERR_INIT;
    put_old();
    struct tlr_out *o = begin();
    ck_assert_int_eq(tlr_out_write(o, "new text", 8, &err), 0);
    ck_assert_int_eq(n_entries(), 2);
    check_content("old", 3);
    ck_assert_int_eq(tlr_out_commit(o, &err), 0);
    ck_assert_int_eq(n_entries(), 1);
    check_content("new text", 8);
}
END_TEST

START_TEST(abort_leaves_old)
{
    struct tlr_err err = TLR_ERR_INIT;
    tlr_out_abort(NULL);
    tlr_out_abort(begin());
    ck_assert_int_eq(n_entries(), 0);
    put_old();
    struct tlr_out *o = begin();
    ck_assert_int_eq(tlr_out_write(o, "new text", 8, &err), 0);
    tlr_out_abort(o);
    ck_assert_int_eq(n_entries(), 1);
    check_content("old", 3);
}
END_TEST

START_TEST(relative_name)
{
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(chdir(dir), 0);
    struct tlr_out *o;
    ck_assert_int_eq(tlr_out_begin(&o, "model.bin", &err), 0);
    ck_assert_int_eq(tlr_out_write(o, "x", 1, &err), 0);
    ck_assert_int_eq(tlr_out_commit(o, &err), 0);
    check_content("x", 1);
    ck_assert_int_eq(n_entries(), 1);
}
END_TEST

START_TEST(whole_files)
{
    struct tlr_err err = TLR_ERR_INIT;
    put_old();
    tlr_io_fail_after(0, ENOSPC);
    ck_assert_int_eq(tlr_write_file(path, "new", 3, &err), TLR_EIO);
    tlr_io_fail_after(-1, 0);
    ck_assert_int_eq(n_entries(), 1);
    check_content("old", 3);
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_write_file(path, "newer text", 10, &err), 0);
    ck_assert_int_eq(n_entries(), 1);
    check_content("newer text", 10);
}
END_TEST

/* Pieces around the size of the buffer, patched afterwards, against a copy. */
START_TEST(same_bytes_as_a_copy)
{
    enum { TOTAL = 3 << 20 };
    struct tlr_rng rng = {tlr_test_seed(), 0};
    struct tlr_err err = TLR_ERR_INIT;
    char *data = malloc(TOTAL);
    for (size_t i = 0; i < TOTAL; i++) {
        data[i] = (char)tlr_rng_u64(&rng);
    }
    const size_t pieces[] = {1,      0,      262143, 262144, 262145, 7,
                             262137, 600000, 13,     100000, 262144};
    struct tlr_out *o = begin();
    size_t pos = 0;
    for (int i = 0; pos < TOTAL; i++) {
        size_t n = pieces[i % 11];
        n = n > TOTAL - pos ? TOTAL - pos : n;
        ck_assert_int_eq(tlr_out_write(o, data + pos, n, &err), 0);
        pos += n;
        ck_assert_uint_eq(tlr_out_pos(o), pos);
        if (i % 4 == 2) { /* into what is in the buffer, and long written */
            size_t at = tlr_rng_u64(&rng) % (pos - 4);
            at = i % 8 == 2 ? pos - 3 : at;
            memcpy(data + at, "pat", 3);
            ck_assert_int_eq(tlr_out_pwrite(o, "pat", 3, at, &err), 0);
            ck_assert_uint_eq(tlr_out_pos(o), pos);
        }
    }
    ck_assert_int_eq(tlr_out_commit(o, &err), 0);
    check_content(data, TOTAL);
    free(data);
}
END_TEST

/* Begin, write, patch, commit: the first thing that fails. */
static int write_all_ways(struct tlr_err *err)
{
    static char block[300000];
    struct tlr_out *o;
    int rc = tlr_out_begin(&o, path, err);
    if (rc) {
        return rc;
    }
    memset(block, 'n', sizeof block);
    rc = tlr_out_write(o, "head", 4, err);
    rc = rc ? rc : tlr_out_write(o, block, sizeof block, err);
    rc = rc ? rc : tlr_out_pwrite(o, "HEAD", 4, 0, err);
    rc = rc ? rc : tlr_out_write(o, "tail", 4, err);
    if (rc) {
        tlr_out_abort(o);
        return rc;
    }
    return tlr_out_commit(o, err);
}

START_TEST(full_disk_at_every_step)
{
    int k = 0, rc;
    put_old();
    do {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_io_fail_after(k, _i ? EIO : ENOSPC);
        rc = write_all_ways(&err);
        tlr_io_fail_after(-1, 0);
        ck_assert_int_eq(n_entries(), 1);
        if (rc) {
            ck_assert_int_eq(rc, TLR_EIO);
            check_content("old", 3);
            ck_assert_ptr_eq(strstr(err.text, path), err.text);
            ck_assert_ptr_nonnull(
                strstr(err.text, _i ? "Input/output error" : "No space left"));
        }
        k++;
    } while (rc && k < 50);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(k, 7); /* 4 writes, fsync, rename; then none failed */
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 300008);
}
END_TEST

/* The caller may overlook a failed write; commit may not. */
START_TEST(lost_write_is_remembered)
{
    static char block[300000];
    struct tlr_err err = TLR_ERR_INIT;
    put_old();
    struct tlr_out *o = begin();
    tlr_io_fail_after(0, ENOSPC);
    ck_assert_int_eq(tlr_out_write(o, block, sizeof block, NULL), TLR_EIO);
    tlr_io_fail_after(-1, 0);
    ck_assert_int_eq(tlr_out_write(o, "x", 1, NULL), TLR_EIO);
    ck_assert_int_eq(tlr_out_pwrite(o, "x", 1, 0, NULL), TLR_EIO);
    ck_assert_int_eq(tlr_out_commit(o, &err), TLR_EIO);
    ck_assert_int_eq(n_entries(), 1);
    check_content("old", 3);
}
END_TEST

/* Not injected: the system itself takes a part and refuses the rest. */
START_TEST(real_limit)
{
    static char block[300000];
    struct rlimit limit;
    struct tlr_err err = TLR_ERR_INIT;
    signal(SIGXFSZ, SIG_IGN);
    put_old();
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 200000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct tlr_out *o = begin();
    ck_assert_int_eq(tlr_out_write(o, block, sizeof block, &err), TLR_EIO);
    tlr_out_abort(o);
    ck_assert_int_eq(n_entries(), 1);
    check_content("old", 3);
    ck_assert_msg(strstr(err.text, "File too large") != NULL, "%s", err.text);
}
END_TEST

START_TEST(out_of_memory)
{
    int k = 0, rc;
    put_old();
    do {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k++);
        rc = write_all_ways(&err);
        tlr_mem_fail_after(-1);
        ck_assert_int_eq(n_entries(), 1);
        if (rc) {
            ck_assert_int_eq(rc, TLR_ENOMEM);
            check_content("old", 3);
        }
    } while (rc && k < 20);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_gt(k, 3);
}
END_TEST

/* Writes half a file in a child that ends by sig; its process id. */
static pid_t end_writer_by(int sig)
{
    pid_t pid = fork();
    if (pid == 0) {
        static char block[1000000];
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_out *o = begin();
        tlr_out_write(o, block, sizeof block, &err);
        raise(sig);
        _exit(99);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(!WIFEXITED(status) || WEXITSTATUS(status) == 7);
    return pid;
}

START_TEST(killed_writer)
{
    put_old();
    end_writer_by(SIGKILL);
    check_content("old", 3);
    ck_assert_int_eq(n_entries(), 2); /* nobody was left to remove it */
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(write_all_ways(&err), 0);
    ck_assert_int_eq(n_entries(), 1); /* the next writer */
}
END_TEST

static void touch(const char *before, long pid, const char *after)
{
    char file[800];
    snprintf(file, sizeof file, "%s/%s%ld%s", dir, before, pid, after);
    fclose(fopen(file, "w"));
}

/* Only what a dead writer of this very name left. */
START_TEST(sweep_leaves_the_rest)
{
    static const char *const others[][2] = {
        {".model.bin.tmp-", ""},          {".model.bin.tmp-", "-"},
        {".model.bin.tmp-", "-0x"},       {".model.bin.tmp--", "-0"},
        {".model.bin.tmp-0", "-0"},       {".model.bin.tmp-4294967296", "-0"},
        {".model.bin.tmp-", "99999999999999999999-0"},
        {".model.bin2.tmp-", "-0"},       {".other.bin.tmp-", "-0"},
        {"model.bin.tmp-", "-0"}};
    const int n = sizeof others / sizeof *others;
    long dead = (long)end_writer_by(SIGKILL);
    for (int i = 0; i < n; i++) {
        touch(others[i][0], dead, others[i][1]);
    }
    touch(".model.bin.tmp-", dead, "-1");
    touch(".model.bin.tmp-", (long)getppid(), "-0");
    touch(".model.bin.tmp-", 1, "-0");
    ck_assert_int_eq(n_entries(), n + 4);
    tlr_out_abort(begin());
    ck_assert_int_eq(n_entries(), n + 2);
    path[strlen(dir) + 1] = 'n'; /* nodel.bin: has none */
    tlr_out_abort(begin());
    ck_assert_int_eq(n_entries(), n + 2);
}
END_TEST

static void clean_up_and_end(int sig)
{
    (void)sig;
    tlr_out_cleanup();
    _exit(7);
}

START_TEST(interrupted_writer_cleans_up)
{
    signal(SIGTERM, clean_up_and_end);
    put_old();
    end_writer_by(SIGTERM);
    check_content("old", 3);
    ck_assert_int_eq(n_entries(), 1);
}
END_TEST

START_TEST(child_leaves_the_parents_file)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_out *o = begin();
    ck_assert_int_eq(tlr_out_write(o, "new", 3, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        tlr_out_cleanup();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(tlr_out_commit(o, &err), 0);
    check_content("new", 3);
    /* And what is committed is no temporary any more. */
    tlr_out_cleanup();
    ck_assert_int_eq(n_entries(), 1);
}
END_TEST

/* Our own number may have been that of a process which was killed. */
START_TEST(stale_temporary_is_stepped_over)
{
    char stale[1000];
    snprintf(stale, sizeof stale, "%s/.model.bin.tmp-%ld-0", dir,
             (long)getpid());
    fclose(fopen(stale, "w"));
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(write_all_ways(&err), 0);
    ck_assert_int_eq(access(stale, F_OK), 0);
    ck_assert_int_eq(n_entries(), 2);
}
END_TEST

static void check_refused(const char *name, const char *reason)
{
    struct tlr_out *o;
    struct tlr_err err = TLR_ERR_INIT;
    int n = n_entries();
    ck_assert_int_lt(tlr_out_begin(&o, name, &err), 0);
    ck_assert_ptr_null(o);
    ck_assert_msg(strstr(err.text, reason) != NULL, "%s", err.text);
    ck_assert_int_eq(n_entries(), n);
}

START_TEST(places_that_cannot_be_written)
{
    char name[2000];
    check_refused(dir, "found a directory");
    snprintf(name, sizeof name, "%s/", dir);
    check_refused(name, "expected the name of a file");
    check_refused("", "expected the name of a file");
    snprintf(name, sizeof name, "%s/none/model.bin", dir);
    check_refused(name, "No such file or directory");
    put_old();
    snprintf(name, sizeof name, "%s/model.bin/x", dir);
    check_refused(name, "Not a directory");
    snprintf(name, sizeof name, "%s/fifo", dir);
    ck_assert_int_eq(mkfifo(name, 0600), 0);
    check_refused(name, "expected a regular file");
    check_refused("/dev/null", "expected a regular file");
    ck_assert_int_eq(access("/dev/null", W_OK), 0);
}
END_TEST

START_TEST(longest_name)
{
    size_t used = strlen(dir);
    snprintf(path, sizeof path, "%s/", dir);
    memset(path + used + 1, 'm', 255 - 4);
    snprintf(path + used + 1 + 251, 5, ".bin");
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(write_all_ways(&err) == 0, "%s", err.text);
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_assert_int_eq(n_entries(), 1);
}
END_TEST

START_TEST(permissions)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct stat st;
    umask(022);
    ck_assert_int_eq(write_all_ways(&err), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0644);
    ck_assert_int_eq(chmod(path, 0660), 0); /* more than the umask grants */
    ck_assert_int_eq(write_all_ways(&err), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0660);
}
END_TEST

START_TEST(several_at_a_time)
{
    struct tlr_out *o[9] = {0};
    struct tlr_err err = TLR_ERR_INIT;
    int n = 0;
    while (n < 9 && tlr_out_begin(&o[n], path, &err) == 0) {
        n++;
    }
    ck_assert_int_eq(n, 8);
    ck_assert_int_eq(err.code, TLR_ELIMIT);
    ck_assert_int_eq(n_entries(), 8);
    for (int i = 0; i < 8; i++) {
        tlr_out_abort(o[i]);
    }
    ck_assert_int_eq(n_entries(), 0);
    tlr_err_clear(&err);
    for (int i = 0; i < 20; i++) { /* commit gives its place back, too */
        ck_assert_msg(write_all_ways(&err) == 0, "%s", err.text);
    }
}
END_TEST

Suite *suite_file_out(void);
Suite *suite_file_out(void)
{
    Suite *s = suite_create("file_out");
    TCase *t = tcase_create("file_out");
    tcase_add_checked_fixture(t, fresh_folder, NULL);
    tcase_add_test(t, commit_replaces);
    tcase_add_test(t, abort_leaves_old);
    tcase_add_test(t, relative_name);
    tcase_add_test(t, whole_files);
    tcase_add_test(t, same_bytes_as_a_copy);
    tcase_add_loop_test(t, full_disk_at_every_step, 0, 2);
    tcase_add_test(t, lost_write_is_remembered);
    tcase_add_test(t, real_limit);
    tcase_add_test(t, out_of_memory);
    tcase_add_test(t, killed_writer);
    tcase_add_test(t, sweep_leaves_the_rest);
    tcase_add_test(t, interrupted_writer_cleans_up);
    tcase_add_test(t, child_leaves_the_parents_file);
    tcase_add_test(t, stale_temporary_is_stepped_over);
    tcase_add_test(t, places_that_cannot_be_written);
    tcase_add_test(t, longest_name);
    tcase_add_test(t, permissions);
    tcase_add_test(t, several_at_a_time);
    suite_add_tcase(s, t);
    return s;
}
