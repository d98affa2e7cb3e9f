/* linear.h - y = W x for a few or for many tokens, over the thread pool. */
#ifndef TLR_ENGINE_LINEAR_H
#define TLR_ENGINE_LINEAR_H

#include <stddef.h>

#include "base/pool.h"
#include "kernels/kernels.h"
#include "weights/model_file.h"

/* One matrix of a region: y f32 [n_tok, y_stride >= n_rows]. */
struct tlr_linear {
    const struct tlr_tensor *w;
    float *y;
    size_t y_stride;
};

/* What every region shares. */
struct tlr_linear_env {
    const struct tlr_kernels *kernels;
    struct tlr_pool *pool;
    float *panels;       /* scratch [threads][panel_floats] */
    size_t panel_floats; /* tlr_linear_panel_floats of the widest matrix */
};

/* Floats that one thread needs to hold dequantised rows of n_cols columns. */
size_t tlr_linear_panel_floats(uint32_t n_cols);

/* One thread region: all matrices on the same x f32 [n_tok, x_stride], all of
 * width n_cols.  Up to TLR_MAX_BRANCHES tokens use the matvec kernels, where a
 * token's result is the same bits in any company; more use SGEMM on dequantised
 * panels, the same function up to f32 rounding. */
void tlr_linear_run(const struct tlr_linear_env *env,
                    const struct tlr_linear *jobs, int n_jobs, const float *x,
                    size_t x_stride, int n_tok);

/* gate.y = swiglu(gate.w x, up.w x) in one region; gate and up have one shape.
 * up.y is overwritten. */
void tlr_linear_run_glu(const struct tlr_linear_env *env,
                        const struct tlr_linear *gate,
                        const struct tlr_linear *up, const float *x,
                        size_t x_stride, int n_tok);

/* OpenBLAS is called from our own threads, so it must not start its own: sets
 * it to one thread, once, for the whole process. */
int tlr_linear_setup(int n_threads, struct tlr_err *err);

#endif
