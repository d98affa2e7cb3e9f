/* int_avx2.h - the integer half of the vocabulary in 256 bits, for
 * kernels/vec/; the rules stand in int_avx512.h. */
#ifndef TLR_KERNELS_X86_INT_AVX2_H
#define TLR_KERNELS_X86_INT_AVX2_H

#include <stdbool.h>
#include <string.h>

#include "kernels/vec/unroll.h"
#include "kernels/x86/vec_avx2.h"

typedef __m256i vi;
enum { GEMM_TOKENS = 4 };

TLR_INLINE vi vi_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

TLR_INLINE void vi_store(void *p, vi a)
{
    _mm256_storeu_si256((__m256i *)p, a);
}

TLR_INLINE vi vi_set1(int v)
{
    return _mm256_set1_epi32(v);
}

TLR_INLINE vi vi_load_dword(const void *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

TLR_INLINE vi vi_low_nibbles(vi a)
{
    return _mm256_and_si256(a, _mm256_set1_epi8(15));
}

TLR_INLINE vi vi_high_nibbles(vi a)
{
    return vi_low_nibbles(_mm256_srli_epi16(a, 4));
}

TLR_INLINE vi vi_join_low(vi high, vi low)
{
    return _mm256_or_si256(_mm256_slli_epi16(vi_low_nibbles(high), 4),
                           vi_low_nibbles(low));
}

TLR_INLINE vi vi_join_high(vi high, vi low)
{
    return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi8(15), high),
                           vi_high_nibbles(low));
}

TLR_INLINE vi vi_flip_sign(vi a)
{
    return _mm256_xor_si256(a, _mm256_set1_epi8(-128));
}

TLR_INLINE vi vi_table(const int8_t *table, int bias)
{
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)table);
    t = _mm_add_epi8(t, _mm_set1_epi8((char)bias));
    return _mm256_broadcastsi128_si256(t);
}

TLR_INLINE vi vi_look_up(vi table, vi index)
{
    return _mm256_shuffle_epi8(table, index);
}

TLR_INLINE vi vi_shift_left(vi a, const int n)
{
    return _mm256_slli_epi32(a, n);
}

TLR_INLINE vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

TLR_INLINE vf vi_to_vf(vi a)
{
    return _mm256_cvtepi32_ps(a);
}

TLR_INLINE vi vi_from_vf(vf a)
{
    return _mm256_cvtps_epi32(a);
}

TLR_INLINE int vi_sum(vi a)
{
    __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a),
                              _mm256_extracti128_si256(a, 1));
    b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}

TLR_INLINE void vi_store_bytes(uint8_t *dst, vi a)
{
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a),
                                    _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)(void *)dst, _mm_packs_epi16(words, words));
}

#ifdef TLR_VNNI
enum { BYTE_BIAS = 128 };

TLR_INLINE vi vi_mac(vi sum, vi w, vi x)
{
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}
#else
enum { BYTE_BIAS = 0 };

/* vi_dot of tile.h.  vpmaddubsw saturates at 2^15.  Eight products of a nibble stay below, so they
 * are summed in 16 bits; of bytes only two do (128 * 127 * 2), as abs(w) times
 * x with w's sign. */
TLR_INLINE vi vi_dot(const vi w[8], const uint8_t *x, vi init,
                     const bool is_nibbles)
{
    const vi ones = _mm256_set1_epi16(1);
    if (is_nibbles) {
        vi sum = _mm256_maddubs_epi16(w[0], vi_load_dword(x));
        TLR_UNROLL
        for (int g = 1; g < 8; g++)
            sum = _mm256_add_epi16(
                sum, _mm256_maddubs_epi16(w[g], vi_load_dword(x + 4 * g)));
        return vi_add(init, _mm256_madd_epi16(sum, ones));
    }
    TLR_UNROLL
    for (int g = 0; g < 8; g++) {
        vi xg = _mm256_sign_epi8(vi_load_dword(x + 4 * g), w[g]);
        vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), xg);
        init = vi_add(init, _mm256_madd_epi16(pairs, ones));
    }
    return init;
}
#endif

#endif
