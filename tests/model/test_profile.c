/* test_profile.c - times that add up to the whole, and the inputs of matrices
 * as an observer sees them. */
#include <stdio.h>
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
    for (uint32_t i = 0; i <= n_layers; i++) {
        for (int op = 0; op < TLR_N_PROFILE_OPS; op++) {
            uint64_t ns = p.ns[(size_t)i * TLR_N_PROFILE_OPS + (size_t)op];
            bool is_outside = op == TLR_PROFILE_EMBED || op == TLR_PROFILE_HEAD;
            bool is_there =
                op == TLR_PROFILE_NORM || is_outside == (i == n_layers);
            ck_assert_msg((ns > 0) == is_there, "layer %u, operation %d: %llu ns",
                          (unsigned)i, op, (unsigned long long)ns);
        }
    }
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

/* ---- what was seen is what the model computes ---- */

enum { MAX_LAYERS = 2 };

struct rows {
    float x[MAX_LAYERS + 1][TLR_N_INPUTS][N_OBSERVED][256];
};

static void look_at_all(void *ctx, uint32_t layer, enum tlr_input input,
                        const float *x, size_t x_stride, int n_tok,
                        uint32_t n_cols)
{
    struct rows *rows = ctx;
    ck_assert(layer <= MAX_LAYERS && n_cols <= 256 && n_tok == N_OBSERVED);
    for (int t = 0; t < n_tok; t++) {
        memcpy(rows->x[layer][input][t], x + (size_t)t * x_stride,
               n_cols * sizeof *x);
    }
}

static const float *weights(const struct tlr_model *m, int layer,
                            const char *name)
{
    char full[64];
    if (layer >= 0) {
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    } else {
        snprintf(full, sizeof full, "%s", name);
    }
    const struct tlr_tensor *t = tlr_file_tensor(tlr_model_file(m), full);
    ck_assert_msg(t != NULL, "%s", full);
    return t->data;
}

/* y += W x, W f32 [n_rows, n_cols]. */
static void add_product(double *y, const float *w, const double *x,
                        uint32_t n_rows, uint32_t n_cols)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            y[r] += (double)w[r * n_cols + c] * x[c];
        }
    }
}

/* out[dim] = norm of x, which the observer must have seen. */
static void check_norm(double *out, const struct tlr_config *c, const double *x,
                       const float *w, const float *seen, const char *what)
{
    double squares = 0, most = 0;
    for (uint32_t i = 0; i < c->dim; i++) {
        squares += x[i] * x[i];
    }
    double inverse = 1 / sqrt(squares / c->dim + (double)c->rms_eps);
    for (uint32_t i = 0; i < c->dim; i++) {
        out[i] = x[i] * inverse * (double)w[i];
        most = fmax(most, fabs(out[i]));
    }
    for (uint32_t i = 0; i < c->dim; i++) {
        ck_assert_msg(fabs((double)seen[i] - out[i]) <= 1e-5 * most,
                      "%s [%u]: seen %g, computed %g", what, i,
                      (double)seen[i], out[i]);
    }
}

/* One token of a layer from its residual x on; attention's output is taken as
 * seen, everything else is computed and compared. */
static void check_layer(const struct tlr_model *m, int l, double *x,
                        const struct rows *rows, int t)
{
    const struct tlr_config *c = tlr_model_config(m);
    const float(*seen)[N_OBSERVED][256] = rows->x[l];
    double in[256], gate[256] = {0}, up[256] = {0}, most = 0;
    uint32_t q_dim = c->n_heads * c->head_dim;
    check_norm(in, c, x, weights(m, l, "attn_norm"), seen[TLR_INPUT_QKV][t],
               "q, k, v");
    for (uint32_t i = 0; i < q_dim; i++) {
        in[i] = (double)seen[TLR_INPUT_O][t][i];
    }
    add_product(x, weights(m, l, "o"), in, c->dim, q_dim);
    check_norm(in, c, x, weights(m, l, "ffn_norm"), seen[TLR_INPUT_GATE_UP][t],
               "gate, up");
    add_product(gate, weights(m, l, "gate"), in, c->ffn_dim, c->dim);
    add_product(up, weights(m, l, "up"), in, c->ffn_dim, c->dim);
    for (uint32_t i = 0; i < c->ffn_dim; i++) {
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        most = fmax(most, fabs(gate[i]));
    }
    for (uint32_t i = 0; i < c->ffn_dim; i++) {
        double e = fabs((double)seen[TLR_INPUT_DOWN][t][i] - gate[i]);
        ck_assert_msg(e <= 1e-5 * most, "down [%u]: off by %g of %g", i, e,
                      most);
    }
    add_product(x, weights(m, l, "down"), gate, c->dim, c->ffn_dim);
}

START_TEST(observed_inputs_are_the_models)
{
    static struct rows rows;
    struct tlr_model *m = random_model("tiny-qwen2", TLR_F32);
    const struct tlr_config *c = tlr_model_config(m);
    ck_assert(c->n_layers == MAX_LAYERS && c->ffn_dim <= 256 && c->dim <= 256);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = 32});
    int32_t ids[N_OBSERVED];
    golden_ids(m, ids, N_OBSERVED);
    MUST(tlr_session_observe(s, look_at_all, &rows, &must_err));
    MUST(tlr_prefill(s, ids, N_OBSERVED, 0, &must_err));
    for (int t = 0; t < N_OBSERVED; t++) {
        double x[256], head[256];
        const float *embed = weights(m, -1, "embed") + (size_t)ids[t] * c->dim;
        for (uint32_t i = 0; i < c->dim; i++) {
            x[i] = (double)embed[i];
        }
        for (int l = 0; l < MAX_LAYERS; l++) {
            check_layer(m, l, x, &rows, t);
        }
        check_norm(head, c, x, weights(m, -1, "final_norm"),
                   rows.x[MAX_LAYERS][TLR_INPUT_HEAD][t], "head");
    }
    tlr_session_free(s);
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
    tcase_add_test(tc, observed_inputs_are_the_models);
    suite_add_tcase(s, tc);
    return s;
}
