/* matvec_rows.h - matrix times vectors for the row-major weights (f32, bf16)
 * over a vector vocabulary (x86/vec_*.h), which the including file has included
 * before.
 *
 * Each (row, vector) pair has one accumulator that runs through the columns:
 * blocks of rows and vectors change how many run side by side, never the order
 * within one.
 */
#include <stdbool.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"

enum { X_AT_ONCE = 4 };

struct rows_call {
    float *y;
    size_t y_stride;
    const void *w;
    const float *x;
    size_t x_stride;
    int n_cols;
};

TLR_INLINE vf load_w(const void *w, size_t at, int n, const bool is_bf16)
{
    if (is_bf16) {
        const uint16_t *p = (const uint16_t *)w + at;
        return n == LANES ? vf_load_bf16(p) : vf_load_bf16_n(p, n);
    }
    const float *p = (const float *)w + at;
    return n == LANES ? vf_load(p) : vf_load_n(p, n);
}

/* n (LANES or the tail's count) columns from c on. */
TLR_INLINE void step(vf acc[ROWS_AT_ONCE][X_AT_ONCE],
                     const struct rows_call *m, int row, int c, int n,
                     const int n_r, const int n_b, const bool is_bf16)
{
    vf w[ROWS_AT_ONCE];
    size_t cols = (size_t)m->n_cols;
    TLR_UNROLL
    for (int r = 0; r < n_r; r++)
        w[r] = load_w(m->w, (size_t)(row + r) * cols + (size_t)c, n, is_bf16);
    TLR_UNROLL
    for (int b = 0; b < n_b; b++) {
        const float *p = m->x + (size_t)b * m->x_stride + c;
        vf x = n == LANES ? vf_load(p) : vf_load_n(p, n);
        TLR_UNROLL
        for (int r = 0; r < n_r; r++)
            acc[r][b] = vf_fma(w[r], x, acc[r][b]);
    }
}

TLR_INLINE void rows_block(const struct rows_call *m, int row, const int n_r,
                           const int n_b, const bool is_bf16)
{
    vf acc[ROWS_AT_ONCE][X_AT_ONCE];
    TLR_UNROLL
    for (int r = 0; r < n_r; r++) {
        TLR_UNROLL
        for (int b = 0; b < n_b; b++)
            acc[r][b] = vf_zero();
    }
    int c = 0;
    for (; c + LANES <= m->n_cols; c += LANES)
        step(acc, m, row, c, LANES, n_r, n_b, is_bf16);
    if (c < m->n_cols)
        step(acc, m, row, c, m->n_cols - c, n_r, n_b, is_bf16);
    TLR_UNROLL
    for (int r = 0; r < n_r; r++) {
        TLR_UNROLL
        for (int b = 0; b < n_b; b++)
            m->y[(size_t)b * m->y_stride + (size_t)(row + r)] =
                vf_sum(acc[r][b]);
    }
}

/* All rows for the first n_b vectors of the call. */
TLR_INLINE void rows_of(const struct rows_call *m, int row, int n_r, int n_b,
                        const bool is_bf16)
{
#define WHOLE(n) rows_block(m, row, ROWS_AT_ONCE, n, is_bf16)
#define SINGLE(n) rows_block(m, row, 1, n, is_bf16)
    if (n_r == ROWS_AT_ONCE)
        TLR_CALL_1_TO_4(n_b, WHOLE)
    else
        TLR_CALL_1_TO_4(n_b, SINGLE)
#undef WHOLE
#undef SINGLE
}

TLR_INLINE void matvec_rows(const struct rows_call *call, int n_x, int n_rows,
                            const bool is_bf16)
{
    for (int row = 0; row < n_rows;) {
        int n_r = n_rows - row >= ROWS_AT_ONCE ? ROWS_AT_ONCE : 1;
        struct rows_call m = *call;
        /* the rows stay in the nearest cache for the second four vectors */
        for (int b = 0; b < n_x; b += X_AT_ONCE) {
            rows_of(&m, row, n_r, n_x - b < X_AT_ONCE ? n_x - b : X_AT_ONCE,
                    is_bf16);
            m.y += X_AT_ONCE * m.y_stride;
            m.x += X_AT_ONCE * m.x_stride;
        }
        row += n_r;
    }
}

void TLR_FN(matvec_f32)(float *y, size_t y_stride, const void *w,
                        const float *x, size_t x_stride, int n_x, int n_rows,
                        int n_cols)
{
    struct rows_call call = {y, y_stride, w, x, x_stride, n_cols};
    matvec_rows(&call, n_x, n_rows, false);
}

void TLR_FN(matvec_bf16)(float *y, size_t y_stride, const void *w,
                         const float *x, size_t x_stride, int n_x, int n_rows,
                         int n_cols)
{
    struct rows_call call = {y, y_stride, w, x, x_stride, n_cols};
    matvec_rows(&call, n_x, n_rows, true);
}
