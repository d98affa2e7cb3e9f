/* exp.h - exp(x) for x <= 0, all that softmax and the sigmoid need.
 *
 * x = n ln2 + r with |r| <= ln2/2, exp(r) by its Taylor series to r^7 (the next
 * term is under 2^-27), times 2^n.  Relative error below 2^-22; below -87.33,
 * where the result would be subnormal, 0.  NaN stays NaN.  ln2 in two parts
 * (Cody & Waite 1980, chapter 6): n * LN2_HIGH is exact.
 */
#ifndef TLR_KERNELS_VEC_EXP_H
#define TLR_KERNELS_VEC_EXP_H

TLR_INLINE vf vf_exp(vf x)
{
    const float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    vf limit = vf_set1(-87.33f);
    vf v = vf_max(limit, x);
    vf n = vf_round(vf_mul(v, vf_set1(0x1.715476p+0f)));
    vf r = vf_fnma(n, vf_set1(ln2_high), v);
    r = vf_fnma(n, vf_set1(ln2_low), r);
    vf p = vf_set1(1.0f / 5040);
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1.0f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_where_less(x, limit, vf_mul(p, vf_exp2i(n)), vf_zero());
}

#endif
