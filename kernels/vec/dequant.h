/* dequant.h - bf16 rows to f32 over a vector vocabulary (x86/vec_*.h), which the
 * including file has included before.  Every value is exact. */
#include "kernels/variants_decl.h"

void TLR_FN(dequant_bf16)(float *dst, const void *w, int n_rows, int n_cols)
{
    const uint16_t *src = w;
    size_t n = (size_t)n_rows * (size_t)n_cols, i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(dst + i, vf_load_bf16(src + i));
    if (i < n) {
        int left = (int)(n - i);
        vf_store_n(dst + i, vf_load_bf16_n(src + i, left), left);
    }
}
