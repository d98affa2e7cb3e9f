/* test_adopt.c - a timeline taken over from another session goes on with the bits
 * that it has there. */
#include "tests/model/models.h"

enum { CTX = 288, LONG = 275 };

static struct tlr_session *session_of(const struct tlr_model *m, uint32_t n_ctx,
                                      enum tlr_kv_type kv)
{
    return new_session(m, (struct tlr_session_options){
                              .n_ctx = n_ctx, .n_threads = 2, .kv = kv});
}

static void same_results(const struct tlr_session *a,
                         const struct tlr_session *b)
{
    ck_assert_uint_eq(tlr_pos(a), tlr_pos(b));
    ck_assert_mem_eq(tlr_ids_of(a), tlr_ids_of(b),
                     tlr_pos(a) * sizeof(int32_t));
    ck_assert_mem_eq(tlr_hidden(a), tlr_hidden(b), 64 * sizeof(float));
    ck_assert_mem_eq(tlr_logits(a), tlr_logits(b), 320 * sizeof(float));
}

/* The first n tokens of a long timeline, onto one that shares `shared` of them and
 * has `own` more; then both write the same on. */
static void check(const struct tlr_model *m, enum tlr_kv_type kv, uint32_t n,
                  uint32_t shared, uint32_t own)
{
    struct tlr_session *from = session_of(m, CTX, kv);
    struct tlr_session *to = session_of(m, CTX + 40, kv);
    struct tlr_session *want = session_of(m, CTX, kv);
    int32_t ids[LONG + 4];
    golden_ids(m, ids, LONG + 4);
    MUST(tlr_prefill(from, ids, LONG, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_prefill(want, ids, n, TLR_STEP_LOGITS, &must_err));
    if (shared)
        MUST(tlr_prefill(to, ids, shared, 0, &must_err));
    for (uint32_t i = 0; i < own; i++)
        MUST(tlr_decode(to, (int32_t)(ids[shared + i] + 1) % 320, 0,
                        &must_err));
    MUST(tlr_adopt(to, from, n, &must_err));
    if (n == LONG)
        same_results(to, want);
    else
        ck_assert(!tlr_hidden(to) && !tlr_logits(to));
    for (uint32_t i = 0; i < 4; i++) {
        MUST(tlr_decode(to, ids[n + i], TLR_STEP_LOGITS, &must_err));
        MUST(tlr_decode(want, ids[n + i], TLR_STEP_LOGITS, &must_err));
    }
    same_results(to, want);
    tlr_session_free(from);
    tlr_session_free(to);
    tlr_session_free(want);
}

START_TEST(goes_on_with_the_same_bits)
{
    static const enum tlr_kv_type kv[] = {TLR_KV_F32, TLR_KV_F16, TLR_KV_Q8};
    static const uint32_t cases[][3] = {/* n, shared, own */
        {1, 0, 0}, {15, 0, 20}, {16, 3, 1}, {17, 16, 2}, {33, 40, 5},
        {40, 40, 0}, {260, 7, 100}, {LONG, 0, 0}, {LONG, 31, 3},
        {LONG, LONG, 1}};
    struct tlr_model *m = random_model("tiny-llama", TLR_Q4N);
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check(m, kv[k], cases[i][0], cases[i][1], cases[i][2]);
    tlr_model_close(m);
}
END_TEST

START_TEST(refuses_what_does_not_fit)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_model *other = random_model("tiny-llama", TLR_Q4);
    struct tlr_session *from = session_of(m, CTX, TLR_KV_F16);
    struct tlr_session *bad[] = {session_of(m, CTX, TLR_KV_Q8),
                                 session_of(other, CTX, TLR_KV_F16),
                                 session_of(m, 16, TLR_KV_F16)};
    int32_t ids[20];
    struct tlr_err err = TLR_ERR_INIT;
    golden_ids(m, ids, 20);
    MUST(tlr_prefill(from, ids, 20, 0, &must_err));
    ck_assert_int_eq(tlr_adopt(from, from, 3, &err), TLR_EUSAGE);
    for (int i = 0; i < 3; i++) {
        err = (struct tlr_err)TLR_ERR_INIT;
        ck_assert_int_eq(tlr_adopt(bad[i], from, 20, &err),
                         i == 2 ? TLR_ELIMIT : TLR_EUSAGE);
        ck_assert_uint_eq(tlr_pos(bad[i]), 0);
        ck_assert_uint_gt(strlen(err.text), 0);
    }
    err = (struct tlr_err)TLR_ERR_INIT;
    ck_assert_int_eq(tlr_adopt(bad[2], from, 21, &err), TLR_ELIMIT);
    MUST(tlr_adopt(bad[2], from, 16, &must_err));
    MUST(tlr_adopt(bad[2], from, 0, &must_err));
    ck_assert_uint_eq(tlr_pos(bad[2]), 0);
    for (int i = 0; i < 3; i++)
        tlr_session_free(bad[i]);
    tlr_session_free(from);
    tlr_model_close(m);
    tlr_model_close(other);
}
END_TEST

Suite *suite_adopt(void);
Suite *suite_adopt(void)
{
    Suite *s = suite_create("adopt");
    TCase *tc = tcase_create("adopt");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, goes_on_with_the_same_bits);
    tcase_add_test(tc, refuses_what_does_not_fit);
    suite_add_tcase(s, tc);
    return s;
}
