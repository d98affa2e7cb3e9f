/* vec_neon.h - the vocabulary of kernels/vec/ in 128 bits (Advanced SIMD of
 * Armv8-A); the rules stand in x86/vec_avx512.h.  There are no masked loads and
 * stores: parts of a vector go through the stack. */
#ifndef TLR_KERNELS_ARM_VEC_NEON_H
#define TLR_KERNELS_ARM_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define TLR_FN(name) tlr_##name##_neon
#define TLR_INLINE static inline __attribute__((always_inline))

enum { LANES = 4, ROWS_AT_ONCE = 4 };
#define ATTEND_WIDE 6
#define ATTEND_NARROW 6
typedef float32x4_t vf;

TLR_INLINE vf vf_zero(void)
{
    return vdupq_n_f32(0);
}

TLR_INLINE vf vf_set1(float f)
{
    return vdupq_n_f32(f);
}

TLR_INLINE vf vf_load(const float *p)
{
    return vld1q_f32(p);
}

TLR_INLINE vf vf_load_n(const float *p, int n)
{
    float f[LANES] = {0};
    memcpy(f, p, (size_t)n * sizeof *p);
    return vld1q_f32(f);
}

TLR_INLINE void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}

TLR_INLINE void vf_store_n(float *p, vf v, int n)
{
    float f[LANES];
    vst1q_f32(f, v);
    memcpy(p, f, (size_t)n * sizeof *p);
}

TLR_INLINE uint16x4_t load_u16_n(const uint16_t *p, int n)
{
    uint16_t h[LANES] = {0};
    memcpy(h, p, (size_t)n * sizeof *p);
    return vld1_u16(h);
}

TLR_INLINE vf vf_bf16(uint16x4_t h)
{
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

TLR_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return vf_bf16(vld1_u16(p));
}

TLR_INLINE vf vf_load_bf16_n(const uint16_t *p, int n)
{
    return vf_bf16(load_u16_n(p, n));
}

TLR_INLINE vf vf_f16(uint16x4_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

TLR_INLINE vf vf_load_f16(const uint16_t *p)
{
    return vf_f16(vld1_u16(p));
}

TLR_INLINE vf vf_load_f16_n(const uint16_t *p, int n)
{
    return vf_f16(load_u16_n(p, n));
}

TLR_INLINE void vf_store_f16_n(uint16_t *p, vf v, int n)
{
    uint16_t h[LANES];
    vst1_u16(h, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    memcpy(p, h, (size_t)n * sizeof *p);
}

TLR_INLINE vf vf_load_i8(const int8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    int16x8_t q = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(q)));
}

TLR_INLINE vf vf_load_i8_n(const int8_t *p, int n)
{
    int8_t q[LANES] = {0};
    memcpy(q, p, (size_t)n);
    return vf_load_i8(q);
}

TLR_INLINE vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}

TLR_INLINE vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

TLR_INLINE vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

TLR_INLINE vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}

TLR_INLINE vf vf_max(vf a, vf b)
{
    return vmaxq_f32(a, b);
}

TLR_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

TLR_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}

TLR_INLINE vf vf_negabs(vf a)
{
    return vnegq_f32(vabsq_f32(a));
}

TLR_INLINE vf vf_where_less(vf x, vf limit, vf a, vf b)
{
    return vbslq_f32(vcltq_f32(x, limit), b, a);
}

TLR_INLINE vf vf_round(vf a)
{
    return vrndnq_f32(a);
}

TLR_INLINE vf vf_exp2i(vf n)
{
    int32x4_t i = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(i, 23));
}

TLR_INLINE float vf_sum(vf v)
{
    return vaddvq_f32(v);
}

#endif
