/* test_router_file.c - the bytes of a router as README.md draws them, what is
 * refused, and that a logit is what these bytes say, at every level. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "tests/router/rig.h"

struct packed {
    struct tlr_router_weights w;
    struct tlr_calibration c;
    uint8_t *bytes;
    size_t len;
};

static const uint64_t FINGERPRINT = 0x1122334455667788u;

static struct packed pack(enum tlr_policy_kind kind, uint32_t dim,
                          uint32_t n_hidden)
{
    struct packed p = {.w = rig_weights(kind, dim, n_hidden, 3)};
    tlr_calibration_clear(&p.c);
    p.c.n_positions = 12345;
    for (int i = 0; i < TLR_N_SHARES; i++) {
        p.c.tau[kind][i] = 0.01f * (float)(i + 1);
        p.c.tau[TLR_POLICY_MAXLOGIT][i] = -5 + 0.5f * (float)i;
    }
    MUST(tlr_router_pack(&p.bytes, &p.len, &p.w, &p.c, FINGERPRINT,
                         "{\"seed\": 7}", &must_err));
    return p;
}

static void unpack(struct packed *p)
{
    rig_weights_clear(&p->w);
    tlr_free(p->bytes);
}

static struct tlr_router *open_bytes(const uint8_t *bytes, size_t len)
{
    struct tlr_router *r = NULL;
    MUST(tlr_router_open(&r, (struct tlr_bytes){bytes, len}, "test.bin",
                         &must_err));
    return r;
}

/* ---- the drawing ---- */

static uint64_t padded(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static void has_floats(const uint8_t *at, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, at + 4 * i, 4);
        ck_assert(v == want[i]);
    }
}

static void has_u32(const uint8_t *at, uint32_t want)
{
    const uint8_t bytes[] = {(uint8_t)want, (uint8_t)(want >> 8),
                             (uint8_t)(want >> 16), (uint8_t)(want >> 24)};
    ck_assert_mem_eq(at, bytes, 4);
}

