/* matmul.h - matmul_* and score_q8p of Arm over one operation that the including
 * file has defined before, with TLR_FN and TLR_INLINE:
 *
 *   int32x4_t dot(int32x4_t start, const int8x16_t w[8], const int8_t *x,
 *                 bool small)
 *
 * start + the products of 4 rows x 32 columns with one token: w[g] holds columns
 * 4g .. 4g+3 of row 0, then of row 1, 2, 3, as it lies in a tile; x is 32 bytes;
 * small says that no number of w is over 15.
 *
 * Signed times signed bytes, so the numbers enter as they are; only q4 leaves
 * the 8 to be taken off its nibbles to the sum of the activations, exact in
 * integers.  A tile is read once, front to back, for a whole group of tokens:
 * 4 quads of rows x 4 tokens or 2 quads x 8 tokens hold 16 accumulators, half
 * of the registers.
 */
#ifndef TLR_KERNELS_ARM_MATMUL_H
#define TLR_KERNELS_ARM_MATMUL_H

#include <arm_neon.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"

/* GCC moves the loads of a loop up before it knows that registers run out, and
 * then spills: the loop of 8 tokens is a fifth longer (GCC 12, counted). */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

enum {
    QUADS = 4,                        /* of rows in a tile */
    BLOCK_TOKENS = 4 * TLR_ACT_GROUP, /* stay in the cache from band to band */
    HIGH_PLANE = TLR_N_TYPES          /* beside enum tlr_type: score_q8p */
};

/* The tiles of 16 rows; low only in q8p. */
struct band {
    const uint8_t *tile, *low;
};

TLR_INLINE size_t tile_step(const int type)
{
    return type == TLR_Q8 ? 544 : type == TLR_Q4M ? 320 : 288;
}

TLR_INLINE struct band band_at(const void *w, int row, size_t blocks,
                               const int type)
{
    const uint8_t *p = w;
    size_t band = (size_t)row / TLR_TILE_ROWS;
    if (type != TLR_Q8P && type != HIGH_PLANE) {
        struct band out = {p + band * blocks * tile_step(type), NULL};
        return out;
    }
    const size_t in_group = TLR_PLANES_ROWS / TLR_TILE_ROWS;
    p += band / in_group * in_group * blocks *
         (TLR_HIGH_BYTES + TLR_LOW_BYTES);
    band %= in_group;
    struct band out = {p + band * blocks * TLR_HIGH_BYTES,
                       p + in_group * blocks * TLR_HIGH_BYTES +
                           band * blocks * TLR_LOW_BYTES};
    return out;
}

/* The numbers of rows 4*quad .. 4*quad+3; of q4 without the - 8. */
TLR_INLINE void load_quad(int8x16_t w[8], struct band at, int quad,
                          const int type)
{
    const uint8_t *p = at.tile + (type == TLR_Q4M ? 64 : 32) + 16 * quad;
    if (type == TLR_Q8) {
        TLR_UNROLL
        for (int g = 0; g < 8; g++)
            w[g] = vreinterpretq_s8_u8(vld1q_u8(p + 64 * g));
        return;
    }
    const int8x16_t levels = vld1q_s8(tlr_q4n_levels);
    const uint8x16_t low_half = vdupq_n_u8(15), top = vdupq_n_u8(0x80);
    TLR_UNROLL
    for (int g = 0; g < 4; g++) {
        uint8x16_t bytes = vld1q_u8(p + 64 * g), a, b;
        if (type == TLR_Q8P) {
            uint8x16_t low = vld1q_u8(at.low + 16 * quad + 64 * g);
            a = veorq_u8(vsliq_n_u8(low, bytes, 4), top);
            b = veorq_u8(vsriq_n_u8(bytes, low, 4), top);
        } else {
            a = vandq_u8(bytes, low_half);
            b = vshrq_n_u8(bytes, 4);
        }
        if (type == TLR_Q4N) {
            w[2 * g] = vqtbl1q_s8(levels, a);
            w[2 * g + 1] = vqtbl1q_s8(levels, b);
        } else {
            w[2 * g] = vreinterpretq_s8_u8(a);
            w[2 * g + 1] = vreinterpretq_s8_u8(b);
        }
    }
}

/* f16 at p + 8*quad .. */
TLR_INLINE float32x4_t load_scales(const uint8_t *p, int quad)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * quad)));
}

TLR_INLINE void store_rows(float *y, float32x4_t v, int n)
{
    if (n >= 4) {
        vst1q_f32(y, v);
        return;
    }
    float f[4];
    vst1q_f32(f, v);
    for (int i = 0; i < n; i++)
        y[i] = f[i];
}

