/* rig.h - a small and a large model, a router of random weights and experts that
 * misbehave, for the tests of the joint loop. */
#ifndef TLR_TESTS_ROUTER_RIG_H
#define TLR_TESTS_ROUTER_RIG_H

#include "router/expert.h"
#include "router/router.h"
#include "tests/model/models.h"

/* Weights of a router of that kind for width dim, random from seed; the caller
 * frees them with rig_weights_clear. */
struct tlr_router_weights rig_weights(enum tlr_policy_kind kind, uint32_t dim,
                                      uint32_t n_hidden, uint64_t seed);
void rig_weights_clear(struct tlr_router_weights *w);

/* The same packed and opened, for this model. */
struct tlr_router *rig_router(enum tlr_policy_kind kind,
                              const struct tlr_model *m, uint64_t seed);

/* What the file's bytes say W1 is: f32 [dim + n_features] of a row, with
 * features' scales multiplied in; decoded with the numbers of README.md. */
void rig_row(const uint8_t *bytes, uint32_t row, float *out);

/* An expert that answers from a table or fails. */
struct rig_expert {
    int32_t id;       /* its answer */
    int n_tok;        /* tokens it claims to have answered */
    int fail_every;   /* 0: never; k: every k-th ask */
    int fail_code;
    int n_asks;
};
struct tlr_expert rig_expert(struct rig_expert *e);

#endif
