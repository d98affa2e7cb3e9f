/* test_train_golden.c - 100 training steps beside PyTorch's: every loss, and all
 * parameters behind the last step (tests/golden/router/train.py).
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/train_data.h"
#include "router/train_loss.h"
#include "router/train_net.h"
#include "tests/support/tlr_check.h"

enum { N_IN = 10, N_HIDDEN = 20, N_MID = 10, N_ROWS = 640, BATCH = 32,
       STEPS = 100, SEED = 7 };
#define LR 3e-3
#define DECAY 0.1
#define POS_WEIGHT 0.25
#define TOLERANCE 1e-4

static double uniform(uint64_t seed, uint64_t i)
{
    return (double)(tlr_hash_u64(seed, i) >> 40) / 16777216.0;
}

struct problem {
    float x[N_ROWS][N_IN];
    struct tlr_target target[N_ROWS];
};

static void make_problem(struct problem *p, bool linear)
{
    for (uint64_t r = 0; r < N_ROWS; r++) {
        double x[N_IN];
        for (uint64_t i = 0; i < N_IN; i++)
            x[i] = 4 * uniform(100, r * N_IN + i) - 2;
        x[1] = 50 * x[1] + 300;
        for (int i = 0; i < N_IN; i++)
            p->x[r][i] = (float)x[i];
        if (linear)
            p->x[r][1] /= 256;
        p->target[r] = (struct tlr_target){
            (float)(0.5 + uniform(102, r)), (float)uniform(103, r),
            (float)uniform(104, r),
            x[0] + x[2] * x[3] + 2 * uniform(101, r) > 0.5
        };
    }
}

static void compare(const json_t *run, const char *name, const float *found,
                    size_t n)
{
    const json_t *a = json_object_get(run, name);
    double widest = 0, worst = 0;
    ck_assert_uint_eq(json_array_size(a), n);
    for (size_t i = 0; i < n; i++) {
        double want = json_number_value(json_array_get(a, i));
        /* Running statistics of the input of size 300 are as large. */
        double scale = fmax(1, fabs(want));
        widest = fmax(widest, fabs(want));
        worst = fmax(worst, fabs((double)found[i] - want) / scale);
    }
    ck_assert_msg(widest > 20 * TOLERANCE, "golden %s is all zero", name);
    ck_assert_msg(worst <= TOLERANCE, "%s: off by %g", name, worst);
}

static void compare_all(const json_t *run, const struct tlr_net_params *p,
                        bool linear)
{
    compare(run, "w3", p->w3, linear ? N_IN : N_MID);
    compare(run, "b3", p->b3, 1);
    if (linear)
        return;
    compare(run, "w1", p->w1, N_HIDDEN * N_IN);
    compare(run, "w2", p->w2, N_MID * N_HIDDEN);
    compare(run, "b1", p->b1, N_HIDDEN);
    compare(run, "gamma", p->gamma, N_HIDDEN);
    compare(run, "beta", p->beta, N_HIDDEN);
    compare(run, "b2", p->b2, N_MID);
    compare(run, "mean", p->mean, N_HIDDEN);
    compare(run, "var", p->var, N_HIDDEN);
}

static void gather(const struct problem *p, const uint64_t *rows, float *x,
                   struct tlr_target *t)
{
    for (int r = 0; r < BATCH; r++) {
        memcpy(x + r * N_IN, p->x[rows[r]], sizeof p->x[0]);
        t[r] = p->target[rows[r]];
    }
}

static void check_run(const char *name, enum tlr_loss_kind kind)
{
    static struct problem p;
    static uint64_t order[N_ROWS];
    bool linear = kind == TLR_LOSS_DEFERRAL;
    struct tlr_net_shape shape = { N_IN, linear ? 0 : N_HIDDEN,
                                   linear ? 0 : N_MID };
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_pool *pool;
    struct tlr_net *net;
    struct tlr_net_params view;
    json_t *golden = json_load_file("tests/golden/router/train.json", 0, NULL);
    json_t *run = json_object_get(golden, name);
    ck_assert_msg(run != NULL, "tests/golden/router/train.json: no %s", name);
    size_t n_all = tlr_net_n_all(&shape), n = tlr_net_n_trained(&shape);
    float *params = tlr_calloc(n_all, 4), *grad = tlr_calloc(n, 4);
    float *m = tlr_calloc(n, 4), *v = tlr_calloc(n, 4);
    make_problem(&p, linear);
    ck_assert_msg(!tlr_pool_new(&pool, 2, &err), "%s", err.text);
    ck_assert_msg(!tlr_net_new(&net, &shape, BATCH, pool, &err), "%s", err.text);
    tlr_net_init(&shape, params, SEED);
    for (uint32_t step = 0; step < STEPS; step++) {
        enum { PER_EPOCH = N_ROWS / BATCH };
        float x[BATCH * N_IN];
        struct tlr_target t[BATCH];
        double z[BATCH], dz[BATCH];
        for (uint64_t r = 0; r < N_ROWS; r++)
            order[r] = r;
        tlr_train_shuffle(order, N_ROWS, SEED, step / PER_EPOCH);
        gather(&p, order + step % PER_EPOCH * BATCH, x, t);
        tlr_net_forward(net, params, x, BATCH, 0, step, z);
        double loss = tlr_loss(kind, z, t, BATCH, POS_WEIGHT, dz);
        double want = json_number_value(
            json_array_get(json_object_get(run, "losses"), step));
        ck_assert_msg(fabs(loss - want) <= TOLERANCE && want > 0.01,
                      "%s: loss of step %u: %.9g, not %.9g", name, step, loss,
                      want);
        tlr_net_backward(net, params, x, BATCH, dz, grad);
        struct tlr_adamw adam = { LR, DECAY, step + 1 };
        tlr_adamw_step(pool, &adam, tlr_net_n_decayed(&shape), n, params, grad,
                       m, v);
    }
    tlr_net_view(&view, &shape, params);
    compare_all(run, &view, linear);
    tlr_net_free(net);
    tlr_pool_free(pool);
    tlr_free(params);
    tlr_free(grad);
    tlr_free(m);
    tlr_free(v);
    json_decref(golden);
}

START_TEST(bce_matches_pytorch)
{
    check_run("bce", TLR_LOSS_BCE);
}
END_TEST

START_TEST(bradley_terry_matches_pytorch)
{
    check_run("bt", TLR_LOSS_BT);
}
END_TEST

START_TEST(deferral_matches_pytorch)
{
    check_run("deferral", TLR_LOSS_DEFERRAL);
}
END_TEST

Suite *suite_train_golden(void);
Suite *suite_train_golden(void)
{
    Suite *s = suite_create("train_golden");
    TCase *c = tcase_create("pytorch");
    tcase_add_test(c, bce_matches_pytorch);
    tcase_add_test(c, bradley_terry_matches_pytorch);
    tcase_add_test(c, deferral_matches_pytorch);
    suite_add_tcase(s, c);
    return s;
}
