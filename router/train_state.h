/* train_state.h - all that a training run is at the end of an epoch, and the
 * checkpoint file that holds it.
 *
 * The random numbers of an epoch are functions of seed, epoch and step, so the
 * counters are the whole state of the generator.
 */
#ifndef TLR_ROUTER_TRAIN_STATE_H
#define TLR_ROUTER_TRAIN_STATE_H

#include "router/train_net.h"

enum { TLR_TRAIN_NAME_BYTES = 512 };

struct tlr_train_state {
    struct tlr_net_shape shape;
    uint32_t epoch, best_epoch; /* epochs done; the best of them, from 1 */
    uint64_t step;              /* of AdamW */
    double best_loss, best_train_loss;
    size_t n_trained, n_all;
    float *params;  /* [n_all] */
    float *m, *v;   /* [n_trained] */
    float *best;    /* [n_all] */
    float *storage; /* the four of them, in this order */
};

int tlr_train_state_new(struct tlr_train_state *s,
                        const struct tlr_net_shape *shape, uint64_t seed,
                        struct tlr_err *err);
void tlr_train_state_clear(struct tlr_train_state *s);

/* The file appears whole or not at all.  name (below TLR_TRAIN_NAME_BYTES): the
 * options and the dataset that the state belongs to, as text. */
int tlr_train_state_save(const struct tlr_train_state *s, const char *name,
                         const char *path, struct tlr_err *err);
/* TLR_ENOTFOUND (no message) without a file; TLR_EMISMATCH when name differs;
 * TLR_EFORMAT when it is damaged.  s must be new, of the same shape. */
int tlr_train_state_load(struct tlr_train_state *s, const char *name,
                         const char *path, struct tlr_err *err);

#endif
