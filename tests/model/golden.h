/* golden.h - samples of Hugging Face's results (tests/golden/hf). */
#ifndef TLR_TESTS_MODEL_GOLDEN_H
#define TLR_TESTS_MODEL_GOLDEN_H

#include "engine/tlr.h"

enum { GOLDEN_POSITIONS = 4, GOLDEN_MAX_SAMPLES = 64 };

struct golden_sample {
    uint32_t n; /* tokens consumed */
    double max_abs; /* largest |logit| of all */
    int32_t argmax;
    int n_logits, n_hidden;
    int32_t ids[GOLDEN_MAX_SAMPLES], at[GOLDEN_MAX_SAMPLES];
    double logits[GOLDEN_MAX_SAMPLES], hidden[GOLDEN_MAX_SAMPLES];
};

void golden_read(const char *name, struct golden_sample out[GOLDEN_POSITIONS]);

/* Fails unless every sampled logit is within tolerance * max_abs, and every
 * sampled hidden value within twice that of the largest *sampled* one (which is
 * smaller than the largest of all).  Returns the worst logit's share. */
double golden_compare(const struct golden_sample *g, const float *logits,
                      const float *hidden, double tolerance, const char *what);

#endif
