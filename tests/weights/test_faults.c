/* test_faults.c - memory, disk and callers that fail: no leak (asan), no
 * partial file, no lost file, and a message. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/weights/tiny.h"

enum { MAX_FAULTS = 200 };

static const char *fresh_folder(void)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/faults-XXXXXX", tlr_test_tmpdir());
    ck_assert_ptr_nonnull(mkdtemp(path));
    return path;
}

static int count_entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return n;
}

static void expect_content(const char *path, const char *text)
{
    char *data;
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_read_file(&data, &len, path, 1000, &err) == 0, "%s",
                  err.text);
    ck_assert_str_eq(data, text);
    tlr_free(data);
}

START_TEST(reader_survives_no_memory)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN3, TLR_Q4M);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    char path[700];
    snprintf(path, sizeof path, "%s/m.bin", fresh_folder());
    ck_assert_msg(tiny_write_path(&t, path, &err) == 0, "%s", err.text);
    int k = 0, rc;
    do {
        tlr_err_clear(&err);
        tlr_mem_fail_after(k++);
        rc = tlr_file_open(&f, path, NULL, &err);
        tlr_mem_fail_after(-1);
        if (rc) {
            ck_assert_msg(rc == TLR_ENOMEM, "%s", err.text);
            ck_assert_int_eq(err.code, TLR_ENOMEM);
            ck_assert_ptr_null(f);
        }
    } while (rc && k < MAX_FAULTS);
    ck_assert_msg(rc == 0 && k > 3, "%d faults: %s", k, err.text);
    tlr_file_close(f);
}
END_TEST

/* begin alone: tiny_write itself allocates the data it makes up. */
START_TEST(writer_survives_no_memory)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN3, TLR_Q4M);
    enum tlr_type types[TINY_MAX_TENSORS] = {TLR_F32};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_writer *w;
    const char *folder = fresh_folder();
    char path[700];
    snprintf(path, sizeof path, "%s/m.bin", folder);
    int k = 0, rc;
    do {
        tlr_err_clear(&err);
        tlr_mem_fail_after(k++);
        rc = tlr_writer_begin(&w, path, &t.config, types, &err);
        tlr_mem_fail_after(-1);
        if (rc) {
            ck_assert_msg(rc == TLR_ENOMEM, "%s", err.text);
            ck_assert_ptr_null(w);
            ck_assert_int_eq(count_entries(folder), 0);
        }
    } while (rc && k < MAX_FAULTS);
    ck_assert_msg(rc == 0 && k > 4, "%d faults: %s", k, err.text);
    tlr_writer_abort(w);
    ck_assert_int_eq(count_entries(folder), 0);
}
END_TEST

START_TEST(a_full_disk_leaves_the_old_file)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, TLR_F32);
    struct tlr_err err = TLR_ERR_INIT;
    const char *folder = fresh_folder();
    char path[700];
    snprintf(path, sizeof path, "%s/m.bin", folder);
    FILE *old = fopen(path, "w");
    ck_assert_ptr_nonnull(old);
    fputs("the old model", old);
    fclose(old);
    int k = 0, rc;
    do {
        tlr_err_clear(&err);
        tlr_io_fail_after(k++, ENOSPC);
        rc = tiny_write_path(&t, path, &err);
        tlr_io_fail_after(-1, 0);
        ck_assert_int_eq(count_entries(folder), 1);
        if (rc) {
            ck_assert_msg(rc == TLR_EIO, "%s", err.text);
            ck_assert_msg(strstr(err.text, "m.bin"), "%s", err.text);
            expect_content(path, "the old model");
        }
    } while (rc && k < MAX_FAULTS);
    ck_assert_msg(rc == 0 && k > 1, "%d faults: %s", k, err.text);
    struct tlr_file *f;
    ck_assert_msg(tlr_file_open(&f, path, NULL, &err) == 0, "%s", err.text);
    tlr_file_close(f);
}
END_TEST

START_TEST(paths_that_are_no_model)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    const char *folder = fresh_folder();
    char path[700];
    ck_assert_int_lt(tlr_file_open(&f, folder, NULL, &err), 0);
    ck_assert_msg(strstr(err.text, folder), "%s", err.text);
    snprintf(path, sizeof path, "%s/absent", folder);
    tlr_err_clear(&err);
    ck_assert_int_lt(tlr_file_open(&f, path, NULL, &err), 0);
    ck_assert_msg(strstr(err.text, path), "%s", err.text);
    ck_assert_ptr_null(f);
    tlr_err_clear(&err);
    ck_assert_int_lt(tlr_file_open(&f, "/dev/zero", NULL, &err), 0);
    ck_assert_msg(strstr(err.text, "/dev/zero"), "%s", err.text);
}
END_TEST

