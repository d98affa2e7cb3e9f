/* matmul_i8mm.c - whole groups of 8 tokens by smmla, which multiplies 2 rows x 8
 * columns with 2 tokens; what is left over, and decode, goes by sdot as in
 * matmul_dotprod.c.
 *
 * Two neighbouring groups of a tile zip to the rows that smmla wants.  The
 * tokens are arranged once for PANEL_BLOCKS blocks and used for all rows of the
 * call: arranged anew for each tile they cost as much as smmla saves.  Between
 * panels the accumulators wait in y, as exact there as in a register.
 */
#include <arm_neon.h>
#include <stdbool.h>

#define TLR_FN(name) tlr_##name##_i8mm
#define TLR_INLINE static inline __attribute__((always_inline))

#include "kernels/arm/dot_sdot.h"
#include "kernels/arm/matmul.h"

enum {
    PANEL_BLOCKS = 16,
    PANEL_GROUPS = BLOCK_TOKENS / TLR_ACT_GROUP,
    PAIRS = TLR_ACT_GROUP / 2
};

/* A block of two tokens. */
struct pair {
    int8_t q[4][16]; /* columns 8i .. 8i+7 of the one, then of the other */
    float d[2], m[2]; /* scale, and what multiplies the minimum of q4m */
    int32_t start[2]; /* of the sums: the 8 of q4's nibbles */
};

struct panel {
    struct pair at[PANEL_GROUPS][PANEL_BLOCKS][PAIRS]; /* 22 KiB of stack */
};

TLR_INLINE void arrange(struct pair *out, struct token_block a,
                        struct token_block b)
{
    for (int i = 0; i < 4; i++) {
        int8x8_t one = vld1_s8(a.q + 8 * i), other = vld1_s8(b.q + 8 * i);
        vst1q_s8(out->q[i], vcombine_s8(one, other));
    }
    out->d[0] = a.d, out->d[1] = b.d;
    out->m[0] = a.d * (float)a.sum, out->m[1] = b.d * (float)b.sum;
    out->start[0] = -8 * a.sum, out->start[1] = -8 * b.sum;
}

/* Blocks [from, from + n) of n_groups groups of 8 tokens. */
static void arrange_panel(struct panel *out, const uint8_t *act,
                          size_t group_bytes, int n_groups, size_t from,
                          size_t n)
{
    for (int g = 0; g < n_groups; g++) {
        struct tokens in = {act + (size_t)g * group_bytes, TLR_ACT_GROUP, 0};
        for (size_t b = 0; b < n; b++) {
            for (int p = 0; p < PAIRS; p++)
                arrange(&out->at[g][b][p], token_at(&in, from + b, 2 * p),
                        token_at(&in, from + b, 2 * p + 1));
        }
    }
}

TLR_INLINE float32x4_t twice_f32(const float *p)
{
    float32x2_t v = vld1_f32(p);
    return vcombine_f32(v, v);
}

TLR_INLINE float32x4_t load_rows(const float *y, int n)
{
    float f[4] = {0};
    if (n >= 4)
        return vld1q_f32(y);
    for (int i = 0; i < n; i++)
        f[i] = y[i];
    return vld1q_f32(f);
}

/* Accumulators of 4 rows and a pair of tokens: rows 0 and 1, rows 2 and 3, each
 * row's two tokens side by side. */
struct corner {
    float32x4_t top, bottom;
};

TLR_INLINE struct corner load_corner(const float *y, size_t y_stride, int n)
{
    float32x4_t one = load_rows(y, n), other = load_rows(y + y_stride, n);
    struct corner c = {vzip1q_f32(one, other), vzip2q_f32(one, other)};
    return c;
}

TLR_INLINE void store_corner(float *y, size_t y_stride, struct corner c, int n)
{
    store_rows(y, vuzp1q_f32(c.top, c.bottom), n);
    store_rows(y + y_stride, vuzp2q_f32(c.top, c.bottom), n);
}

/* One block of 4 rows, zipped, and a pair of tokens. */
TLR_INLINE struct corner multiply(struct corner acc, const int8x16_t top[4],
                                  const int8x16_t bottom[4], float32x4_t d,
                                  float32x4_t m, const struct pair *x,
                                  const int type)
{
    int32x2_t first = vdup_n_s32(0);
    if (type == TLR_Q4)
        first = vld1_s32(x->start);
    int32x4_t a = vcombine_s32(first, first), b = a;
    TLR_UNROLL
    for (int i = 0; i < 4; i++) {
        int8x16_t q = vld1q_s8(x->q[i]);
        a = vmmlaq_s32(a, top[i], q);
        b = vmmlaq_s32(b, bottom[i], q);
    }
    float32x4_t dx = twice_f32(x->d);
    acc.top = vfmaq_f32(acc.top, vcvtq_f32_s32(a),
                        vmulq_f32(vzip1q_f32(d, d), dx));
    acc.bottom = vfmaq_f32(acc.bottom, vcvtq_f32_s32(b),
                           vmulq_f32(vzip2q_f32(d, d), dx));
    if (type == TLR_Q4M) {
        float32x4_t mx = twice_f32(x->m);
        acc.top = vfmaq_f32(acc.top, vzip1q_f32(m, m), mx);
        acc.bottom = vfmaq_f32(acc.bottom, vzip2q_f32(m, m), mx);
    }
    return acc;
}

