/* variants_decl.h - prototypes of every variant: for dispatch.c, and for the
 * file that defines one so that the compiler compares the two. */
#ifndef TLR_KERNELS_VARIANTS_DECL_H
#define TLR_KERNELS_VARIANTS_DECL_H

#include "kernels/kernels.h"

#define TLR_FN_MATVEC tlr_matvec_fn
#define TLR_FN_DEQUANT tlr_dequant_fn
#define TLR_FN_QUANTISE tlr_quantise_fn
#define TLR_FN_MATMUL tlr_matmul_fn
#define TLR_FN_SCORE tlr_score_fn
#define TLR_FN_RMSNORM tlr_rmsnorm_fn
#define TLR_FN_ROPE tlr_rope_fn
#define TLR_FN_SWIGLU tlr_swiglu_fn
#define TLR_FN_ADD tlr_add_fn
#define TLR_FN_TO_F16 tlr_to_f16_fn
#define TLR_FN_FROM_F16 tlr_from_f16_fn
#define TLR_FN_ATTEND_F32 tlr_attend_fn
#define TLR_FN_ATTEND_F16 tlr_attend_fn
#define TLR_FN_ATTEND_Q8 tlr_attend_fn
#define TLR_FN_ATTEND_MERGE tlr_attend_merge_fn

#define TLR_SLOT(slot, op, type, field) typedef TLR_FN_##op tlr_slot_##slot##_fn;
#define TLR_VARIANT(slot, isa, level) tlr_slot_##slot##_fn tlr_##slot##_##isa;
#include "kernels/kernel_list.inc"

#endif
