/* dequant.h - weights to f32 rows over a vector vocabulary (x86/vec_*.h), which
 * the including file has included before.
 *
 * A tile holds a row's bytes 4 at a time, 64 bytes apart: a 4x4 transpose of
 * dwords makes 16 consecutive columns of 4 rows.  Every product is exact and
 * the minimum is one rounding, so the results are those of tlr_row_decode bit
 * for bit.
 */
#include <stdbool.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"

struct four_rows {
    __m128i row[4]; /* 16 columns each */
};

TLR_INLINE struct four_rows transpose(__m128i a, __m128i b, __m128i c,
                                      __m128i d)
{
    __m128i ab_low = _mm_unpacklo_epi32(a, b);
    __m128i ab_high = _mm_unpackhi_epi32(a, b);
    __m128i cd_low = _mm_unpacklo_epi32(c, d);
    __m128i cd_high = _mm_unpackhi_epi32(c, d);
    struct four_rows out = {{_mm_unpacklo_epi64(ab_low, cd_low),
                             _mm_unpackhi_epi64(ab_low, cd_low),
                             _mm_unpacklo_epi64(ab_high, cd_high),
                             _mm_unpackhi_epi64(ab_high, cd_high)}};
    return out;
}

TLR_INLINE __m128i load_16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Columns 16*part .. of rows 4*quad .. of a tile, as int8. */
TLR_INLINE struct four_rows load_rows(const uint8_t *tile, int quad, int part,
                                      const enum tlr_type type)
{
    const uint8_t *p = tile + (type == TLR_Q4M ? 64 : 32) + quad * 16;
    if (type == TLR_Q8) {
        p += part * 4 * 64;
        return transpose(load_16(p), load_16(p + 64), load_16(p + 128),
                         load_16(p + 192));
    }
    p += part * 2 * 64;
    const __m128i low = _mm_set1_epi8(15);
    __m128i bias = _mm_set1_epi8(type == TLR_Q4 ? 8 : 0);
    __m128i n[4];
    for (int i = 0; i < 2; i++) {
        __m128i bytes = load_16(p + i * 64);
        __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
        n[2 * i] = _mm_sub_epi8(_mm_and_si128(bytes, low), bias);
        n[2 * i + 1] = _mm_sub_epi8(high, bias);
    }
    return transpose(n[0], n[1], n[2], n[3]);
}

TLR_INLINE float scale(const uint8_t *tile, int index)
{
    uint16_t h = (uint16_t)(tile[2 * index] | tile[2 * index + 1] << 8);
    return _cvtsh_ss(h);
}

TLR_INLINE void dequant_tile(float *dst, size_t dst_stride, const uint8_t *tile,
                             int n_rows, const enum tlr_type type)
{
    for (int quad = 0; quad * 4 < n_rows; quad++) {
        int n = n_rows - quad * 4 < 4 ? n_rows - quad * 4 : 4;
        for (int part = 0; part < 2; part++) {
            struct four_rows rows = load_rows(tile, quad, part, type);
            for (int i = 0; i < n; i++) {
                int r = quad * 4 + i;
                float *out = dst + (size_t)r * dst_stride + part * 16;
                if (type == TLR_Q4M)
                    vf_put_i8_min(out, rows.row[i], scale(tile, r),
                                  scale(tile, TLR_TILE_ROWS + r));
                else
                    vf_put_i8(out, rows.row[i], scale(tile, r));
            }
        }
    }
}

TLR_INLINE void dequant(float *dst, const uint8_t *w, int n_rows, int n_cols,
                        const enum tlr_type type)
{
    size_t cols = (size_t)n_cols;
    for (int row = 0; row < n_rows; row += TLR_TILE_ROWS) {
        int n = n_rows - row < TLR_TILE_ROWS ? n_rows - row : TLR_TILE_ROWS;
        for (int c = 0; c < n_cols; c += TLR_TILE_COLS) {
            dequant_tile(dst + (size_t)row * cols + c, cols, w, n, type);
            w += TLR_TILE_BYTES(type);
        }
    }
}

void TLR_FN(dequant_q8)(float *dst, const void *w, int n_rows, int n_cols)
{
    dequant(dst, w, n_rows, n_cols, TLR_Q8);
}

void TLR_FN(dequant_q4)(float *dst, const void *w, int n_rows, int n_cols)
{
    dequant(dst, w, n_rows, n_cols, TLR_Q4);
}

void TLR_FN(dequant_q4m)(float *dst, const void *w, int n_rows, int n_cols)
{
    dequant(dst, w, n_rows, n_cols, TLR_Q4M);
}

void TLR_FN(dequant_bf16)(float *dst, const void *w, int n_rows, int n_cols)
{
    const uint16_t *src = w;
    size_t n = (size_t)n_rows * (size_t)n_cols, i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(dst + i, vf_load_bf16(src + i));
    if (i < n) {
        int left = (int)(n - i);
        vf_store_n(dst + i, vf_load_bf16_n(src + i, left), left);
    }
}
