/* kvcache.h - keys and values of the timeline and of its branches. */
#ifndef TLR_ENGINE_KVCACHE_H
#define TLR_ENGINE_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/tlr.h"
#include "kernels/kernels.h"

/* k and v: [layer][kv_head][block], blocks as in kernels.h, so that one head's
 * keys are one stream.  Branches: [layer][kv_head][branch][block]; they start
 * with the block that the timeline's end lies in, its positions included, so
 * that a position's place in its block is the same in both. */
struct tlr_kv {
    uint8_t *k, *v, *branch_k, *branch_v;
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t n_blocks;        /* of the timeline */
    uint32_t n_branches;
    uint32_t branch_blocks;   /* of one branch */
    enum tlr_kv_type type;    /* not AUTO */
    unsigned elem_bytes;      /* 4, 2 or, of q8, 1 */
    size_t block_bytes;       /* of keys, and of values */
};

/* Sizes of a cache of n_ctx positions and n_branches of branch_tok; the shape
 * and the type are set. */
void tlr_kv_layout(struct tlr_kv *kv, uint32_t n_ctx, uint32_t n_branches,
                   uint32_t branch_tok);

/* Bytes of k (of v): of the timeline and of all branches; false on overflow. */
bool tlr_kv_bytes(const struct tlr_kv *kv, uint64_t *timeline,
                  uint64_t *branches);

/* Where a block of the timeline, or of a branch, lies in k; the same offset in
 * v. */
uint64_t tlr_kv_offset(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                       uint32_t block);
uint64_t tlr_kv_branch_offset(const struct tlr_kv *kv, uint32_t layer,
                              uint32_t head, uint32_t branch, uint32_t block);

/* Stores f32 [head_dim] at place p of a block of keys or of values. */
void tlr_kv_store_key(const struct tlr_kv *kv, const struct tlr_kernels *k,
                      uint8_t *block, uint32_t p, const float *src);
void tlr_kv_store_value(const struct tlr_kv *kv, const struct tlr_kernels *k,
                        uint8_t *block, uint32_t p, const float *src);

/* What one position of a block takes outside of it, scales first, and the
 * copies there and back. */
size_t tlr_kv_pos_bytes(const struct tlr_kv *kv);
void tlr_kv_get(const struct tlr_kv *kv, uint8_t *dst, const uint8_t *block,
                uint32_t p, bool is_key);
void tlr_kv_put(const struct tlr_kv *kv, uint8_t *block, uint32_t p,
                const uint8_t *src, bool is_key);

/* Starts a branch of one head at timeline position pos: what its first block
 * shares with the timeline. */
void tlr_kv_fork(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                 uint32_t branch, uint32_t pos);

/* Copies the timeline's blocks that hold positions first to end - 1; both have the
 * same model and type, and room for them. */
void tlr_kv_copy(struct tlr_kv *to, const struct tlr_kv *from, uint32_t first,
                 uint32_t end);

/* Copies the first n_tok positions of a branch to timeline position pos, where
 * it was forked. */
void tlr_kv_keep(struct tlr_kv *kv, uint32_t branch, uint32_t n_tok,
                 uint32_t pos);

#endif
