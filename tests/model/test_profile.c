/* test_profile.c - times that add up to the whole, and the inputs of matrices
 * as an observer sees them. */
#include <string.h>

#include "tests/model/models.h"

START_TEST(times_add_up)
{
    struct tlr_model *m = random_model("tiny-qwen3", (enum tlr_type)_i);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = 64});
    uint32_t n_layers = tlr_model_config(m)->n_layers;
    int32_t ids[20];
    golden_ids(m, ids, 20);
    MUST(tlr_decode(s, ids[0], TLR_STEP_LOGITS, &must_err));
    ck_assert_ptr_null(tlr_profile_read(s).ns);
    MUST(tlr_profile_start(s, &must_err));
    MUST(tlr_prefill(s, ids, 20, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_decode(s, ids[0], TLR_STEP_LOGITS, &must_err));
    struct tlr_profile p = tlr_profile_read(s);
    ck_assert_uint_eq(p.n_layers, n_layers);
    ck_assert_uint_eq(p.n_steps, 2);
    ck_assert_uint_eq(p.n_tok, 21);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < (n_layers + 1) * TLR_N_PROFILE_OPS; i++) {
        sum += p.ns[i];
    }
    ck_assert_uint_eq(sum, p.total_ns);
    for (uint32_t i = 0; i < n_layers; i++) {
        const uint64_t *layer = p.ns + (size_t)i * TLR_N_PROFILE_OPS;
        ck_assert_uint_gt(layer[TLR_PROFILE_QKV], 0);
        ck_assert_uint_gt(layer[TLR_PROFILE_GATE_UP], 0);
        ck_assert_uint_eq(layer[TLR_PROFILE_HEAD], 0);
    }
    ck_assert_uint_gt(
        p.ns[(size_t)n_layers * TLR_N_PROFILE_OPS + TLR_PROFILE_HEAD], 0);
    MUST(tlr_profile_start(s, &must_err)); /* from zero again */
    ck_assert_uint_eq(tlr_profile_read(s).total_ns, 0);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

enum { N_OBSERVED = 11 };

struct seen {
    int calls[TLR_N_INPUTS];
    uint32_t n_layers;
    float last[TLR_N_INPUTS][256]; /* of the last row, last layer */
    uint32_t n_cols[TLR_N_INPUTS];
};

static void look(void *ctx, uint32_t layer, enum tlr_input input,
                 const float *x, size_t x_stride, int n_tok, uint32_t n_cols)
{
    struct seen *seen = ctx;
    ck_assert_int_eq(n_tok, N_OBSERVED);
    ck_assert_uint_le(n_cols, 256);
    ck_assert(layer < seen->n_layers ||
              (input == TLR_INPUT_HEAD && layer == seen->n_layers));
    seen->calls[input]++;
    seen->n_cols[input] = n_cols;
    memcpy(seen->last[input], x + (size_t)(n_tok - 1) * x_stride,
           n_cols * sizeof *x);
}

/* Results are the same bits with and without an observer, and the head's input
 * is the hidden state. */
START_TEST(observer_sees_all_inputs)
{
    struct tlr_model *m = random_model("tiny-qwen2", (enum tlr_type)_i);
    const struct tlr_config *c = tlr_model_config(m);
    struct tlr_session_options o = {.n_ctx = 32, .n_threads = 2};
    struct tlr_session *a = new_session(m, o), *b = new_session(m, o);
    struct seen seen = {.n_layers = c->n_layers};
    int32_t ids[N_OBSERVED];
    golden_ids(m, ids, N_OBSERVED);
    MUST(tlr_session_observe(a, look, &seen, &must_err));
    MUST(tlr_prefill(a, ids, N_OBSERVED, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_prefill(b, ids, N_OBSERVED, TLR_STEP_LOGITS, &must_err));
    if (_i >= TLR_Q8) { /* SGEMM of other row counts rounds otherwise */
        ck_assert_mem_eq(tlr_logits(a), tlr_logits(b),
                         c->n_vocab * sizeof(float));
    }
    for (int i = 0; i < TLR_N_INPUTS; i++) {
        ck_assert_int_eq(seen.calls[i],
                         i == TLR_INPUT_HEAD ? 1 : (int)c->n_layers);
    }
    ck_assert_mem_eq(seen.last[TLR_INPUT_HEAD], tlr_hidden(a),
                     c->dim * sizeof(float));
    ck_assert_uint_eq(seen.n_cols[TLR_INPUT_QKV], c->dim);
    ck_assert_uint_eq(seen.n_cols[TLR_INPUT_O], c->n_heads * c->head_dim);
    ck_assert_uint_eq(seen.n_cols[TLR_INPUT_GATE_UP], c->dim);
    ck_assert_uint_eq(seen.n_cols[TLR_INPUT_DOWN], c->ffn_dim);
    float sum = 0;
    for (uint32_t i = 0; i < c->ffn_dim; i++) {
        sum += fabsf(seen.last[TLR_INPUT_DOWN][i]);
    }
    ck_assert(sum > 0);
    MUST(tlr_session_observe(a, NULL, NULL, &must_err));
    MUST(tlr_decode(a, 1, 0, &must_err));
    ck_assert_int_eq(seen.calls[TLR_INPUT_HEAD], 1);
    tlr_session_free(a);
    tlr_session_free(b);
    tlr_model_close(m);
}
END_TEST

Suite *suite_profile(void);
Suite *suite_profile(void)
{
    Suite *s = suite_create("profile");
    TCase *tc = tcase_create("profile");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, times_add_up, 0, TLR_N_TYPES);
    tcase_add_loop_test(tc, observer_sees_all_inputs, 0, TLR_N_TYPES);
    suite_add_tcase(s, tc);
    return s;
}
