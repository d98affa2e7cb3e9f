/* test_act.c - what rounding a matrix's input to int8 or int16 does to a model.
 *
 * The reference is the engine in f32 on the very values that the tiles hold, and
 * for the head alone a sum in double over the hidden state that the session
 * shows.  A hidden state with one massive channel is the known bad case for
 * int8: the channel sets the scale of its 32 columns, and the other 31 drown.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/model/models.h"

enum { N_TOK = 48, N_TILED = TLR_N_TYPES - TLR_Q8 };

/* Hidden states and logits of every token of a prefill. */
struct trace {
    uint32_t dim, n_vocab;
    float *hidden, *logits;
};

static int keep(void *ctx, size_t i, const float *hidden, const float *logits)
{
    struct trace *t = ctx;
    memcpy(t->hidden + i * t->dim, hidden, t->dim * sizeof *hidden);
    memcpy(t->logits + i * t->n_vocab, logits, t->n_vocab * sizeof *logits);
    return 0;
}

static struct trace run(const struct tlr_model *m, enum tlr_act act, size_t n)
{
    const struct tlr_config *c = tlr_model_config(m);
    struct trace t = {c->dim, c->n_vocab, calloc(n * c->dim, sizeof(float)),
                      calloc(n * c->n_vocab, sizeof(float))};
    int32_t *ids = calloc(n, sizeof *ids);
    ck_assert(t.hidden && t.logits && ids);
    golden_ids(m, ids, n);
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){.n_ctx = (uint32_t)n, .n_threads = 2,
                                        .kv = TLR_KV_F32, .act = act});
    MUST(tlr_prefill_each(s, ids, n, keep, &t, &must_err));
    tlr_session_free(s);
    free(ids);
    return t;
}

static void trace_free(struct trace *t)
{
    free(t->hidden);
    free(t->logits);
}

/* Largest error of a token's logits over its largest logit: of the worst token
 * and the mean of all. */
struct error {
    double worst, mean;
};

static struct error error_of(const struct trace *a, const struct trace *b)
{
    struct error out = {0, 0};
    for (size_t i = 0; i < N_TOK; i++) {
        double e = relative_error(a->logits + i * a->n_vocab,
                                  b->logits + i * b->n_vocab, a->n_vocab);
        out.worst = fmax(out.worst, e);
        out.mean += e / N_TOK;
    }
    return out;
}

/* Errors of both modes against f32 on the same values. */
static void errors(const char *name, struct model_recipe recipe,
                   struct error *int8, struct error *int16)
{
    recipe.values = recipe.type;
    struct tlr_model *tiled = recipe_model(name, &recipe);
    recipe.type = TLR_F32;
    struct tlr_model *plain = recipe_model(name, &recipe);
    struct trace f32 = run(plain, TLR_ACT_AUTO, N_TOK);
    struct trace a8 = run(tiled, TLR_ACT_INT8, N_TOK);
    struct trace a16 = run(tiled, TLR_ACT_INT16, N_TOK);
    *int8 = error_of(&a8, &f32);
    *int16 = error_of(&a16, &f32);
    trace_free(&f32);
    trace_free(&a8);
    trace_free(&a16);
    tlr_model_close(tiled);
    tlr_model_close(plain);
}

/* The largest of 32 normal numbers is near 2.2, so an int16 step is near
 * 2.2 / 127 / 253 and its rounding 2e-5 of a number: of a sum as well, since the
 * errors are independent, and about three times that after two layers.  The
 * worst of 320 logits is off by four deviations, the largest logit is three of
 * its own.  An int8 step is 253 times as long. */
START_TEST(int16_is_f32_and_int8_is_near)
{
    enum tlr_type type = (enum tlr_type)(TLR_Q8 + _i);
    struct error int8, int16;
    errors("tiny-qwen2", (struct model_recipe){.type = type}, &int8, &int16);
    printf("act: %s: of max |logit|, worst and mean: int8 %.2g %.2g, int16 "
           "%.2g %.2g\n", tlr_type_name(type), int8.worst, int8.mean,
           int16.worst, int16.mean);
    ck_assert_msg(int16.mean <= 1e-4, "int16: mean error %g", int16.mean);
    ck_assert_msg(int16.worst <= 2e-4, "int16: error %g", int16.worst);
    ck_assert_msg(int8.mean <= 253e-4, "int8: mean error %g", int8.mean);
    ck_assert_msg(int8.worst <= 2 * 253e-4, "int8: error %g", int8.worst);
    ck_assert_msg(int8.mean > 30 * int16.mean, "int8 %g, int16 %g", int8.mean,
                  int16.mean);
}
END_TEST

