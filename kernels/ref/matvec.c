/* matvec.c - the oracle of matvec_* and dequant_*: what a row means is
 * tlr_row_decode's to say, sums are in double, one rounding at the end. */
#include <assert.h>

#include "kernels/variants_decl.h"

/* Columns that are decoded at a time. */
enum { CHUNK = 256 };

static void matvec(enum tlr_type type, float *y, size_t y_stride, const void *w,
                   const float *x, size_t x_stride, int n_x, int n_rows,
                   int n_cols)
{
    assert(n_x >= 1 && n_x <= TLR_MAX_BRANCHES && n_rows >= 0 && n_cols >= 0);
    assert(!tlr_type_is_tiled(type));
    assert(n_x == 1 || (y_stride >= (size_t)n_rows && x_stride >= (size_t)n_cols));
    const uint8_t *bytes = w;
    uint64_t element = tlr_matrix_bytes(type, 1, 1);
    float row[CHUNK];
    for (int r = 0; r < n_rows; r++) {
        double sum[TLR_MAX_BRANCHES] = {0};
        for (int first = 0; first < n_cols; first += CHUNK) {
            int n = n_cols - first < CHUNK ? n_cols - first : CHUNK;
            uint64_t at = (uint64_t)r * (uint64_t)n_cols + (uint64_t)first;
            tlr_row_decode(type, row, bytes + at * element, 0, n);
            for (int b = 0; b < n_x; b++) {
                const float *xb = x + (size_t)b * x_stride + first;
                for (int c = 0; c < n; c++)
                    sum[b] += (double)row[c] * (double)xb[c];
            }
        }
        for (int b = 0; b < n_x; b++)
            y[(size_t)b * y_stride + (size_t)r] = (float)sum[b];
    }
}

static void dequant(enum tlr_type type, float *dst, const void *w, int n_rows,
                    int n_cols)
{
    assert(n_rows >= 0 && n_cols >= 0);
    for (int r = 0; r < n_rows; r++)
        tlr_row_decode(type, dst + (size_t)r * (size_t)n_cols, w, (uint64_t)r,
                       n_cols);
}

#define DEFINE(name, type)                                                     \
    void tlr_matvec_##name##_ref(float *y, size_t y_stride, const void *w,     \
                                 const float *x, size_t x_stride, int n_x,     \
                                 int n_rows, int n_cols)                       \
    {                                                                          \
        matvec(type, y, y_stride, w, x, x_stride, n_x, n_rows, n_cols);        \
    }                                                                          \
    void tlr_dequant_##name##_ref(float *dst, const void *w, int n_rows,       \
                                  int n_cols)                                  \
    {                                                                          \
        dequant(type, dst, w, n_rows, n_cols);                                 \
    }

DEFINE(f32, TLR_F32)
DEFINE(bf16, TLR_BF16)
