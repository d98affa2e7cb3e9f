/* vector.h - rmsnorm, rope, swiglu, add and the f16 conversions over a vector
 * vocabulary (x86/vec_*.h), which the including file has included before.
 * Formulas and sources in kernels.h. */
#include <math.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/exp.h"

TLR_INLINE int lanes_left(int n, int i)
{
    return n - i < LANES ? n - i : LANES;
}

void TLR_FN(rmsnorm)(float *y, const float *x, const float *weight, int n,
                     float eps)
{
    vf sum[2] = {vf_zero(), vf_zero()};
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vf a = vf_load(x + i), b = vf_load(x + i + LANES);
        sum[0] = vf_fma(a, a, sum[0]);
        sum[1] = vf_fma(b, b, sum[1]);
    }
    for (; i < n; i += LANES) {
        vf a = vf_load_n(x + i, lanes_left(n, i));
        sum[0] = vf_fma(a, a, sum[0]);
    }
    float mean = vf_sum(vf_add(sum[0], sum[1])) / (float)n;
    vf scale = vf_set1(1 / sqrtf(mean + eps));
    for (i = 0; i + LANES <= n; i += LANES) {
        vf v = vf_mul(vf_load(x + i), scale);
        vf_store(y + i, vf_mul(v, vf_load(weight + i)));
    }
    if (i < n) {
        vf v = vf_mul(vf_load_n(x + i, n - i), scale);
        vf_store_n(y + i, vf_mul(v, vf_load_n(weight + i, n - i)), n - i);
    }
}

void TLR_FN(rope)(float *x, const float *cos, const float *sin, int n_heads,
                  int head_dim)
{
    int half = head_dim / 2;
    for (int h = 0; h < n_heads; h++) {
        float *low = x + (size_t)h * (size_t)head_dim;
        float *high = low + half;
        for (int i = 0; i < half; i += LANES) {
            int n = lanes_left(half, i);
            vf a = vf_load_n(low + i, n), b = vf_load_n(high + i, n);
            vf c = vf_load_n(cos + i, n), s = vf_load_n(sin + i, n);
            vf_store_n(low + i, vf_fnma(b, s, vf_mul(a, c)), n);
            vf_store_n(high + i, vf_fma(a, s, vf_mul(b, c)), n);
        }
    }
}

/* With t = exp(-|g|) nothing overflows: sigmoid(g) is 1/(1+t) or t/(1+t).
 * Error: 2^-21 relative, and |g * up| * 2^-125 where t is flushed to zero. */
TLR_INLINE vf swiglu_of(vf g, vf up)
{
    vf t = vf_exp(vf_negabs(g));
    vf one = vf_set1(1);
    vf sigmoid = vf_div(vf_where_less(g, vf_zero(), one, t), vf_add(one, t));
    return vf_mul(vf_mul(g, sigmoid), up);
}

void TLR_FN(swiglu)(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, swiglu_of(vf_load(gate + i), vf_load(up + i)));
    if (i < n) {
        vf g = vf_load_n(gate + i, n - i), u = vf_load_n(up + i, n - i);
        vf_store_n(y + i, swiglu_of(g, u), n - i);
    }
}

void TLR_FN(add)(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_add(vf_load(y + i), vf_load(x + i)));
    if (i < n) {
        vf a = vf_load_n(y + i, n - i), b = vf_load_n(x + i, n - i);
        vf_store_n(y + i, vf_add(a, b), n - i);
    }
}

void TLR_FN(to_f16)(uint16_t *dst, const float *src, int n)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store_f16_n(dst + i, vf_load(src + i), LANES);
    if (i < n)
        vf_store_f16_n(dst + i, vf_load_n(src + i, n - i), n - i);
}

void TLR_FN(from_f16)(float *dst, const uint16_t *src, int n)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(dst + i, vf_load_f16(src + i));
    if (i < n)
        vf_store_n(dst + i, vf_load_f16_n(src + i, n - i), n - i);
}
