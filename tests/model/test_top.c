/* test_top.c - the best ids without all logits: the ids and bits of a search
 * through all of them, for ordinary weights and for such as make it hard, for
 * one state and for those of branches. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "engine/sampler.h"
#include "kernels/kernels.h"
#include "tests/model/models.h"

enum { N_TOK = 40 };

/* The definition: sort by logit, then by id. */
static int compare(const void *a, const void *b)
{
    const struct tlr_candidate *x = a, *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

static void check_best(const float *logits, uint32_t n, int k,
                       const int32_t *ids, const float *found)
{
    struct tlr_candidate *all = malloc(n * sizeof *all);
    ck_assert(all != NULL);
    for (uint32_t i = 0; i < n; i++) {
        all[i] = (struct tlr_candidate){logits[i], (int32_t)i};
    }
    qsort(all, n, sizeof *all, compare);
    for (int i = 0; i < k; i++) {
        ck_assert_int_eq(ids[i], all[i].id);
        ck_assert_mem_eq(&found[i], &all[i].logit, sizeof found[i]);
    }
    ck_assert_int_eq(all[0].id, tlr_argmax(logits, n));
    free(all);
}

static void check_top(struct tlr_session *s, const float *logits, uint32_t n,
                      int k)
{
    int32_t ids[TLR_TOP_MAX];
    float found[TLR_TOP_MAX];
    MUST(tlr_top(s, k, ids, found, &must_err));
    check_best(logits, n, k, ids, found);
}

/* Two sessions step by step: one has the logits, the other searches. */
static struct tlr_top_counts check_model(const struct tlr_model *m,
                                         struct tlr_session_options o)
{
    static const int ks[] = {1, 2, 5, 40, TLR_TOP_MAX};
    o.n_ctx = N_TOK;
    struct tlr_session *full = new_session(m, o), *s = new_session(m, o);
    uint32_t n_ids = tlr_model_n_ids(m);
    int32_t ids[N_TOK];
    golden_ids(m, ids, N_TOK);
    for (int t = 0; t < N_TOK; t++) {
        MUST(tlr_decode(full, ids[t], TLR_STEP_LOGITS, &must_err));
        MUST(tlr_decode(s, ids[t], 0, &must_err));
        for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
            check_top(s, tlr_logits(full), n_ids, ks[i]);
            check_top(full, tlr_logits(full), n_ids, ks[i]);
        }
        ck_assert_ptr_null(tlr_logits(s));
        ck_assert_mem_eq(tlr_hidden(s), tlr_hidden(full), sizeof(float));
    }
    struct tlr_top_counts counts = tlr_top_read(s);
    ck_assert_uint_eq(counts.n_calls, N_TOK * sizeof ks / sizeof ks[0]);
    tlr_session_free(full);
    tlr_session_free(s);
    return counts;
}

/* ---- branches ---- */

enum { PREFIX = 5, STEPS = 4 };

static struct tlr_session *open_branches(const struct tlr_model *m,
                                         struct tlr_session_options o, int n)
{
    int32_t ids[PREFIX];
    golden_ids(m, ids, PREFIX);
    o.n_ctx = PREFIX + STEPS;
    o.n_branches = (uint32_t)n;
    struct tlr_session *s = new_session(m, o);
    MUST(tlr_prefill(s, ids, PREFIX, 0, &must_err));
    return s;
}

static void check_branch_top(struct tlr_session *s, struct tlr_session *full,
                             uint32_t n_ids, int n, int k)
{
    int32_t ids[TLR_MAX_BRANCHES * TLR_TOP_MAX];
    float found[TLR_MAX_BRANCHES * TLR_TOP_MAX];
    MUST(tlr_branch_top(s, k, ids, found, &must_err));
    for (int b = 0; b < n; b++) {
        check_best(tlr_branch_logits(full, b), n_ids, k, ids + b * k,
                   found + b * k);
    }
}

