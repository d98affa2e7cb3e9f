/* calibrate.h - thresholds for shares, measured on text the two models write.
 *
 * A threshold picked from trusts along gold or small-model text misses its share,
 * because every token of the large model changes what follows.  So shares are
 * measured in the loop's own text: a grid of thresholds from the small model's
 * trusts, the joint loop at each of them, and the curve of attained shares turned
 * round.  Use training questions, never those that are measured on.
 */
#ifndef TLR_ROUTER_CALIBRATE_H
#define TLR_ROUTER_CALIBRATE_H

#include "router/eval.h"
#include "router/router.h"

enum { TLR_CALIBRATE_GRID = 16 };

struct tlr_calibrate_options {
    enum tlr_task_kind task; /* not lm */
    const enum tlr_policy_kind *kinds;
    int n_kinds;             /* without random, always, never */
    uint32_t max_tok;
    int n_jobs;
    bool raw;
    int n_shots;
    /* Items done of all, also while the grid is sought. */
    void (*progress)(void *ctx, size_t done, size_t total);
    bool (*is_stopped)(void *ctx);
    void *ctx;
};

/* Where one grid point of one policy came out. */
struct tlr_calibrate_point {
    float tau;
    double share;
};

/* Fills out whole: tau is NaN for policies that are not in kinds.  points
 * [n_kinds, TLR_CALIBRATE_GRID], may be NULL. */
int tlr_calibrate(const struct tlr_items *items,
                  const struct tlr_eval_models *models,
                  const struct tlr_calibrate_options *options,
                  struct tlr_calibration *out,
                  struct tlr_calibrate_point *points, struct tlr_err *err);

/* The shares of a calibration: TLR_N_SHARES of them in equal ratios. */
void tlr_calibration_shares(float share[TLR_N_SHARES]);

/* tau at each share from n >= 1 measured points in order of tau, with low (at a
 * share of 0) and high (at 1) beyond them.  A share that falls where tau grows
 * is noise and is raised to the one before.  Linear between. */
void tlr_calibration_fit(const struct tlr_calibrate_point *points, int n,
                         float low, float high,
                         const float share[TLR_N_SHARES],
                         float tau[TLR_N_SHARES]);

/* Largest share that a budget allows, in [0, 1]: time per token = slm_ms +
 * share * ask_ms <= 1000 / tok_s, the serial model of routing.  0 when the small
 * model alone is slower than that. */
double tlr_share_for_speed(double slm_ms, double ask_ms, double tok_s);

#endif
