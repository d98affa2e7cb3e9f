/* attention.h - rotary positions, KV cache and attention of one layer. */
#ifndef TLR_ENGINE_ATTENTION_H
#define TLR_ENGINE_ATTENTION_H

#include "engine/forward.h"

/* Fills cos, sin f32 [n_ctx][head_dim/2]. factors f32 [head_dim/2] or NULL. */
void tlr_rope_tables(float *cos_out, float *sin_out, uint32_t n_ctx,
                     uint32_t head_dim, float theta, const float *factors);

/* Scratch that tlr_attention wants of s->w: floats of `attend` for each thread,
 * and of `parts`. */
size_t tlr_attention_thread_floats(const struct tlr_config *c);
uint64_t tlr_attention_part_floats(const struct tlr_config *c, uint32_t n_ctx);

/* s->w.q, k, v of the batch's rows -> s->w.att: bias, head norms, rotation,
 * store of k and v, softmax(q K / sqrt(head_dim)) V. */
void tlr_attention(struct tlr_session *s, uint32_t layer,
                   const struct tlr_batch *b);

#endif
