/* head.h - inside of tlr_top and tlr_branch_top: the best ids without all
 * logits. */
#ifndef TLR_ENGINE_HEAD_H
#define TLR_ENGINE_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "engine/tlr.h"

struct tlr_candidate {
    float logit;
    int32_t id;
};

/* Up to k values, the best first; of equal ones the lower id. */
struct tlr_best {
    struct tlr_candidate c[TLR_TOP_MAX];
    int n;
};

/* Scratch and what is counted.  Branches have their scores where their logits
 * would be. */
struct tlr_top_work {
    float *scores;         /* [n_vocab] upper bounds, or logits */
    struct tlr_best *best; /* [threads][TLR_MAX_BRANCHES] */
    float *tops;           /* [TLR_MAX_BRANCHES][n_vocab / TLR_TOP_BLOCK + 1]
                              largest of a block */
    int32_t *bands;        /* [tlr_top_max_bands] with survivors */
    struct tlr_top_counts counts;
};

enum { TLR_TOP_BLOCK = 256 }; /* rows of an item */

/* More bands of 16 rows than this to look at again: the full pass is hardly
 * dearer. */
uint32_t tlr_top_max_bands(uint32_t n_vocab);

/* Refuses a k that cannot be, and a session without a hidden state. */
int tlr_top_check(const struct tlr_session *s, int k, struct tlr_err *err);

/* The k best for the first n rows of s->row_hidden into *found[row], in one pass
 * over the head's weights; n <= TLR_MAX_BRANCHES.  row_logits is its scratch. */
void tlr_top_rows(struct tlr_session *s, int n, int k,
                  struct tlr_best *const *found);

#endif
