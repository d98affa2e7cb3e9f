/* test_train_net.c - the network under training: its gradients beside differences
 * of its own loss, its fold, its threads, and the calibration of its logits.
 */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/citer.h"
#include "router/train_loss.h"
#include "router/train_net.h"
#include "tests/support/tlr_check.h"

enum { BATCH = 24 };
static const struct tlr_net_shape mlp = { 9, 14, 7 };
static const struct tlr_net_shape linear = { 9, 0, 0 };

struct bench {
    struct tlr_net_shape shape;
    struct tlr_pool *pool;
    struct tlr_net *net;
    float *params, *grad, *x;
    struct tlr_target t[BATCH];
    double z[BATCH], dz[BATCH];
};

static void bench_open(struct bench *b, const struct tlr_net_shape *shape,
                       int threads)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_rng rng = { tlr_test_seed(), 0 };
    b->shape = *shape;
    b->params = tlr_calloc(tlr_net_n_all(shape), 4);
    b->grad = tlr_calloc(tlr_net_n_trained(shape), 4);
    b->x = tlr_calloc((size_t)BATCH * shape->n_in, 4);
    ck_assert_msg(!tlr_pool_new(&b->pool, threads, &err), "%s", err.text);
    ck_assert_msg(!tlr_net_new(&b->net, shape, BATCH, b->pool, &err), "%s",
                  err.text);
    tlr_net_init(shape, b->params, 3);
    for (uint32_t i = 0; i < BATCH * shape->n_in; i++)
        b->x[i] = tlr_rng_normal(&rng);
    for (int r = 0; r < BATCH; r++)
        b->t[r] = (struct tlr_target){ 0.5f + (float)(r % 3), 0.1f + 0.03f * (float)r,
                                       0.9f - 0.03f * (float)r, r % 3 == 0 };
}

static void bench_close(struct bench *b)
{
    tlr_net_free(b->net);
    tlr_pool_free(b->pool);
    tlr_free(b->params);
    tlr_free(b->grad);
    tlr_free(b->x);
}

static double loss_at(struct bench *b, enum tlr_loss_kind kind)
{
    tlr_net_forward(b->net, b->params, b->x, BATCH,
                    b->shape.n_hidden ? 0.25 : 0, 11, b->z);
    return tlr_loss(kind, b->z, b->t, BATCH, 0.3, b->dz);
}

/* Central differences.  With steps of 5e-4 the f32 of the activations (6e-8, over
 * 24 rows) leaves up to 1e-4, the curvature nothing; a unit that crosses its ReLU on
 * the way takes one row's part.  2 % of the tensor's largest gradient covers
 * that, and every tensor's must be far above the noise. */
static void check_tensor(struct bench *b, enum tlr_loss_kind kind,
                         const char *name, float *tensor, size_t n)
{
    const double h = 5e-4, noise = 1e-4;
    const float *grad = b->grad + (tensor - b->params);
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)grad[i]));
    ck_assert_msg(most > 20 * noise, "%s: largest gradient %g", name, most);
    for (size_t i = 0; i < n; i++) {
        float was = tensor[i];
        tensor[i] = (float)((double)was + h);
        double up = loss_at(b, kind), to = (double)tensor[i];
        tensor[i] = (float)((double)was - h);
        double down = loss_at(b, kind), from = (double)tensor[i];
        tensor[i] = was;
        double slope = (up - down) / (to - from);
        ck_assert_msg(fabs(slope - (double)grad[i]) <= 0.02 * most + noise,
                      "%s[%zu]: gradient %g, differences say %g (largest %g)",
                      name, i, (double)grad[i], slope, most);
    }
}

static void check_gradients(const struct tlr_net_shape *shape,
                            enum tlr_loss_kind kind)
{
    struct bench b;
    struct tlr_net_params p;
    bench_open(&b, shape, 2);
    size_t k = shape->n_hidden, m = shape->n_mid;
    loss_at(&b, kind);
    tlr_net_backward(b.net, b.params, b.x, BATCH, b.dz, b.grad);
    tlr_net_view(&p, shape, b.params);
    check_tensor(&b, kind, "w3", p.w3, k ? m : shape->n_in);
    bool has_offset = kind != TLR_LOSS_BT; /* which leaves it open */
    if (has_offset)
        check_tensor(&b, kind, "b3", p.b3, 1);
    if (k) {
        check_tensor(&b, kind, "w1", p.w1, k * shape->n_in);
        check_tensor(&b, kind, "w2", p.w2, m * k);
        check_tensor(&b, kind, "gamma", p.gamma, k);
        check_tensor(&b, kind, "beta", p.beta, k);
        if (has_offset)
            check_tensor(&b, kind, "b2", p.b2, m);
        for (size_t i = 0; i < k; i++) { /* BatchNorm takes it off */
            p.b1[i] += 0.5f;
            double moved = loss_at(&b, kind);
            p.b1[i] -= 0.5f;
            ck_assert(fabs(moved - loss_at(&b, kind)) < 1e-6);
            ck_assert(b.grad[p.b1 - b.params + (ptrdiff_t)i] == 0);
        }
    }
    bench_close(&b);
}

START_TEST(gradients_are_differences_of_the_loss)
{
    check_gradients(&mlp, TLR_LOSS_BCE);
    check_gradients(&mlp, TLR_LOSS_BT);
    check_gradients(&linear, TLR_LOSS_DEFERRAL);
}
END_TEST

