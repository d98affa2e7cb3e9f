/* test_label.c - labels of real questions against Hugging Face transformers.
 *
 * tests/golden/smollm2/label.json (make_label.py there) has ids, likeliest
 * tokens, probabilities and entropies in f32 from the GGUF whose blocks the model
 * file carries.  The same model is the large one, so it is right where the small
 * one is.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "router/label.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

static void must(int rc, const struct tlr_err *err)
{
    ck_assert_msg(rc == 0, "%s: %s", tlr_err_name(rc), err->text);
}

static double number_at(const json_t *object, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(object, key), i));
}

/* The golden's questions as a file of JSON lines, read back. */
static void read_items(const json_t *golden, struct tlr_items *items)
{
    struct tlr_err err = TLR_ERR_INIT;
    char path[600];
    snprintf(path, sizeof path, "%s/label.jsonl", tlr_test_tmpdir());
    FILE *f = fopen(path, "w");
    ck_assert(f != NULL);
    for (size_t i = 0; i < json_array_size(golden); i++) {
        json_dumpf(json_object_get(json_array_get(golden, i), "item"), f,
                   JSON_COMPACT);
        fputc('\n', f);
    }
    fclose(f);
    must(tlr_items_read(items, TLR_TASK_CSQA, path, 0, &err), &err);
    ck_assert_uint_eq(items->n, json_array_size(golden));
}

struct found {
    size_t n, n_keep, n_completed;
    double worst_gap, worst_p, worst_entropy;
};

static void compare(const struct tlr_labeller *l, const json_t *want,
                    const struct tlr_label_rows *rows, struct found *f)
{
    size_t n_ids = json_array_size(json_object_get(want, "ids"));
    size_t n_prompt =
        (size_t)json_integer_value(json_object_get(want, "n_prompt"));
    ck_assert_uint_eq(l->ids.n, n_ids);
    ck_assert_uint_eq(l->n_prompt, n_prompt);
    ck_assert_uint_eq(rows->n, n_ids - n_prompt);
    for (size_t i = 0; i < n_ids; i++) {
        ck_assert_int_eq(l->ids.ids[i], (int)number_at(want, "ids", i));
    }
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct tlr_row *row = &rows->rows[i];
        double gap = number_at(want, "gap", i);
        double p = fabs((double)row->p_slm - number_at(want, "p", i));
        double entropy = fabs((double)row->signals.entropy -
                              number_at(want, "entropy", i));
        if (row->slm != (int)number_at(want, "slm", i) && gap > f->worst_gap) {
            f->worst_gap = gap;
        }
        f->worst_p = p > f->worst_p ? p : f->worst_p;
        f->worst_entropy =
            entropy > f->worst_entropy ? entropy : f->worst_entropy;
        ck_assert_int_eq(row->llm, row->slm);
        ck_assert_double_eq_tol((double)row->p_llm, (double)row->p_slm, 1e-6);
        ck_assert_int_ne(row->what, TLR_CASE_LLM_RIGHT);
        ck_assert_int_eq(row->what == TLR_CASE_SLM_RIGHT,
                         row->slm == row->gold);
        f->n++;
        f->n_keep += row->what == TLR_CASE_SLM_RIGHT;
        f->n_completed += row->what == TLR_CASE_OUTCOME;
    }
}

START_TEST(labels_stand_on_transformers_numbers)
{
    const char *path = tlr_test_model("smollm2-135m-instruct.bin");
    if (!path) {
        TLR_SKIP("no models/smollm2-135m-instruct.bin (make demo)");
    }
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session_options o = {.cpu_level = (int)tlr_test_cpu_level(),
                                    .n_ctx = 512};
    struct tlr_label_options options = {.path = "label.jsonl",
                                        .task = TLR_TASK_CSQA,
                                        .n_completions = 1,
                                        .completion_tok = 8};
    struct tlr_model *m = NULL;
    struct tlr_expert expert = {0};
    struct tlr_labeller l = {.options = &options, .expert = &expert};
    struct tlr_label_rows rows = {0};
    struct tlr_items items;
    struct found f = {0};
    json_t *golden = json_load_file("tests/golden/smollm2/label.json", 0, NULL);
    ck_assert(golden != NULL);
    read_items(golden, &items);
    must(tlr_model_open(&m, path, &err), &err);
    l.slm = m;
    must(tlr_session_new(&l.session, m, &o, &err), &err);
    must(tlr_expert_open_model(&expert, m, m, &o, &err), &err);
    for (uint32_t g = 0; g < items.n; g++) {
        must(tlr_label_item(&l, &items.items[g], g, &rows, &err), &err);
        compare(&l, json_array_get(golden, g), &rows, &f);
    }
    printf("labels: %zu rows, %zu right, other tokens up to a gap of %.4f, "
           "p within %.5f, entropy within %.4f\n",
           f.n, f.n_keep, f.worst_gap, f.worst_p, f.worst_entropy);
    ck_assert_uint_eq(f.n_completed, items.n);
    ck_assert_uint_gt(f.n_keep, f.n / 3);
    ck_assert_double_le(f.worst_gap, 0.01);
    ck_assert_double_le(f.worst_p, 0.004);
    ck_assert_double_le(f.worst_entropy, 0.012);
    json_decref(golden);
    tlr_label_rows_clear(&rows);
    tlr_items_clear(&items);
    tlr_expert_close(&expert);
    tlr_session_free(l.session);
    tlr_labeller_clear(&l);
    tlr_model_close(m);
}
END_TEST

Suite *suite_label(void);

Suite *suite_label(void)
{
    Suite *s = suite_create("label");
    TCase *t = tcase_create("label");
    tcase_set_timeout(t, 600);
    tcase_add_test(t, labels_stand_on_transformers_numbers);
    suite_add_tcase(s, t);
    return s;
}
