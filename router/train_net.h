/* train_net.h - the router's network while it is trained: one flat array of
 * parameters, forward and backward over a batch.
 *
 * Layout of the parameters (K = n_hidden, M = n_mid), row-major f32:
 *   w1 [K, n_in]  w2 [M, K]  w3 [M]   -- decayed
 *   b1 [K]  gamma [K]  beta [K]  b2 [M]  b3 [1]
 *   mean [K]  var [K]                 -- running statistics, not trained
 * n_hidden 0 is a linear head: w3 [n_in], b3 [1].
 *
 * Work is cut into items whose sizes depend on shapes only, each item one SGEMM
 * of one thread: the bits do not depend on the number of threads.
 */
#ifndef TLR_ROUTER_TRAIN_NET_H
#define TLR_ROUTER_TRAIN_NET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "router/citer.h"

struct tlr_net_shape {
    uint32_t n_in, n_hidden, n_mid;
};

/* Views into one flat array. */
struct tlr_net_params {
    float *w1, *w2, *w3, *b1, *gamma, *beta, *b2, *b3, *mean, *var;
};
size_t tlr_net_n_decayed(const struct tlr_net_shape *s);
size_t tlr_net_n_trained(const struct tlr_net_shape *s);
size_t tlr_net_n_all(const struct tlr_net_shape *s); /* with statistics */
void tlr_net_view(struct tlr_net_params *out, const struct tlr_net_shape *s,
                  float *flat);

/* PyTorch's defaults: weights and biases of a Linear uniform in +-1/sqrt(inputs),
 * gamma 1, beta 0, mean 0, var 1.  Element i of tensor t (in the order w1 b1 w2
 * b2 w3 b3) is u = hash_u64(seed + t, i) >> 40 as bound (2 u 2^-24 - 1). */
void tlr_net_init(const struct tlr_net_shape *s, float *flat, uint64_t seed);

struct tlr_net; /* scratch of one batch */

/* max_batch >= 2.  The pool stays the caller's. */
int tlr_net_new(struct tlr_net **out, const struct tlr_net_shape *s,
                uint32_t max_batch, struct tlr_pool *pool,
                struct tlr_err *err);
void tlr_net_free(struct tlr_net *net); /* NULL is allowed */

/* Training mode: BatchNorm by the batch's own statistics (biased variance), which
 * also move the running ones by a tenth (unbiased variance); dropout p behind
 * ReLU (a mask for each row) and behind the middle layer (one for the batch), from
 * mask_seed.  x [n, n_in], 2 <= n; z [n]
 * logits. */
void tlr_net_forward(struct tlr_net *net, float *flat, const float *x,
                     uint32_t n, double dropout, uint64_t mask_seed, double *z);
/* After forward with the same x: grad [n_trained] = sum over the batch of
 * dz[r] dz_r/dparameter.  b1's is 0: BatchNorm takes any constant off. */
void tlr_net_backward(struct tlr_net *net, const float *flat, const float *x,
                      uint32_t n, const double *dz, float *grad);

/* AdamW (arXiv 1711.05101 algorithm 2), t = 1, 2, ... the step:
 *   m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
 *   p = p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p)
 * b1 0.9, b2 0.999, eps 1e-8; the decay is for the first n_decayed only. */
struct tlr_adamw {
    double lr, decay;
    uint64_t step;
};
void tlr_adamw_step(struct tlr_pool *pool, const struct tlr_adamw *o,
                    size_t n_decayed, size_t n, float *p, const float *grad,
                    float *m, float *v);

/* Folded evaluation of a batch, running statistics: x [n, n_in] to z [n], with
 * scratch inside net.  w's features follow its dim, as in x. */
void tlr_net_eval(struct tlr_net *net, const struct tlr_router_weights *w,
                  const float *x, uint32_t n, double *z);

#endif
