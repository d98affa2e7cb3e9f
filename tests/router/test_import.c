/* test_import.c - a router of CITER's shape from PyTorch, folded, beside what
 * PyTorch says of it (tests/golden/router/citer.py).
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "convert/safetensors.h"
#include "router/citer.h"
#include "router/import.h"
#include "router/train_loss.h"
#include "tests/support/tlr_check.h"

enum { DIM = 12, MAX_TENSORS = 16 };

struct golden {
    struct tlr_map map;
    struct tlr_safetensors file;
    struct tlr_import_tensor tensors[MAX_TENSORS];
    float data[MAX_TENSORS][1024]; /* copies that a test may spoil */
    size_t n;
};

static void golden_open(struct golden *g)
{
    static const char path[] = "tests/golden/router/citer.safetensors";
    struct tlr_err err = TLR_ERR_INIT;
    memset(g, 0, sizeof *g);
    ck_assert_msg(!tlr_map_open(&g->map, path, false, &err), "%s", err.text);
    ck_assert_msg(!tlr_safetensors_parse(&g->file, g->map.ptr, g->map.len, path,
                                         &err), "%s", err.text);
    g->n = g->file.n;
    ck_assert_uint_eq(g->n, 11);
    for (size_t i = 0; i < g->n; i++) {
        const struct tlr_safetensor *t = &g->file.tensors[i];
        g->tensors[i].name = t->name;
        if (strcmp(t->dtype, "F32") != 0)
            continue;
        ck_assert_uint_le(t->n_bytes, sizeof g->data[i]);
        memcpy(g->data[i], t->data, t->n_bytes);
        g->tensors[i].n_dims = t->n_dims;
        memcpy(g->tensors[i].shape, t->shape, t->n_dims * sizeof *t->shape);
        g->tensors[i].data = g->data[i];
    }
}

static void golden_close(struct golden *g)
{
    tlr_safetensors_clear(&g->file);
    tlr_map_close(&g->map);
}

static size_t index_of(const struct golden *g, const char *name)
{
    size_t i = 0;
    while (i < g->n && strcmp(g->tensors[i].name, name) != 0)
        i++;
    ck_assert_msg(i < g->n, "no tensor %s", name);
    return i;
}

START_TEST(trust_is_pytorchs)
{
    struct golden g;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router_weights w;
    double worst, low = 1, high = 0;
    golden_open(&g);
    ck_assert_msg(!tlr_import_citer(&w, g.tensors, g.n, "citer", DIM, &worst, &err),
                  "%s", err.text);
    ck_assert(worst <= 1e-5 && w.n_hidden == 2 * DIM && w.temperature == 1);
    json_t *golden = json_load_file("tests/golden/router/citer.json", 0, NULL);
    json_t *trust = json_object_get(golden, "trust");
    ck_assert_uint_eq(json_array_size(trust), 16);
    for (uint64_t r = 0; r < 16; r++) {
        float x[DIM];
        for (uint64_t i = 0; i < DIM; i++)
            x[i] = (float)((double)(tlr_hash_u64(9, r * DIM + i) >> 40) /
                               16777216.0 * 8 - 4);
        double want = json_number_value(json_array_get(trust, r));
        double found = tlr_sigmoid(tlr_folded_logit(&w, x));
        ck_assert_msg(fabs(found - want) < 1e-6, "state %u: %.8f, not %.8f",
                      (unsigned)r, found, want);
        low = fmin(low, want);
        high = fmax(high, want);
    }
    ck_assert(high - low > 0.1);
    json_decref(golden);
    tlr_router_weights_clear(&w);
    golden_close(&g);
}
END_TEST

static void refuse(struct golden *g, int code, uint32_t dim, const char *says)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router_weights w;
    double worst;
    ck_assert_int_eq(tlr_import_citer(&w, g->tensors, g->n, "citer", dim, &worst,
                                      &err), code);
    ck_assert_msg(strstr(err.text, says) != NULL, "%s", err.text);
    ck_assert_ptr_null(w.w1);
    golden_close(g);
    golden_open(g);
}

START_TEST(what_is_no_citer_router_is_refused)
{
    struct golden g;
    golden_open(&g);
    refuse(&g, TLR_EMISMATCH, 13, "width 12");
    g.tensors[index_of(&g, "mlp.1.running_var")].name = "mlp.2.running_var";
    refuse(&g, TLR_EFORMAT, DIM, "mlp.2.running_var");
    g.tensors[index_of(&g, "linear.weight")] = g.tensors[--g.n];
    refuse(&g, TLR_EFORMAT, DIM, "linear.weight");
    g.tensors[index_of(&g, "mlp.4.bias")].shape[0] = 11;
    refuse(&g, TLR_EFORMAT, DIM, "mlp.4.bias");
    g.data[index_of(&g, "mlp.4.weight")][5] = NAN;
    refuse(&g, TLR_EFORMAT, DIM, "element 5");
    g.data[index_of(&g, "mlp.1.running_var")][2] = -1;
    refuse(&g, TLR_EFORMAT, DIM, "negative");
    g.n = 0;
    refuse(&g, TLR_EFORMAT, DIM, "no tensor");
    golden_close(&g);
}
END_TEST

START_TEST(a_common_prefix_is_allowed)
{
    struct golden g;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router_weights w;
    double worst;
    char names[MAX_TENSORS][64];
    golden_open(&g);
    for (size_t i = 0; i < g.n; i++) {
        snprintf(names[i], sizeof names[i], "module.%s", g.tensors[i].name);
        g.tensors[i].name = names[i];
    }
    ck_assert_msg(!tlr_import_citer(&w, g.tensors, g.n, "citer", DIM, &worst, &err),
                  "%s", err.text);
    tlr_router_weights_clear(&w);
    names[3][0] = 'M';
    refuse(&g, TLR_EFORMAT, DIM, "is no part");
    golden_close(&g);
}
END_TEST

Suite *suite_import(void);
Suite *suite_import(void)
{
    Suite *s = suite_create("import");
    TCase *c = tcase_create("citer");
    tcase_add_test(c, trust_is_pytorchs);
    tcase_add_test(c, what_is_no_citer_router_is_refused);
    tcase_add_test(c, a_common_prefix_is_allowed);
    suite_add_tcase(s, c);
    return s;
}
