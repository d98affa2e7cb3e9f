/* test_golden.c - the tiny model of each family against Hugging Face, by
 * prefill and by decode, and prefill against decode for every weight type. */
#include "tests/model/golden.h"
#include "tests/model/models.h"

#include <stdio.h>

static const char *const families[] = {"tiny-qwen2", "tiny-qwen3", "tiny-llama",
                                       "tiny-llama3"};
enum { N_FAMILIES = 4 };

static void check_prefill(const struct tlr_model *m, const int32_t *ids,
                          const struct golden_sample *g, double tolerance)
{
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){.n_ctx = GOLDEN_TOK, .n_threads = 2});
    for (int i = 0; i < GOLDEN_POSITIONS; i++) {
        MUST(tlr_rewind(s, 0, &must_err));
        MUST(tlr_prefill(s, ids, g[i].n, TLR_STEP_LOGITS, &must_err));
        golden_compare(&g[i], tlr_logits(s), tlr_hidden(s), tolerance,
                       "prefill");
    }
    MUST(tlr_rewind(s, 0, &must_err));
    for (int i = 0; i < GOLDEN_POSITIONS; i++) { /* piece by piece */
        uint32_t pos = tlr_pos(s);
        MUST(tlr_prefill(s, ids + pos, g[i].n - pos, 0, &must_err));
        ck_assert_ptr_null(tlr_logits(s));
        MUST(tlr_run_head(s, &must_err));
        golden_compare(&g[i], tlr_logits(s), tlr_hidden(s), tolerance,
                       "prefill on top");
    }
    tlr_session_free(s);
}

static void check_decode(const struct tlr_model *m, const int32_t *ids,
                         const struct golden_sample *g, double tolerance)
{
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){.n_ctx = GOLDEN_TOK, .n_threads = 1});
    int seen = 0;
    double worst = 0.0;
    for (uint32_t t = 0; t < GOLDEN_TOK; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
        if (t + 1 == g[seen].n) {
            double e = golden_compare(&g[seen++], tlr_logits(s), tlr_hidden(s),
                                      tolerance, "decode");
            worst = fmax(worst, e);
        }
    }
    ck_assert_int_eq(seen, GOLDEN_POSITIONS);
    printf("golden: decode error %.2g of max |logit|, allowed %.2g\n", worst,
           tolerance);
    tlr_session_free(s);
}

static void check_family(const char *name, enum tlr_type type, double tolerance)
{
    static int32_t ids[GOLDEN_TOK];
    struct golden_sample g[GOLDEN_POSITIONS];
    golden_read(name, g);
    struct tlr_model *m = random_model(name, type);
    golden_ids(m, ids, GOLDEN_TOK);
    check_prefill(m, ids, g, tolerance);
    check_decode(m, ids, g, tolerance);
    tlr_model_close(m);
}

START_TEST(f32_is_hugging_face)
{
    check_family(families[_i], TLR_F32, 1e-4);
}
END_TEST

START_TEST(bf16_is_near)
{
    check_family(families[_i], TLR_BF16, 1e-2);
}
END_TEST

/* All logits of prefill against all of decode: same weights, so only the
 * roundings of f32 sums differ (with an f32 cache). */
static void check_agree(const struct tlr_model *m, enum tlr_kv_type kv,
                        double tolerance)
{
    enum { N = 300 };
    int32_t ids[N];
    golden_ids(m, ids, N);
    struct tlr_session_options o = {.n_ctx = N, .n_threads = 2, .kv = kv,
                                    .n_batch = 64};
    struct tlr_session *a = new_session(m, o), *b = new_session(m, o);
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    for (int t = 0; t < N; t++) {
        MUST(tlr_decode(a, ids[t], t + 1 == N ? TLR_STEP_LOGITS : 0, &must_err));
    }
    MUST(tlr_prefill(b, ids, N, TLR_STEP_LOGITS, &must_err));
    double e = relative_error(tlr_logits(b), tlr_logits(a), n_vocab);
    ck_assert_msg(e <= tolerance, "error %g", e);
    tlr_session_free(a);
    tlr_session_free(b);
}

START_TEST(prefill_is_decode)
{
    for (int f = 0; f < N_FAMILIES; f++) {
        struct tlr_model *m = random_model(families[f], (enum tlr_type)_i);
        check_agree(m, TLR_KV_F32, 2e-5);
        /* An f32 rounding can flip an f16 rounding of the cache. */
        check_agree(m, TLR_KV_F16, 1e-3);
        tlr_model_close(m);
    }
}
END_TEST

/* A chunk of up to TLR_MAX_BRANCHES tokens runs the decode kernels. */
START_TEST(short_prefill_is_decode_to_the_bit)
{
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8);
    int32_t ids[TLR_MAX_BRANCHES];
    golden_ids(m, ids, TLR_MAX_BRANCHES);
    struct tlr_session_options o = {.n_ctx = 64, .n_threads = 2};
    struct tlr_session *a = new_session(m, o), *b = new_session(m, o);
    for (int t = 0; t < TLR_MAX_BRANCHES; t++) {
        MUST(tlr_decode(a, ids[t], TLR_STEP_LOGITS, &must_err));
    }
    MUST(tlr_prefill(b, ids, TLR_MAX_BRANCHES, TLR_STEP_LOGITS, &must_err));
    ck_assert_mem_eq(tlr_logits(a), tlr_logits(b),
                     tlr_model_config(m)->n_vocab * sizeof(float));
    tlr_session_free(a);
    tlr_session_free(b);
    tlr_model_close(m);
}
END_TEST

Suite *suite_golden(void);
Suite *suite_golden(void)
{
    Suite *s = suite_create("golden");
    TCase *tc = tcase_create("golden");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, f32_is_hugging_face, 0, N_FAMILIES);
    tcase_add_loop_test(tc, bf16_is_near, 0, N_FAMILIES);
    tcase_add_loop_test(tc, prefill_is_decode, 0, TLR_N_TYPES);
    tcase_add_test(tc, short_prefill_is_decode_to_the_bit);
    suite_add_tcase(s, tc);
    return s;
}
