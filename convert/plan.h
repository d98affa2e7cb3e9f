/* plan.h - which of our types each tensor gets: one decision, used by the
 * conversion and by its verification.
 */
#ifndef TLR_CONVERT_PLAN_H
#define TLR_CONVERT_PLAN_H

#include "convert/convert.h"

struct tlr_plan_tensor {
    struct tlr_tensor_want want;
    struct tlr_source_tensor from;
    enum tlr_type type;
    enum tlr_type coded; /* layout that bands are rounded to: q8 where type is
                            q8p, which is put together from such bands */
    bool is_calibrated; /* rounded for the inputs of a calibration text */
    bool is_carried;  /* blocks are taken over as they are */
    bool is_fallback; /* does not divide into tiles: bf16 instead */
};

struct tlr_plan {
    struct tlr_plan_tensor *tensors; /* [n], i as in tlr_config_tensor */
    uint32_t n;
    uint64_t src_bytes; /* sum, for progress */
    uint32_t max_cols;
};

int tlr_plan_make(struct tlr_plan *out, struct tlr_source *src,
                  const struct tlr_convert_options *options,
                  struct tlr_err *err);
/* What progress counts to: bytes of the source for the conversion, as many for
 * its verification at the end and some for calibration. */
enum { TLR_PLAN_CALIBRATION_SHARE = 4 };
uint64_t tlr_plan_total(const struct tlr_plan *p,
                        const struct tlr_convert_options *options);
void tlr_plan_clear(struct tlr_plan *p);

#endif
