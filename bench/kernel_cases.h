/* kernel_cases.h - for each operation: the shapes it is timed on, how many
 * bytes and operations that is, and the call itself. */
#ifndef TLR_BENCH_KERNEL_CASES_H
#define TLR_BENCH_KERNEL_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/variants.h"

struct tlr_case {
    enum tlr_kernel_op op;
    int n_rows; /* 0: a vector; attend: positions */
    int n_cols;
    int n_tok;
};

/* Memory of one case.  `item` is what moves through memory when cold: the
 * weights, or the vector that is read.  Everything else stays. */
struct tlr_operands {
    const void *item;
    void *out;          /* item's counterpart where a vector is written */
    const float *x;     /* f32 [n_tok, n_cols] or more */
    void *act;          /* x as tlr_quantise_fn leaves it */
    float *y;           /* [n_tok, n_rows] or [n_cols] */
    float *y2;          /* the same again: variances, scratch */
};

struct tlr_case_size {
    size_t item_bytes; /* rotated when cold */
    size_t out_bytes;  /* likewise, written; 0: none */
    double n_bytes;    /* moved by a call */
    double n_ops;
    int is_int;
};

/* All cases; *n of them. */
const struct tlr_case *tlr_kernel_cases(size_t *n);
struct tlr_case_size tlr_case_size(const struct tlr_case *c,
                                   enum tlr_type type);
/* NULL for an operation that has no call. */
typedef void tlr_case_fn(tlr_any_fn *fn, const struct tlr_case *c,
                         const struct tlr_operands *o);
tlr_case_fn *tlr_case_call(enum tlr_kernel_op op);

#endif
