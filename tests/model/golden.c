/* golden.c - reads the goldens and compares with them. */
#include "tests/model/golden.h"

#include <jansson.h>
#include <stdio.h>

#include "tests/model/models.h"

static int read_array(const json_t *o, const char *key, double *out)
{
    const json_t *a = json_object_get(o, key);
    size_t n = json_array_size(a);
    ck_assert_msg(n > 0 && n <= GOLDEN_MAX_SAMPLES, "golden %s", key);
    for (size_t i = 0; i < n; i++) {
        out[i] = json_number_value(json_array_get(a, i));
    }
    return (int)n;
}

static int read_ints(const json_t *o, const char *key, int32_t *out)
{
    double x[GOLDEN_MAX_SAMPLES];
    int n = read_array(o, key, x);
    for (int i = 0; i < n; i++) {
        out[i] = (int32_t)x[i];
    }
    return n;
}

void golden_read(const char *name, struct golden_sample out[GOLDEN_POSITIONS])
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/hf/%s.json", name);
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    ck_assert_msg(root != NULL, "%s: %s", path, error.text);
    json_t *positions = json_object_get(root, "positions");
    ck_assert_uint_eq(json_array_size(positions), GOLDEN_POSITIONS);
    for (int i = 0; i < GOLDEN_POSITIONS; i++) {
        const json_t *p = json_array_get(positions, (size_t)i);
        struct golden_sample *g = &out[i];
        g->n = (uint32_t)json_integer_value(json_object_get(p, "n"));
        g->max_abs = json_number_value(json_object_get(p, "max_abs"));
        g->argmax = (int32_t)json_integer_value(json_object_get(p, "argmax"));
        g->n_logits = read_ints(p, "ids", g->ids);
        ck_assert_int_eq(read_array(p, "logits", g->logits), g->n_logits);
        g->n_hidden = read_ints(p, "at", g->at);
        ck_assert_int_eq(read_array(p, "hidden", g->hidden), g->n_hidden);
        ck_assert(g->max_abs > 0.0);
    }
    json_decref(root);
}

double golden_compare(const struct golden_sample *g, const float *logits,
                      const float *hidden, double tolerance, const char *what)
{
    double worst = 0.0, widest = 0.0;
    for (int i = 0; i < g->n_logits; i++) {
        double e = fabs((double)logits[g->ids[i]] - g->logits[i]) / g->max_abs;
        ck_assert_msg(e <= tolerance, "%s, position %u: logit %d: %.9g, not %.9g",
                      what, (unsigned)g->n, (int)g->ids[i],
                      (double)logits[g->ids[i]], g->logits[i]);
        worst = fmax(worst, e);
    }
    double top = fabs((double)logits[g->argmax]);
    ck_assert_msg(top <= g->max_abs * (1.0 + tolerance), "%s: argmax", what);
    for (int i = 0; i < g->n_hidden; i++) {
        widest = fmax(widest, fabs(g->hidden[i]));
    }
    for (int i = 0; i < g->n_hidden; i++) {
        double e = fabs((double)hidden[g->at[i]] - g->hidden[i]) / widest;
        ck_assert_msg(e <= 2.0 * tolerance,
                      "%s, position %u: hidden %d: %.9g, not %.9g",
                      what, (unsigned)g->n, (int)g->at[i],
                      (double)hidden[g->at[i]], g->hidden[i]);
    }
    return worst;
}