START_TEST(bytes_are_as_drawn)
{
    struct packed p = pack(TLR_POLICY_MLP_PLUS, 40, 50);
    const uint8_t *b = p.bytes;
    ck_assert_mem_eq(b, "\x89RTR\r\n\x1a\n", 8);
    has_u32(b + 8, 1);
    has_u32(b + 12, 1);
    has_u32(b + 16, 40);
    has_u32(b + 20, 18);
    has_u32(b + 24, 50);
    has_u32(b + 28, 2);
    ck_assert_mem_eq(b + 32, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    has_u32(b + 40, 12345);
    has_u32(b + 44, 0);
    has_floats(b + 48, (float[]){0.25f, 1.5f}, 2);
    has_u32(b + 56, 11);
    uint64_t at = 128 + 64 / 16 * (64 + 32) / 32 * 544; /* 4 bands, 3 tiles */
    at = padded(at, 64);
    has_floats(b + at, p.w.b1, 50);
    at = padded(at + 200, 64);
    has_floats(b + at, p.w.w2, 50);
    at = padded(at + 200, 64);
    uint64_t scales = at;
    at = padded(at + 72, 64);
    has_floats(b + at, p.c.share, 64);
    at = padded(at + 256, 64);
    has_u32(b + at, TLR_POLICY_MLP_PLUS);
    has_floats(b + at + 4, p.c.tau[TLR_POLICY_MLP_PLUS], 64);
    has_u32(b + at + 260, TLR_POLICY_MAXLOGIT);
    has_floats(b + at + 264, p.c.tau[TLR_POLICY_MAXLOGIT], 64);
    at = padded(at + 520, 64);
    ck_assert_mem_eq(b + at, "{\"seed\": 7}", 11);
    ck_assert_uint_eq(p.len, at + 11);
    for (size_t i = 0; i < 18; i++) { /* the largest weight of each feature */
        float most = 0, scale;
        for (size_t k = 0; k < 50; k++)
            most = fmaxf(most, fabsf(p.w.w1[k * 58 + 40 + i]));
        memcpy(&scale, b + scales + 4 * i, 4);
        ck_assert(scale == most);
    }
    unpack(&p);
}
END_TEST

START_TEST(everything_comes_back)
{
    for (int k = TLR_POLICY_MLP; k <= TLR_POLICY_DEFERRAL; k++) {
        struct packed p = pack((enum tlr_policy_kind)k, 40,
                               k == TLR_POLICY_DEFERRAL ? 0 : 50);
        struct tlr_router *r = open_bytes(p.bytes, p.len);
        const struct tlr_router_weights *w = tlr_router_shape(r);
        ck_assert(w->kind == p.w.kind && w->dim == 40 && !w->w1);
        ck_assert_uint_eq(w->n_features, p.w.n_features);
        ck_assert_uint_eq(tlr_router_fingerprint(r), FINGERPRINT);
        ck_assert_str_eq(tlr_router_info(r), "{\"seed\": 7}");
        const struct tlr_calibration *c = tlr_router_calibration(r);
        ck_assert_uint_eq(c->n_positions, 12345);
        ck_assert(tlr_calibration_has(c, k));
        ck_assert(!tlr_calibration_has(c, TLR_POLICY_ENTROPY));
        ck_assert_mem_eq(c->tau[k], p.c.tau[k], sizeof c->tau[k]);
        uint8_t *again;
        size_t len;
        MUST(tlr_router_repack(&again, &len, r, &must_err));
        ck_assert_uint_eq(len, p.len);
        ck_assert_mem_eq(again, p.bytes, len);
        tlr_free(again);
        tlr_router_free(r);
        unpack(&p);
    }
}
END_TEST

/* ---- a logit ---- */

/* The same in double, from the bytes. */
static double logit_of_bytes(const struct packed *p, const float *x)
{
    double sum = (double)p->w.b2;
    float row[4096];
    uint32_t n_in = p->w.dim + p->w.n_features;
    for (uint32_t i = 0; i < p->w.n_hidden; i++) {
        double h = (double)p->w.b1[i];
        rig_row(p->bytes, i, row);
        for (uint32_t c = 0; c < n_in; c++)
            h += (double)row[c] * (double)x[c];
        sum += h > 0 ? h * (double)p->w.w2[i] : 0;
    }
    for (uint32_t c = 0; p->w.n_hidden == 0 && c < n_in; c++)
        sum += (double)p->w.w2[c] * (double)x[c];
    return sum / (double)p->w.temperature;
}

/* Inputs have 15 bits: a relative error below 2^-15 of a block's largest, here
 * at most 5; each passes a weight of both layers. */
static void check_logits(uint32_t dim, enum tlr_policy_kind kind)
{
    struct packed p = pack(kind, dim, kind == TLR_POLICY_DEFERRAL ? 0 : 2 * dim);
    struct tlr_router *r = open_bytes(p.bytes, p.len);
    struct tlr_rng rng = {tlr_test_seed(), 0};
    float *scratch = tlr_calloc(tlr_router_scratch(r), sizeof *scratch);
    float x[1024];
    struct tlr_pool *pool;
    MUST(tlr_pool_new(&pool, 3, &must_err));
    for (int n = 0; n < 20; n++) {
        for (uint32_t i = 0; i < dim + p.w.n_features; i++)
            x[i] = n == 0 ? 0 : tlr_rng_normal(&rng);
        double want = logit_of_bytes(&p, x);
        tlr_router_set_level(r, tlr_cpu_detect());
        float got = tlr_router_logit(r, NULL, x, x + dim, scratch);
        double norm = sqrt(2.0 * dim * dim) * 0.1 * 0.3;
        ck_assert_msg(fabs((double)got - want) <= norm * 5 * 0x1p-15,
                      "width %u: %.9g, not %.9g", dim, (double)got, want);
        for (int l = 0; l < TLR_N_CPU_LEVELS; l++) {
            if (!tlr_cpu_has((enum tlr_cpu_level)l))
                continue;
            tlr_router_set_level(r, (enum tlr_cpu_level)l);
            float same = tlr_router_logit(r, pool, x, x + dim, scratch);
            ck_assert_msg(same == got, "level %d: %.9g, not %.9g", l,
                          (double)same, (double)got);
        }
    }
    tlr_pool_free(pool);
    tlr_free(scratch);
    tlr_router_free(r);
    unpack(&p);
}

START_TEST(a_logit_is_what_the_bytes_say)
{
    for (int k = TLR_POLICY_MLP; k <= TLR_POLICY_DEFERRAL; k++) {
        check_logits(1, (enum tlr_policy_kind)k);
        check_logits(31, (enum tlr_policy_kind)k);
        check_logits(33, (enum tlr_policy_kind)k);
        check_logits(64, (enum tlr_policy_kind)k);
        check_logits(576, (enum tlr_policy_kind)k);
    }
}
END_TEST

/* ---- refusals ---- */

static void refused(const uint8_t *bytes, size_t len, const char *why)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router *r = NULL;
    uint8_t *exact = tlr_test_guarded(len);
    memcpy(exact, bytes, len);
    int rc = tlr_router_open(&r, (struct tlr_bytes){exact, len}, "test.bin",
                             &err);
    ck_assert_msg(rc != 0 && !r, "opened: %s", why);
    ck_assert_msg(strstr(err.text, "test.bin") && strstr(err.text, why), "%s",
                  err.text);
}

