/* train_loss.h - what training lessens, as a function of a batch's logits.
 *
 * z is the logit of keeping the small model's token, s(z) its sigmoid, y the
 * label (1 keep, 0 ask), w the row's weight.
 *
 *   bce       mean of w (P y log(1 + e^-z) + (1 - y) log(1 + e^z)), P the weight
 *             of the label-1 rows.  CITER's preference loss is this: Bradley and
 *             Terry give the preference of keeping over asking as
 *             e^a / (e^a + e^b) = s(a - b), and z stands for a - b.
 *   bt        Bradley-Terry between positions: every kept position should be
 *             preferred to every asked one of the batch,
 *             sum over pairs (y_i = 1, y_j = 0) of w_i w_j log(1 + e^(z_j - z_i))
 *             over sum of w_i w_j.  It leaves the offset of z open (calibration
 *             fits it) and is a smooth bound of 1 - AUROC.
 *   deferral  Co-LLM (arXiv 2403.03870 equation 3): who writes the token is a
 *             latent variable; mean of -w log(s(z) p_slm + s(-z) p_llm), p the
 *             probability of the gold token.  No labels.
 */
#ifndef TLR_ROUTER_TRAIN_LOSS_H
#define TLR_ROUTER_TRAIN_LOSS_H

#include <stdint.h>

enum tlr_loss_kind { TLR_LOSS_BCE, TLR_LOSS_BT, TLR_LOSS_DEFERRAL };

struct tlr_target {
    float weight, p_slm, p_llm;
    uint8_t label;
};

/* Loss of a batch; dz [n] (may be NULL) receives its derivatives.  0 when bt
 * finds no pair. */
double tlr_loss(enum tlr_loss_kind kind, const double *z,
                const struct tlr_target *t, uint32_t n, double pos_weight,
                double *dz);

/* Least sum of w BCE over the logits z / T + shift: temperature scaling (Guo et
 * al. 2017, arXiv 1706.04599 section 4.2) with the offset of Platt's, which bt
 * leaves open and early stopping leaves unsettled.  T stays in [1/20, 20]. */
void tlr_loss_calibrate(const double *z, const struct tlr_target *t, uint64_t n,
                        double *temperature, double *shift);

double tlr_sigmoid(double z);

#endif
