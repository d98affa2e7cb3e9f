/* citer.h - CITER's network as it is trained and published, and its fold.
 *
 *   z = w3 . (W2 relu(BN(W1 x' + b1)) + b2) + b3,   x' = (x - in_mean) in_scale
 *
 * Linear(n_in, n_hidden) - BatchNorm1d - ReLU - Linear(n_hidden, n_mid) -
 * Linear(n_mid, 1): torchvision's MLP puts no activation behind its last layer,
 * so the last two layers are one vector, and BatchNorm with its running
 * statistics belongs to the first (arXiv 2502.01976, code of its authors).
 */
#ifndef TLR_ROUTER_CITER_H
#define TLR_ROUTER_CITER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "router/router.h"

#define TLR_CITER_BN_EPS 1e-5 /* PyTorch's default */

/* Borrowed tensors, row-major f32. */
struct tlr_citer {
    uint32_t n_in, n_hidden, n_mid; /* n_hidden 0: z = w3 . x' + b3, w3 [n_in] */
    const float *in_mean, *in_scale; /* [n_in], or NULL for x' = x */
    const float *w1, *b1;            /* [n_hidden, n_in], [n_hidden] */
    const float *gamma, *beta, *mean, *var; /* BatchNorm, [n_hidden] each */
    const float *w2, *b2;            /* [n_mid, n_hidden], [n_mid] */
    const float *w3;                 /* [n_mid] */
    float b3;
};

/* The network layer by layer in double, as the formula above says: what the fold
 * is checked against.  scratch [n_hidden + n_mid]. */
double tlr_citer_logit(const struct tlr_citer *c, const float *x,
                       double *scratch);

/* Allocates out's arrays (tlr_router_weights_clear) and fills them; kind and the
 * split of n_in into dim and features are the caller's, temperature is 1. */
int tlr_citer_fold(struct tlr_router_weights *out, const struct tlr_citer *c,
                   struct tlr_err *err);
void tlr_router_weights_clear(struct tlr_router_weights *w);

/* Logit of folded weights in f32 storage and double sums, temperature not
 * applied; x [dim + n_features]. */
double tlr_folded_logit(const struct tlr_router_weights *w, const float *x);

/* Largest |folded - unfolded| logit over n random inputs (standard normal around
 * in_mean where there is one), relative to 1 + |unfolded|. */
int tlr_citer_check(const struct tlr_router_weights *w,
                    const struct tlr_citer *c, uint32_t n, uint64_t seed,
                    double *worst, struct tlr_err *err);

#endif
