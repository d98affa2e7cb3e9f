/* vec_avx2.h - the vocabulary of kernels/vec/ in 256 bits (AVX2, FMA, F16C);
 * the rules stand in vec_avx512.h. */
#ifndef TLR_KERNELS_X86_VEC_AVX2_H
#define TLR_KERNELS_X86_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifndef TLR_FN
#define TLR_FN(name) tlr_##name##_avx2
#endif
#define TLR_INLINE static inline __attribute__((always_inline))

enum { LANES = 8, ROWS_AT_ONCE = 2 };
#define ATTEND_WIDE 6
#define ATTEND_NARROW 6
typedef __m256 vf;

TLR_INLINE __m256i mask_n(int n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
}

TLR_INLINE vf vf_zero(void)
{
    return _mm256_setzero_ps();
}

TLR_INLINE vf vf_set1(float f)
{
    return _mm256_set1_ps(f);
}

TLR_INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

TLR_INLINE vf vf_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, mask_n(n));
}

TLR_INLINE void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

TLR_INLINE void vf_store_n(float *p, vf v, int n)
{
    _mm256_maskstore_ps(p, mask_n(n), v);
}

/* There is no masked load of 16-bit elements: through the stack. */
TLR_INLINE __m128i load_u16_n(const uint16_t *p, int n)
{
    uint16_t h[LANES] = {0};
    memcpy(h, p, (size_t)n * sizeof *p);
    return _mm_loadu_si128((const __m128i *)(const void *)h);
}

TLR_INLINE __m128i load_u16(const uint16_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

TLR_INLINE vf vf_bf16(__m128i h)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

TLR_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return vf_bf16(load_u16(p));
}

TLR_INLINE vf vf_load_bf16_n(const uint16_t *p, int n)
{
    return vf_bf16(load_u16_n(p, n));
}

TLR_INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(load_u16(p));
}

TLR_INLINE vf vf_load_f16_n(const uint16_t *p, int n)
{
    return _mm256_cvtph_ps(load_u16_n(p, n));
}

TLR_INLINE void vf_store_f16_n(uint16_t *p, vf v, int n)
{
    uint16_t h[LANES];
    _mm_storeu_si128((__m128i *)(void *)h,
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    memcpy(p, h, (size_t)n * sizeof *p);
}

TLR_INLINE vf vf_load_i8(const int8_t *p)
{
    __m128i q = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

TLR_INLINE vf vf_load_i8_n(const int8_t *p, int n)
{
    int8_t q[16] = {0};
    memcpy(q, p, (size_t)n);
    return vf_load_i8(q);
}

TLR_INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

TLR_INLINE vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}

TLR_INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

TLR_INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

TLR_INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

TLR_INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

TLR_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

TLR_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

TLR_INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

TLR_INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

TLR_INLINE vf vf_negabs(vf a)
{
    return _mm256_or_ps(a, _mm256_set1_ps(-0.0f));
}

TLR_INLINE vf vf_where_less(vf x, vf limit, vf a, vf b)
{
    return _mm256_blendv_ps(a, b, _mm256_cmp_ps(x, limit, _CMP_LT_OQ));
}

TLR_INLINE vf vf_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

TLR_INLINE vf vf_exp2i(vf n)
{
    __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}

TLR_INLINE float vf_sum(vf v)
{
    __m128 b =
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

TLR_INLINE float vf_largest(vf v)
{
    __m128 b =
        _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
