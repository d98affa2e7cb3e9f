/* matvec_tiles_avx512.c - q8, q4 and q4m times up to 8 vectors.
 *
 * Lane r of every register is row r of the tile: no sum crosses lanes, and the
 * 16 scales of a tile are one multiply-add.  q8: a byte leaves its dword by
 * shifts and a conversion.  q4: a nibble becomes a float by a look-up in a
 * register of 16 (n - 8 for q4, n for q4m), exact and an instruction less.
 *
 * Two accumulators per vector (even, odd columns) live for one tile; the next
 * tile's start from zero, so the processor overlaps tiles by itself.  Columns
 * are walked in panels whose x stay in the nearest cache, y holding the partial
 * sums between them; the models of today have one panel.
 */
#include <stdbool.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"
#include "kernels/x86/vec_avx512.h"

#include "kernels/vec/block_sums.h"

struct tiles_call {
    float *y;
    size_t y_stride;
    const uint8_t *w;
    const float *x;
    size_t x_stride;
    int n_rows, n_cols;
};

/* Column k of a group, 16 rows. */
TLR_INLINE vf column(__m512i group, const int k, vf table,
                     const enum tlr_type type)
{
    if (type == TLR_Q8) {
        __m512i top = k == 3 ? group : _mm512_slli_epi32(group, 24 - 8 * k);
        return _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24));
    }
    const int shift = k < 4 ? 8 * k : 8 * (k - 4) + 4;
    __m512i index = shift ? _mm512_srli_epi32(group, shift) : group;
    return _mm512_permutexvar_ps(index, table);
}

TLR_INLINE vf load_scales(const uint8_t *tile)
{
    return vf_load_f16((const uint16_t *)(const void *)tile);
}

/* total[b] += tile * 32 columns of vector b. */
TLR_INLINE void add_tile(vf total[TLR_MAX_BRANCHES], const uint8_t *tile,
                         const float *x, size_t x_stride, const float *sums,
                         vf table, const int n_x, const enum tlr_type type)
{
    const int cols = type == TLR_Q8 ? 4 : 8; /* of a 64-byte group */
    const uint8_t *groups = tile + (type == TLR_Q4M ? 64 : 32);
    vf acc[TLR_MAX_BRANCHES][2];
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        acc[b][0] = acc[b][1] = vf_zero();
    for (int g = 0; g < TLR_TILE_COLS / cols; g++) {
        __m512i group = _mm512_loadu_si512(groups + g * 64);
        TLR_UNROLL
        for (int k = 0; k < cols; k++) {
            vf w = column(group, k, table, type);
            const float *xk = x + g * cols + k;
            TLR_UNROLL
            for (int b = 0; b < n_x; b++) {
                vf xb = vf_set1(xk[(size_t)b * x_stride]);
                acc[b][k & 1] = vf_fma(w, xb, acc[b][k & 1]);
            }
        }
    }
    vf d = load_scales(tile);
    TLR_UNROLL
    for (int b = 0; b < n_x; b++) {
        total[b] = vf_fma(vf_add(acc[b][0], acc[b][1]), d, total[b]);
        if (type == TLR_Q4M)
            total[b] = vf_fma(load_scales(tile + 32), vf_set1(sums[b]),
                              total[b]);
    }
}

TLR_INLINE void band(const struct tiles_call *m, const uint8_t *tile, int row,
                     int first, int n_tiles, float sums[][TLR_MAX_BRANCHES],
                     vf table, const int n_x, const enum tlr_type type)
{
    int n = m->n_rows - row < TLR_TILE_ROWS ? m->n_rows - row : TLR_TILE_ROWS;
    float *y = m->y + row;
    vf total[TLR_MAX_BRANCHES];
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        total[b] =
            first ? vf_load_n(y + (size_t)b * m->y_stride, n) : vf_zero();
    for (int t = 0; t < n_tiles; t++) {
        add_tile(total, tile, m->x + (first + t) * TLR_TILE_COLS, m->x_stride,
                 sums[t], table, n_x, type);
        tile += TLR_TILE_BYTES(type);
    }
    TLR_UNROLL
    for (int b = 0; b < n_x; b++)
        vf_store_n(y + (size_t)b * m->y_stride, total[b], n);
}

TLR_INLINE void matvec(const struct tiles_call *m, const int n_x,
                       const enum tlr_type type)
{
    const vf ramp = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                   14, 15);
    vf table = type == TLR_Q4 ? vf_sub(ramp, vf_set1(8)) : ramp;
    const size_t tile_bytes = TLR_TILE_BYTES(type);
    int all = m->n_cols / TLR_TILE_COLS;
    float sums[PANEL_TILES][TLR_MAX_BRANCHES];
    int first = 0;
    do {
        int n_tiles = all - first < PANEL_TILES ? all - first : PANEL_TILES;
        if (type == TLR_Q4M)
            block_sums(sums, m->x + first * TLR_TILE_COLS, m->x_stride, n_x,
                       n_tiles);
        const uint8_t *tile = m->w + (size_t)first * tile_bytes;
        for (int row = 0; row < m->n_rows; row += TLR_TILE_ROWS) {
            band(m, tile, row, first, n_tiles, sums, table, n_x, type);
            tile += (size_t)all * tile_bytes;
        }
        first += PANEL_TILES;
    } while (first < all);
}

#define DEFINE(name, type)                                                     \
    void tlr_matvec_##name##_avx512(float *y, size_t y_stride, const void *w,  \
                                    const float *x, size_t x_stride, int n_x,  \
                                    int n_rows, int n_cols)                    \
    {                                                                          \
        struct tiles_call m = {y, y_stride, w, x, x_stride, n_rows, n_cols};   \
        TLR_CALL_1_TO_8(n_x, CALL_##type)                                      \
    }

#define CALL_TLR_Q8(n) matvec(&m, n, TLR_Q8)
#define CALL_TLR_Q4(n) matvec(&m, n, TLR_Q4)
#define CALL_TLR_Q4M(n) matvec(&m, n, TLR_Q4M)
DEFINE(q8, TLR_Q8)
DEFINE(q4, TLR_Q4)
DEFINE(q4m, TLR_Q4M)
