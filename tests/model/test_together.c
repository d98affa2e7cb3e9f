/* test_together.c - one step of several sessions has the bits of single steps, one
 * search of the head those of single ones, and a session that borrows threads and
 * scratch those of one with its own. */
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "tests/model/models.h"

enum { CTX = 288, STEPS = 6, N = TLR_MAX_TOGETHER };

/* Prompts of different lengths; the second ends a block, the third goes beyond
 * a stretch of attention. */
static const size_t prompt_tok[N] = {13, 16, 270, 1, 40, 15, 17, 33};

static int32_t step_id(int session, int step)
{
    return (session * 41 + step * 13 + 3) % 320;
}

static void prompt(struct tlr_session *s, const struct tlr_model *m, int i)
{
    int32_t ids[CTX];
    golden_ids(m, ids, CTX);
    MUST(tlr_prefill(s, ids + i, prompt_tok[i], TLR_STEP_LOGITS, &must_err));
}

static void check_equal(const struct tlr_session *a,
                        const struct tlr_session *b, unsigned flags)
{
    ck_assert_uint_eq(tlr_pos(a), tlr_pos(b));
    ck_assert_mem_eq(tlr_ids_of(a), tlr_ids_of(b),
                     tlr_pos(a) * sizeof(int32_t));
    ck_assert_mem_eq(tlr_hidden(a), tlr_hidden(b), 64 * sizeof(float));
    if (flags) {
        ck_assert_mem_eq(tlr_logits(a), tlr_logits(b), 320 * sizeof(float));
    } else {
        ck_assert_ptr_null(tlr_logits(a));
    }
}

struct party {
    struct tlr_session *many[N], *one[N]; /* together, and each by itself */
    int n;
};

/* kv[i] for session i; many[1..] borrow from many[0] where `lend`. */
static struct party open_party(const struct tlr_model *m, int n, int n_threads,
                               const enum tlr_kv_type *kv, bool lend)
{
    struct party p = {.n = n};
    for (int i = 0; i < n; i++) {
        struct tlr_session_options o = {.n_ctx = CTX, .n_threads = n_threads,
                                        .kv = kv[i], .n_branches = 2,
                                        .branch_tok = 4};
        p.one[i] = new_session(m, o);
        o.lender = lend && i > 0 ? p.many[0] : NULL;
        p.many[i] = new_session(m, o);
        prompt(p.one[i], m, i);
        prompt(p.many[i], m, i);
    }
    return p;
}

static void close_party(struct party *p)
{
    for (int i = p->n - 1; i >= 0; i--) {
        tlr_session_free(p->many[i]);
        tlr_session_free(p->one[i]);
    }
}

/* A step of the first n; afterwards all sessions must be equal. */
static void step(struct party *p, int n, int at)
{
    unsigned flags = at % 3 ? TLR_STEP_LOGITS : 0;
    int32_t ids[N] = {0};
    for (int i = 0; i < n; i++) {
        ids[i] = step_id(i, at);
        MUST(tlr_decode(p->one[i], ids[i], flags, &must_err));
    }
    MUST(tlr_decode_together(p->many, ids, n, flags, &must_err));
    for (int i = 0; i < n; i++) {
        check_equal(p->many[i], p->one[i], flags);
    }
}

static void check_party(const struct tlr_model *m, int n, int n_threads,
                        const enum tlr_kv_type *kv, bool lend)
{
    struct party p = open_party(m, n, n_threads, kv, lend);
    for (int i = 0; i < STEPS; i++) {
        step(&p, i % 2 ? n : (n + 1) / 2, i);
    }
    close_party(&p);
}

START_TEST(together_is_alone)
{
    static const enum tlr_kv_type f16[N] = {0}, mixed[N] = {
        TLR_KV_F32, TLR_KV_F16, TLR_KV_Q8, TLR_KV_F16,
        TLR_KV_Q8,  TLR_KV_F32, TLR_KV_F16, TLR_KV_Q8};
    struct tlr_model *m = random_model("tiny-qwen3", (enum tlr_type)_i);
    check_party(m, N, 2, mixed, true);
    check_party(m, N, 3, mixed, false);
    check_party(m, 3, 1, f16, true);
    tlr_model_close(m);
}
END_TEST

