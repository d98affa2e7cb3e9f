/* test_branch.c - branches are decoding, side by side: the same bits. */
#include <stdlib.h>

#include "kernels/kernels.h"
#include "tests/model/models.h"

enum { PREFIX = 13, STEPS = 5, CTX = 32 };

static int32_t branch_id(int branch, int step)
{
    return (branch * 37 + step * 11 + 5) % 320;
}

static struct tlr_session_options options(enum tlr_kv_type kv)
{
    return (struct tlr_session_options){.n_ctx = CTX, .n_threads = 2, .kv = kv,
                                        .n_branches = TLR_MAX_BRANCHES,
                                        .branch_tok = STEPS};
}

static void prefix(struct tlr_session *s, const struct tlr_model *m, size_t n)
{
    int32_t ids[PREFIX];
    golden_ids(m, ids, PREFIX);
    if (n) {
        MUST(tlr_prefill(s, ids, n, TLR_STEP_LOGITS, &must_err));
    }
}

/* All branches step by step against single decodes of a second session. */
static void check_same_bits(const struct tlr_model *m, enum tlr_kv_type kv,
                            size_t n_prefix, int n)
{
    struct tlr_session *s = new_session(m, options(kv));
    struct tlr_session *one = new_session(m, options(kv));
    prefix(s, m, n_prefix);
    prefix(one, m, n_prefix);
    for (int step = 0; step < STEPS; step++) {
        int32_t ids[TLR_MAX_BRANCHES];
        for (int b = 0; b < n; b++) {
            ids[b] = branch_id(b, step);
        }
        unsigned flags = step % 2 ? 0 : TLR_STEP_LOGITS;
        MUST(tlr_branch_decode(s, ids, n, flags, &must_err));
        ck_assert_uint_eq(tlr_branch_len(s), (uint32_t)step + 1);
        if (!flags) {
            ck_assert_ptr_null(tlr_branch_logits(s, 0));
            MUST(tlr_run_head(s, &must_err));
        }
        for (int b = 0; b < n; b++) {
            MUST(tlr_rewind(one, (uint32_t)n_prefix, &must_err));
            for (int i = 0; i <= step; i++) {
                MUST(tlr_decode(one, branch_id(b, i), TLR_STEP_LOGITS,
                                &must_err));
            }
            ck_assert_mem_eq(tlr_branch_hidden(s, b), tlr_hidden(one),
                             64 * sizeof(float));
            ck_assert_mem_eq(tlr_branch_logits(s, b), tlr_logits(one),
                             320 * sizeof(float));
        }
    }
    ck_assert_uint_eq(tlr_pos(s), n_prefix);
    ck_assert_ptr_null(tlr_branch_hidden(s, n));
    ck_assert_ptr_null(tlr_branch_hidden(s, -1));
    tlr_session_free(s);
    tlr_session_free(one);
}

START_TEST(branches_are_decoding)
{
    struct tlr_model *m = random_model("tiny-qwen3", (enum tlr_type)_i);
    check_same_bits(m, TLR_KV_F32, PREFIX, TLR_MAX_BRANCHES);
    check_same_bits(m, TLR_KV_F16, PREFIX, 3);
    check_same_bits(m, TLR_KV_F16, 0, 2);
    check_same_bits(m, TLR_KV_Q8, PREFIX, 2);
    tlr_model_close(m);
}
END_TEST

