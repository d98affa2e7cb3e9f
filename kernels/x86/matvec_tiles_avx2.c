/* matvec_tiles_avx2.c - q8, q4 and q4m times vectors, eight rows (half a tile)
 * at a time.
 *
 * q4, q4m: lane r is row r, as in matvec_tiles_avx512.c; n - 8 is made exact
 * by flipping the top bit of every nibble and sign-extending it.
 * q8: a register takes 2 rows x 4 columns straight from memory by VPMOVSXBD, so
 * that converting costs one instruction instead of three; four such registers
 * are the eight rows, and three horizontal adds per tile bring them together in
 * the order LANE_ROWS.
 *
 * Sixteen registers hold the accumulators of Q4_X (Q8_X) vectors; more vectors
 * mean more passes over a band, which then lies in the nearest cache.
 */
#include <stdbool.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"
#include "kernels/x86/vec_avx2.h"

#include "kernels/vec/block_sums.h"

enum { HALF = 8, Q4_X = 4, Q8_X = 2, MAX_X = Q4_X };

struct tiles_call {
    float *y;
    size_t y_stride;
    const uint8_t *w;
    const float *x;
    size_t x_stride;
    int n_rows, n_cols;
};

/* Column k of a group of nibbles, 8 rows; of q4 the top bits are flipped. */
TLR_INLINE vf column(__m256i group, const int k, const bool has_min)
{
    const int shift = k < 4 ? 8 * k : 8 * (k - 4) + 4;
    __m256i v = group;
    if (has_min)
        v = _mm256_and_si256(shift ? _mm256_srli_epi32(v, shift) : v,
                             _mm256_set1_epi32(15));
    else
        v = _mm256_srai_epi32(shift == 28 ? v : _mm256_slli_epi32(v, 28 - shift),
                              28);
    return _mm256_cvtepi32_ps(v);
}

