/* float16.c - binary16 and bfloat16 in integer arithmetic.
 *
 * The definition that the vector instructions are tested against, NaN payloads
 * included: a NaN keeps its upper payload bits and becomes quiet, as in
 * VCVTPH2PS and VCVTPS2PH.  Formats: IEEE 754-2019, section 3.4.
 */
#include <string.h>

#include "kernels/quant.h"

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float tlr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 31;
    uint32_t mantissa = h & 0x3ff;
    if (exponent == 0) {
        /* zero or subnormal: mantissa * 2^-24, exact in binary32 */
        float f = (float)mantissa * 0x1p-24f;
        return float_of(bits_of(f) | sign);
    }
    if (exponent == 31) {
        uint32_t quiet = mantissa ? 0x400000 : 0;
        return float_of(sign | 0x7f800000 | quiet | mantissa << 13);
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* v >> shift, rounded to nearest, ties to even; 1 <= shift <= 24. */
static uint32_t shift_round(uint32_t v, unsigned shift)
{
    uint32_t odd = (v >> shift) & 1;
    return (v + (1u << (shift - 1)) - 1 + odd) >> shift;
}

uint16_t tlr_f32_to_f16(float f)
{
    uint32_t bits = bits_of(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (magnitude >= 0x38800000) /* 2^-14: normal; a carry moves the exponent */
        return (uint16_t)(sign | shift_round(magnitude - 0x38000000, 13));
    if (magnitude <= 0x33000000) /* 2^-25 ties to zero */
        return sign;
    uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
    return (uint16_t)(sign | shift_round(mantissa, 126 - (magnitude >> 23)));
}

float tlr_bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t tlr_f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
