/* quantise_neon.c - activations to int8 in blocks of 32, as kernels.h specifies
 * to the bit. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"

#define TLR_INLINE static inline __attribute__((always_inline))

enum { VECTORS = 8 }; /* of a block */

TLR_INLINE float max_abs(const float32x4_t v[VECTORS])
{
    float32x4_t a = vabsq_f32(v[0]);
    for (int i = 1; i < VECTORS; i++)
        a = vmaxq_f32(a, vabsq_f32(v[i]));
    return vmaxvq_f32(a);
}

/* Two vectors of 4, each within int8, to one of 8. */
TLR_INLINE int16x8_t narrow(int32x4_t a, int32x4_t b)
{
    return vcombine_s16(vmovn_s32(a), vmovn_s32(b));
}

/* One block of one token: 32 numbers to q; returns d. */
TLR_INLINE float block(int8_t q[32], int32_t *sum, float *rest, const float *x)
{
    float32x4_t v[VECTORS];
    int32x4_t n[VECTORS];
    for (int i = 0; i < VECTORS; i++)
        v[i] = vld1q_f32(x + 4 * i);
    float a = max_abs(v);
    float d = a < 0x1p-100f ? 0 : a / 127, id = a < 0x1p-100f ? 0 : 127 / a;
    int32x4_t total = vdupq_n_s32(0);
    for (int i = 0; i < VECTORS; i++) {
        /* |x| * id rounds to 127 at most: nothing to clamp */
        n[i] = vcvtnq_s32_f32(vmulq_n_f32(v[i], id));
        total = vaddq_s32(total, n[i]);
    }
    for (int i = 0; i < VECTORS; i += 4) {
        int16x8_t low = narrow(n[i], n[i + 1]);
        int16x8_t high = narrow(n[i + 2], n[i + 3]);
        vst1q_s8(q + 4 * i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    if (rest) {
        for (int i = 0; i < VECTORS; i++)
            vst1q_f32(rest + 4 * i,
                      vfmsq_f32(v[i], vdupq_n_f32(d), vcvtq_f32_s32(n[i])));
    }
    *sum = vaddvq_s32(total);
    return d;
}

void tlr_quantise_neon(void *act, float *rest, const float *x, size_t x_stride,
                       int n_tok, int n_cols)
{
    size_t n = (size_t)n_tok, blocks = (size_t)n_cols / 32;
    for (size_t t = 0; t < n; t++) {
        uint8_t *p = act;
        for (size_t b = 0; b < blocks; b++, p += n * TLR_ACT_BYTES) {
            float *left = rest ? rest + t * (size_t)n_cols + 32 * b : NULL;
            int32_t sum;
            float d = block((int8_t *)(p + 32 * t), &sum, left,
                            x + t * x_stride + 32 * b);
            memcpy(p + 32 * n + 4 * t, &d, sizeof d);
            memcpy(p + 36 * n + 4 * t, &sum, sizeof sum);
        }
    }
}
