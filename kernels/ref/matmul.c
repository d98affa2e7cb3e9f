/* matmul.c - the oracle of quantise, matmul_* and score_q8p.
 *
 * These slots are specified to the bit (kernels.h), so this is the
 * specification as loops: exact integer sums, then one f32 fma for each block of
 * 32 columns, in the order of the blocks.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/variants_decl.h"

/* A block of activations of one token. */
struct block {
    const int8_t *q;
    float d;
    int32_t sum;
};

static struct block act_block(const void *act, int n_tok, int t, int b,
                              int n_cols)
{
    int group = t / TLR_ACT_GROUP;
    int left = n_tok - group * TLR_ACT_GROUP;
    size_t n = (size_t)(left < TLR_ACT_GROUP ? left : TLR_ACT_GROUP);
    size_t i = (size_t)(t % TLR_ACT_GROUP);
    const uint8_t *p = (const uint8_t *)act +
                       tlr_act_bytes((size_t)(group * TLR_ACT_GROUP),
                                     (size_t)n_cols) +
                       (size_t)b * n * TLR_ACT_BYTES;
    struct block out = {(const int8_t *)(p + 32 * i), 0, 0};
    memcpy(&out.d, p + 32 * n + 4 * i, sizeof out.d);
    memcpy(&out.sum, p + 36 * n + 4 * i, sizeof out.sum);
    return out;
}

static float max_abs(const float *x)
{
    float a = 0;
    for (int c = 0; c < 32; c++)
        a = fabsf(x[c]) > a ? fabsf(x[c]) : a;
    return a;
}

void tlr_quantise_ref(void *act, float *rest, const float *x, size_t x_stride,
                      int n_tok, int n_cols)
{
    assert(n_tok >= 1 && n_tok <= TLR_ACT_GROUP && n_cols % 32 == 0);
    size_t n = (size_t)n_tok;
    for (int b = 0; b < n_cols / 32; b++) {
        uint8_t *p = (uint8_t *)act + (size_t)b * n * TLR_ACT_BYTES;
        for (size_t t = 0; t < n; t++) {
            const float *in = x + t * x_stride + 32 * b;
            float a = max_abs(in);
            bool zero = a < 0x1p-100f;
            float d = zero ? 0 : a / 127, id = zero ? 0 : 127 / a;
            int32_t sum = 0;
            for (int c = 0; c < 32; c++) {
                float v = rintf(in[c] * id);
                v = v < -127 ? -127 : v > 127 ? 127 : v;
                int8_t q = (int8_t)v;
                p[32 * t + (size_t)c] = (uint8_t)q;
                sum += q;
                if (rest)
                    rest[t * (size_t)n_cols + (size_t)(32 * b + c)] =
                        fmaf(-d, (float)q, in[c]);
            }
            memcpy(p + 32 * n + 4 * t, &d, sizeof d);
            memcpy(p + 36 * n + 4 * t, &sum, sizeof sum);
        }
    }
}

/* The numbers of block b of a row, with their scale and minimum; for q8p also
 * the high nibbles. */
struct numbers {
    int n[32];
    float d, m;
};

static int nibble(const uint8_t *groups, int lane, int c)
{
    unsigned byte = groups[c / 8 * 64 + lane * 4 + c % 4];
    return (int)(c % 8 < 4 ? byte & 15 : byte >> 4);
}

static float f16_at(const uint8_t *p)
{
    return tlr_f16_to_f32((uint16_t)(p[0] | (unsigned)p[1] << 8));
}

static struct numbers tile_numbers(enum tlr_type type, const uint8_t *w,
                                   int row, int b, int n_cols)
{
    struct numbers out = {.d = 0};
    size_t tile = tlr_tile_bytes(type);
    const uint8_t *p = w +
                       (size_t)(row / 16) *
                           tlr_band_bytes(type, (uint64_t)n_cols) +
                       (size_t)b * tile;
    int lane = row % 16;
    out.d = f16_at(p + 2 * lane);
    if (type == TLR_Q4M)
        out.m = f16_at(p + 32 + 2 * lane);
    p += type == TLR_Q4M ? 64 : 32;
    for (int c = 0; c < 32; c++) {
        if (type == TLR_Q8)
            out.n[c] = (int8_t)p[c / 4 * 64 + lane * 4 + c % 4];
        else if (type == TLR_Q4)
            out.n[c] = nibble(p, lane, c) - 8;
        else if (type == TLR_Q4N)
            out.n[c] = tlr_q4n_levels[nibble(p, lane, c)];
        else
            out.n[c] = nibble(p, lane, c);
    }
    return out;
}