START_TEST(bits_do_not_depend_on_threads)
{
    static const struct tlr_net_shape wide = { 33, 70, 35 };
    struct bench a, b;
    bench_open(&a, &wide, 1);
    size_t n = tlr_net_n_trained(&wide) * sizeof(float);
    loss_at(&a, TLR_LOSS_BCE);
    tlr_net_backward(a.net, a.params, a.x, BATCH, a.dz, a.grad);
    for (int threads = 2; threads <= 5; threads++) {
        bench_open(&b, &wide, threads);
        loss_at(&b, TLR_LOSS_BCE);
        tlr_net_backward(b.net, b.params, b.x, BATCH, b.dz, b.grad);
        ck_assert_mem_eq(a.z, b.z, sizeof a.z);
        ck_assert_mem_eq(a.grad, b.grad, n);
        ck_assert_mem_eq(a.params, b.params,
                         tlr_net_n_all(&wide) * sizeof(float));
        bench_close(&b);
    }
    bench_close(&a);
}
END_TEST

/* Statistics, factors and shifts of every sign and size a network has. */
static void citer_of(struct tlr_citer *c, struct tlr_net_params *p,
                     const struct tlr_net_shape *s, float *mean, float *scale)
{
    struct tlr_rng rng = { tlr_test_seed() + 1, 0 };
    for (uint32_t i = 0; i < s->n_in; i++) {
        mean[i] = 3 * tlr_rng_normal(&rng);
        scale[i] = 0.1f + fabsf(tlr_rng_normal(&rng));
    }
    for (uint32_t k = 0; k < s->n_hidden; k++) {
        p->gamma[k] = tlr_rng_normal(&rng);
        p->beta[k] = tlr_rng_normal(&rng);
        p->mean[k] = tlr_rng_normal(&rng);
        p->var[k] = 0.01f + fabsf(tlr_rng_normal(&rng));
    }
    *c = (struct tlr_citer){ s->n_in, s->n_hidden, s->n_mid, mean, scale, p->w1,
                             p->b1, p->gamma, p->beta, p->mean, p->var, p->w2,
                             p->b2, p->w3, p->b3[0] };
}

static void check_fold(const struct tlr_net_shape *shape, uint32_t n)
{
    struct bench b;
    struct tlr_net_params p;
    struct tlr_citer c;
    struct tlr_router_weights w = { .dim = shape->n_in - 2, .n_features = 2 };
    struct tlr_err err = TLR_ERR_INIT;
    float mean[64], scale[64];
    double worst, scratch[256], z[BATCH], spread = 0;
    bench_open(&b, shape, 2);
    tlr_net_view(&p, shape, b.params);
    citer_of(&c, &p, shape, mean, scale);
    ck_assert_msg(!tlr_citer_fold(&w, &c, &err), "%s", err.text);
    ck_assert_msg(!tlr_citer_check(&w, &c, n, tlr_test_seed(), &worst, &err),
                  "%s", err.text);
    ck_assert_msg(worst <= 1e-5, "folded and unfolded differ by %g", worst);
    tlr_net_eval(b.net, &w, b.x, BATCH, z);
    for (int r = 0; r < BATCH; r++) {
        double want = tlr_citer_logit(&c, b.x + r * shape->n_in, scratch);
        ck_assert_msg(fabs(z[r] - want) <= 1e-5 * (1 + fabs(want)),
                      "row %d: %.9g, not %.9g", r, z[r], want);
        spread = fmax(spread, fabs(z[r] - z[0]));
    }
    ck_assert(spread > 0.1);
    w.w2[0] += 0.01f; /* a fold that is off must be found out */
    ck_assert(!tlr_citer_check(&w, &c, n, tlr_test_seed(), &worst, &err));
    ck_assert(worst > 1e-4);
    tlr_router_weights_clear(&w);
    bench_close(&b);
}

START_TEST(the_fold_is_the_network)
{
    static const struct tlr_net_shape wide = { 48, 96, 48 };
    check_fold(&mlp, 1000000);
    check_fold(&wide, 2000);
    check_fold(&linear, 20000);
}
END_TEST

/* Labels drawn from s(z / 3 + 0.7): the fit finds 3 and 0.7.
 * 40,000 labels leave a standard error of about 2 %. */
START_TEST(temperature_is_found)
{
    enum { N = 40000 };
    double *z = tlr_calloc(N, sizeof *z), temperature, shift;
    struct tlr_target *t = tlr_calloc(N, sizeof *t);
    struct tlr_rng rng = { tlr_test_seed() + 2, 0 };
    for (int shifted = 0; shifted <= 1; shifted++) {
        for (int i = 0; i < N; i++) {
            z[i] = 5 * (double)tlr_rng_normal(&rng);
            double p = tlr_sigmoid(z[i] / 3 + (shifted ? 0.7 : 0));
            t[i].weight = 1;
            t[i].label = (double)(tlr_rng_u64(&rng) >> 11) / 9007199254740992.0 < p;
        }
        tlr_loss_calibrate(z, t, N, &temperature, &shift);
        ck_assert_msg(fabs(temperature - 3) < 0.2, "temperature %g", temperature);
        ck_assert_msg(fabs(shift - (shifted ? 0.7 : 0)) < 0.08, "shift %g",
                      shift);
    }
    tlr_free(z);
    tlr_free(t);
}
END_TEST

Suite *suite_train_net(void);
Suite *suite_train_net(void)
{
    Suite *s = suite_create("train_net");
    TCase *c = tcase_create("network");
    tcase_add_test(c, gradients_are_differences_of_the_loss);
    tcase_add_test(c, bits_do_not_depend_on_threads);
    tcase_add_test(c, the_fold_is_the_network);
    tcase_add_test(c, temperature_is_found);
    suite_add_tcase(s, c);
    return s;
}
