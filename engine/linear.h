/* linear.h - y = W x for a few or for many tokens, over the thread pool. */
#ifndef TLR_ENGINE_LINEAR_H
#define TLR_ENGINE_LINEAR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/pool.h"
#include "kernels/kernels.h"
#include "weights/model_file.h"

/* Rows rounded as kernels.h says.  second holds what first leaves, rounded
 * again (TLR_ACT_INT16); NULL with TLR_ACT_INT8.  Where both fit into one group
 * they may share it (is_paired): first then holds the n_tok rows and after them
 * their n_tok rests, and one pass over the weights serves both. */
struct tlr_acts {
    uint8_t *first, *second;
    bool is_paired;
};
enum { TLR_PAIRED_TOK = TLR_ACT_GROUP / 2 };

/* The input of a region, n_tok rows of n_cols.  f32 and bf16 matrices read x,
 * tiled ones acts; whoever makes a row fills what the model's matrices read
 * (tlr_linear_round makes acts from x). */
struct tlr_rows {
    float *x; /* f32 [n_tok, x_stride] */
    size_t x_stride;
    struct tlr_acts acts; /* first NULL: no tiled matrix in the model */
    int n_tok;
    uint32_t n_cols;
};

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
    float *scratch; /* [threads][scratch_floats], of one thread: */
    size_t scratch_floats;
    size_t item_floats; /* three results of an item, then a bf16 panel */
};

/* Sets the sizes of env's scratch for steps of up to n_tok tokens.  widest_bf16:
 * n_cols of the widest bf16 matrix, 0 when there is none. */
void tlr_linear_size(struct tlr_linear_env *env, uint32_t n_tok,
                     uint32_t widest_bf16);

/* in->acts from in->x: the group of up to TLR_ACT_GROUP rows that begins with
 * row `tok`, its columns [col, col + n).  Both are multiples of 32.  x points at
 * the first of these elements. */
void tlr_linear_round_part(const struct tlr_kernels *k,
                           const struct tlr_rows *in, int tok, uint32_t col,
                           uint32_t n, const float *x, size_t x_stride);

/* All of in->acts from in->x; nothing when acts.first is NULL. */
void tlr_linear_round(const struct tlr_linear_env *env,
                      const struct tlr_rows *in);

/* One thread region: all matrices on the same input, all of width in->n_cols.
 * Tiled matrices give the same bits for a token in any company.  f32 and bf16
 * ones do up to TLR_MAX_BRANCHES tokens (matvec); more use SGEMM, the same
 * function up to f32 rounding. */
void tlr_linear_run(const struct tlr_linear_env *env,
                    const struct tlr_linear *jobs, int n_jobs,
                    const struct tlr_rows *in);

/* out = swiglu(gate x, up x), rounded into out->acts where that is not NULL and
 * as f32 into out->x where that is not; in one region.  gate and up have one
 * shape. */
void tlr_linear_run_glu(const struct tlr_linear_env *env,
                        const struct tlr_tensor *gate,
                        const struct tlr_tensor *up, const struct tlr_rows *in,
                        const struct tlr_rows *out);

/* OpenBLAS is called from our own threads, so it must not start its own: sets
 * it to one thread, once, for the whole process.  Only f32 and bf16 matrices
 * need it. */
int tlr_linear_setup(int n_threads, struct tlr_err *err);

#endif