/* n branches of two sessions: one has their logits, the other searches. */
static void check_branches(const struct tlr_model *m,
                           struct tlr_session_options o, int n)
{
    static const int ks[] = {1, 3, TLR_TOP_MAX};
    struct tlr_session *s = open_branches(m, o, n);
    struct tlr_session *full = open_branches(m, o, n);
    uint32_t n_ids = tlr_model_n_ids(m);
    int32_t ids[TLR_MAX_BRANCHES];
    for (int step = 0; step < STEPS; step++) {
        for (int b = 0; b < n; b++) {
            ids[b] = (b * 41 + step * 13 + 2) % 300;
        }
        MUST(tlr_branch_decode(s, ids, n, 0, &must_err));
        MUST(tlr_branch_decode(full, ids, n, TLR_STEP_LOGITS, &must_err));
        for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
            check_branch_top(s, full, n_ids, n, ks[i]);
            check_branch_top(full, full, n_ids, n, ks[i]);
        }
        ck_assert_ptr_null(tlr_branch_logits(s, 0));
    }
    struct tlr_top_counts c = tlr_top_read(s);
    ck_assert_uint_eq(c.n_calls,
                      (uint64_t)n * STEPS * sizeof ks / sizeof ks[0]);
    ck_assert_uint_le(c.n_full, c.n_calls);
    MUST(tlr_run_head(s, &must_err)); /* the search left nothing behind */
    ck_assert_mem_eq(tlr_branch_logits(s, n - 1),
                     tlr_branch_logits(full, n - 1), n_ids * sizeof(float));
    tlr_session_free(s);
    tlr_session_free(full);
}

START_TEST(branches_have_their_best)
{
    struct tlr_model *m = random_model("tiny-qwen2", (enum tlr_type)_i);
    for (int n = 1; n <= TLR_MAX_BRANCHES; n++) {
        struct tlr_session_options o = {.n_threads = 1 + n % 3,
                                        .act = TLR_ACT_INT8};
        check_branches(m, o, n);
        o.act = TLR_ACT_INT16;
        check_branches(m, o, n);
    }
    tlr_model_close(m);
}
END_TEST

/* Four branches that are one: they share what survives, and each counts. */
START_TEST(branches_share_a_search)
{
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8P);
    int32_t same[4] = {7, 7, 7, 7}, ids[4];
    float logits[4];
    struct tlr_top_counts c[2];
    for (int i = 0; i < 2; i++) {
        struct tlr_session *s = open_branches(m, (struct tlr_session_options){
                                                     .act = TLR_ACT_INT8}, 4);
        MUST(tlr_branch_decode(s, same, i ? 4 : 1, 0, &must_err));
        MUST(tlr_branch_top(s, 1, ids, logits, &must_err));
        c[i] = tlr_top_read(s);
        tlr_session_free(s);
    }
    ck_assert_uint_eq(c[0].n_full, 0);
    ck_assert_uint_gt(c[0].n_survivors, 0);
    ck_assert_uint_eq(c[1].n_full, 0);
    ck_assert_uint_eq(c[1].n_survivors, 4 * c[0].n_survivors);
    tlr_model_close(m);
}
END_TEST

/* A session that borrows the scratch of one without branches. */
START_TEST(borrowers_have_room)
{
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8P);
    struct tlr_session *lender = new_session(
        m, (struct tlr_session_options){.n_ctx = 64, .n_threads = 3});
    check_branches(m, (struct tlr_session_options){.lender = lender},
                   TLR_MAX_BRANCHES);
    tlr_session_free(lender);
    tlr_model_close(m);
}
END_TEST

START_TEST(top_is_the_best_of_all)
{
    struct tlr_model *m = random_model("tiny-qwen2", (enum tlr_type)_i);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        struct tlr_top_counts c = check_model(
            m, (struct tlr_session_options){.n_threads = n_threads});
        if (_i == TLR_Q8P) {
            ck_assert_uint_lt(c.n_full, c.n_calls); /* it did search */
            ck_assert_uint_gt(c.n_survivors, 0);
        } else {
            ck_assert_uint_eq(c.n_full, c.n_calls);
        }
    }
    check_model(m, (struct tlr_session_options){.act = TLR_ACT_INT16});
    tlr_model_close(m);
}
END_TEST

/* ---- heads that make it hard ---- */

static float *head_row(float *rows, uint32_t i, uint32_t n_cols)
{
    return rows + (size_t)i * n_cols;
}

