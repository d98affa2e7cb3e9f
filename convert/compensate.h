/* compensate.h - rounding that makes up for its own errors.
 *
 * Rounding a row w of a matrix to q changes its outputs on inputs x by
 * (w - q) x; summed over a calibration text that is (w - q) H (w - q)' with
 * H = sum of x x'.  Columns are rounded one after the other, and what a column
 * loses is taken from those still to come, in the proportions that H says:
 * Frantar et al. 2022 (GPTQ, arXiv 2210.17323), equations 2 and 3, algorithm 1.
 * Ours: columns go by blocks of 32, those of strong inputs first, and the scale
 * of a block is the best of many tried with the compensation itself.
 */
#ifndef TLR_CONVERT_COMPENSATE_H
#define TLR_CONVERT_COMPENSATE_H

#include <stdint.h>

#include "base/err.h"

struct tlr_factor {
    uint32_t n;
    uint32_t *order; /* [n] column that comes k-th */
    float *u; /* [n, n] upper triangle: inverse of H in that order is u' u */
    float *h; /* [n, n] H itself, both triangles, columns as in the matrix */
};

/* h f32 [n, n], upper triangle, n % 32 == 0; stays as it is.  A column that saw
 * no input is rounded like an average one. */
int tlr_factor_make(struct tlr_factor *out, const float *h, uint32_t n,
                    struct tlr_err *err);
void tlr_factor_clear(struct tlr_factor *f); /* a zeroed one is allowed */

/* n_rows <= 16 rows f32 [n_rows, n] to a band of q4n.  rows is used up: it ends
 * as leftovers.  scratch f32 [16, n]. */
void tlr_compensate_band(const struct tlr_factor *f, void *band, float *rows,
                         float *scratch, uint32_t n_rows);

/* Lowers the loss of a band of q4n further: columns and scales in turn take the
 * best value that there is for all others.  rows f32 [n_rows, n] as they were;
 * g, error f32 [16, n] scratch. */
void tlr_refine_band(const struct tlr_factor *f, void *band, const float *rows,
                     float *g, float *error, uint32_t n_rows);

#endif