static struct tlr_writer *begin_in(const char *folder, struct tiny *t)
{
    enum tlr_type types[TINY_MAX_TENSORS] = {TLR_F32};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_writer *w;
    char path[700];
    *t = tiny_model(TLR_FAMILY_LLAMA, TLR_F32);
    snprintf(path, sizeof path, "%s/m.bin", folder);
    ck_assert_msg(tlr_writer_begin(&w, path, &t->config, types, &err) == 0,
                  "%s", err.text);
    return w;
}

static void expect_error(int rc, int code, struct tlr_err *err,
                         const char *says)
{
    ck_assert_msg(rc == code, "got %s: %s", tlr_err_name(rc), err->text);
    ck_assert_msg(strstr(err->text, says), "no \"%s\" in: %s", says, err->text);
    tlr_err_clear(err);
}

START_TEST(writer_refuses_misuse)
{
    struct tlr_err err = TLR_ERR_INIT;
    const char *folder = fresh_folder();
    uint8_t byte = 0;
    struct tiny t;
    struct tlr_writer *w = begin_in(folder, &t);
    expect_error(tlr_writer_section(w, TLR_SECTION_CONFIG, &byte, 1, &err),
                 TLR_EUSAGE, &err, "section config");
    expect_error(tlr_writer_section(w, (enum tlr_section)7, &byte, 1, &err),
                 TLR_EUSAGE, &err, "unknown id");
    expect_error(tlr_writer_section(w, TLR_SECTION_CHAT, "[]", 2, &err),
                 TLR_EFORMAT, &err, "section chat: expected a JSON object");
    expect_error(tlr_writer_section(w, TLR_SECTION_CHAT, "", 0, &err),
                 TLR_ELIMIT, &err, "section chat");
    expect_error(tlr_writer_section(w, TLR_SECTION_TOKENIZER, &byte,
                                    (64u << 20) + 1, &err),
                 TLR_ELIMIT, &err, "section tokenizer");
    ck_assert_int_eq(tlr_writer_section(w, TLR_SECTION_CHAT, "{}", 2, &err),
                     0);
    expect_error(tlr_writer_section(w, TLR_SECTION_CHAT, "{}", 2, &err),
                 TLR_EUSAGE, &err, "section chat: expected once");
    ck_assert_int_eq(tlr_writer_data(w, &byte, 1, &err), 0);
    expect_error(tlr_writer_section(w, TLR_SECTION_GENERATION, "{}", 2, &err),
                 TLR_EUSAGE, &err, "section generation");
    expect_error(tlr_writer_commit(w, &err), TLR_EUSAGE, &err,
                 "incomplete: 0 of");
    ck_assert_int_eq(count_entries(folder), 0);
}
END_TEST

START_TEST(writer_refuses_too_much_data)
{
    struct tlr_err err = TLR_ERR_INIT;
    const char *folder = fresh_folder();
    struct tiny t;
    struct tlr_writer *w = begin_in(folder, &t);
    for (uint32_t i = 0; i < tlr_config_n_tensors(&t.config); i++) {
        size_t len;
        uint8_t *data = tiny_tensor(&t, i, &len);
        ck_assert_int_eq(tlr_writer_data(w, data, len, &err), 0);
        tlr_free(data);
    }
    expect_error(tlr_writer_data(w, "x", 1, &err), TLR_EUSAGE, &err,
                 "1 bytes more");
    ck_assert_msg(tlr_writer_commit(w, &err) == 0, "%s", err.text);
    ck_assert_int_eq(count_entries(folder), 1);
}
END_TEST

