/* test_policy.c - signals and routers beside PyTorch's numbers (tests/golden/
 * router), and what policies refuse. */
#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "tests/router/rig.h"

static json_t *load(const char *name)
{
    char path[256];
    json_error_t error;
    snprintf(path, sizeof path, "tests/golden/router/%s", name);
    json_t *j = json_load_file(path, 0, &error);
    ck_assert_msg(j != NULL, "%s: %s", path, error.text);
    return j;
}

static double real(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    ck_assert_msg(json_is_number(v), "%s", key);
    return json_number_value(v);
}

static float *floats(const json_t *o, const char *key, size_t n)
{
    const json_t *a = json_object_get(o, key);
    float *x = tlr_calloc(n, sizeof *x);
    ck_assert(x != NULL);
    ck_assert_uint_eq(json_array_size(a), n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)json_number_value(json_array_get(a, i));
    return x;
}

static void near(double got, double want, double tolerance, const char *what)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%s: %.9g, not %.9g", what,
                  got, want);
}

/* ---- signals ---- */

START_TEST(signals_are_torchs)
{
    json_t *rows = load("signals.json");
    ck_assert_uint_eq(json_array_size(rows), 6);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        float *x = floats(row, "logits", 200), top[TLR_SIGNAL_TOP],
              f[TLR_N_FEATURES];
        float *gaps = floats(row, "gaps", TLR_SIGNAL_TOP);
        struct tlr_signals s;
        tlr_signals_of(x, 200, &s);
        near((double)s.entropy, real(row, "entropy"), 1e-6, "entropy");
        near((double)s.max_prob, real(row, "max_prob"), 1e-7, "max_prob");
        near((double)s.margin, real(row, "margin"), 1e-7, "margin");
        ck_assert_int_eq(s.best, (int)real(row, "best"));
        ck_assert(s.max_logit == x[s.best]);
        for (int k = 0; k < TLR_SIGNAL_TOP; k++)
            top[k] = x[s.best] - gaps[k];
        tlr_features(top, f);
        ck_assert(f[0] == x[s.best]);
        for (int k = 1; k < TLR_SIGNAL_TOP; k++)
            near((double)f[k], (double)gaps[k], 1e-5, "gap");
        near((double)f[16], real(row, "top_entropy"), 1e-5, "top entropy");
        near((double)f[17], real(row, "top_prob"), 1e-6, "top probability");
        tlr_free(x);
        tlr_free(gaps);
    }
    json_decref(rows);
}
END_TEST

START_TEST(signals_of_odd_logits)
{
    struct tlr_signals s;
    float x[4] = {1, 1, 1, 1};
    tlr_signals_of(x, 4, &s);
    near((double)s.entropy, log(4), 1e-6, "uniform entropy");
    near((double)s.margin, 0, 0, "uniform margin");
    ck_assert_int_eq(s.best, 0); /* the lowest of equals */
    x[2] = 3000;
    tlr_signals_of(x, 4, &s);
    ck_assert(s.entropy == 0 && s.max_prob == 1 && s.margin == 1);
    ck_assert_int_eq(s.best, 2);
    x[1] = -INFINITY; /* an id that cannot be */
    tlr_signals_of(x, 4, &s);
    ck_assert(s.entropy == 0 && s.best == 2);
    tlr_signals_of(x, 1, &s);
    ck_assert(s.entropy == 0 && s.margin == 1 && s.best == 0);
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        x[3] = bad[i];
        tlr_signals_of(x, 4, &s);
        ck_assert(isnan(s.entropy) && isnan(s.margin) && s.best == -1);
    }
}
END_TEST

/* ---- the network ---- */

/* The file's W1 is rounded to 8 bits: by at most half of a step, 1/127 of the
 * largest weight of a row, or of all rows for a feature's column.  The errors are
 * independent and uniform, so the logit's is theirs times what they pass; five of
 * its sigmas. */
static double tolerance(const struct tlr_router_weights *w, const float *x)
{
    size_t n_in = w->dim + w->n_features;
    double var = 0, of_features = 0;
    for (size_t c = w->dim; c < n_in; c++) {
        double most = 0;
        for (size_t i = 0; i < w->n_hidden; i++)
            most = fmax(most, fabs((double)w->w1[i * n_in + c]));
        of_features += pow(most / 127 * (double)x[c], 2) / 12;
    }
    for (size_t i = 0; i < w->n_hidden; i++) {
        double most = 0, square = 0;
        for (size_t c = 0; c < w->dim; c++) {
            most = fmax(most, fabs((double)w->w1[i * n_in + c]));
            square += (double)x[c] * (double)x[c];
        }
        var += pow((double)w->w2[i], 2) *
               (pow(most / 127, 2) / 12 * square + of_features);
    }
    return 5 * sqrt(var);
}