/* ---- the head alone ---- */

/* Product of a row with x in double; *bound of what the modes may add: half a
 * step of each input (an int16 step is at most 1/253 of an int8 one), and the
 * roundings of kernels.h. */
static double head_row(const struct tlr_tensor *w, uint32_t row, const float *x,
                       enum tlr_act act, double *bound)
{
    float values[1024];
    ck_assert_uint_le(w->n_cols, 1024);
    tlr_row_decode(w->type, values, w->data, row, (int)w->n_cols);
    double sum = 0, size = 0, steps = 0;
    for (uint32_t b = 0; b < w->n_cols; b += 32) {
        double weights = 0, most = 0;
        for (uint32_t c = b; c < b + 32; c++) {
            double v = (double)values[c], in = (double)x[c];
            sum += v * in;
            weights += fabs(v);
            most = fmax(most, fabs(in));
        }
        steps += most / 127 * (0.5 + 127 * 0x1p-22) * weights;
        size += most * weights;
    }
    double roundings = (w->n_cols / 16 + 4) * 0x1p-24 * size;
    *bound = (act == TLR_ACT_INT8 ? steps : steps / 253) + roundings;
    return sum;
}

static const struct tlr_tensor *head_of(const struct tlr_model *m)
{
    const struct tlr_file *f = tlr_model_file(m);
    const struct tlr_tensor *w = tlr_file_tensor(f, "head");
    ck_assert(w != NULL);
    return w;
}

START_TEST(head_is_within_its_bound)
{
    enum tlr_type type = (enum tlr_type)(TLR_Q8 + _i);
    struct tlr_model *m = random_model("tiny-qwen2", type);
    const struct tlr_tensor *w = head_of(m);
    double largest[2] = {0, 0}, size = 0;
    for (enum tlr_act act = TLR_ACT_INT8; act <= TLR_ACT_INT16; act++) {
        struct trace t = run(m, act, 9);
        for (uint32_t i = 0; i < 9 * t.n_vocab; i++) {
            double bound, got = (double)t.logits[i];
            double want = head_row(w, i % t.n_vocab,
                                   t.hidden + i / t.n_vocab * t.dim, act,
                                   &bound);
            ck_assert_msg(fabs(got - want) <= bound,
                          "%s act %d logit %u: expected %.9g, found %.9g, "
                          "bound %.3g", tlr_type_name(type), (int)act, i, want,
                          got, bound);
            largest[act - TLR_ACT_INT8] =
                fmax(largest[act - TLR_ACT_INT8], bound);
            size = fmax(size, fabs(want));
        }
        trace_free(&t);
    }
    ck_assert_double_lt(largest[0], 0.1 * size); /* else it proves nothing */
    ck_assert_double_lt(largest[1], 1e-3 * size);
    tlr_model_close(m);
}
END_TEST

/* ---- a massive channel ---- */

enum { HOT = 40, SMALL = 45, FIRST = 10, SECOND = 11, MASSIVE_TOK = 200 };

static void wide(struct tlr_config *config)
{
    config->dim = 896; /* 26 x rms needs more than 26^2 channels */
}

/* Channel HOT of every embedding outweighs the rest. */
static void massive_embed(float *rows, uint32_t first, uint32_t n,
                          uint32_t n_cols)
{
    (void)first;
    for (uint32_t r = 0; r < n; r++) {
        for (uint32_t c = 0; c < n_cols; c++)
            rows[r * n_cols + c] *= 30;
        rows[r * n_cols + HOT] = 94;
    }
}

/* Rows FIRST and SECOND win everywhere and differ only in a small channel. */
static void near_tie(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    if (first > FIRST || first + n <= SECOND)
        return;
    float *a = rows + (FIRST - first) * n_cols, *b = a + n_cols;
    a[HOT] = 0.5f;
    a[SMALL] = 0;
    memcpy(b, a, n_cols * sizeof *a);
    b[SMALL] = 8 * 0.5f / 127;
}

static uint32_t best_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* How often the greedy choice is not that of the exact product, over the tokens
 * whose small channel is not too small for 15 bits; *error of the two rows. */
