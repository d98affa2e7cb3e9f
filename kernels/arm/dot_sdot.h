/* dot_sdot.h - the dot of matmul.h by sdot: one instruction multiplies the 4
 * columns of 4 rows by 4 bytes of the token, taken from a lane. */
#ifndef TLR_KERNELS_ARM_DOT_SDOT_H
#define TLR_KERNELS_ARM_DOT_SDOT_H

TLR_INLINE int32x4_t dot(int32x4_t start, const int8x16_t w[8], const int8_t *x,
                         bool small)
{
    (void)small;
    int8x16_t a = vld1q_s8(x), b = vld1q_s8(x + 16);
    start = vdotq_laneq_s32(start, w[0], a, 0);
    start = vdotq_laneq_s32(start, w[1], a, 1);
    start = vdotq_laneq_s32(start, w[2], a, 2);
    start = vdotq_laneq_s32(start, w[3], a, 3);
    start = vdotq_laneq_s32(start, w[4], b, 0);
    start = vdotq_laneq_s32(start, w[5], b, 1);
    start = vdotq_laneq_s32(start, w[6], b, 2);
    return vdotq_laneq_s32(start, w[7], b, 3);
}

#endif