/* Tokens of a group: the blocks of one group of n, from token `first` on. */
struct tokens {
    const uint8_t *x;
    int n, first;
};

struct token_block {
    const int8_t *q;
    float d;
    int32_t sum;
};

TLR_INLINE struct token_block token_at(const struct tokens *in, size_t b, int t)
{
    size_t n = (size_t)in->n, i = (size_t)(in->first + t);
    const uint8_t *p = in->x + b * n * TLR_ACT_BYTES;
    struct token_block out = {(const int8_t *)(p + 32 * i), 0, 0};
    memcpy(&out.d, p + 32 * n + 4 * i, sizeof out.d);
    memcpy(&out.sum, p + 36 * n + 4 * i, sizeof out.sum);
    return out;
}

/* n_q quads of rows of a band from quad q0 on, n_t tokens. */
TLR_INLINE void rows_by_tokens(float *y, size_t y_stride, struct band at,
                               const struct tokens *in, int n_rows,
                               size_t blocks, const int q0, const int n_q,
                               const int n_t, const int type)
{
    float32x4_t acc[QUADS][TLR_ACT_GROUP];
    const bool small = type == TLR_Q4 || type == TLR_Q4M;
    TLR_UNROLL
    for (int k = 0; k < n_q; k++) {
        TLR_UNROLL
        for (int t = 0; t < n_t; t++)
            acc[k][t] = vdupq_n_f32(0);
    }
    for (size_t b = 0; b < blocks; b++) {
        TLR_UNROLL
        for (int k = 0; k < n_q; k++) {
            int8x16_t w[8];
            load_quad(w, at, q0 + k, type);
            float32x4_t d = load_scales(at.tile, q0 + k);
            TLR_UNROLL
            for (int t = 0; t < n_t; t++) {
                struct token_block x = token_at(in, b, t);
                int32x4_t start = vdupq_n_s32(type == TLR_Q4 ? -8 * x.sum : 0);
                int32x4_t sum = dot(start, w, x.q, small);
                acc[k][t] = vfmaq_f32(acc[k][t], vcvtq_f32_s32(sum),
                                      vmulq_n_f32(d, x.d));
                if (type == TLR_Q4M)
                    acc[k][t] = vfmaq_n_f32(acc[k][t],
                                            load_scales(at.tile + 32, q0 + k),
                                            x.d * (float)x.sum);
            }
        }
        at.tile += tile_step(type);
        at.low += type == TLR_Q8P ? TLR_LOW_BYTES : 0;
    }
    TLR_UNROLL
    for (int k = 0; k < n_q; k++) {
        int r = 4 * (q0 + k);
        TLR_UNROLL
        for (int t = 0; t < n_t; t++)
            store_rows(y + (size_t)(in->first + t) * y_stride + r, acc[k][t],
                       n_rows - r);
    }
}

/* A band times one group of tokens. */
TLR_INLINE void band_by_group(float *y, size_t y_stride, struct band at,
                              struct tokens in, int n_rows, size_t blocks,
                              const int type)
{
    if (in.n == TLR_ACT_GROUP) {
        rows_by_tokens(y, y_stride, at, &in, n_rows, blocks, 0, 2, 8, type);
        rows_by_tokens(y, y_stride, at, &in, n_rows, blocks, 2, 2, 8, type);
        return;
    }
    for (; in.first < in.n; in.first += 4) {
        int left = in.n - in.first;
#define TOKENS(n)                                                              \
    rows_by_tokens(y, y_stride, at, &in, n_rows, blocks, 0, QUADS, n, type)
        TLR_CALL_1_TO_4(left, TOKENS)
#undef TOKENS
    }
}

TLR_INLINE void matmul(float *y, size_t y_stride, const void *w, int row,
                       const uint8_t *act, int n_tok, int n_rows, int n_cols,
                       const int type)
{
    size_t blocks = (size_t)n_cols / TLR_TILE_COLS;
    for (int from = 0; from < n_tok; from += BLOCK_TOKENS) {
        int to = n_tok - from < BLOCK_TOKENS ? n_tok : from + BLOCK_TOKENS;
        for (int r = 0; r < n_rows; r += TLR_TILE_ROWS) {
            struct band at = band_at(w, row + r, blocks, type);
            for (int t = from; t < to; t += TLR_ACT_GROUP) {
                int n = to - t < TLR_ACT_GROUP ? to - t : TLR_ACT_GROUP;
                struct tokens in = {
                    act + tlr_act_bytes((size_t)t, (size_t)n_cols), n, 0};
                band_by_group(y + (size_t)t * y_stride + r, y_stride, at, in,
                              n_rows - r, blocks, type);
            }
        }
    }
}

