/* import.h - a router that CITER's own code trained.
 *
 * Its ConfidenceModel is torchvision's MLP behind the name `mlp` and a Linear
 * behind `linear`: mlp.0 (weight [2H, H], bias), mlp.1 (BatchNorm1d: weight, bias,
 * running_mean, running_var), mlp.4 (weight [M, 2H], bias), linear (weight [1, M],
 * bias).  The sizes may be others.  Reading the file is the caller's business.
 */
#ifndef TLR_ROUTER_IMPORT_H
#define TLR_ROUTER_IMPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "router/router.h"

struct tlr_import_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t shape[2]; /* of one or two dimensions, outermost first */
    const float *data; /* row-major */
};

/* Folds the network for hidden states of width dim into w (kind mlp; cleared by
 * the caller) and checks the fold on random states against the network layer by
 * layer: *worst is the largest difference relative to 1 + |logit|, and more than
 * 1e-5 is TLR_EMISMATCH.  All names may share a prefix ("module.").  A tensor that
 * is missing, unknown, of another shape or not finite is TLR_EFORMAT and named;
 * a width other than dim TLR_EMISMATCH. */
int tlr_import_citer(struct tlr_router_weights *w,
                     const struct tlr_import_tensor *tensors, size_t n,
                     const char *label, uint32_t dim, double *worst,
                     struct tlr_err *err);

#endif
