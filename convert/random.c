/* random.c - seeded random weights in the shape of a named model.
 *
 * Every element is a function of (seed, tensor name, index) alone, with one f32
 * rounding per operation, so NumPy makes the same bits
 * (tests/golden/hf/make.py) and any rows can be made without the ones before.
 * Matrices have variance 1/n_cols, which keeps activations near 1 at any depth;
 * norms are near 1.  There is no tokenizer.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/source.h"

enum { SEED = 1 };

/* rope_scaling "llama3" as Llama-3.1's config.json has it. */
struct scaling {
    float factor, low, high;
    uint32_t original_ctx;
};

struct shape {
    const char *name;
    struct tlr_config config;
    struct scaling scaling; /* used with TLR_CONFIG_ROPE_FACTORS */
};

#define QWEN2 TLR_FAMILY_QWEN2, TLR_CONFIG_QKV_BIAS
#define QWEN3 TLR_FAMILY_QWEN3, TLR_CONFIG_QK_NORM
#define LLAMA TLR_FAMILY_LLAMA, 0
#define TIED TLR_CONFIG_TIED_HEAD
#define FACTORS TLR_CONFIG_ROPE_FACTORS

/* family, flags, dim, ffn, layers, heads, kv heads, head_dim, vocab, ctx, eps,
 * theta */
static const struct shape shapes[] = {
    {"qwen2.5-0.5b",
     {QWEN2 | TIED, 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e-6f, 1e6f},
     {0, 0, 0, 0}},
    {"smollm2-135m",
     {LLAMA | TIED, 576, 1536, 30, 9, 3, 64, 49152, 8192, 1e-5f, 1e5f},
     {0, 0, 0, 0}},
    {"tiny-qwen2",
     {QWEN2, 64, 160, 2, 4, 2, 16, 320, 8192, 1e-6f, 1e6f},
     {0, 0, 0, 0}},
    {"tiny-qwen3",
     {QWEN3 | TIED, 64, 160, 2, 4, 2, 32, 320, 8192, 1e-6f, 1e6f},
     {0, 0, 0, 0}},
    {"tiny-llama",
     {LLAMA | TIED, 64, 160, 2, 4, 2, 16, 320, 8192, 1e-5f, 1e4f},
     {0, 0, 0, 0}},
    {"tiny-llama3",
     {LLAMA | FACTORS, 64, 160, 2, 4, 2, 16, 320, 8192, 1e-5f, 5e5f},
     {8.0f, 1.0f, 4.0f, 1024}},
};

struct random_source {
    struct tlr_source base;
    const struct shape *shape;
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int random_describe(struct tlr_source *s, uint32_t i,
                           struct tlr_source_tensor *out, struct tlr_err *err)
{
    (void)err;
    struct tlr_tensor_want want;
    tlr_config_tensor(&s->config, i, &want);
    out->src_name = "seeded random weights";
    out->src_type = "F32";
    out->exact = TLR_F32;
    out->src_bytes = (uint64_t)want.n_rows * want.n_cols * sizeof(float);
    return 0;
}

/* What inverse frequency i of n is divided by: 1 for short wavelengths, factor
 * for long ones, a blend between (Llama 3.1's rule). */
static float llama3_factor(const struct shape *shape, uint32_t i)
{
    const struct scaling *k = &shape->scaling;
    double exponent = 2.0 * i / shape->config.head_dim;
    double inv_freq = pow((double)shape->config.rope_theta, -exponent);
    double turns = k->original_ctx * inv_freq / 6.283185307179586;
    double low = (double)k->low, high = (double)k->high;
    if (turns > high) {
        return 1.0f;
    }
    if (turns < low) {
        return k->factor;
    }
    double smooth = (turns - low) / (high - low);
    return (float)(1.0 / ((1.0 - smooth) / (double)k->factor + smooth));
}

static int random_read_rows(struct tlr_source *s, uint32_t i, uint32_t row,
                            uint32_t n, float *dst, struct tlr_err *err)
{
    (void)err;
    const struct random_source *r = (const struct random_source *)s;
    struct tlr_tensor_want want;
    tlr_config_tensor(&s->config, i, &want);
    if (strcmp(want.name, "rope_factors") == 0) {
        for (uint32_t c = 0; c < want.n_cols; c++) {
            dst[c] = llama3_factor(r->shape, c);
        }
        return 0;
    }
    uint64_t seed = tlr_hash_name(SEED, want.name);
    float base = ends_with(want.name, "norm") ? 1.0f : 0.0f;
    float scale = want.is_matrix
                      ? (float)(sqrt(3.0) / sqrt((double)want.n_cols))
                      : 0.1f;
    uint64_t first = (uint64_t)row * want.n_cols;
    uint64_t count = (uint64_t)n * want.n_cols;
    for (uint64_t e = 0; e < count; e++) {
        uint64_t bits = tlr_hash_u64(seed, first + e) >> 40;
        float u = (float)bits * 0x1p-23f - 1.0f; /* exact, in [-1, 1) */
        float scaled = u * scale;
        dst[e] = base + scaled;
    }
    return 0;
}

static void random_close(struct tlr_source *s)
{
    tlr_free(s->provenance_json);
    tlr_free(s);
}

static const struct tlr_source_ops random_ops = {
    .describe = random_describe,
    .read_rows = random_read_rows,
    .close = random_close,
};

static const struct shape *find_shape(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            return &shapes[i];
        }
    }
    return NULL;
}

static int unknown_name(const char *name, struct tlr_err *err)
{
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%s",
                         i ? ", " : "", shapes[i].name);
        used += (size_t)n;
    }
    return tlr_err_set(err, TLR_ENOTFOUND,
                       "random:%s: expected one of %s; choose one of them", name,
                       list);
}

int tlr_source_open_random(struct tlr_source **out, const char *name,
                           struct tlr_err *err)
{
    *out = NULL;
    const struct shape *shape = find_shape(name);
    if (!shape) {
        return unknown_name(name, err);
    }
    struct random_source *r = tlr_calloc(1, sizeof *r);
    if (!r) {
        return tlr_err_nomem(err, name, sizeof *r);
    }
    r->base.ops = &random_ops;
    r->base.config = shape->config;
    r->base.vocab_where = "no tokenizer";
    r->shape = shape;
    tlr_generation_default(&r->base.generation);
    char json[160];
    snprintf(json, sizeof json,
             "{\"kind\":\"random\",\"seed\":%d,\"sources\":[{\"bytes\":0,"
             "\"name\":\"random:%s\",\"sha256\":\"\"}]}",
             SEED, shape->name);
    r->base.provenance_json = tlr_strdup(json);
    if (!r->base.provenance_json) {
        random_close(&r->base);
        return tlr_err_nomem(err, name, sizeof json);
    }
    *out = &r->base;
    return 0;
}