START_TEST(cut_and_damaged_files_are_refused)
{
    struct packed p = pack(TLR_POLICY_MLP_PLUS, 40, 16);
    for (size_t n = 0; n < p.len; n += 1 + n / 64)
        refused(p.bytes, n, n < 128 ? "expected a router file" : "cut");
    for (size_t at = 0; at < p.len; at += 1 + at / 64) {
        p.bytes[at] ^= 0x40;
        refused(p.bytes, p.len, "");
        p.bytes[at] ^= 0x40;
    }
    p.bytes[8] = 2;
    refused(p.bytes, p.len, "version 2, expected 1; use a newer tlr");
    p.bytes[8] = 1;
    tlr_router_free(open_bytes(p.bytes, p.len));
    unpack(&p);
}
END_TEST

static void unpackable(const struct packed *p, const char *info,
                       const char *why)
{
    struct tlr_err err = TLR_ERR_INIT;
    uint8_t *bytes = NULL;
    size_t len;
    int rc = tlr_router_pack(&bytes, &len, &p->w, &p->c, 1, info, &err);
    ck_assert_msg(rc == TLR_EFORMAT && !bytes, "packed: %s", why);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
}

START_TEST(numbers_that_are_none_are_not_packed)
{
    struct packed p = pack(TLR_POLICY_MLP, 40, 16);
    struct {
        float *at, bad;
        const char *why;
    } cases[] = {
        {&p.w.w1[77], NAN, "W1 77"},
        {&p.w.w1[0], INFINITY, "W1 0"},
        {&p.w.w1[5], 1e8f, "W1 5"},
        {&p.w.b1[3], NAN, "b1 3"},
        {&p.w.w2[4], -INFINITY, "w2 4"},
        {&p.w.b2, NAN, "b2"},
        {&p.w.temperature, 0, "temperature: expected above 0, found 0"},
        {&p.w.temperature, INFINITY, "temperature"},
        {&p.c.share[0], 0, "share 0"},
        {&p.c.share[9], 0.01f, "share 9"},
        {&p.c.share[63], 1, "share 63"},
        {&p.c.tau[TLR_POLICY_MLP][8], NAN, "tau 8 of mlp"},
        {&p.c.tau[TLR_POLICY_MLP][8], 0.001f, "tau 8 of mlp"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float was = *cases[i].at;
        *cases[i].at = cases[i].bad;
        unpackable(&p, "{}", cases[i].why);
        *cases[i].at = was;
    }
    unpackable(&p, "[]", "object");
    unpackable(&p, "{", "");
    p.w.n_features = 18;
    unpackable(&p, "{}", "found kind mlp of width 40 with 18 features");
    p.w.n_features = 0;
    p.w.kind = TLR_POLICY_ENTROPY;
    unpackable(&p, "{}", "found kind entropy");
    unpack(&p);
}
END_TEST

START_TEST(a_router_belongs_to_one_model)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_model *coarse = random_model("tiny-llama", TLR_Q4);
    struct tlr_router *own = rig_router(TLR_POLICY_MLP, m, 1);
    struct packed p = pack(TLR_POLICY_MLP, 40, 16);
    struct tlr_router *narrow = open_bytes(p.bytes, p.len);
    struct tlr_err err = TLR_ERR_INIT;
    MUST(tlr_router_check(own, m, &must_err));
    ck_assert_int_eq(tlr_router_check(own, coarse, &err), TLR_EMISMATCH);
    ck_assert_msg(strstr(err.text, "another quantisation") != NULL, "%s",
                  err.text);
    tlr_err_clear(&err);
    ck_assert_int_eq(tlr_router_check(narrow, m, &err), TLR_EMISMATCH);
    ck_assert_msg(strstr(err.text, "width 40") && strstr(err.text, "have 64"),
                  "%s", err.text);
    tlr_err_clear(&err);
    struct tlr_router *none = NULL;
    ck_assert_int_eq(tlr_router_of_model(&none, m, &err), TLR_ENOTFOUND);
    ck_assert(!none && strstr(err.text, "carries no router"));
    tlr_router_free(own);
    tlr_router_free(narrow);
    unpack(&p);
    tlr_model_close(m);
    tlr_model_close(coarse);
}
END_TEST

/* ---- thresholds ---- */

