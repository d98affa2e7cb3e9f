/* sampler.h - from logits to one id.
 *
 * Order, as Hugging Face and llama.cpp users expect: repeat penalty over the
 * given history, then temperature, top-k, top-p, min-p, and one draw.
 * temperature 0 is argmax (lowest id wins ties): exact and repeatable.
 */
#ifndef TLR_ENGINE_SAMPLER_H
#define TLR_ENGINE_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/generation.h"

struct tlr_sampler;

/* The seed decides every draw (PCG32).  All scratch is allocated here; sampling
 * allocates nothing. */
int tlr_sampler_new(struct tlr_sampler **out, const struct tlr_generation *g,
                    uint32_t n_vocab, uint64_t seed, struct tlr_err *err);
void tlr_sampler_free(struct tlr_sampler *s);

/* logits f32 [n_vocab], not changed; history: ids so far, for the penalty. */
int32_t tlr_sample(struct tlr_sampler *s, const float *logits,
                   const int32_t *history, size_t n_history);

/* How many of the best logits tlr_sample looks at, whatever the others are; 0:
 * at all of them (a penalty, or neither greedy nor top-k). */
uint32_t tlr_sampler_n_top(const struct tlr_sampler *s);

/* The same id and the same draw as tlr_sample, from these alone: the best first,
 * of equal logits the lower id (tlr_top). */
int32_t tlr_sample_top(struct tlr_sampler *s, const int32_t *ids,
                       const float *logits);

/* Where the draws stand: what is read here and set later draws the same again,
 * so that tokens can be taken back. */
uint64_t tlr_sampler_state(const struct tlr_sampler *s);
void tlr_sampler_set_state(struct tlr_sampler *s, uint64_t state);

/* Index of the largest of x[n]; the lowest index wins ties; NaN never wins. */
int32_t tlr_argmax(const float *x, uint32_t n);

/* log(sum(exp(x))) of x[n], stable, in double. */
double tlr_log_sum_exp(const float *x, uint32_t n);

#endif
