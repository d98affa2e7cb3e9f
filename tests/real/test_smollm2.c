/* test_smollm2.c - SmolLM2-135M-Instruct against Hugging Face transformers.
 *
 * Goldens (tests/golden/smollm2, made by make.py there) are greedy ids, top-2
 * gaps and a perplexity that transformers computes in f32 from the same GGUF.
 * Needs models/smollm2-135m-instruct.gguf, which `make test` fetches.
 *
 * Two conversions are held to the same ids: f32, and the lossless carry-over
 * of the source's 4- and 8-bit blocks, whose values are the same numbers.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/convert.h"
#include "engine/sampler.h"
#include "engine/tlr.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

#define GOLDEN "tests/golden/smollm2/"
#define GGUF "smollm2-135m-instruct.gguf"

enum { KEEP_SOURCE_TYPES = -1 };

/* Converts the GGUF once per type into the tests' folder; NULL: no GGUF. */
static struct tlr_model *open_converted(int type)
{
    const char *gguf = tlr_test_model(GGUF);
    if (!gguf) {
        return NULL;
    }
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source = NULL;
    struct tlr_convert_options options = {.type = type};
    struct tlr_convert_report report;
    char path[512];
    snprintf(path, sizeof path, "%s/smollm2-%d.bin", tlr_test_tmpdir(), type);
    ck_assert_msg(!tlr_source_open(&source, gguf, &err), "%s", err.text);
    ck_assert_msg(!tlr_convert(source, path, &options, &report, &err), "%s",
                  err.text);
    tlr_source_close(source);
    if (type == KEEP_SOURCE_TYPES) {
        ck_assert_uint_eq(report.n_rounded, 0);
        ck_assert_uint_eq(report.n_by_type[TLR_Q4M], 210);
        ck_assert_uint_eq(report.n_by_type[TLR_Q8P], 1);
    }
    struct tlr_model *model = NULL;
    ck_assert_msg(!tlr_model_open(&model, path, &err), "%s", err.text);
    remove(path);
    return model;
}

static struct tlr_session *new_session(struct tlr_model *model, int kv,
                                       int act)
{
    struct tlr_session_options options = {.n_ctx = 1024,
                                          .cpu_level =
                                              (int)tlr_test_cpu_level(),
                                          .kv = (enum tlr_kv_type)kv,
                                          .act = (enum tlr_act)act};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *session = NULL;
    ck_assert_msg(!tlr_session_new(&session, model, &options, &err), "%s",
                  err.text);
    return session;
}

static json_t *load_golden(const char *name)
{
    char path[256];
    json_error_t error;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(root != NULL, "%s: %s", path, error.text);
    return root;
}

static double number_at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

static void encode_prompt(const struct tlr_model *model, const json_t *run,
                          struct tlr_ids *ids)
{
    struct tlr_err err = TLR_ERR_INIT;
    const json_t *expected = json_object_get(run, "prompt_ids");
    const char *prompt = json_string_value(json_object_get(run, "prompt"));
    ck_assert_msg(!tlr_encode(tlr_model_tokenizer(model), prompt,
                              strlen(prompt), TLR_ENCODE_SPECIAL, ids, &err),
                  "%s", err.text);
    ck_assert_uint_eq(ids->n, json_array_size(expected));
    for (size_t i = 0; i < ids->n; i++) {
        ck_assert_int_eq(ids->ids[i], (int)number_at(expected, i));
    }
}

/* What following the golden runs found. */
struct found {
    size_t n, n_equal;
    double worst;     /* largest error of a top logit */
    double worst_gap; /* largest top-2 gap where another id won */
};

/* Every step is given the golden id before it, so one difference is one. */
static void follow(struct tlr_session *session, const struct tlr_model *model,
                   const json_t *run, struct found *f)
{
    const json_t *ids = json_object_get(run, "ids");
    const json_t *gaps = json_object_get(run, "gaps");
    const json_t *tops = json_object_get(run, "max_logits");
    struct tlr_ids prompt = {0};
    struct tlr_err err = TLR_ERR_INIT;
    encode_prompt(model, run, &prompt);
    ck_assert_int_eq(tlr_rewind(session, 0, &err), 0);
    ck_assert_msg(!tlr_prefill(session, prompt.ids, prompt.n, TLR_STEP_LOGITS,
                               &err),
                  "%s", err.text);
    tlr_ids_clear(&prompt);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const float *logits = tlr_logits(session);
        int32_t id = (int32_t)number_at(ids, i);
        bool equal = tlr_argmax(logits, tlr_model_n_ids(model)) == id;
        double error = fabs((double)logits[id] - number_at(tops, i));
        double gap = equal ? 0 : number_at(gaps, i);
        f->n++;
        f->n_equal += equal;
        f->worst = error > f->worst ? error : f->worst;
        f->worst_gap = gap > f->worst_gap ? gap : f->worst_gap;
        ck_assert_msg(!tlr_decode(session, id, TLR_STEP_LOGITS, &err), "%s",
                      err.text);
    }
}

/* At least n_equal of the 640 ids, top logits (about 20) within `error`, and no
 * other id chosen where the best was ahead by more than `gap`. */
