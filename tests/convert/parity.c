/* parity.c - see parity.h. */
#include "tests/convert/parity.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/convert.h"
#include "convert/lora.h"
#include "engine/tlr.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

struct golden {
    json_t *root;
    double worst; /* largest difference / largest logit */
    int n_compared;
};

static int compare_logits(void *ctx, size_t index, const float *hidden,
                          const float *logits)
{
    (void)hidden;
    struct golden *g = ctx;
    char key[24];
    snprintf(key, sizeof key, "%zu", index);
    const json_t *list = json_object_get(json_object_get(g->root, "logits"), key);
    if (!list) {
        return 0;
    }
    double largest = 0.0, diff = 0.0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        double expected = json_number_value(json_array_get(list, i));
        largest = fmax(largest, fabs(expected));
        diff = fmax(diff, fabs(expected - (double)logits[i]));
    }
    g->worst = fmax(g->worst, diff / largest);
    g->n_compared++;
    return 0;
}

void convert_to(const char *from, const char *lora, const char *to, int type)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *source;
    struct tlr_convert_options options = {.type = type};
    ck_assert_msg(tlr_source_open(&source, from, &err) == 0, "%s", err.text);
    ck_assert_msg(!lora || tlr_source_add_lora(&source, lora, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(tlr_convert(source, to, &options, NULL, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(tlr_convert_verify(source, to, &options, &err) == 0, "%s",
                  err.text);
    tlr_source_close(source);
}

double logits_apart(const char *bin, const char *expected)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct golden g = {0};
    g.root = json_load_file(expected, 0, NULL);
    ck_assert_ptr_nonnull(g.root);
    struct tlr_model *model;
    ck_assert_msg(tlr_model_open(&model, bin, &err) == 0, "%s", err.text);
    const char *text = json_string_value(json_object_get(g.root, "text"));
    const json_t *ids = json_object_get(g.root, "ids");
    struct tlr_ids found = {0};
    ck_assert_int_eq(tlr_encode(tlr_model_tokenizer(model), text, strlen(text),
                                TLR_ENCODE_BOS, &found, &err), 0);
    ck_assert_uint_eq(found.n, json_array_size(ids));
    for (size_t i = 0; i < found.n; i++) {
        ck_assert_int_eq(found.ids[i],
                         json_integer_value(json_array_get(ids, i)));
    }
    struct tlr_session_options o = {.cpu_level = (int)tlr_test_cpu_level()};
    struct tlr_session *session;
    ck_assert_msg(tlr_session_new(&session, model, &o, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(tlr_prefill_each(session, found.ids, found.n, compare_logits,
                                   &g, &err) == 0, "%s", err.text);
    ck_assert_int_eq(g.n_compared, 2);
    tlr_ids_clear(&found);
    tlr_session_free(session);
    tlr_model_close(model);
    json_decref(g.root);
    return g.worst;
}
