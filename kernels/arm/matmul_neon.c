/* matmul_neon.c - integer products by widening multiplications, for processors
 * without sdot (Cortex-A53, A72).
 *
 * Products of bytes are added up in 16 bits as long as they fit: two of any
 * numbers (2 * 128 * 127 < 2^15), or a whole block of numbers up to 15
 * (8 * 15 * 127 in a lane, 16 * 15 * 127 after the first addition of pairs).
 */
#include <arm_neon.h>
#include <stdbool.h>

#define TLR_FN(name) tlr_##name##_neon
#define TLR_INLINE static inline __attribute__((always_inline))

/* Two rows each: one product in a lane. */
struct products {
    int16x8_t low, high;
};

TLR_INLINE struct products multiply(int8x16_t w, int8x16_t x)
{
    struct products p = {vmull_s8(vget_low_s8(w), vget_low_s8(x)),
                         vmull_high_s8(w, x)};
    return p;
}

TLR_INLINE struct products add(struct products p, int8x16_t w, int8x16_t x)
{
    p.low = vmlal_s8(p.low, vget_low_s8(w), vget_low_s8(x));
    p.high = vmlal_high_s8(p.high, w, x);
    return p;
}

TLR_INLINE int32x4_t dot(int32x4_t start, const int8x16_t w[8], const int8_t *x,
                         bool small)
{
    int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(x));
    int32x4_t b = vreinterpretq_s32_s8(vld1q_s8(x + 16));
#define FOUR(v, i) vreinterpretq_s8_s32(vdupq_laneq_s32(v, i))
    struct products p = add(multiply(w[0], FOUR(a, 0)), w[1], FOUR(a, 1));
    if (small) {
        p = add(add(p, w[2], FOUR(a, 2)), w[3], FOUR(a, 3));
        p = add(add(p, w[4], FOUR(b, 0)), w[5], FOUR(b, 1));
        p = add(add(p, w[6], FOUR(b, 2)), w[7], FOUR(b, 3));
        return vpadalq_s16(start, vpaddq_s16(p.low, p.high));
    }
    int32x4_t low = vpaddlq_s16(p.low), high = vpaddlq_s16(p.high);
    p = add(multiply(w[2], FOUR(a, 2)), w[3], FOUR(a, 3));
    low = vpadalq_s16(low, p.low), high = vpadalq_s16(high, p.high);
    p = add(multiply(w[4], FOUR(b, 0)), w[5], FOUR(b, 1));
    low = vpadalq_s16(low, p.low), high = vpadalq_s16(high, p.high);
    p = add(multiply(w[6], FOUR(b, 2)), w[7], FOUR(b, 3));
    low = vpadalq_s16(low, p.low), high = vpadalq_s16(high, p.high);
#undef FOUR
    return vaddq_s32(start, vpaddq_s32(low, high));
}

#include "kernels/arm/matmul.h"

TLR_MATMUL_SLOTS(matmul)
TLR_SCORE_SLOT