START_TEST(writer_refuses_types_and_configs)
{
    struct tiny t = tiny_model(TLR_FAMILY_LLAMA, TLR_F32);
    enum tlr_type types[TINY_MAX_TENSORS] = {TLR_F32};
    struct tlr_err err = TLR_ERR_INIT;
    const char *folder = fresh_folder();
    struct tlr_writer *w;
    char path[700];
    snprintf(path, sizeof path, "%s/m.bin", folder);
    t.config.ffn_dim = 40;
    types[12] = TLR_Q8; /* blk.0.down [32, 40] */
    expect_error(tlr_writer_begin(&w, path, &t.config, types, &err),
                 TLR_EFORMAT, &err, "tensor blk.0.down: expected columns");
    types[12] = TLR_F32;
    types[2] = TLR_BF16;
    expect_error(tlr_writer_begin(&w, path, &t.config, types, &err),
                 TLR_EFORMAT, &err, "tensor final_norm: expected type f32");
    types[2] = TLR_F32;
    t.config.n_layers = 0;
    expect_error(tlr_writer_begin(&w, path, &t.config, types, &err),
                 TLR_ELIMIT, &err, "n_layers");
    ck_assert_ptr_null(w);
    ck_assert_int_eq(count_entries(folder), 0);

    t = tiny_model(TLR_FAMILY_LLAMA, TLR_F32);
    int fd = open("/dev/null", O_RDONLY);
    ck_assert_int_lt(tlr_writer_begin_fd(&w, fd, "read-only", &t.config, types,
                                         &err),
                     0);
    ck_assert_ptr_null(w);
    ck_assert_msg(strstr(err.text, "read-only: "), "%s", err.text);
    close(fd);
}
END_TEST

/* A shorter model written over a longer one leaves no tail. */
START_TEST(descriptor_is_written_afresh)
{
    struct tlr_err err = TLR_ERR_INIT;
    enum tlr_type types[TINY_MAX_TENSORS] = {TLR_F32};
    struct tiny t = tiny_model(TLR_FAMILY_QWEN3, TLR_F32);
    struct tlr_writer *w;
    struct tlr_file *f;
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < 2; i++) {
        t.config.n_layers = (uint32_t)(2 - i);
        ck_assert_msg(tlr_writer_begin_fd(&w, fileno(file), "fd", &t.config,
                                          types, &err) == 0,
                      "%s", err.text);
        ck_assert_msg(tiny_write(&t, w, 7, &err) == 0, "%s", err.text);
        ck_assert_msg(tlr_file_open_fd(&f, fileno(file), "fd", NULL, &err) == 0,
                      "%s", err.text);
        ck_assert_msg(tlr_file_verify(f, NULL, NULL, &err) == 0, "%s",
                      err.text);
        tlr_file_close(f);
    }
    fclose(file);
}
END_TEST

/* After a lost write nothing may be committed, even if the next would work. */
START_TEST(full_descriptor_is_not_committed)
{
    struct tiny t = tiny_model(TLR_FAMILY_LLAMA, TLR_F32);
    enum tlr_type types[TINY_MAX_TENSORS] = {TLR_F32};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_writer *w;
    struct rlimit before, small;
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(tlr_writer_begin_fd(&w, fileno(file), "fd", &t.config,
                                         types, &err),
                     0);
    size_t len;
    uint8_t *data = tiny_tensor(&t, 0, &len);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 2500; /* inside the first tensor */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = tlr_writer_data(w, data, len, &err);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    expect_error(rc, TLR_EIO, &err, "fd: cannot write");
    tlr_free(data);
    for (uint32_t i = 0; i < tlr_config_n_tensors(&t.config); i++) {
        data = tiny_tensor(&t, i, &len);
        ck_assert_int_lt(tlr_writer_data(w, data, len, NULL), 0);
        tlr_free(data);
    }
    expect_error(tlr_writer_commit(w, &err), TLR_EUSAGE, &err, "incomplete");
    fclose(file);
}
END_TEST

Suite *suite_faults(void);
Suite *suite_faults(void)
{
    Suite *s = suite_create("faults");
    TCase *tc = tcase_create("model_file");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, reader_survives_no_memory);
    tcase_add_test(tc, writer_survives_no_memory);
    tcase_add_test(tc, a_full_disk_leaves_the_old_file);
    tcase_add_test(tc, paths_that_are_no_model);
    tcase_add_test(tc, writer_refuses_misuse);
    tcase_add_test(tc, writer_refuses_too_much_data);
    tcase_add_test(tc, writer_refuses_types_and_configs);
    tcase_add_test(tc, descriptor_is_written_afresh);
    tcase_add_test(tc, full_descriptor_is_not_committed);
    suite_add_tcase(s, tc);
    return s;
}