static void check_network(const char *name, enum tlr_policy_kind kind)
{
    json_t *j = load(name);
    struct tlr_router_weights w = {
        .kind = kind,
        .dim = (uint32_t)real(j, "dim"),
        .n_features = (uint32_t)real(j, "n_features"),
        .n_hidden = (uint32_t)real(j, "n_hidden"),
        .b2 = (float)real(j, "b2"),
        .temperature = 1};
    size_t n_in = w.dim + w.n_features;
    w.w1 = floats(j, "w1", w.n_hidden * n_in);
    w.b1 = floats(j, "b1", w.n_hidden);
    w.w2 = floats(j, "w2", w.n_hidden);
    float *states = floats(j, "states", 24 * n_in);
    float *logits = floats(j, "logits", 24);
    uint8_t *bytes;
    size_t len;
    struct tlr_router *r;
    MUST(tlr_router_pack(&bytes, &len, &w, NULL, 1, "{}", &must_err));
    MUST(tlr_router_open(&r, (struct tlr_bytes){bytes, len}, name, &must_err));
    float *scratch = tlr_calloc(tlr_router_scratch(r), sizeof *scratch);
    double spread = 0, widest = 0;
    for (size_t i = 0; i < 24; i++) {
        const float *x = states + i * n_in;
        double want = (double)logits[i], bound = tolerance(&w, x);
        near((double)tlr_router_logit(r, NULL, x, x + w.dim, scratch), want, bound,
             name);
        spread = fmax(spread, fabs(want - (double)logits[0]));
        widest = fmax(widest, bound);
    }
    ck_assert_msg(spread > 20 * widest, "%s: spread %g, tolerance %g", name,
                  spread, widest);
    tlr_free(scratch);
    tlr_router_free(r);
    tlr_free(bytes);
    rig_weights_clear(&w);
    tlr_free(states);
    tlr_free(logits);
    json_decref(j);
}

START_TEST(networks_are_torchs)
{
    check_network("mlp.json", TLR_POLICY_MLP);
    check_network("plus.json", TLR_POLICY_MLP_PLUS);
}
END_TEST

/* ---- policies ---- */

START_TEST(names_and_needs)
{
    for (int k = 0; k < TLR_N_POLICIES; k++)
        ck_assert_int_eq(tlr_policy_find(tlr_policy_name(k)), k);
    ck_assert_int_eq(tlr_policy_find("mlp++"), -1);
    ck_assert_int_eq(tlr_policy_find(""), -1);
    ck_assert_int_eq(tlr_policy_need(TLR_POLICY_MLP), TLR_NEED_HIDDEN);
    ck_assert_int_eq(tlr_policy_need(TLR_POLICY_MLP_PLUS), TLR_NEED_TOP);
    ck_assert_int_eq(tlr_policy_need(TLR_POLICY_ENTROPY), TLR_NEED_LOGITS);
}
END_TEST

START_TEST(always_and_never_heed_no_threshold)
{
    const float taus[] = {-INFINITY, -1, 0, 0.5f, 1, 2, INFINITY, NAN};
    for (size_t i = 0; i < sizeof taus / sizeof taus[0]; i++) {
        struct tlr_policy p = {.kind = TLR_POLICY_ALWAYS, .tau = taus[i]};
        float trust;
        MUST(tlr_policy_trust_of(&p, NULL, NULL, NULL, 0, NULL, &trust,
                                 &must_err));
        ck_assert(tlr_policy_asks(&p, trust));
        p.kind = TLR_POLICY_NEVER;
        MUST(tlr_policy_trust_of(&p, NULL, NULL, NULL, 0, NULL, &trust,
                                 &must_err));
        ck_assert(!tlr_policy_asks(&p, trust));
    }
    struct tlr_policy p = {.kind = TLR_POLICY_MARGIN, .tau = 0.5f};
    ck_assert(tlr_policy_asks(&p, 0.4999f));
    ck_assert(!tlr_policy_asks(&p, 0.5f));
}
END_TEST

