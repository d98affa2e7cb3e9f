/* profile.h - where time goes, and who looks at the inputs of matrices. */
#ifndef TLR_ENGINE_PROFILE_H
#define TLR_ENGINE_PROFILE_H

#include <stdbool.h>

#include "engine/tlr.h"

/* Off while ns is NULL. */
struct tlr_profiler {
    uint64_t *ns; /* [n_layers + 1][TLR_N_PROFILE_OPS] */
    uint64_t n_steps, n_tok, total_ns;
    uint64_t last_ns; /* the mark before */
};

struct tlr_observer {
    tlr_observe_fn fn; /* NULL: nobody looks */
    void *ctx;
    float *down; /* [rows of a step][ffn_dim]: `down` reads no f32 otherwise */
};

/* The calling thread begins work that marks will divide. */
void tlr_profile_begin(struct tlr_session *s);
/* A step of n_tok tokens was made. */
void tlr_profile_step(struct tlr_session *s, int n_tok);
/* The time since the last mark, or the beginning, belongs to op of layer. */
void tlr_profile_mark(struct tlr_session *s, uint32_t layer,
                      enum tlr_profile_op op);

#endif
