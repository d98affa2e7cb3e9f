/* metrics.h - how well a score tells the positions to keep from those to ask. */
#ifndef TLR_ROUTER_METRICS_H
#define TLR_ROUTER_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One position: score (higher: keep), its label (1 keep, 0 ask). */
struct tlr_scored {
    float score;
    uint8_t label;
};

/* Sorts by score, ascending; equal scores by label, so that the order of the
 * input leaves no trace.  The functions below want it sorted. */
void tlr_scored_sort(struct tlr_scored *s, size_t n);

/* Probability that a position with label 1 scores above one with label 0, equal
 * scores counting half (Mann-Whitney U over n0 n1); NaN with one class only. */
double tlr_auroc(const struct tlr_scored *s, size_t n);

/* Average precision of finding the label-0 positions by a low score: the sum of
 * (recall_i - recall_(i-1)) precision_i over distinct scores from the lowest on;
 * NaN without label 0.  Chance is the share of label 0. */
double tlr_auprc_ask(const struct tlr_scored *s, size_t n);

/* Expected calibration error of score as P(label = 1), in TLR_ECE_BINS bins of
 * equal width: the mean over positions of |accuracy - confidence| of their bin
 * (Guo et al. 2017, arXiv 1706.04599 equation 3). */
enum { TLR_ECE_BINS = 15 };
double tlr_ece(const struct tlr_scored *s, size_t n);

/* The threshold below which a share (0..1) of the scores lies: halfway between
 * the neighbours there.  n >= 1. */
float tlr_share_tau(const struct tlr_scored *s, size_t n, double share);

/* What asking below tau does. */
struct tlr_share_row {
    double share;     /* asked for */
    float tau;
    double attained;  /* share of scores below tau */
    double recall;    /* of the label-0 positions, asked */
    double precision; /* of the asked positions, label 0; NaN when none is asked */
};
struct tlr_share_row tlr_share_at(const struct tlr_scored *s, size_t n,
                                  double share);

#endif