/* Uniform, by seed and position alone. */
START_TEST(random_asks_for_its_share)
{
    struct tlr_policy p = {.kind = TLR_POLICY_RANDOM, .tau = 0.07f, .seed = 1};
    int n = 0, n_same = 0;
    for (uint32_t pos = 0; pos < 100000; pos++) {
        float a, b, c;
        struct tlr_policy other = p;
        other.seed = 2;
        MUST(tlr_policy_trust_of(&p, NULL, NULL, NULL, pos, NULL, &a,
                                 &must_err));
        MUST(tlr_policy_trust_of(&p, NULL, NULL, NULL, pos, NULL, &b,
                                 &must_err));
        MUST(tlr_policy_trust_of(&other, NULL, NULL, NULL, pos, NULL, &c,
                                 &must_err));
        ck_assert(a == b && a >= 0 && a < 1);
        n += tlr_policy_asks(&p, a);
        n_same += a == c;
    }
    /* Five sigmas of a binomial: 5 sqrt(100000 0.07 0.93). */
    ck_assert_int_gt(n, 7000 - 404);
    ck_assert_int_lt(n, 7000 + 404);
    ck_assert_int_lt(n_same, 10);
}
END_TEST

static void refused(const struct tlr_policy *p, const float *hidden,
                    const float *features, const struct tlr_signals *s)
{
    struct tlr_err err = TLR_ERR_INIT;
    float trust = 0, scratch[4096];
    ck_assert_int_eq(tlr_policy_trust_of(p, hidden, features, s, 17, scratch,
                                         &trust, &err),
                     TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, tlr_policy_name(p->kind)) &&
                      strstr(err.text, "position 17"),
                  "%s", err.text);
}

START_TEST(numbers_that_are_none_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3 * TLR_N_POLICIES; k++) {
        struct tlr_policy p = {.kind = (enum tlr_policy_kind)(k / 3)};
        float x = bad[k % 3], hidden[64] = {0}, features[TLR_N_FEATURES] = {0};
        struct tlr_signals s = {x, x, x, x, -1};
        if (tlr_policy_is_trained(p.kind)) {
            struct tlr_router *r = rig_router(p.kind, m, 1);
            p.router = r;
            hidden[k % 64] = x;
            refused(&p, hidden, features, NULL);
            hidden[k % 64] = 0;
            features[k % TLR_N_FEATURES] = x;
            if (p.kind == TLR_POLICY_MLP_PLUS)
                refused(&p, hidden, features, NULL);
            tlr_router_free(r);
        } else if (p.kind < TLR_POLICY_RANDOM) {
            if (p.kind != TLR_POLICY_ENTROPY || !isinf(x) || x < 0)
                refused(&p, NULL, NULL, &s);
        }
    }
    tlr_model_close(m);
}
END_TEST

START_TEST(a_policy_wants_its_router)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_router *r = rig_router(TLR_POLICY_MLP, m, 1);
    struct tlr_policy p = {.kind = TLR_POLICY_MLP};
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_policy_check(&p, &err), TLR_EUSAGE);
    ck_assert_msg(strstr(err.text, "found none") != NULL, "%s", err.text);
    p.router = r;
    MUST(tlr_policy_check(&p, &must_err));
    p.kind = TLR_POLICY_DEFERRAL;
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_policy_check(&p, &err), TLR_EMISMATCH);
    ck_assert_msg(strstr(err.text, "of kind mlp;") != NULL, "%s", err.text);
    p = (struct tlr_policy){.kind = TLR_POLICY_ENTROPY};
    MUST(tlr_policy_check(&p, &must_err));
    tlr_router_free(r);
    tlr_model_close(m);
}
END_TEST

Suite *suite_policy(void);
Suite *suite_policy(void)
{
    Suite *s = suite_create("policy");
    TCase *tc = tcase_create("policy");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, signals_are_torchs);
    tcase_add_test(tc, signals_of_odd_logits);
    tcase_add_test(tc, networks_are_torchs);
    tcase_add_test(tc, names_and_needs);
    tcase_add_test(tc, always_and_never_heed_no_threshold);
    tcase_add_test(tc, random_asks_for_its_share);
    tcase_add_test(tc, numbers_that_are_none_are_refused);
    tcase_add_test(tc, a_policy_wants_its_router);
    suite_add_tcase(s, tc);
    return s;
}