/* Quads q0 and q0 + 1 of a band, a group of 8 tokens, n blocks; the first panel
 * starts from zero. */
TLR_INLINE void half_band(float *y, size_t y_stride, struct band at,
                          const struct pair x[][PAIRS], size_t n, bool is_first,
                          int n_rows, const int q0, const int type)
{
    struct corner acc[2][PAIRS];
    TLR_UNROLL
    for (int i = 0; i < 2 * PAIRS; i++) {
        struct corner zero = {vdupq_n_f32(0), vdupq_n_f32(0)};
        int k = i / PAIRS, p = i % PAIRS, r = 4 * (q0 + k);
        const float *from = y + 2 * (size_t)p * y_stride + r;
        acc[k][p] =
            is_first ? zero : load_corner(from, y_stride, n_rows - r);
    }
    for (size_t b = 0; b < n; b++) {
        TLR_UNROLL
        for (int k = 0; k < 2; k++) {
            int8x16_t w[8], top[4], bottom[4];
            load_quad(w, at, q0 + k, type);
            TLR_UNROLL
            for (int i = 0; i < 4; i++) {
                int32x4_t left = vreinterpretq_s32_s8(w[2 * i]);
                int32x4_t right = vreinterpretq_s32_s8(w[2 * i + 1]);
                top[i] = vreinterpretq_s8_s32(vzip1q_s32(left, right));
                bottom[i] = vreinterpretq_s8_s32(vzip2q_s32(left, right));
            }
            float32x4_t d = load_scales(at.tile, q0 + k);
            float32x4_t m =
                type == TLR_Q4M ? load_scales(at.tile + 32, q0 + k) : d;
            TLR_UNROLL
            for (int p = 0; p < PAIRS; p++)
                acc[k][p] =
                    multiply(acc[k][p], top, bottom, d, m, &x[b][p], type);
        }
        at.tile += tile_step(type);
        at.low += type == TLR_Q8P ? TLR_LOW_BYTES : 0;
    }
    TLR_UNROLL
    for (int i = 0; i < 2 * PAIRS; i++) {
        int k = i / PAIRS, p = i % PAIRS, r = 4 * (q0 + k);
        store_corner(y + 2 * (size_t)p * y_stride + r, y_stride, acc[k][p],
                     n_rows - r);
    }
}

/* All rows times n_groups <= PANEL_GROUPS whole groups at act. */
TLR_INLINE void groups_by_pairs(float *y, size_t y_stride, const void *w,
                                int row, const uint8_t *act, int n_groups,
                                int n_rows, int n_cols, const int type)
{
    size_t blocks = (size_t)n_cols / TLR_TILE_COLS;
    struct panel panel;
    for (size_t b = 0; b < blocks; b += PANEL_BLOCKS) {
        size_t n = blocks - b < PANEL_BLOCKS ? blocks - b : PANEL_BLOCKS;
        arrange_panel(&panel, act, tlr_act_bytes(TLR_ACT_GROUP, (size_t)n_cols),
                      n_groups, b, n);
        for (int r = 0; r < n_rows; r += TLR_TILE_ROWS) {
            struct band at = band_at(w, row + r, blocks, type);
            at.tile += b * tile_step(type);
            at.low += type == TLR_Q8P ? b * TLR_LOW_BYTES : 0;
            for (int g = 0; g < n_groups; g++) {
                float *out = y + (size_t)(g * TLR_ACT_GROUP) * y_stride + r;
                half_band(out, y_stride, at, panel.at[g], n, b == 0,
                          n_rows - r, 0, type);
                half_band(out, y_stride, at, panel.at[g], n, b == 0,
                          n_rows - r, 2, type);
            }
        }
    }
}

TLR_INLINE void by_pairs(float *y, size_t y_stride, const void *w, int row,
                         const uint8_t *act, int n_tok, int n_rows, int n_cols,
                         const int type)
{
    int t = 0;
    while (n_tok - t >= TLR_ACT_GROUP) {
        int n = (n_tok - t) / TLR_ACT_GROUP;
        n = n < PANEL_GROUPS ? n : PANEL_GROUPS;
        groups_by_pairs(y + (size_t)t * y_stride, y_stride, w, row,
                        act + tlr_act_bytes((size_t)t, (size_t)n_cols), n,
                        n_rows, n_cols, type);
        t += n * TLR_ACT_GROUP;
    }
    if (t < n_tok)
        matmul(y + (size_t)t * y_stride, y_stride, w, row,
               act + tlr_act_bytes((size_t)t, (size_t)n_cols), n_tok - t,
               n_rows, n_cols, type);
}

TLR_MATMUL_SLOTS(by_pairs)
