/* test_label_run.c - labels of many questions: threads, stops, kills, failures. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/router/label_setting.h"
#include "tests/support/tlr_check.h"

struct watch {
    uint32_t stop_at; /* items; 0: never */
    bool kill;
};

static int watch_progress(void *ctx, uint32_t done,
                          const struct tlr_label_counts *counts)
{
    const struct watch *w = ctx;
    ck_assert_uint_le(counts->n_items, done);
    if (w->stop_at == 0 || done < w->stop_at) {
        return 0;
    }
    if (w->kill) {
        raise(SIGKILL);
    }
    return 1;
}

/* Labels into the file at path, from where it stands; returns what run said. */
static int label_into(struct setting *t, const char *path, int n_jobs,
                      struct watch w, struct tlr_label_counts *counts,
                      struct tlr_err *err)
{
    struct tlr_dataset_writer *writer = NULL;
    struct tlr_dataset_info info = {
        .dim = tlr_model_config(t->m)->dim,
        .fingerprint = tlr_file_fingerprint(tlr_model_file(t->m)),
        .source = tlr_label_source(&t->labellers[0], &t->q->list, 0)};
    struct tlr_label_run run = {.items = &t->q->list,
                                .labellers = t->labellers,
                                .n_jobs = n_jobs,
                                .progress = watch_progress,
                                .ctx = &w};
    uint32_t done;
    must(tlr_dataset_append(&writer, path, &info, &run.first, err), err);
    run.writer = writer;
    int rc = tlr_label_run(&run, &done, counts, err);
    must(tlr_dataset_close(writer, err), err);
    if (!rc) {
        ck_assert_uint_eq(done, N_ITEMS);
    }
    return rc;
}

static const char *file_name(const char *name)
{
    static char paths[4][600];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", tlr_test_tmpdir(), name);
    return path;
}

static void check_same(const char *a, const char *b)
{
    struct tlr_err err = TLR_ERR_INIT;
    char *x, *y;
    size_t n, k;
    must(tlr_read_file(&x, &n, a, 1 << 28, &err), &err);
    must(tlr_read_file(&y, &k, b, 1 << 28, &err), &err);
    ck_assert_uint_eq(n, k);
    ck_assert_mem_eq(x, y, n);
    tlr_free(x);
    tlr_free(y);
}

START_TEST(jobs_stops_and_kills_change_nothing)
{
    struct setting t;
    struct tlr_label_counts counts, part;
    struct tlr_err err = TLR_ERR_INIT;
    setting_begin(&t);
    const char *whole = file_name("whole.tlrd"), *other = file_name("jobs");
    must(label_into(&t, whole, 1, (struct watch){0}, &counts, &err), &err);
    ck_assert_uint_eq(counts.n_items, N_ITEMS);
    ck_assert_uint_eq(counts.n_case[1] + counts.n_case[2] + counts.n_case[3] +
                          counts.n_case[4],
                      counts.n_rows);
    ck_assert_uint_eq(counts.n_keep + counts.n_ask + counts.n_case[4],
                      counts.n_rows);
    ck_assert_uint_gt(counts.n_completion_tok, 0);
    must(label_into(&t, other, 3, (struct watch){0}, &part, &err), &err);
    ck_assert_mem_eq(&counts, &part, sizeof counts);
    check_same(whole, other);

    const char *stopped = file_name("stopped");
    ck_assert_int_eq(label_into(&t, stopped, 2, (struct watch){2, false},
                                &part, &err),
                     TLR_ECANCELLED);
    ck_assert_uint_ge(part.n_items, 2);
    must(label_into(&t, stopped, 2, (struct watch){0}, &counts, &err), &err);
    ck_assert_uint_eq(counts.n_items + part.n_items, N_ITEMS);
    check_same(whole, stopped);

    const char *killed = file_name("killed");
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        label_into(&t, killed, 2, (struct watch){3, true}, &part, &err);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    must(label_into(&t, killed, 1, (struct watch){0}, &counts, &err), &err);
    ck_assert_uint_lt(counts.n_items, N_ITEMS);
    check_same(whole, killed);
    setting_end(&t);
}
END_TEST

START_TEST(options_name_another_source)
{
    struct setting t;
    setting_begin(&t);
    struct tlr_label_options first = t.o;
    uint64_t base = tlr_label_source(&t.labellers[0], &t.q->list, 0);
    ck_assert(tlr_label_source(&t.labellers[0], &t.q->list, 1) != base);
    for (int i = 0; i < 6; i++) {
        t.o = first;
        switch (i) {
        case 0: t.o.raw = true; break;
        case 1: t.o.llm_chains = true; break;
        case 2: t.o.n_completions = 3; break;
        case 3: t.o.completion_tok = 13; break;
        case 4: t.o.seed = 6; break;
        default: t.o.round = 1; break;
        }
        ck_assert_msg(tlr_label_source(&t.labellers[0], &t.q->list, 0) != base,
                      "option %d", i);
    }
    t.o = first;
    t.q->list.hash++;
    ck_assert(tlr_label_source(&t.labellers[0], &t.q->list, 0) != base);
    setting_end(&t);
}
END_TEST

/* The failed item that comes first is the one that is told, what came before it
 * is written, whoever was faster. */
START_TEST(first_failure_is_told)
{
    struct setting t;
    struct tlr_label_counts counts;
    setting_begin(&t);
    static char longer[4000];
    memset(longer, 'x', sizeof longer - 1);
    t.q->items[4].chain = longer;
    t.q->items[6].chain = longer;
    for (int n_jobs = 1; n_jobs <= 3; n_jobs++) {
        struct tlr_err err = TLR_ERR_INIT;
        const char *path = file_name("failed");
        remove(path);
        int rc = label_into(&t, path, n_jobs, (struct watch){0}, &counts, &err);
        ck_assert_int_eq(rc, TLR_ELIMIT);
        ck_assert_msg(strncmp(err.text, "q: line 5: prompt and chain have ",
                              33) == 0,
                      "%s", err.text);
        ck_assert_uint_eq(counts.n_items, 4);
    }
    setting_end(&t);
}
END_TEST

Suite *suite_label_run(void);

Suite *suite_label_run(void)
{
    Suite *s = suite_create("label_run");
    TCase *t = tcase_create("label_run");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, jobs_stops_and_kills_change_nothing);
    tcase_add_test(t, options_name_another_source);
    tcase_add_test(t, first_failure_is_told);
    suite_add_tcase(s, t);
    return s;
}