/* The five slots over a function with the parameters of matmul. */
#define TLR_MATMUL_SLOTS(body)                                                 \
    TLR_MATMUL_SLOT(q8, TLR_Q8, body)                                          \
    TLR_MATMUL_SLOT(q4, TLR_Q4, body)                                          \
    TLR_MATMUL_SLOT(q4m, TLR_Q4M, body)                                        \
    TLR_MATMUL_SLOT(q4n, TLR_Q4N, body)                                        \
    TLR_MATMUL_SLOT(q8p, TLR_Q8P, body)
#define TLR_MATMUL_SLOT(name, type, body)                                      \
    void TLR_FN(matmul_##name)(float *y, size_t y_stride, const void *w,       \
                               int row, const void *act, int n_tok,            \
                               int n_rows, int n_cols)                         \
    {                                                                          \
        body(y, y_stride, w, row, act, n_tok, n_rows, n_cols, type);           \
    }

TLR_INLINE int32_t sum_of_squares(const int8_t *x)
{
    int8x16_t a = vld1q_s8(x), b = vld1q_s8(x + 16);
    int32x4_t sum =
        vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(a)));
    sum = vpadalq_s16(sum, vmull_high_s8(a, a));
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(b), vget_low_s8(b)));
    sum = vpadalq_s16(sum, vmull_high_s8(b, b));
    return vaddvq_s32(sum);
}

/* A band's high plane times n_t tokens. */
TLR_INLINE void score_rows(float *y, float *dev, size_t stride, struct band at,
                           const struct tokens *in, int n_rows, size_t blocks,
                           const int n_t)
{
    float32x4_t acc[QUADS][2], v[QUADS][2];
    TLR_UNROLL
    for (int k = 0; k < QUADS; k++) {
        TLR_UNROLL
        for (int t = 0; t < n_t; t++)
            acc[k][t] = v[k][t] = vdupq_n_f32(0);
    }
    for (size_t b = 0; b < blocks; b++) {
        TLR_UNROLL
        for (int k = 0; k < QUADS; k++) {
            int8x16_t n[8];
            load_quad(n, at, k, HIGH_PLANE);
            float32x4_t d = load_scales(at.tile, k);
            TLR_UNROLL
            for (int t = 0; t < n_t; t++) {
                struct token_block x = token_at(in, b, t);
                float squares = (float)sum_of_squares(x.q);
                float32x4_t sum =
                    vcvtq_f32_s32(dot(vdupq_n_s32(0), n, x.q, true));
                sum = vsubq_f32(sum, vdupq_n_f32(7.53125f * (float)x.sum));
                acc[k][t] =
                    vfmaq_f32(acc[k][t], sum, vmulq_n_f32(d, 16 * x.d));
                v[k][t] = vfmaq_n_f32(v[k][t], vmulq_f32(d, d),
                                      x.d * x.d * squares);
            }
        }
        at.tile += TLR_HIGH_BYTES;
    }
    TLR_UNROLL
    for (int k = 0; k < QUADS; k++) {
        int r = 4 * k;
        TLR_UNROLL
        for (int t = 0; t < n_t; t++) {
            size_t i = (size_t)(in->first + t) * stride + (size_t)r;
            store_rows(y + i, acc[k][t], n_rows - r);
            store_rows(dev + i, vsqrtq_f32(vmulq_n_f32(v[k][t], 21.25f)),
                       n_rows - r);
        }
    }
}

/* Two tokens at a time, while the band's tiles are in the first cache. */
TLR_INLINE void score(float *y, float *dev, size_t stride, const void *w,
                      int row, const void *act, int n_tok, int n_rows,
                      int n_cols)
{
    size_t blocks = (size_t)n_cols / TLR_TILE_COLS;
    for (int r = 0; r < n_rows; r += TLR_TILE_ROWS) {
        struct band at = band_at(w, row + r, blocks, HIGH_PLANE);
        struct tokens in = {act, n_tok, 0};
        for (; in.first + 1 < n_tok; in.first += 2)
            score_rows(y + r, dev + r, stride, at, &in, n_rows - r, blocks, 2);
        if (in.first < n_tok)
            score_rows(y + r, dev + r, stride, at, &in, n_rows - r, blocks, 1);
    }
}

#define TLR_SCORE_SLOT                                                         \
    void TLR_FN(score_q8p)(float *y, float *dev, size_t stride, const void *w, \
                           int row, const void *act, int n_tok, int n_rows,    \
                           int n_cols)                                         \
    {                                                                          \
        score(y, dev, stride, w, row, act, n_tok, n_rows, n_cols);             \
    }

#endif
