/* variants.h - kernel_list.inc as data: what the tests prove and the bench
 * times, function by function.  The engine uses kernels.h instead. */
#ifndef TLR_KERNELS_VARIANTS_H
#define TLR_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

enum tlr_kernel_op {
    TLR_OP_MATVEC,
    TLR_OP_DEQUANT,
    TLR_OP_QUANTISE,
    TLR_OP_MATMUL,
    TLR_OP_SCORE,
    TLR_OP_RMSNORM,
    TLR_OP_ROPE,
    TLR_OP_SWIGLU,
    TLR_OP_ADD,
    TLR_OP_TO_F16,
    TLR_OP_FROM_F16,
    TLR_OP_ATTEND_F32,
    TLR_OP_ATTEND_F16,
    TLR_OP_ATTEND_Q8,
    TLR_OP_ATTEND_MERGE,
    TLR_N_OPS
};

typedef void tlr_any_fn(void); /* cast to the slot's type before the call */

struct tlr_variant {
    const char *slot; /* "matvec_q4" */
    const char *isa;  /* "ref", "avx2": the end of the function's name */
    enum tlr_kernel_op op;
    enum tlr_type type; /* of the weights; TLR_F32 where there are none */
    enum tlr_cpu_level level;
    tlr_any_fn *fn;
};

/* Every row of this architecture, slots in list order, levels ascending, so
 * the ref row of a slot comes before its other rows. */
const struct tlr_variant *tlr_kernel_variants(size_t *n);

#endif
