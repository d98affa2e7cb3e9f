/* router.h - a trained router: its weights, its calibration, its file.
 *
 * The bytes of a router are the same beside a model (router.bin) and in its
 * router section (tlr router attach); README.md draws them.  A router belongs to
 * one model file: the fingerprint of tensors and quantisation it was trained on
 * must be the model's.
 */
#ifndef TLR_ROUTER_ROUTER_H
#define TLR_ROUTER_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "engine/tlr.h"
#include "router/policy.h"

struct tlr_router;

/* Shares and their thresholds: tau[p][i] is the trust below which policy p asks
 * at share[i] of the positions, measured on text the joint loop wrote; NaN where
 * the policy was not calibrated. */
enum { TLR_N_SHARES = 64 };
struct tlr_calibration {
    float share[TLR_N_SHARES]; /* ascending, in (0, 1) */
    float tau[TLR_N_POLICIES][TLR_N_SHARES]; /* never falls */
    uint64_t n_positions; /* measured on */
};
/* Shares worth measuring (half a percent apart up to 20 %), no thresholds. */
void tlr_calibration_clear(struct tlr_calibration *c);
bool tlr_calibration_has(const struct tlr_calibration *c,
                         enum tlr_policy_kind kind);

/* What training hands over: the folded network, row-major f32.
 * trust = sigmoid((w2 . relu(W1 x + b1) + b2) / temperature), x the hidden state
 * followed by n_features features, each (x - mean) * scale already folded in.
 * n_hidden 0: no hidden layer, w2 [n_in] (deferral). */
struct tlr_router_weights {
    enum tlr_policy_kind kind; /* mlp, mlp+ or deferral */
    uint32_t dim, n_features, n_hidden;
    float *w1; /* [n_hidden, dim + n_features] */
    float *b1; /* [n_hidden] */
    float *w2; /* [n_hidden], or [dim + n_features] */
    float b2, temperature;
};

/* Bytes of a router: W1 is rounded to q8 (its share of a step would be four
 * times as large in f32).  calibration NULL: none yet.  info: a JSON object
 * (provenance, training report).  NaN or infinity is TLR_EFORMAT.  *out with
 * tlr_free. */
int tlr_router_pack(uint8_t **out, size_t *out_len,
                    const struct tlr_router_weights *w,
                    const struct tlr_calibration *calibration,
                    uint64_t fingerprint, const char *info,
                    struct tlr_err *err);

/* Checked like every file: hostile until it passed.  Copies what it needs. */
int tlr_router_open(struct tlr_router **out, struct tlr_bytes bytes,
                    const char *label, struct tlr_err *err);
/* The same from a file. */
int tlr_router_read(struct tlr_router **out, const char *path,
                    struct tlr_err *err);
/* Whether bytes begin as a router's do. */
bool tlr_router_is_router(struct tlr_bytes bytes);
/* From the model's own router section; TLR_ENOTFOUND without one. */
int tlr_router_of_model(struct tlr_router **out, const struct tlr_model *m,
                        struct tlr_err *err);
void tlr_router_free(struct tlr_router *r); /* NULL is allowed */

/* TLR_EMISMATCH, naming both, when it was trained for another model, width or
 * quantisation. */
int tlr_router_check(const struct tlr_router *r, const struct tlr_model *m,
                     struct tlr_err *err);

const struct tlr_router_weights *
tlr_router_shape(const struct tlr_router *r); /* w1 is NULL: it is rounded */
struct tlr_calibration *tlr_router_calibration(struct tlr_router *r);
const char *tlr_router_info(const struct tlr_router *r); /* JSON */
const char *tlr_router_label(const struct tlr_router *r);
uint64_t tlr_router_fingerprint(const struct tlr_router *r);
/* The same router with another calibration or info, packed. */
int tlr_router_repack(uint8_t **out, size_t *out_len,
                      const struct tlr_router *r, struct tlr_err *err);

/* Floats of scratch that one evaluation needs. */
size_t tlr_router_scratch(const struct tlr_router *r);
/* Logit of trust (before the sigmoid, temperature applied).  hidden [dim],
 * features [n_features] or NULL, all finite; scratch [tlr_router_scratch].
 * The rows of W1 are shared out to pool's threads; with NULL the caller's
 * computes them all.  Allocates nothing; several threads may evaluate one
 * router, each with a pool and scratch of its own.  The same bits with any pool
 * and at every level of the kernels, whose default is the machine's best. */
float tlr_router_logit(const struct tlr_router *r, struct tlr_pool *pool,
                       const float *hidden, const float *features,
                       float *scratch);

void tlr_router_set_level(struct tlr_router *r, enum tlr_cpu_level level);

/* tau of a policy for a share of routed tokens, between the calibrated points by
 * linear interpolation, beyond them that of the nearest; a share of 0 is -inf, 1
 * is inf.  random, always and never need no calibration (c may be NULL);
 * TLR_ENOTFOUND where the policy was not calibrated. */
int tlr_calibration_tau(const struct tlr_calibration *c,
                        enum tlr_policy_kind kind, double share, float *tau,
                        struct tlr_err *err);

#endif
