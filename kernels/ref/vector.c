/* vector.c - the oracle of the operations on plain vectors: double inside, one
 * rounding at the end; formulas and sources in kernels.h. */
#include <assert.h>
#include <math.h>

#include "kernels/variants_decl.h"

void tlr_rmsnorm_ref(float *y, const float *x, const float *weight, int n,
                     float eps)
{
    assert(n >= 1);
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    double scale = 1 / sqrt(sum / n + (double)eps);
    for (int i = 0; i < n; i++)
        y[i] = (float)((double)x[i] * scale * (double)weight[i]);
}

void tlr_rope_ref(float *x, const float *cos, const float *sin, int n_heads,
                  int head_dim)
{
    assert(n_heads >= 0 && head_dim >= 2 && head_dim % 2 == 0);
    int half = head_dim / 2;
    for (int h = 0; h < n_heads; h++) {
        float *low = x + (size_t)h * (size_t)head_dim;
        float *high = low + half;
        for (int i = 0; i < half; i++) {
            double a = (double)low[i], b = (double)high[i];
            double c = (double)cos[i], s = (double)sin[i];
            low[i] = (float)(a * c - b * s);
            high[i] = (float)(b * c + a * s);
        }
    }
}

void tlr_swiglu_ref(float *y, const float *gate, const float *up, int n)
{
    assert(n >= 0);
    for (int i = 0; i < n; i++) {
        double g = (double)gate[i];
        y[i] = (float)(g / (1 + exp(-g)) * (double)up[i]);
    }
}

void tlr_add_ref(float *y, const float *x, int n)
{
    assert(n >= 0);
    for (int i = 0; i < n; i++)
        y[i] += x[i];
}

void tlr_to_f16_ref(uint16_t *dst, const float *src, int n)
{
    assert(n >= 0);
    for (int i = 0; i < n; i++)
        dst[i] = tlr_f32_to_f16(src[i]);
}

void tlr_from_f16_ref(float *dst, const uint16_t *src, int n)
{
    assert(n >= 0);
    for (int i = 0; i < n; i++)
        dst[i] = tlr_f16_to_f32(src[i]);
}