START_TEST(families_agree)
{
    static const char *const names[] = {"tiny-llama", "tiny-llama3",
                                        "tiny-qwen2"};
    static const enum tlr_kv_type any[N] = {0};
    struct tlr_model *m = random_model(names[_i], TLR_Q4);
    check_party(m, 5, 2, any, true);
    tlr_model_close(m);
}
END_TEST

/* What a step together leaves is a timeline like any other. */
START_TEST(timelines_go_on_alone)
{
    static const enum tlr_kv_type any[N] = {0};
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8);
    struct party p = open_party(m, 4, 2, any, true);
    int32_t pair[2] = {7, 9};
    for (int i = 0; i < 3; i++) {
        step(&p, 4, i);
    }
    for (int both = 0; both < 2; both++) {
        struct tlr_session *s = both ? p.many[1] : p.one[1];
        MUST(tlr_rewind(s, tlr_pos(s) - 2, &must_err));
        for (int i = 0; i < 3; i++) {
            MUST(tlr_branch_decode(s, pair, 2, TLR_STEP_LOGITS, &must_err));
        }
    }
    /* another session's step between, in the same scratch */
    MUST(tlr_decode(p.one[2], 5, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_decode(p.many[2], 5, TLR_STEP_LOGITS, &must_err));
    check_equal(p.many[2], p.one[2], TLR_STEP_LOGITS);
    ck_assert_mem_eq(tlr_branch_logits(p.many[1], 1),
                     tlr_branch_logits(p.one[1], 1), 320 * sizeof(float));
    MUST(tlr_branch_keep(p.one[1], 1, 3, &must_err));
    MUST(tlr_branch_keep(p.many[1], 1, 3, &must_err));
    check_equal(p.many[1], p.one[1], TLR_STEP_LOGITS);
    step(&p, 4, 4);
    close_party(&p);
    tlr_model_close(m);
}
END_TEST

/* A live branch ends with the step, as with any other. */
START_TEST(branches_are_dropped)
{
    static const enum tlr_kv_type any[N] = {0};
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct party p = open_party(m, 2, 2, any, true);
    int32_t pair[2] = {7, 9};
    MUST(tlr_branch_decode(p.many[0], pair, 2, 0, &must_err));
    MUST(tlr_branch_decode(p.many[1], pair, 2, 0, &must_err));
    step(&p, 2, 1);
    ck_assert_uint_eq(tlr_branch_len(p.many[0]), 0);
    ck_assert_uint_eq(tlr_branch_len(p.many[1]), 0);
    close_party(&p);
    tlr_model_close(m);
}
END_TEST

/* ---- the best ids of several sessions ---- */

static uint64_t n_searched(const struct party *p)
{
    uint64_t n = 0;
    for (int i = 0; i < p->n; i++) {
        n += tlr_top_read(p->many[i]).n_calls;
    }
    return n;
}

static void check_top(struct tlr_session *s, struct tlr_session *alone, int k)
{
    int32_t ids[2][TLR_TOP_MAX];
    float logits[2][TLR_TOP_MAX];
    MUST(tlr_top(s, k, ids[0], logits[0], &must_err));
    MUST(tlr_top(alone, k, ids[1], logits[1], &must_err));
    ck_assert_mem_eq(ids[0], ids[1], (size_t)k * sizeof ids[0][0]);
    ck_assert_mem_eq(logits[0], logits[1], (size_t)k * sizeof logits[0][0]);
}

/* What was found together is what each finds alone, and is found once. */
static void check_found(struct party *p, int n, int k)
{
    uint64_t before = n_searched(p);
    MUST(tlr_top_together(p->many, n, k, &must_err));
    ck_assert_uint_eq(n_searched(p), before + (uint64_t)n);
    for (int i = 0; i < n; i++) {
        check_top(p->many[i], p->one[i], k);
        check_top(p->many[i], p->one[i], 1);
    }
    ck_assert_uint_eq(n_searched(p), before + (uint64_t)n);
    check_top(p->many[0], p->one[0], k + 1);
    ck_assert_uint_eq(n_searched(p), before + (uint64_t)n + 1);
}