static struct numbers plane_numbers(const uint8_t *w, int row, int b,
                                    int n_cols, bool high_only)
{
    struct numbers out = {.d = 0};
    size_t blocks = (size_t)n_cols / 32, r = (size_t)row % TLR_PLANES_ROWS;
    w += (size_t)row / TLR_PLANES_ROWS * (TLR_PLANES_ROWS / 16) * blocks *
         (TLR_HIGH_BYTES + TLR_LOW_BYTES);
    size_t at = r / 16 * blocks + (size_t)b;
    const uint8_t *high = w + at * TLR_HIGH_BYTES;
    const uint8_t *low = w + (TLR_PLANES_ROWS / 16) * blocks * TLR_HIGH_BYTES +
                         at * TLR_LOW_BYTES;
    int lane = row % 16;
    out.d = f16_at(high + 2 * lane);
    for (int c = 0; c < 32; c++) {
        int n = nibble(high + 32, lane, c);
        out.n[c] = high_only ? n : 16 * n + nibble(low, lane, c) - 128;
    }
    return out;
}

static void matmul(enum tlr_type type, float *y, size_t y_stride, const void *w,
                   int row, const void *act, int n_tok, int n_rows, int n_cols)
{
    assert(n_tok >= 1 && row % 16 == 0 && n_rows >= 0 && n_cols % 32 == 0);
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tok; t++)
            y[(size_t)t * y_stride + (size_t)r] = 0;
        for (int b = 0; b < n_cols / 32; b++) {
            struct numbers k =
                type == TLR_Q8P
                    ? plane_numbers(w, row + r, b, n_cols, false)
                    : tile_numbers(type, w, row + r, b, n_cols);
            for (int t = 0; t < n_tok; t++) {
                struct block x = act_block(act, n_tok, t, b, n_cols);
                float *acc = y + (size_t)t * y_stride + r;
                int32_t sum = 0;
                for (int c = 0; c < 32; c++)
                    sum += k.n[c] * x.q[c];
                float s = k.d * x.d;
                *acc = fmaf((float)sum, s, *acc);
                if (type == TLR_Q4M)
                    *acc = fmaf(k.m, x.d * (float)x.sum, *acc);
            }
        }
    }
}

#define DEFINE(name, type)                                                     \
    void tlr_matmul_##name##_ref(float *y, size_t y_stride, const void *w,     \
                                 int row, const void *act, int n_tok,          \
                                 int n_rows, int n_cols)                       \
    {                                                                          \
        matmul(type, y, y_stride, w, row, act, n_tok, n_rows, n_cols);         \
    }

DEFINE(q8, TLR_Q8)
DEFINE(q4, TLR_Q4)
DEFINE(q4m, TLR_Q4M)
DEFINE(q4n, TLR_Q4N)
DEFINE(q8p, TLR_Q8P)

static void score_block(const struct numbers *k, const struct block *x,
                        float *acc, float *v)
{
    int32_t sum = 0, squares = 0;
    for (int c = 0; c < 32; c++) {
        sum += k->n[c] * x->q[c];
        squares += x->q[c] * x->q[c];
    }
    float mean = 7.53125f * (float)x->sum, e = x->d * x->d;
    *acc = fmaf((float)sum - mean, k->d * (16 * x->d), *acc);
    *v = fmaf(k->d * k->d, e * (float)squares, *v);
}

void tlr_score_q8p_ref(float *y, float *dev, size_t stride, const void *w,
                       int row, const void *act, int n_tok, int n_rows,
                       int n_cols)
{
    assert(n_tok >= 1 && n_tok <= TLR_ACT_GROUP);
    assert(row % 16 == 0 && n_rows >= 0 && n_cols % 32 == 0);
    for (int r = 0; r < n_rows; r++) {
        float acc[TLR_ACT_GROUP] = {0}, v[TLR_ACT_GROUP] = {0};
        for (int b = 0; b < n_cols / 32; b++) {
            struct numbers k = plane_numbers(w, row + r, b, n_cols, true);
            for (int t = 0; t < n_tok; t++) {
                struct block x = act_block(act, n_tok, t, b, n_cols);
                score_block(&k, &x, &acc[t], &v[t]);
            }
        }
        for (int t = 0; t < n_tok; t++) {
            y[(size_t)t * stride + (size_t)r] = acc[t];
            dev[(size_t)t * stride + (size_t)r] = sqrtf(21.25f * v[t]);
        }
    }
}