/* Keeps n_tok of 3 tokens of branch 1, then decodes on. */
static void check_keep(const struct tlr_model *m, uint32_t n_tok)
{
    struct tlr_session *s = new_session(m, options(TLR_KV_AUTO));
    struct tlr_session *one = new_session(m, options(TLR_KV_AUTO));
    prefix(s, m, PREFIX);
    prefix(one, m, PREFIX);
    for (int step = 0; step < 3; step++) {
        int32_t ids[2] = {branch_id(0, step), branch_id(1, step)};
        MUST(tlr_branch_decode(s, ids, 2, TLR_STEP_LOGITS, &must_err));
    }
    for (uint32_t i = 0; i < n_tok; i++) {
        MUST(tlr_decode(one, branch_id(1, (int)i), TLR_STEP_LOGITS, &must_err));
    }
    MUST(tlr_branch_keep(s, 1, n_tok, &must_err));
    ck_assert_uint_eq(tlr_branch_len(s), 0);
    ck_assert_ptr_null(tlr_branch_hidden(s, 0));
    ck_assert_uint_eq(tlr_pos(s), PREFIX + n_tok);
    ck_assert_mem_eq(tlr_ids_of(s), tlr_ids_of(one),
                     (PREFIX + n_tok) * sizeof(int32_t));
    bool has_results = n_tok == 0 || n_tok == 3;
    ck_assert(!tlr_hidden(s) == !has_results);
    ck_assert(!tlr_logits(s) == !has_results);
    if (has_results) {
        ck_assert_mem_eq(tlr_logits(s), tlr_logits(one), 320 * sizeof(float));
        ck_assert_mem_eq(tlr_hidden(s), tlr_hidden(one), 64 * sizeof(float));
    }
    for (int i = 0; i < 4; i++) {
        MUST(tlr_decode(s, 7 + i, TLR_STEP_LOGITS, &must_err));
        MUST(tlr_decode(one, 7 + i, TLR_STEP_LOGITS, &must_err));
        ck_assert_mem_eq(tlr_logits(s), tlr_logits(one), 320 * sizeof(float));
    }
    tlr_session_free(s);
    tlr_session_free(one);
}

START_TEST(keep_appends_the_branch)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    for (uint32_t n_tok = 0; n_tok <= 3; n_tok++) {
        check_keep(m, n_tok);
    }
    tlr_model_close(m);
}
END_TEST

static void refuse(struct tlr_session *s, const int32_t *ids, int n, int code)
{
    struct tlr_err err = TLR_ERR_INIT;
    uint32_t pos = tlr_pos(s), len = tlr_branch_len(s);
    ck_assert_int_eq(tlr_branch_decode(s, ids, n, 0, &err), code);
    ck_assert(err.text[0] != '\0');
    ck_assert_uint_eq(tlr_pos(s), pos);
    ck_assert_uint_eq(tlr_branch_len(s), len);
}

START_TEST(bad_branches_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    int32_t ids[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, bad[2] = {1, 320};
    struct tlr_session *s = new_session(m, options(TLR_KV_AUTO));
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_branch_keep(s, 0, 0, &err), TLR_EUSAGE);
    prefix(s, m, PREFIX);
    refuse(s, ids, 9, TLR_ELIMIT);
    refuse(s, ids, 0, TLR_EUSAGE);
    refuse(s, ids, -1, TLR_EUSAGE);
    refuse(s, bad, 2, TLR_EUSAGE);
    MUST(tlr_branch_decode(s, ids, 3, 0, &must_err));
    refuse(s, ids, 2, TLR_EUSAGE);
    refuse(s, ids, 4, TLR_ELIMIT);
    for (int i = 1; i < STEPS; i++) {
        MUST(tlr_branch_decode(s, ids, 3, 0, &must_err));
    }
    refuse(s, ids, 3, TLR_ELIMIT); /* branch_tok */
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_branch_keep(s, 3, 1, &err), TLR_EUSAGE);
    ck_assert_int_eq(tlr_branch_keep(s, 0, STEPS + 1, &err), TLR_EUSAGE);
    tlr_branch_drop(s);
    ck_assert_uint_eq(tlr_branch_len(s), 0);
    int32_t more[CTX - PREFIX - 1] = {0};
    MUST(tlr_prefill(s, more, CTX - PREFIX - 1, 0, &must_err));
    MUST(tlr_branch_decode(s, ids, 2, 0, &must_err));
    refuse(s, ids, 2, TLR_ELIMIT); /* the context is full */
    MUST(tlr_branch_keep(s, 1, 1, &must_err));
    ck_assert_uint_eq(tlr_pos(s), CTX);
    tlr_session_free(s);
    s = new_session(m, (struct tlr_session_options){.n_ctx = CTX});
    refuse(s, ids, 1, TLR_ELIMIT); /* opened without branches */
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

Suite *suite_branch(void);
Suite *suite_branch(void)
{
    Suite *s = suite_create("branch");
    TCase *tc = tcase_create("branch");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, branches_are_decoding, 0, TLR_N_TYPES);
    tcase_add_test(tc, keep_appends_the_branch);
    tcase_add_test(tc, bad_branches_are_refused);
    suite_add_tcase(s, tc);
    return s;
}
