/* vec_avx512.h - the vocabulary of kernels/vec/ in 512 bits.
 *
 * A `vf` is LANES floats.  Names ending in _n touch only the first n elements
 * of memory, 0 <= n <= LANES, and read zeros for the rest.  Every operation has
 * one fixed order of additions, so equal inputs give equal bits.
 */
#ifndef TLR_KERNELS_X86_VEC_AVX512_H
#define TLR_KERNELS_X86_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#ifndef TLR_FN
#define TLR_FN(name) tlr_##name##_avx512
#endif
#define TLR_INLINE static inline __attribute__((always_inline))

enum { LANES = 16, ROWS_AT_ONCE = 4 };
/* Queries of a full tile of attention, and of the largest but that one. */
#define ATTEND_WIDE 14
#define ATTEND_NARROW 8
typedef __m512 vf;

TLR_INLINE __mmask16 mask_n(int n)
{
    return (__mmask16)((1u << n) - 1);
}

TLR_INLINE vf vf_zero(void)
{
    return _mm512_setzero_ps();
}

TLR_INLINE vf vf_set1(float f)
{
    return _mm512_set1_ps(f);
}

TLR_INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

TLR_INLINE vf vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(mask_n(n), p);
}

TLR_INLINE void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

TLR_INLINE void vf_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, mask_n(n), v);
}

TLR_INLINE vf vf_bf16(__m256i h)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

TLR_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return vf_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

TLR_INLINE vf vf_load_bf16_n(const uint16_t *p, int n)
{
    return vf_bf16(_mm256_maskz_loadu_epi16(mask_n(n), p));
}

TLR_INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(
        _mm256_loadu_si256((const __m256i *)(const void *)p));
}

TLR_INLINE vf vf_load_f16_n(const uint16_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask_n(n), p));
}

TLR_INLINE void vf_store_f16_n(uint16_t *p, vf v, int n)
{
    __m256i h = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_mask_storeu_epi16(p, mask_n(n), h);
}

/* LANES int8 as floats. */
TLR_INLINE vf vf_load_i8(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}

TLR_INLINE vf vf_load_i8_n(const int8_t *p, int n)
{
    __m128i q = _mm_maskz_loadu_epi8(mask_n(n), p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}

TLR_INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

TLR_INLINE vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}

TLR_INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

TLR_INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

TLR_INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

TLR_INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

/* a * b + c and c - a * b, one rounding. */
TLR_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

TLR_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

TLR_INLINE vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

TLR_INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}

TLR_INLINE vf vf_negabs(vf a)
{
    return _mm512_or_ps(a, _mm512_set1_ps(-0.0f));
}

/* b where x < limit, else a. */
TLR_INLINE vf vf_where_less(vf x, vf limit, vf a, vf b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), a, b);
}

TLR_INLINE vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT |
                                       _MM_FROUND_NO_EXC);
}

/* 2^n for integral n in [-126, 127]. */
TLR_INLINE vf vf_exp2i(vf n)
{
    __m512i i = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(i, 23));
}

TLR_INLINE float vf_sum(vf v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v),
                             _mm512_extractf32x8_ps(v, 1));
    __m128 b =
        _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

TLR_INLINE float vf_largest(vf v)
{
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v),
                             _mm512_extractf32x8_ps(v, 1));
    __m128 b =
        _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