/* Every row is the first one, so all logits are equal. */
static void all_equal(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    (void)first;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            head_row(rows, i, n_cols)[c] =
                (float)((int)(tlr_hash_u64(5, c) % 201) - 100);
        }
    }
}

/* Seven different rows in turn: each logit occurs dozens of times. */
static void ties(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            uint64_t h = tlr_hash_u64((first + i) % 7, c);
            head_row(rows, i, n_cols)[c] = (float)((int)(h % 201) - 100);
        }
    }
}

/* A block a thousand times the others in some rows. */
static void outliers(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; (first + i) % 5 == 0 && c < 32; c++) {
            head_row(rows, i, n_cols)[c] *= 1000;
        }
    }
}

/* All nothing but one row. */
static void zeros(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; first + i != 77 && c < n_cols; c++) {
            head_row(rows, i, n_cols)[c] = 0;
        }
    }
}

/* Pairs of rows that differ in one low nibble. */
static void twins(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            uint64_t h = tlr_hash_u64((first + i) / 2, c);
            float x = (float)((int)(h % 255) - 127);
            head_row(rows, i, n_cols)[c] =
                c % 32 == 31 ? 127 : c == 3 ? x + (float)(i % 2) : x;
        }
    }
}

static const struct {
    const char *name;
    edit_rows_fn *edit;
} hard[] = {{"all equal", all_equal}, {"ties", ties},   {"outliers", outliers},
            {"zeros", zeros},         {"twins", twins}};
enum { N_HARD = sizeof hard / sizeof hard[0] };

START_TEST(hard_heads_are_searched_right)
{
    struct tlr_model *m =
        edited_model("tiny-llama", TLR_Q8P, "embed", hard[_i].edit);
    struct tlr_top_counts c =
        check_model(m, (struct tlr_session_options){.n_threads = 2});
    check_branches(m, (struct tlr_session_options){.n_threads = 2}, 4);
    printf("top: %s: %llu calls, %llu rows looked at again, %llu full passes\n",
           hard[_i].name, (unsigned long long)c.n_calls,
           (unsigned long long)c.n_survivors, (unsigned long long)c.n_full);
    check_model(m, (struct tlr_session_options){.act = TLR_ACT_INT16});
    tlr_model_close(m);
    /* the same rows for hidden states that they did not make */
    m = edited_model("tiny-qwen2", TLR_Q8P, "head", hard[_i].edit);
    check_model(m, (struct tlr_session_options){.n_threads = 2});
    tlr_model_close(m);
}
END_TEST

/* ---- numbers that are none ---- */

/* Rows 3 and 40 give NaN whatever the hidden state is. */
static void some_nan(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    for (uint32_t i = 0; i < n; i++) {
        if (first + i == 3 || first + i == 40) {
            head_row(rows, i, n_cols)[0] = NAN;
        }
    }
}

static void all_nan(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    (void)first;
    for (uint32_t i = 0; i < n; i++) {
        head_row(rows, i, n_cols)[0] = NAN;
    }
}

/* NaN is worse than any number, and where there is nothing else the ids are
 * still ids. */
START_TEST(nan_never_wins)
{
    enum tlr_type type = _i ? TLR_BF16 : TLR_F32;
    struct tlr_model *m = edited_model("tiny-qwen2", type, "head", some_nan);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = 8});
    int32_t ids[TLR_TOP_MAX];
    float best[TLR_TOP_MAX];
    MUST(tlr_decode(s, 1, 0, &must_err));
    MUST(tlr_top(s, TLR_TOP_MAX, ids, best, &must_err));
    for (int i = 0; i < TLR_TOP_MAX; i++) {
        ck_assert(ids[i] != 3 && ids[i] != 40 && isfinite(best[i]));
        ck_assert(i == 0 || best[i] <= best[i - 1]);
    }
    MUST(tlr_run_head(s, &must_err));
    ck_assert(isnan(tlr_logits(s)[3]) && isnan(tlr_logits(s)[40]));
    float most = best[0];
    for (int i = 0; i < 320; i++) {
        ck_assert(!(tlr_logits(s)[i] > most));
    }
    tlr_session_free(s);
    tlr_model_close(m);
    m = edited_model("tiny-qwen2", type, "head", all_nan);
    s = new_session(m, (struct tlr_session_options){.n_ctx = 8});
    MUST(tlr_decode(s, 1, 0, &must_err));
    MUST(tlr_top(s, TLR_TOP_MAX, ids, best, &must_err));
    for (int i = 0; i < TLR_TOP_MAX; i++) {
        ck_assert_int_eq(ids[i], i);
        ck_assert(!isnan(best[i]));
    }
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