static void check_greedy(int type, int kv, int act, size_t n_equal,
                         double error, double gap)
{
    struct tlr_model *model = open_converted(type);
    if (!model) {
        TLR_SKIP("models/" GGUF " is not there");
    }
    struct tlr_session *session = new_session(model, kv, act);
    json_t *root = load_golden("greedy.json");
    const json_t *runs = json_object_get(root, "runs");
    size_t n_runs = json_array_size(runs);
    struct found f = {0};
    ck_assert_uint_eq(n_runs, 10);
    for (size_t i = 0; i < n_runs; i++) {
        follow(session, model, json_array_get(runs, i), &f);
    }
    printf("smollm2 type %d, act %d: %zu of %zu greedy ids equal, largest error "
           "of a top logit %.2g, largest gap of another id %.2g\n",
           type, act, f.n_equal, f.n, f.worst, f.worst_gap);
    ck_assert_uint_eq(f.n, 640);
    ck_assert_uint_ge(f.n_equal, n_equal);
    ck_assert_double_le(f.worst, error);
    ck_assert_double_le(f.worst_gap, gap);
    json_decref(root);
    tlr_session_free(session);
    tlr_model_close(model);
}

START_TEST(greedy_f32_equals_transformers)
{
    check_greedy(TLR_F32, TLR_KV_F32, TLR_ACT_AUTO, 640, 2e-3, 0);
}
END_TEST

/* 15 bits of activation are as good as f32. */
START_TEST(greedy_carried_over_equals_transformers)
{
    check_greedy(KEEP_SOURCE_TYPES, TLR_KV_F32, TLR_ACT_INT16, 640, 1e-2, 0);
}
END_TEST

/* 8 bits flip near ties only: 626 ids when this was written, none where the best
 * was ahead by more than 0.22; perplexity rises by 0.2 %. */
START_TEST(greedy_int8_is_near_transformers)
{
    check_greedy(KEEP_SOURCE_TYPES, TLR_KV_AUTO, TLR_ACT_INT8, 608, 2.0, 0.5);
}
END_TEST

struct score {
    const int32_t *ids;
    size_t n;
    uint32_t n_ids;
    double nll;
};

static int add_nll(void *ctx, size_t index, const float *hidden,
                   const float *logits)
{
    struct score *s = ctx;
    (void)hidden;
    if (index + 1 < s->n) {
        s->nll += tlr_log_sum_exp(logits, s->n_ids) -
                  (double)logits[s->ids[index + 1]];
    }
    return 0;
}

/* The definition in make.py: windows without overlap. */
static double text_perplexity(struct tlr_session *session,
                              const struct tlr_model *model,
                              const struct tlr_ids *ids, size_t window)
{
    struct tlr_err err = TLR_ERR_INIT;
    double nll = 0;
    size_t n_scored = 0;
    for (size_t at = 0; at + window <= ids->n; at += window) {
        struct score s = {ids->ids + at, window, tlr_model_n_ids(model), 0};
        ck_assert_int_eq(tlr_rewind(session, 0, &err), 0);
        ck_assert_msg(!tlr_prefill_each(session, s.ids, window, add_nll, &s,
                                        &err),
                      "%s", err.text);
        nll += s.nll;
        n_scored += window - 1;
    }
    return exp(nll / (double)n_scored);
}

START_TEST(perplexity_equals_transformers)
{
    struct tlr_model *model = open_converted(KEEP_SOURCE_TYPES);
    if (!model) {
        TLR_SKIP("models/" GGUF " is not there");
    }
    json_t *root = load_golden("perplexity.json");
    double expected = json_number_value(json_object_get(root, "perplexity"));
    size_t window =
        (size_t)json_integer_value(json_object_get(root, "window"));
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_ids ids = {0};
    char *text = NULL;
    size_t len = 0;
    ck_assert_msg(!tlr_read_file(&text, &len, GOLDEN "english.txt", 1 << 20,
                                 &err),
                  "%s", err.text);
    ck_assert_msg(!tlr_encode(tlr_model_tokenizer(model), text, len,
                              TLR_ENCODE_SPECIAL, &ids, &err),
                  "%s", err.text);
    ck_assert_uint_eq(ids.n, (size_t)json_integer_value(
                                 json_object_get(root, "n_text_tokens")));
    struct tlr_session *session = new_session(model, TLR_KV_AUTO, TLR_ACT_INT8);
    double found = text_perplexity(session, model, &ids, window);
    printf("smollm2 perplexity %.5f, transformers %.5f (%+.4f %%)\n", found,
           expected, 100 * (found / expected - 1));
    ck_assert_double_le(fabs(found / expected - 1), 0.005);
    tlr_session_free(session);
    tlr_ids_clear(&ids);
    tlr_free(text);
    json_decref(root);
    tlr_model_close(model);
}
END_TEST

Suite *suite_smollm2(void);

Suite *suite_smollm2(void)
{
    Suite *suite = suite_create("smollm2");
    TCase *tcase = tcase_create("against transformers");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, greedy_f32_equals_transformers);
    tcase_add_test(tcase, greedy_carried_over_equals_transformers);
    tcase_add_test(tcase, greedy_int8_is_near_transformers);
    tcase_add_test(tcase, perplexity_equals_transformers);
    suite_add_tcase(suite, tcase);
    return suite;
}
