/* generation.h - sampling defaults that travel with a model, as JSON. */
#ifndef TLR_ENGINE_GENERATION_H
#define TLR_ENGINE_GENERATION_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum { TLR_MAX_EOS = 16 };

struct tlr_generation {
    float temperature;    /* 0: greedy */
    int top_k;            /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 1: off; CTRL (arXiv 1909.05858), section 4.1 */
    int n_eos;
    int32_t eos[TLR_MAX_EOS]; /* any of them ends the text */
};

/* Greedy, everything off, no eos. */
void tlr_generation_default(struct tlr_generation *g);
int tlr_generation_to_json(const struct tlr_generation *g, char **out,
                           size_t *out_len, struct tlr_err *err);
/* Refuses unknown keys, values out of range (top_p in (0,1], min_p in [0,1),
 * temperature in [0,100], repeat_penalty in (0,10]) and eos ids >= n_vocab. */
int tlr_generation_from_json(struct tlr_generation *g, struct tlr_bytes json,
                             uint32_t n_vocab, const char *where,
                             struct tlr_err *err);
int tlr_generation_is_eos(const struct tlr_generation *g, int32_t id);

#endif
