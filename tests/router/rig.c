/* rig.c - see rig.h. */
#include "tests/router/rig.h"

#include <stdio.h>

#include "base/mem.h"

static float *normals(struct tlr_rng *r, size_t n, float size)
{
    float *x = tlr_calloc(n, sizeof *x);
    ck_assert(x != NULL);
    for (size_t i = 0; i < n; i++)
        x[i] = size * tlr_rng_normal(r);
    return x;
}

struct tlr_router_weights rig_weights(enum tlr_policy_kind kind, uint32_t dim,
                                      uint32_t n_hidden, uint64_t seed)
{
    struct tlr_rng r = {seed, 0};
    struct tlr_router_weights w = {.kind = kind, .dim = dim,
                                   .n_hidden = n_hidden, .b2 = 0.25f,
                                   .temperature = 1.5f};
    w.n_features = kind == TLR_POLICY_MLP_PLUS ? TLR_N_FEATURES : 0;
    size_t n_in = dim + w.n_features;
    w.w1 = normals(&r, n_hidden * n_in, 0.1f);
    w.b1 = normals(&r, n_hidden, 0.5f);
    w.w2 = normals(&r, n_hidden ? n_hidden : n_in, 0.3f);
    return w;
}

void rig_weights_clear(struct tlr_router_weights *w)
{
    tlr_free(w->w1);
    tlr_free(w->b1);
    tlr_free(w->w2);
}

struct tlr_router *rig_router(enum tlr_policy_kind kind,
                              const struct tlr_model *m, uint64_t seed)
{
    uint32_t dim = tlr_model_config(m)->dim;
    uint32_t n_hidden = kind == TLR_POLICY_DEFERRAL ? 0 : 2 * dim;
    struct tlr_router_weights w = rig_weights(kind, dim, n_hidden, seed);
    struct tlr_router *router = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;
    MUST(tlr_router_pack(&bytes, &len, &w, NULL,
                         tlr_file_fingerprint(tlr_model_file(m)), "{}",
                         &must_err));
    MUST(tlr_router_open(&router, (struct tlr_bytes){bytes, len}, "rig",
                         &must_err));
    tlr_free(bytes);
    rig_weights_clear(&w);
    return router;
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static uint64_t padded(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

void rig_row(const uint8_t *bytes, uint32_t row, float *out)
{
    uint32_t dim = u32_at(bytes + 16), n_features = u32_at(bytes + 20);
    uint64_t n_hidden = u32_at(bytes + 24);
    uint64_t n_cols = padded(dim, 32) + padded(n_features, 32);
    uint64_t at = 128 + padded(n_hidden, 16) * n_cols / 512 * 544;
    at = padded(at, 64) + 4 * n_hidden;        /* b1 */
    at = padded(padded(at, 64) + 4 * n_hidden, 64); /* w2 */
    float decoded[4096];
    ck_assert_uint_le(n_cols, 4096);
    tlr_row_decode(TLR_Q8, decoded, bytes + 128, row, (int)n_cols);
    memcpy(out, decoded, dim * sizeof *out);
    for (uint32_t i = 0; i < n_features; i++) {
        float scale;
        memcpy(&scale, bytes + at + 4 * i, 4);
        out[dim + i] = decoded[padded(dim, 32) + i] * scale;
    }
}

static int answer(void *self, const int32_t *ids, size_t n, int n_tok,
                  struct tlr_expert_reply *out, struct tlr_err *err)
{
    (void)ids, (void)n, (void)n_tok;
    struct rig_expert *e = self;
    e->n_asks++;
    if (e->fail_every > 0 && e->n_asks % e->fail_every == 0)
        return tlr_err_set(err, e->fail_code, "rig: no answer to ask %d",
                           e->n_asks);
    out->ids[0] = e->id;
    out->n_tok = e->n_tok;
    out->think_ns = 1;
    return 0;
}

struct tlr_expert rig_expert(struct rig_expert *e)
{
    static const struct tlr_expert_ops ops = {.ask = answer};
    return (struct tlr_expert){.ops = &ops, .self = e, .name = "rig"};
}
