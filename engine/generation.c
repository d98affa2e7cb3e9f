/* generation.c - sampling defaults as JSON, and the ranges they are held to. */
#include "engine/generation.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "engine/json.h"

enum { MAX_JSON_BYTES = 64 * 1024 };

void tlr_generation_default(struct tlr_generation *g)
{
    memset(g, 0, sizeof *g);
    g->top_p = 1.0f;
    g->repeat_penalty = 1.0f;
}

int tlr_generation_is_eos(const struct tlr_generation *g, int32_t id)
{
    for (int i = 0; i < g->n_eos; i++) {
        if (g->eos[i] == id) {
            return 1;
        }
    }
    return 0;
}

int tlr_generation_to_json(const struct tlr_generation *g, char **out,
                           size_t *out_len, struct tlr_err *err)
{
    json_t *eos = json_array();
    for (int i = 0; i < g->n_eos; i++) {
        json_array_append_new(eos, json_integer(g->eos[i]));
    }
    json_t *o = json_pack(
        "{s:f, s:i, s:f, s:f, s:f, s:o}", "temperature",
        (double)g->temperature, "top_k", g->top_k, "top_p", (double)g->top_p,
        "min_p", (double)g->min_p, "repeat_penalty", (double)g->repeat_penalty,
        "eos", eos);
    int rc = tlr_json_dump(o, out, out_len, err);
    json_decref(o);
    return rc;
}

/* A number in [low, high], or in (low, high] when low is open.  A value that
 * only rounds into the range as a float is refused. */
static int read_number(const json_t *o, const char *key, double low,
                       double high, bool low_open, float *out,
                       const char *where, struct tlr_err *err)
{
    const json_t *value = json_object_get(o, key);
    if (!value) {
        return 0;
    }
    if (!json_is_number(value)) {
        return tlr_json_wrong(value, key, "a number", where, err);
    }
    double x = json_number_value(value);
    float rounded = (float)x;
    if (!isfinite(x) || x < low || x > high || (low_open && rounded <= low)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s: expected %s %g and up to %g, found %g; set "
                           "it by an option instead",
                           where, key, low_open ? "above" : "from", low, high,
                           x);
    }
    *out = rounded;
    return 0;
}

static int read_integer(const json_t *value, const char *key, long long high,
                        int32_t *out, const char *where, struct tlr_err *err)
{
    if (!json_is_integer(value)) {
        return tlr_json_wrong(value, key, "an integer", where, err);
    }
    json_int_t x = json_integer_value(value);
    if (x < 0 || x > high) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s: expected 0..%lld, found %lld; the file is "
                           "of another model or damaged",
                           where, key, high, (long long)x);
    }
    *out = (int32_t)x;
    return 0;
}

static int read_eos(struct tlr_generation *g, const json_t *o, uint32_t n_vocab,
                    const char *where, struct tlr_err *err)
{
    const json_t *list = json_object_get(o, "eos");
    if (!list) {
        return 0;
    }
    if (!json_is_array(list)) {
        return tlr_json_wrong(list, "eos", "an array", where, err);
    }
    size_t n = json_array_size(list);
    if (n > TLR_MAX_EOS) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: eos: expected at most %d ids, found %zu; "
                           "convert the model again",
                           where, TLR_MAX_EOS, n);
    }
    for (size_t i = 0; i < n; i++) {
        int rc = read_integer(json_array_get(list, i), "eos",
                              (long long)n_vocab - 1, &g->eos[i], where, err);
        if (rc) {
            return rc;
        }
    }
    g->n_eos = (int)n;
    return 0;
}

int tlr_generation_from_json(struct tlr_generation *g, struct tlr_bytes json,
                             uint32_t n_vocab, const char *where,
                             struct tlr_err *err)
{
    static const char *const known[] = {"temperature", "top_k", "top_p",
                                        "min_p",       "repeat_penalty",
                                        "eos",         NULL};
    /* The largest value below 1 that is below 1 as a float too. */
    static const double below_one = 1.0 - 1.0 / (1 << 24);
    tlr_generation_default(g);
    json_t *o;
    int rc = tlr_json_object(&o, json, MAX_JSON_BYTES, where, err);
    if (rc) {
        return rc;
    }
    const json_t *top_k = json_object_get(o, "top_k");
    int32_t k = 0;
    if ((rc = tlr_json_check_keys(o, known, where, err)) ||
        (rc = read_number(o, "temperature", 0, 100, false, &g->temperature,
                          where, err)) ||
        (rc = top_k ? read_integer(top_k, "top_k", INT32_MAX, &k, where, err)
                    : 0) ||
        (rc = read_number(o, "top_p", 0, 1, true, &g->top_p, where, err)) ||
        (rc = read_number(o, "min_p", 0, below_one, false, &g->min_p, where,
                          err)) ||
        (rc = read_number(o, "repeat_penalty", 0, 10, true, &g->repeat_penalty,
                          where, err)) ||
        (rc = read_eos(g, o, n_vocab, where, err))) {
        json_decref(o);
        return rc;
    }
    g->top_k = k;
    json_decref(o);
    return 0;
}