static int flips(const struct tlr_model *m, enum tlr_act act, double *error)
{
    struct trace t = run(m, act, MASSIVE_TOK);
    const struct tlr_tensor *w = head_of(m);
    int n = 0;
    *error = 0;
    for (size_t i = 0; i < MASSIVE_TOK; i++) {
        const float *x = t.hidden + i * t.dim, *y = t.logits + i * t.n_vocab;
        double squares = 0, bound;
        for (uint32_t c = 0; c < t.dim; c++)
            squares += (double)x[c] * (double)x[c];
        double ratio = (double)x[HOT] / sqrt(squares / t.dim);
        ck_assert_msg(ratio > 24 && ratio < 28, "%.3g times rms", ratio);
        double first = head_row(w, FIRST, x, act, &bound);
        double second = head_row(w, SECOND, x, act, &bound);
        *error = fmax(*error, fabs((double)y[FIRST] - first));
        *error = fmax(*error, fabs((double)y[SECOND] - second));
        if (fabsf(x[SMALL]) < 1e-3f * x[HOT] / 13)
            continue;
        n += best_of(y, t.n_vocab) != (second > first ? SECOND : FIRST);
    }
    trace_free(&t);
    return n;
}

START_TEST(massive_channel_needs_int16)
{
    struct model_recipe recipe = {.type = TLR_Q8, .shape = wide,
                                  .edits = {{"embed", massive_embed},
                                            {"head", near_tie}}};
    struct tlr_model *m = recipe_model("tiny-qwen2", &recipe);
    double error8, error16;
    struct error int8, int16;
    int flips8 = flips(m, TLR_ACT_INT8, &error8);
    int flips16 = flips(m, TLR_ACT_INT16, &error16);
    tlr_model_close(m);
    errors("tiny-qwen2", recipe, &int8, &int16);
    printf("act: massive channel: int8 flips %d of %d, head error %.2g, model "
           "error %.2g; int16 %d, %.2g, %.2g\n", flips8, MASSIVE_TOK, error8,
           int8.worst, flips16, error16, int16.worst);
    ck_assert_int_ge(flips8, 3);
    ck_assert_int_eq(flips16, 0);
    ck_assert_msg(error8 > 30 * error16, "%g, %g", error8, error16);
    ck_assert_msg(int8.worst > 30 * int16.worst, "%g, %g", int8.worst,
                  int16.worst);
}
END_TEST

/* ---- company ---- */

/* Every token of a prefill of any size has the bits that it has in decode, when
 * the model is wider than one piece of rounding too. */
START_TEST(a_token_keeps_its_bits_in_company)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 40};
    struct model_recipe recipe = {.type = (enum tlr_type)(TLR_Q8 + _i % N_TILED),
                                  .shape = _i < N_TILED ? NULL : wide};
    struct tlr_model *m = recipe_model("tiny-qwen2", &recipe);
    for (enum tlr_act act = TLR_ACT_INT8; act <= TLR_ACT_INT16; act++) {
        int32_t ids[40];
        golden_ids(m, ids, 40);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct tlr_session *s = new_session(
                m, (struct tlr_session_options){.n_ctx = 40, .n_threads = 1,
                                                .kv = TLR_KV_F32, .act = act});
            struct trace t = run(m, act, sizes[i]);
            for (size_t k = 0; k < sizes[i]; k++) {
                MUST(tlr_decode(s, ids[k], TLR_STEP_LOGITS, &must_err));
                ck_assert_mem_eq(t.hidden + k * t.dim, tlr_hidden(s),
                                 t.dim * sizeof(float));
                ck_assert_mem_eq(t.logits + k * t.n_vocab, tlr_logits(s),
                                 t.n_vocab * sizeof(float));
            }
            trace_free(&t);
            tlr_session_free(s);
        }
    }
    tlr_model_close(m);
}
END_TEST

Suite *suite_act(void);
Suite *suite_act(void)
{
    Suite *s = suite_create("act");
    TCase *tc = tcase_create("act");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, int16_is_f32_and_int8_is_near, 0, N_TILED);
    tcase_add_loop_test(tc, head_is_within_its_bound, 0, N_TILED);
    tcase_add_test(tc, massive_channel_needs_int16);
    tcase_add_loop_test(tc, a_token_keeps_its_bits_in_company, 0,
                        2 * N_TILED);
    suite_add_tcase(s, tc);
    return s;
}