TLR_INLINE __m256i load_group(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* sum[b] = unscaled product of half a tile's nibbles. */
TLR_INLINE void sum_q4(vf sum[MAX_X], const uint8_t *groups, const float *x,
                       size_t x_stride, const int n_x, const bool has_min)
{
    vf acc[MAX_X][2];
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        acc[b][0] = acc[b][1] = vf_zero();
    for (int g = 0; g < 4; g++) {
        __m256i group = load_group(groups + g * 64);
        if (!has_min)
            group = _mm256_xor_si256(group, _mm256_set1_epi8((char)0x88));
        TLR_UNROLL
        for (int k = 0; k < 8; k++) {
            vf w = column(group, k, has_min);
            const float *xk = x + g * 8 + k;
            TLR_UNROLL
            for (int b = 0; b < n_x; b++) {
                vf xb = vf_set1(xk[(size_t)b * x_stride]);
                acc[b][k & 1] = vf_fma(w, xb, acc[b][k & 1]);
            }
        }
    }
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        sum[b] = vf_add(acc[b][0], acc[b][1]);
}

TLR_INLINE vf two_rows(const uint8_t *p)
{
    __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

/* The same for bytes, rows in the order of lane_rows. */
TLR_INLINE void sum_q8(vf sum[MAX_X], const uint8_t *groups, const float *x,
                       size_t x_stride, const int n_x)
{
    vf acc[MAX_X][4];
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        acc[b][0] = acc[b][1] = acc[b][2] = acc[b][3] = vf_zero();
    for (int g = 0; g < 8; g++) {
        vf x4[MAX_X];
        TLR_UNROLL
        for (int b = 0; b < n_x; b++)
            x4[b] = _mm256_broadcast_ps((const __m128 *)(const void *)(
                x + (size_t)b * x_stride + g * 4));
        TLR_UNROLL
        for (int i = 0; i < 4; i++) {
            vf w = two_rows(groups + g * 64 + i * 8);
            TLR_UNROLL
            for (int b = 0; b < n_x; b++)
                acc[b][i] = vf_fma(w, x4[b], acc[b][i]);
        }
    }
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        sum[b] = _mm256_hadd_ps(_mm256_hadd_ps(acc[b][0], acc[b][1]),
                                _mm256_hadd_ps(acc[b][2], acc[b][3]));
}

/* Puts 8 rows into the order of sum_q8 (lane i holds row 2i, lane 4+i row
 * 2i+1), or back. */
TLR_INLINE vf to_lane_rows(vf v)
{
    return _mm256_permutevar8x32_ps(v,
                                    _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

TLR_INLINE vf from_lane_rows(vf v)
{
    return _mm256_permutevar8x32_ps(v,
                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

TLR_INLINE vf load_scales(const uint8_t *p)
{
    return vf_load_f16((const uint16_t *)(const void *)p);
}

/* total[b] += half a tile * 32 columns of vector b. */
TLR_INLINE void add_half(vf total[MAX_X], const uint8_t *tile, int half,
                         const float *x, size_t x_stride, const float *sums,
                         const int n_x, const enum tlr_type type)
{
    const uint8_t *groups =
        tile + (type == TLR_Q4M ? 64 : 32) + half * HALF * 4;
    const uint8_t *scales = tile + half * HALF * 2;
    vf sum[MAX_X];
    vf d = load_scales(scales);
    if (type == TLR_Q8) {
        sum_q8(sum, groups, x, x_stride, n_x);
        d = to_lane_rows(d);
    } else {
        sum_q4(sum, groups, x, x_stride, n_x, type == TLR_Q4M);
    }
    TLR_UNROLL
    for (int b = 0; b < n_x; b++) {
        total[b] = vf_fma(sum[b], d, total[b]);
        if (type == TLR_Q4M)
            total[b] = vf_fma(load_scales(scales + 32), vf_set1(sums[b]),
                              total[b]);
    }
}

/* Eight rows from `row` on, whose tiles start at `tile`. */
TLR_INLINE void half_band(const struct tiles_call *m, const uint8_t *tile,
                          int row, int first, int n_tiles,
                          float sums[][TLR_MAX_BRANCHES], int b0,
                          const int n_x, const enum tlr_type type)
{
    int n = m->n_rows - row < HALF ? m->n_rows - row : HALF;
    float *y = m->y + (size_t)b0 * m->y_stride + row;
    const float *x = m->x + (size_t)b0 * m->x_stride + first * TLR_TILE_COLS;
    vf total[MAX_X];
    TLR_UNROLL
    for (int b = 0; b < n_x; b++) {
        total[b] =
            first ? vf_load_n(y + (size_t)b * m->y_stride, n) : vf_zero();
        if (type == TLR_Q8)
            total[b] = to_lane_rows(total[b]);
    }
    for (int t = 0; t < n_tiles; t++) {
        add_half(total, tile, row / HALF % 2, x + t * TLR_TILE_COLS,
                 m->x_stride, sums[t] + b0, n_x, type);
        tile += TLR_TILE_BYTES(type);
    }
    TLR_UNROLL
    for (int b = 0; b < n_x; b++) {
        if (type == TLR_Q8)
            total[b] = from_lane_rows(total[b]);
        vf_store_n(y + (size_t)b * m->y_stride, total[b], n);
    }
}

TLR_INLINE void matvec(const struct tiles_call *m, const int n_x,
                       const enum tlr_type type)
{
    const size_t tile_bytes = TLR_TILE_BYTES(type);
    const int x_at_once = type == TLR_Q8 ? Q8_X : Q4_X;
    int all = m->n_cols / TLR_TILE_COLS;
    float sums[PANEL_TILES][TLR_MAX_BRANCHES];
    int first = 0;
    do {
        int n_tiles = all - first < PANEL_TILES ? all - first : PANEL_TILES;
        if (type == TLR_Q4M)
            block_sums(sums, m->x + first * TLR_TILE_COLS, m->x_stride, n_x,
                       n_tiles);
        const uint8_t *tile = m->w + (size_t)first * tile_bytes;
        for (int row = 0; row < m->n_rows; row += HALF) {
            for (int b = 0; b < n_x; b += x_at_once) {
                int left = n_x - b;
#define HALF_BAND(n)                                                           \
    half_band(m, tile, row, first, n_tiles, sums, b, n, type)
                if (type == TLR_Q8 && left == 1)
                    HALF_BAND(1);
                else if (type == TLR_Q8)
                    HALF_BAND(Q8_X);
                else
                    TLR_CALL_1_TO_4(left, HALF_BAND)
            }
            if (row / HALF % 2 == 1)
                tile += (size_t)all * tile_bytes;
        }
        first += PANEL_TILES;
    } while (first < all);
}

#define DEFINE(name, type)                                                     \
    void tlr_matvec_##name##_avx2(float *y, size_t y_stride, const void *w,    \
                                  const float *x, size_t x_stride, int n_x,    \
                                  int n_rows, int n_cols)                      \
    {                                                                          \
        struct tiles_call m = {y, y_stride, w, x, x_stride, n_rows, n_cols};   \
        matvec(&m, n_x, type);                                                 \
    }

DEFINE(q8, TLR_Q8)
DEFINE(q4, TLR_Q4)
DEFINE(q4m, TLR_Q4M)
