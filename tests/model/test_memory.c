/* test_memory.c - memory that runs out at any point, and decoding that needs
 * none. */
#include <stdio.h>

#include "base/mem.h"
#include "engine/sampler.h"
#include "tests/model/models.h"

/* Makes the k-th allocation of one call fail for k = 0, 1, 2, ... until it
 * succeeds; ASan sees what an early return forgets. */
#define SWEEP(call, cleanup)                                                   \
    do {                                                                       \
        int sweep_rc = TLR_ENOMEM;                                             \
        long sweep_k = 0;                                                      \
        for (; sweep_rc; sweep_k++) {                                          \
            struct tlr_err err = TLR_ERR_INIT;                                 \
            tlr_mem_fail_after(sweep_k);                                       \
            sweep_rc = (call);                                                 \
            tlr_mem_fail_after(-1);                                            \
            ck_assert_msg(sweep_rc == 0 || sweep_rc == TLR_ENOMEM, "%s",       \
                          err.text);                                           \
            ck_assert(!sweep_rc == !err.text[0]);                              \
            ck_assert_int_lt(sweep_k, 1000);                                   \
        }                                                                      \
        ck_assert_int_gt(sweep_k, 1); /* something did fail */                 \
        cleanup;                                                               \
    } while (0)

START_TEST(memory_may_run_out)
{
    char path[600];
    snprintf(path, sizeof path, "%s/oom.bin", tlr_test_tmpdir());
    random_model_write("tiny-qwen2", TLR_Q8, path);
    struct tlr_model *m = NULL;
    SWEEP(tlr_model_open(&m, path, &err), (void)0);
    struct tlr_session_options o = {.n_ctx = 16, .n_threads = 2,
                                    .n_branches = 2, .cpu_level = -1};
    struct tlr_session *s = NULL;
    SWEEP(tlr_session_new(&s, m, &o, &err), (void)0);
    MUST(tlr_decode(s, 1, TLR_STEP_LOGITS, &must_err));
    uint8_t *bytes = NULL;
    size_t len = 0;
    SWEEP(tlr_snapshot_save(s, &bytes, &len, &err), tlr_free(bytes));
    struct tlr_sampler *sampler = NULL;
    SWEEP(tlr_sampler_new(&sampler, tlr_model_generation(m), 320, 1, &err),
          tlr_sampler_free(sampler));
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

/* Not only decode: no step allocates, and sampling does not either. */
START_TEST(steps_allocate_nothing)
{
    struct tlr_model *m = random_model("tiny-qwen3", TLR_Q8);
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){.n_ctx = 128, .n_threads = 2,
                                        .n_batch = 16, .n_branches = 2});
    struct tlr_generation g = *tlr_model_generation(m);
    g.temperature = 0.8f;
    g.top_p = 0.9f;
    g.repeat_penalty = 1.1f;
    struct tlr_sampler *sampler = NULL;
    MUST(tlr_sampler_new(&sampler, &g, 320, 1, &must_err));
    int32_t ids[40];
    golden_ids(m, ids, 40);
    unsigned long long before = tlr_mem_count();
    ck_assert_uint_gt(before, 0);
    MUST(tlr_prefill(s, ids, 40, TLR_STEP_LOGITS, &must_err));
    for (int t = 0; t < 20; t++) {
        int32_t id = tlr_sample(sampler, tlr_logits(s), tlr_ids_of(s),
                                tlr_pos(s));
        MUST(tlr_decode(s, id, TLR_STEP_LOGITS, &must_err));
    }
    MUST(tlr_branch_decode(s, ids, 2, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_branch_keep(s, 1, 1, &must_err));
    MUST(tlr_rewind(s, 10, &must_err));
    ck_assert_uint_eq(tlr_mem_count(), before);
    tlr_sampler_free(sampler);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

START_TEST(half_objects_are_freed)
{
    tlr_session_free(NULL);
    tlr_model_close(NULL);
    tlr_sampler_free(NULL);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_model *m = NULL;
    ck_assert_int_ne(tlr_model_open(&m, "/nonexistent/x.bin", &err), 0);
    ck_assert_ptr_null(m);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x.bin"));
}
END_TEST

Suite *suite_memory(void);
Suite *suite_memory(void)
{
    Suite *s = suite_create("memory");
    TCase *tc = tcase_create("memory");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, memory_may_run_out);
    tcase_add_test(tc, steps_allocate_nothing);
    tcase_add_test(tc, half_objects_are_freed);
    suite_add_tcase(s, tc);
    return s;
}