START_TEST(wrong_uses_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8P);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = 8});
    struct tlr_err err = TLR_ERR_INIT;
    int32_t ids[TLR_TOP_MAX + 1];
    float logits[TLR_TOP_MAX + 1];
    ck_assert_int_eq(tlr_top(s, 1, ids, logits, &err), TLR_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "decode a token first"));
    MUST(tlr_decode(s, 1, 0, &must_err));
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_top(s, 0, ids, logits, &err), TLR_EUSAGE);
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_top(s, TLR_TOP_MAX + 1, ids, logits, &err),
                     TLR_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "found 65"));
    MUST(tlr_top(s, 1, ids, logits, &must_err));
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_branch_top(s, 1, ids, logits, &err), TLR_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "no branches"));
    tlr_session_free(s);
    s = new_session(m, (struct tlr_session_options){.n_ctx = 8,
                                                    .n_branches = 1});
    MUST(tlr_branch_decode(s, ids, 1, 0, &must_err));
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_branch_top(s, TLR_TOP_MAX + 1, ids, logits, &err),
                     TLR_EUSAGE);
    MUST(tlr_branch_top(s, TLR_TOP_MAX, ids, logits, &must_err));
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

/* The same draws from the best logits as from all of them. */
START_TEST(sampling_from_the_best)
{
    struct tlr_model *m = random_model("tiny-qwen3", TLR_Q8P);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = N_TOK});
    struct tlr_generation g = *tlr_model_generation(m);
    g.temperature = _i ? 1.5f : 0;
    g.top_k = _i ? 5 * _i : 0;
    g.top_p = _i > 2 ? 0.8f : 1;
    g.min_p = _i > 3 ? 0.1f : 0;
    g.repeat_penalty = 1;
    struct tlr_sampler *a = NULL, *b = NULL;
    MUST(tlr_sampler_new(&a, &g, 320, 9, &must_err));
    MUST(tlr_sampler_new(&b, &g, 320, 9, &must_err));
    int k = (int)tlr_sampler_n_top(a);
    ck_assert_int_eq(k, _i ? 5 * _i : 1);
    int32_t id = 3, ids[TLR_TOP_MAX];
    float best[TLR_TOP_MAX];
    for (int t = 0; t < N_TOK; t++) {
        MUST(tlr_decode(s, id, 0, &must_err));
        for (int i = 0; i < 20; i++) {
            MUST(tlr_top(s, k, ids, best, &must_err));
            id = tlr_sample_top(a, ids, best);
            MUST(tlr_run_head(s, &must_err));
            ck_assert_int_eq(id, tlr_sample(b, tlr_logits(s), NULL, 0));
        }
    }
    g.repeat_penalty = 1.1f;
    tlr_sampler_free(a);
    MUST(tlr_sampler_new(&a, &g, 320, 9, &must_err));
    ck_assert_uint_eq(tlr_sampler_n_top(a), 0);
    tlr_sampler_free(a);
    tlr_sampler_free(b);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

Suite *suite_top(void);
Suite *suite_top(void)
{
    Suite *s = suite_create("top");
    TCase *tc = tcase_create("top");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, top_is_the_best_of_all, 0, TLR_N_TYPES);
    tcase_add_loop_test(tc, branches_have_their_best, 0, TLR_N_TYPES);
    tcase_add_test(tc, branches_share_a_search);
    tcase_add_test(tc, borrowers_have_room);
    tcase_add_loop_test(tc, hard_heads_are_searched_right, 0, N_HARD);
    tcase_add_loop_test(tc, nan_never_wins, 0, 2);
    tcase_add_test(tc, wrong_uses_are_refused);
    tcase_add_loop_test(tc, sampling_from_the_best, 0, 6);
    suite_add_tcase(s, tc);
    return s;
}
