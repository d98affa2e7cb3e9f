/* train_data.h - which rows train, which are held out, and batches of them. */
#ifndef TLR_ROUTER_TRAIN_DATA_H
#define TLR_ROUTER_TRAIN_DATA_H

#include "base/pool.h"
#include "router/train.h"

struct tlr_train_data {
    const struct tlr_dataset *d;
    uint32_t dim, n_features, n_in; /* n_in = dim + n_features */
    uint64_t *train, n_train; /* rows to train on */
    uint64_t *held, n_held;   /* all rows of the groups held out */
    uint64_t *valid, n_valid; /* those of them that have a target */
    uint32_t n_groups_valid;
    double train_ones;        /* labels 1 among the training rows */
    double tie_weight, unlikely; /* tlr_train_options */
    float *mean, *scale;      /* [n_in] of the inputs: x' = (x - mean) scale */
};

/* Splits by group: the groups are ordered by a hash of seed and number, and the
 * first part of them is held out. */
int tlr_train_data_new(struct tlr_train_data *out, const struct tlr_dataset *d,
                       const struct tlr_train_options *o, struct tlr_err *err);
void tlr_train_data_clear(struct tlr_train_data *data);

/* Inputs of rows[0..n): normalised or as they are into x [n, n_in]; targets
 * [n]. */
void tlr_train_load(const struct tlr_train_data *data, struct tlr_pool *pool,
                    const uint64_t *rows, uint32_t n, bool normalised,
                    float *x, struct tlr_target *targets);

/* Row i with the label and the weight that it is trained with: tie_weight and
 * unlikely (tlr_train_options) are in them. */
void tlr_train_row(const struct tlr_train_data *data, uint64_t i,
                   struct tlr_row *out);

/* order [n] = the rows of an epoch, shuffled by seed and epoch. */
void tlr_train_shuffle(uint64_t *order, uint64_t n, uint64_t seed,
                       uint32_t epoch);

#endif
