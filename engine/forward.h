/* forward.h - the decoder stack on a batch of tokens. */
#ifndef TLR_ENGINE_FORWARD_H
#define TLR_ENGINE_FORWARD_H

#include "engine/session.h"

/* Rows of one pass: consecutive positions of the timeline, or (branches) the
 * next token of each branch, all at one position, or (owners) the next token of
 * n sessions, whose rows lie in the scratch of the one that runs the pass. */
struct tlr_batch {
    const int32_t *ids; /* [n] */
    int n;
    int first_wanted; /* rows before it are here for their keys and values */
    bool branches;
    struct tlr_session *const *owners; /* [n] or NULL: all rows are its own */
};

/* Runs all blocks for the rows behind the session's timeline and leaves the
 * residual stream of the wanted ones in s->w.x; keys and values are stored,
 * s->pos and the branch length are the caller's to move. */
void tlr_forward(struct tlr_session *s, const struct tlr_batch *b);

/* hidden f32 [n, dim] = final norm of rows [row, row + n) of s->w.x. */
void tlr_forward_hidden(struct tlr_session *s, int row, int n, float *hidden);

/* logits f32 [n, n_vocab] = LM head of hidden f32 [n, dim]; n at most the rows
 * of a step. */
void tlr_forward_head(struct tlr_session *s, float *hidden, int n,
                      float *logits);

/* n rows at x as the input of a region, to be rounded into s->w.acts. */
struct tlr_rows tlr_forward_rows(const struct tlr_session *s, float *x,
                                   uint32_t n_cols, int n);

#endif
