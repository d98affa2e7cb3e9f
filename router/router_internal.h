/* router_internal.h - inside of a router handle; router.c evaluates it,
 * router_file.c makes bytes of it and it of bytes. */
#ifndef TLR_ROUTER_ROUTER_INTERNAL_H
#define TLR_ROUTER_ROUTER_INTERNAL_H

#include "kernels/kernels.h"
#include "router/router.h"

struct tlr_router {
    struct tlr_router_weights w; /* w1 NULL */
    /* W1 as q8 tiles [n_hidden, n_cols]: the hidden state's columns, padded to
     * a multiple of 32, then the features', likewise; n_cols 0 without W1. */
    uint8_t *tiles;
    uint32_t n_cols;
    float *feature_scale; /* [n_features] a feature is multiplied by it */
    struct tlr_calibration calibration;
    char *info;  /* JSON object, NUL-terminated */
    char *label; /* for messages */
    uint64_t fingerprint;
    struct tlr_kernels kernels;
};

/* Fails on shapes that no router has: kind with its features and hidden layer,
 * sizes within limits. */
int tlr_router_check_shape(const struct tlr_router_weights *w,
                           const char *label, struct tlr_err *err);
/* Allocates everything but the info for the shape of w; numbers are zero. */
int tlr_router_new(struct tlr_router **out, const struct tlr_router_weights *w,
                   const char *label, struct tlr_err *err);
/* Shares and thresholds are as router.h says. */
int tlr_calibration_check(const struct tlr_calibration *c, const char *label,
                          struct tlr_err *err);

static inline uint32_t tlr_router_pad(uint32_t n)
{
    return (n + TLR_TILE_COLS - 1) / TLR_TILE_COLS * TLR_TILE_COLS;
}

/* Floats of w2. */
static inline uint32_t tlr_router_n_w2(const struct tlr_router_weights *w)
{
    return w->n_hidden > 0 ? w->n_hidden : w->dim + w->n_features;
}

#endif