START_TEST(thresholds_lie_between_points)
{
    struct tlr_calibration c;
    struct tlr_err err = TLR_ERR_INIT;
    float tau;
    tlr_calibration_clear(&c);
    ck_assert(fabsf(c.share[0] - 0.005f) < 1e-6f && c.share[63] < 1);
    for (int i = 0; i < TLR_N_SHARES; i++)
        c.tau[TLR_POLICY_MLP][i] = 10 * c.share[i];
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 0.07, &tau, &must_err));
    ck_assert(fabsf(tau - 0.7f) < 1e-5f);
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 0.0725, &tau, &must_err));
    ck_assert(fabsf(tau - 0.725f) < 1e-5f);
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 0.001, &tau, &must_err));
    ck_assert(tau == c.tau[TLR_POLICY_MLP][0]);
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 0.999, &tau, &must_err));
    ck_assert(tau == c.tau[TLR_POLICY_MLP][63]);
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 0, &tau, &must_err));
    ck_assert(isinf(tau) && tau < 0);
    MUST(tlr_calibration_tau(&c, TLR_POLICY_MLP, 1, &tau, &must_err));
    ck_assert(isinf(tau) && tau > 0);
    MUST(tlr_calibration_tau(NULL, TLR_POLICY_RANDOM, 0.3, &tau, &must_err));
    ck_assert(tau == 0.3f);
    ck_assert_int_eq(
        tlr_calibration_tau(&c, TLR_POLICY_ENTROPY, 0.1, &tau, &err),
        TLR_ENOTFOUND);
    ck_assert_msg(strstr(err.text, "policy entropy") &&
                      strstr(err.text, "tlr calibrate"),
                  "%s", err.text);
    ck_assert_int_eq(
        tlr_calibration_tau(NULL, TLR_POLICY_MLP, 0.1, &tau, NULL),
        TLR_ENOTFOUND);
    ck_assert_int_eq(tlr_calibration_tau(&c, TLR_POLICY_MLP, 1.1, &tau, NULL),
                     TLR_EUSAGE);
    ck_assert_int_eq(tlr_calibration_tau(&c, TLR_POLICY_MLP, NAN, &tau, NULL),
                     TLR_EUSAGE);
}
END_TEST

START_TEST(memory_may_run_out)
{
    struct packed p = pack(TLR_POLICY_MLP_PLUS, 40, 16);
    struct tlr_router *r = NULL;
    uint8_t *bytes = NULL;
    size_t len;
    for (int what = 0; what < 2; what++) {
        int rc = TLR_ENOMEM;
        long k = 0;
        for (; rc; k++) {
            struct tlr_err err = TLR_ERR_INIT;
            tlr_mem_fail_after(k);
            rc = what ? tlr_router_open(&r, (struct tlr_bytes){p.bytes, p.len},
                                        "test.bin", &err)
                      : tlr_router_pack(&bytes, &len, &p.w, &p.c, 1, "{}", &err);
            tlr_mem_fail_after(-1);
            ck_assert_msg(rc == 0 || (rc == TLR_ENOMEM && err.text[0]), "%s",
                          err.text);
            ck_assert_int_lt(k, 100);
        }
        ck_assert_int_gt(k, 5);
    }
    tlr_router_free(r);
    tlr_router_free(NULL);
    tlr_free(bytes);
    unpack(&p);
}
END_TEST

/* The fuzzer's seeds are what the writer makes today (dim 8, 16 hidden units); a
 * folder to write them to in TLR_WRITE_SEEDS. */
START_TEST(seeds_are_current)
{
    static const char *const names[] = {"mlp", "mlp_plus", "deferral"};
    const char *folder = getenv("TLR_WRITE_SEEDS");
    for (int k = 0; k < 3; k++) {
        struct packed p = pack((enum tlr_policy_kind)k, 8, k == 2 ? 0 : 16);
        char path[600];
        char *has = NULL;
        size_t len = 0;
        snprintf(path, sizeof path, "%s/%s",
                 folder ? folder : "tests/fuzz/corpus/router", names[k]);
        if (folder) {
            FILE *f = fopen(path, "wb");
            ck_assert(f != NULL);
            ck_assert_uint_eq(fwrite(p.bytes, 1, p.len, f), p.len);
            ck_assert_int_eq(fclose(f), 0);
        }
        MUST(tlr_read_file(&has, &len, path, 1 << 20, &must_err));
        ck_assert_uint_eq(len, p.len);
        ck_assert_mem_eq(has, p.bytes, len);
        tlr_free(has);
        unpack(&p);
    }
}
END_TEST

Suite *suite_router_file(void);
Suite *suite_router_file(void)
{
    Suite *s = suite_create("router_file");
    TCase *tc = tcase_create("router_file");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, bytes_are_as_drawn);
    tcase_add_test(tc, everything_comes_back);
    tcase_add_test(tc, a_logit_is_what_the_bytes_say);
    tcase_add_test(tc, cut_and_damaged_files_are_refused);
    tcase_add_test(tc, numbers_that_are_none_are_not_packed);
    tcase_add_test(tc, a_router_belongs_to_one_model);
    tcase_add_test(tc, thresholds_lie_between_points);
    tcase_add_test(tc, memory_may_run_out);
    tcase_add_test(tc, seeds_are_current);
    suite_add_tcase(s, tc);
    return s;
}
