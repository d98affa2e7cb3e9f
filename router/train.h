/* train.h - from labelled positions to a router.
 *
 * Trains the network of train_net.h on the states of a dataset, keeps the
 * parameters of the best validation loss, folds them, calibrates, and says how
 * good the result is on questions it never saw.  The same dataset, options and
 * seed give the same bits on one machine, whatever the number of threads and
 * however often the run was killed and taken up.
 */
#ifndef TLR_ROUTER_TRAIN_H
#define TLR_ROUTER_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "router/dataset.h"
#include "router/metrics.h"
#include "router/router.h"
#include "router/train_loss.h"

/* After each batch; nonzero stops the run with TLR_ECANCELLED. */
struct tlr_train_progress {
    uint64_t rows_done, rows_at_most; /* at most: it may stop early */
    uint32_t epoch;                   /* that runs, from 1 */
    double valid_loss;                /* of the last whole epoch; NaN before */
};

struct tlr_train_options {
    enum tlr_policy_kind kind; /* mlp, mlp+, deferral */
    enum tlr_loss_kind loss;   /* deferral goes with deferral only */
    double lr, decay, dropout;
    double pos_weight; /* of the label-1 rows; 0: rows of label 0 over rows of 1 */
    double tie_weight; /* of rows of TLR_CASE_TIE, beside the others' 1 */
    /* Not 0: the label is "ask" where the large model gives the small one's token
     * less than this probability, whatever the dataset's labels say.  For mixed
     * chains, whose p_llm is that of the small model's token. */
    double unlikely;
    double valid;      /* share of the groups held out, in (0, 1) */
    uint32_t batch, epochs;
    uint32_t patience; /* epochs without a better validation loss */
    uint32_t n_hidden; /* 0: twice the width, as CITER */
    bool standardise;  /* inputs to mean 0, variance 1 (features always are) */
    bool constant_lr;  /* else warm-up, then a cosine down to 0 */
    uint64_t seed;
    int n_threads;
    const char *checkpoint; /* file of the state after each epoch; NULL: none */
    bool fresh;             /* ignore a checkpoint that is there */
    int (*progress)(void *ctx, const struct tlr_train_progress *p); /* or NULL */
    void *ctx;
};
void tlr_train_defaults(struct tlr_train_options *o, enum tlr_policy_kind kind);

enum { TLR_TRAIN_SIGNALS = 4, TLR_TRAIN_SHARES = 10 };

struct tlr_train_report {
    uint64_t n_rows, n_train, n_valid, n_parameters;
    uint32_t n_groups, n_groups_valid;
    double share_ask;        /* of label 0 among the held-out rows */
    double pos_weight;
    uint32_t epochs, best_epoch, resumed_at; /* epochs done before, or 0 */
    double train_loss, valid_loss; /* of the best epoch */
    double temperature;
    double auroc, auprc; /* on the held-out rows; auprc of finding label 0 */
    double ece_before, ece_after; /* temperature and offset */
    enum tlr_policy_kind signal[TLR_TRAIN_SIGNALS];
    double signal_auroc[TLR_TRAIN_SIGNALS], signal_auprc[TLR_TRAIN_SIGNALS];
    struct tlr_share_row shares[TLR_TRAIN_SHARES];
};

/* w: allocated (tlr_router_weights_clear).  calibration: first thresholds from
 * the held-out rows, for the trained policy and those that need no router.
 * A dataset with one class, one group, or (deferral) without p_llm is
 * TLR_EFORMAT; a checkpoint of another run TLR_EMISMATCH. */
int tlr_train(const struct tlr_dataset *d, const struct tlr_train_options *o,
              struct tlr_router_weights *w,
              struct tlr_calibration *calibration,
              struct tlr_train_report *report, struct tlr_err *err);

#endif
