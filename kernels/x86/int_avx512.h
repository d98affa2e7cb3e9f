/* int_avx512.h - the integer half of the vocabulary in 512 bits, for
 * kernels/vec/matmul.h.
 *
 * A `vi` is LANES dwords; a dword of weights holds 4 columns of one row.  Under
 * TLR_VNNI a number of 8 bits is an unsigned byte, the number plus 128, as
 * vpdpbusd wants it; without, it stays signed (BYTE_BIAS).
 */
#ifndef TLR_KERNELS_X86_INT_AVX512_H
#define TLR_KERNELS_X86_INT_AVX512_H

#include <stdbool.h>
#include <string.h>

#include "kernels/vec/unroll.h"
#include "kernels/x86/vec_avx512.h"

typedef __m512i vi;
enum { GEMM_TOKENS = 8 }; /* of a register tile, see vec/gemm.h */

TLR_INLINE vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

TLR_INLINE void vi_store(void *p, vi a)
{
    _mm512_storeu_si512(p, a);
}

TLR_INLINE vi vi_set1(int v)
{
    return _mm512_set1_epi32(v);
}

/* The same 4 bytes in every lane. */
TLR_INLINE vi vi_load_dword(const void *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

TLR_INLINE vi vi_low_nibbles(vi a)
{
    return _mm512_and_si512(a, _mm512_set1_epi8(15));
}

TLR_INLINE vi vi_high_nibbles(vi a)
{
    return vi_low_nibbles(_mm512_srli_epi16(a, 4));
}

/* 16 * nibble of high + nibble of low, both the low nibbles of their bytes or
 * both the high ones. */
TLR_INLINE vi vi_join_low(vi high, vi low)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low,
                                     _mm512_slli_epi16(high, 4), 0xca);
}

TLR_INLINE vi vi_join_high(vi high, vi low)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15),
                                     _mm512_srli_epi16(low, 4), high, 0xca);
}

TLR_INLINE vi vi_flip_sign(vi a)
{
    return _mm512_xor_si512(a, _mm512_set1_epi8(-128));
}

/* table[16] of bytes, each plus bias, as the first operand of vi_look_up. */
TLR_INLINE vi vi_table(const int8_t *table, int bias)
{
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)table);
    t = _mm_add_epi8(t, _mm_set1_epi8((char)bias));
    return _mm512_broadcast_i32x4(t);
}

TLR_INLINE vi vi_look_up(vi table, vi index)
{
    return _mm512_shuffle_epi8(table, index);
}

TLR_INLINE vi vi_shift_left(vi a, const int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}

TLR_INLINE vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

TLR_INLINE vf vi_to_vf(vi a)
{
    return _mm512_cvtepi32_ps(a);
}

TLR_INLINE vi vi_from_vf(vf a)
{
    return _mm512_cvtps_epi32(a);
}

TLR_INLINE int vi_sum(vi a)
{
    __m256i b = _mm256_add_epi32(_mm512_castsi512_si256(a),
                                 _mm512_extracti64x4_epi64(a, 1));
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b),
                              _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1)));
}

/* The lanes, each within int8, to dst[LANES]. */
TLR_INLINE void vi_store_bytes(uint8_t *dst, vi a)
{
    _mm_storeu_si128((__m128i *)(void *)dst, _mm512_cvtepi32_epi8(a));
}

#ifdef TLR_VNNI
enum { BYTE_BIAS = 128 };

/* sum + w . x over 4 columns, w unsigned. */
TLR_INLINE vi vi_mac(vi sum, vi w, vi x)
{
    return _mm512_dpbusd_epi32(sum, w, x);
}
#else
enum { BYTE_BIAS = 0 };

/* vi_dot of tile.h, as in int_avx2.h; there is no vpsignb in 512 bits. */
TLR_INLINE vi vi_dot(const vi w[8], const uint8_t *x, vi init,
                     const bool is_nibbles)
{
    const vi ones = _mm512_set1_epi16(1), zero = _mm512_setzero_si512();
    if (is_nibbles) {
        vi sum = _mm512_maddubs_epi16(w[0], vi_load_dword(x));
        TLR_UNROLL
        for (int g = 1; g < 8; g++)
            sum = _mm512_add_epi16(
                sum, _mm512_maddubs_epi16(w[g], vi_load_dword(x + 4 * g)));
        return vi_add(init, _mm512_madd_epi16(sum, ones));
    }
    TLR_UNROLL
    for (int g = 0; g < 8; g++) {
        vi xg = vi_load_dword(x + 4 * g);
        xg = _mm512_mask_sub_epi8(xg, _mm512_movepi8_mask(w[g]), zero, xg);
        vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w[g]), xg);
        init = vi_add(init, _mm512_madd_epi16(pairs, ones));
    }
    return init;
}
#endif

#endif
