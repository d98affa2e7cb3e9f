/* test_bootstrap.c - intervals and p-values against NumPy's
 * (tests/golden/bootstrap/make.py). */
#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "router/bootstrap.h"
#include "tests/support/tlr_check.h"

static json_t *golden(void)
{
    json_error_t error;
    json_t *root =
        json_load_file("tests/golden/bootstrap/expected.json", 0, &error);
    ck_assert_msg(root != NULL, "%s", error.text);
    return root;
}

static double *column(const json_t *c, const char *key, size_t n)
{
    double *out = tlr_calloc(n, sizeof *out);
    ck_assert(out != NULL);
    for (size_t i = 0; i < n; i++)
        out[i] = json_number_value(json_array_get(json_object_get(c, key), i));
    return out;
}

static void same(const json_t *c, const char *key, struct tlr_interval v)
{
    const json_t *want = json_object_get(c, key);
    const double found[] = {v.value, v.low, v.high};
    ck_assert_uint_eq(json_array_size(want), 3);
    for (size_t i = 0; i < 3; i++)
        ck_assert_double_eq_tol(json_number_value(json_array_get(want, i)),
                                found[i], 1e-12);
}

START_TEST(test_like_numpy)
{
    json_t *root = golden();
    uint64_t seed =
        (uint64_t)json_integer_value(json_object_get(root, "seed"));
    const json_t *cases = json_object_get(root, "cases");
    ck_assert_uint_eq(json_array_size(cases), 3);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        size_t n = json_array_size(json_object_get(c, "a"));
        double *one = tlr_calloc(n, sizeof *one);
        double *x[6];
        static const char *const keys[] = {"a", "b", "low", "high", "num", "den"};
        struct tlr_resamples r;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_msg(!tlr_resamples_new(&r, n, seed, &err), "%s", err.text);
        for (size_t k = 0; k < n; k++)
            one[k] = 1;
        for (int k = 0; k < 6; k++)
            x[k] = column(c, keys[k], n);
        same(c, "ratio", tlr_bootstrap_ratio(&r, x[4], x[5]));
        same(c, "accuracy", tlr_bootstrap_ratio(&r, x[0], one));
        same(c, "gap", tlr_bootstrap_gap(&r, x[0], x[2], x[3], one));
        ck_assert_double_eq_tol(json_number_value(json_object_get(c, "p")),
                                tlr_bootstrap_p(&r, x[0], x[1], one), 1e-12);
        for (int k = 0; k < 6; k++)
            tlr_free(x[k]);
        tlr_free(one);
        tlr_resamples_clear(&r);
    }
    json_decref(root);
}
END_TEST

/* A policy is never better than itself; one that is right everywhere is. */
START_TEST(test_extremes)
{
    double a[8], b[8], one[8];
    struct tlr_resamples r;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert(!tlr_resamples_new(&r, 8, 3, &err));
    for (int i = 0; i < 8; i++) {
        a[i] = one[i] = 1;
        b[i] = 0;
    }
    ck_assert_double_eq(tlr_bootstrap_p(&r, a, a, one), 1);
    ck_assert_double_eq(tlr_bootstrap_p(&r, a, b, one),
                        1.0 / (1 + TLR_RESAMPLES));
    struct tlr_interval v = tlr_bootstrap_gap(&r, b, a, b, one);
    ck_assert(isinf(v.value) && v.value < 0 && isinf(v.low));
    tlr_resamples_clear(&r);
    ck_assert_int_eq(tlr_resamples_new(&r, 0, 1, &err), TLR_ELIMIT);
    tlr_resamples_clear(&r);
}
END_TEST

Suite *suite_bootstrap(void);
Suite *suite_bootstrap(void)
{
    Suite *s = suite_create("bootstrap");
    TCase *c = tcase_create("bootstrap");
    tcase_add_test(c, test_like_numpy);
    tcase_add_test(c, test_extremes);
    suite_add_tcase(s, c);
    return s;
}
