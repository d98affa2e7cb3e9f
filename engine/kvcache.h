/* kvcache.h - keys and values of the timeline and of its branches. */
#ifndef TLR_ENGINE_KVCACHE_H
#define TLR_ENGINE_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* k and v: [layer][kv_head][pos][head_dim], so that one head's keys are one
 * stream.  Branches: [layer][kv_head][branch][branch_tok][head_dim]. */
struct tlr_kv {
    uint8_t *k, *v, *branch_k, *branch_v;
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t n_ctx, n_branches, branch_tok;
    unsigned elem_bytes; /* 4: f32, 2: f16 */
};

/* Bytes of k (of v): of the timeline and of all branches; false on overflow. */
bool tlr_kv_bytes(const struct tlr_kv *kv, uint64_t *timeline,
                  uint64_t *branches);

/* Where position pos of the timeline, or of a branch, lies in k; the same
 * offset in v. */
uint64_t tlr_kv_offset(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                       uint32_t pos);
uint64_t tlr_kv_branch_offset(const struct tlr_kv *kv, uint32_t layer,
                              uint32_t head, uint32_t branch, uint32_t pos);

/* Stores f32 [head_dim] as an element of the cache. */
void tlr_kv_store(const struct tlr_kv *kv, const struct tlr_kernels *k,
                  uint8_t *dst, const float *src);

/* Copies the first n_tok positions of a branch to timeline position pos. */
void tlr_kv_keep(struct tlr_kv *kv, uint32_t branch, uint32_t n_tok,
                 uint32_t pos);

#endif