START_TEST(best_ids_together)
{
    static const enum tlr_kv_type any[N] = {0};
    struct tlr_model *m = random_model("tiny-qwen2", (enum tlr_type)_i);
    for (int lend = 0; lend < 2; lend++) {
        struct party p = open_party(m, N, 1 + lend, any, lend);
        for (int n = 1; n <= N; n++) {
            step(&p, n, n);
            check_found(&p, n, n < 3 ? n : 9 * (n - 1));
        }
        close_party(&p);
    }
    tlr_model_close(m);
}
END_TEST

/* Sessions 0 and 1 stand at other tokens than those that were found for. */
static void check_forgotten(struct party *p)
{
    check_top(p->many[0], p->one[0], 3);
    check_top(p->many[1], p->one[1], 3);
    MUST(tlr_top_together(p->many, 2, 3, &must_err));
}

START_TEST(what_was_found_is_forgotten)
{
    static const enum tlr_kv_type any[N] = {0};
    int32_t pair[2] = {7, 9}, ids[3];
    float logits[3];
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8P);
    struct party p = open_party(m, 2, 1, any, false);
    MUST(tlr_top_together(p.many, 2, 3, &must_err));
    step(&p, 2, 0);
    check_forgotten(&p);
    for (int both = 0; both < 2; both++) {
        struct tlr_session **s = both ? p.many : p.one;
        MUST(tlr_decode(s[0], 4, 0, &must_err));
        MUST(tlr_branch_decode(s[1], pair, 2, 0, &must_err));
        MUST(tlr_branch_keep(s[1], 1, 1, &must_err));
    }
    check_forgotten(&p);
    for (int both = 0; both < 2; both++) {
        struct tlr_session **s = both ? p.many : p.one;
        uint8_t *bytes = NULL;
        size_t len = 0;
        MUST(tlr_snapshot_save(s[1], &bytes, &len, &must_err));
        MUST(tlr_decode(s[1], 11, 0, &must_err));
        MUST(tlr_adopt(s[0], s[1], tlr_pos(s[1]), &must_err));
        if (both) {
            MUST(tlr_top_together(s, 2, 3, &must_err));
        }
        MUST(tlr_snapshot_load(s[1], (struct tlr_bytes){bytes, len},
                               &must_err));
        tlr_free(bytes);
    }
    check_forgotten(&p);
    MUST(tlr_rewind(p.many[0], 3, &must_err));
    ck_assert_int_eq(tlr_top(p.many[0], 1, ids, logits, &err), TLR_EUSAGE);
    close_party(&p);
    tlr_model_close(m);
}
END_TEST

static void refuse_top(struct tlr_session *const *s, int n, int k, int code)
{
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_top_together(s, n, k, &err), code);
    ck_assert(err.text[0] != '\0');
}

START_TEST(bad_searches_are_refused)
{
    static const enum tlr_kv_type any[N] = {0};
    int32_t pair[2] = {7, 9};
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8P);
    struct party p = open_party(m, 2, 1, any, false);
    struct tlr_session *twice[2] = {p.many[0], p.many[0]};
    refuse_top(p.many, 0, 1, TLR_EUSAGE);
    refuse_top(p.many, N + 1, 1, TLR_ELIMIT);
    refuse_top(p.many, 2, 0, TLR_EUSAGE);
    refuse_top(p.many, 2, TLR_TOP_MAX + 1, TLR_EUSAGE);
    refuse_top(twice, 2, 1, TLR_EUSAGE);
    MUST(tlr_branch_decode(p.many[1], pair, 2, 0, &must_err));
    refuse_top(p.many, 2, 1, TLR_EUSAGE); /* its branches would be lost */
    MUST(tlr_rewind(p.many[1], 2, &must_err));
    refuse_top(p.many, 2, 1, TLR_EUSAGE); /* no hidden state */
    close_party(&p);
    tlr_model_close(m);
}
END_TEST

static void refuse(struct tlr_session *const *s, const int32_t *ids, int n,
                   unsigned flags, int code)
{
    struct tlr_err err = TLR_ERR_INIT;
    uint32_t pos = tlr_pos(s[0]);
    ck_assert_int_eq(tlr_decode_together(s, ids, n, flags, &err), code);
    ck_assert(err.text[0] != '\0');
    ck_assert_uint_eq(tlr_pos(s[0]), pos);
}

