/* quantise.h - f32 to blocks of int8 over a vector vocabulary (x86/int_*.h),
 * which the including file has included before.  To the bit as kernels.h says:
 * a maximum has no order, and every other step is one rounding of one number.
 */
#include "kernels/variants_decl.h"

enum { BLOCK_VECTORS = 32 / LANES };

TLR_INLINE void quantise_block(uint8_t *q, float *d_out, int32_t *sum_out,
                               float *rest, const float *x)
{
    vf v[BLOCK_VECTORS], top = vf_zero();
    vi sum = vi_set1(0);
    TLR_UNROLL
    for (int i = 0; i < BLOCK_VECTORS; i++) {
        v[i] = vf_load(x + i * LANES);
        top = vf_max(top, vf_abs(v[i]));
    }
    float a = vf_largest(top);
    bool zero = a < 0x1p-100f;
    float d = zero ? 0 : a / 127, inverse = zero ? 0 : 127 / a;
    TLR_UNROLL
    for (int i = 0; i < BLOCK_VECTORS; i++) {
        vf r = vf_round(vf_mul(v[i], vf_set1(inverse)));
        r = vf_min(vf_max(r, vf_set1(-127)), vf_set1(127));
        vi n = vi_from_vf(r);
        sum = vi_add(sum, n);
        vi_store_bytes(q + i * LANES, n);
        if (rest) /* q, not r: the sign of zero differs */
            vf_store(rest + i * LANES,
                     vf_fnma(vf_set1(d), vi_to_vf(n), v[i]));
    }
    *d_out = d;
    *sum_out = vi_sum(sum);
}

void TLR_FN(quantise)(void *act, float *rest, const float *x, size_t x_stride,
                      int n_tok, int n_cols)
{
    uint8_t *block = act;
    size_t n = (size_t)n_tok;
    for (int c = 0; c < n_cols; c += 32) {
        for (size_t t = 0; t < n; t++) {
            float d;
            int32_t sum;
            float *left = rest ? rest + t * (size_t)n_cols + c : NULL;
            quantise_block(block + 32 * t, &d, &sum, left,
                           x + t * x_stride + c);
            memcpy(block + 32 * n + 4 * t, &d, sizeof d);
            memcpy(block + 36 * n + 4 * t, &sum, sizeof sum);
        }
        block += n * TLR_ACT_BYTES;
    }
}
