/* guess.h - what text comes next, guessed from texts seen before.
 *
 * The place where the last ids stood before, the longest match first, says how it
 * went on (prompt lookup).  For questions of one kind and many runs of each this
 * is right often and costs microseconds.
 */
#ifndef TLR_ROUTER_GUESS_H
#define TLR_ROUTER_GUESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Texts learnt, oldest first, each closed by -1; zero it first. */
struct tlr_guess {
    int32_t *ids;
    size_t n;
};

/* Up to `most` ids that may follow ids[0..n) into out; returns their number. */
int tlr_guess_next(const struct tlr_guess *g, const int32_t *ids, size_t n,
                   int most, int32_t *out);
/* Adds a text; the oldest half is forgotten when there are many. */
int tlr_guess_learn(struct tlr_guess *g, const int32_t *ids, size_t n,
                    struct tlr_err *err);
void tlr_guess_clear(struct tlr_guess *g);

#endif