START_TEST(bad_steps_are_refused)
{
    static const enum tlr_kv_type any[N] = {0};
    int32_t ids[N + 1] = {1, 2, 3}, bad[2] = {1, 320};
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_model *other = random_model("tiny-llama", TLR_Q8);
    struct party p = open_party(m, 3, 1, any, true);
    struct tlr_session *s[N + 1] = {p.many[0], p.many[1], p.many[0]};
    refuse(s, ids, 0, 0, TLR_EUSAGE);
    refuse(s, ids, -1, 0, TLR_EUSAGE);
    refuse(s, ids, N + 1, 0, TLR_ELIMIT);
    refuse(s, ids, 3, 0, TLR_EUSAGE); /* one of them twice */
    refuse(s, bad, 2, 0, TLR_EUSAGE);
    refuse(s, ids, 2, 2, TLR_EUSAGE);
    struct tlr_session_options o = {.n_ctx = CTX, .act = TLR_ACT_INT8};
    s[1] = new_session(m, o);
    refuse(s, ids, 2, 0, TLR_EUSAGE); /* other rounding */
    tlr_session_free(s[1]);
    s[1] = new_session(other, (struct tlr_session_options){.n_ctx = CTX});
    refuse(s, ids, 2, 0, TLR_EUSAGE); /* another model */
    tlr_session_free(s[1]);
    s[1] = new_session(m, (struct tlr_session_options){.n_ctx = 1});
    MUST(tlr_decode(s[1], 1, 0, &must_err));
    refuse(s, ids, 2, 0, TLR_ELIMIT); /* full */
    tlr_session_free(s[1]);
    close_party(&p);
    tlr_model_close(other);
    tlr_model_close(m);
}
END_TEST

START_TEST(lenders_decide)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_model *other = random_model("tiny-llama", TLR_Q8);
    struct tlr_session_options o = {.n_ctx = 64, .n_threads = 2,
                                    .n_batch = 24};
    struct tlr_session *lender = new_session(m, o);
    struct tlr_session_options want = {.lender = lender, .n_threads = 3,
                                       .n_batch = 7, .cpu_level = 0};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = NULL;
    MUST(tlr_session_new(&s, m, &want, &must_err));
    const struct tlr_session_options *used = tlr_session_options_used(s);
    ck_assert_uint_eq(used->n_ctx, 64);
    ck_assert_int_eq(used->n_threads, 2);
    ck_assert_uint_eq(used->n_batch, 24);
    ck_assert_int_eq(used->cpu_level,
                     tlr_session_options_used(lender)->cpu_level);
    tlr_session_free(s);
    struct tlr_memory own, borrowed;
    MUST(tlr_session_estimate(m, &o, &own, &must_err));
    MUST(tlr_session_estimate(m, &want, &borrowed, &must_err));
    ck_assert_uint_eq(own.kv_bytes, borrowed.kv_bytes);
    ck_assert_uint_lt(borrowed.scratch_bytes, own.scratch_bytes / 4);
    ck_assert_int_eq(tlr_session_new(&s, other, &want, &err), TLR_EUSAGE);
    tlr_err_clear(&err);
    want.n_ctx = 65;
    ck_assert_int_eq(tlr_session_new(&s, m, &want, &err), TLR_ELIMIT);
    tlr_session_free(lender);
    tlr_model_close(other);
    tlr_model_close(m);
}
END_TEST

Suite *suite_together(void);
Suite *suite_together(void)
{
    Suite *s = suite_create("together");
    TCase *tc = tcase_create("together");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, together_is_alone, 0, TLR_N_TYPES);
    tcase_add_loop_test(tc, families_agree, 0, 3);
    tcase_add_test(tc, timelines_go_on_alone);
    tcase_add_test(tc, branches_are_dropped);
    tcase_add_loop_test(tc, best_ids_together, 0, TLR_N_TYPES);
    tcase_add_test(tc, what_was_found_is_forgotten);
    tcase_add_test(tc, bad_searches_are_refused);
    tcase_add_test(tc, bad_steps_are_refused);
    tcase_add_test(tc, lenders_decide);
    suite_add_tcase(s, tc);
    return s;
}
