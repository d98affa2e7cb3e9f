/* kvcache.c - where keys and values lie; the memory is the session's arena.
 *
 * A position is scattered over its block (keys) or is a row of it (values).
 * q8 rounds to a f16 scale first and then to the scale as it is stored, so that
 * a large dimension costs its own 32 neighbours of one position and no other.
 */
#include "engine/kvcache.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK = TLR_KV_BLOCK, SCALE_DIMS = 32 };

static uint32_t n_scales(const struct tlr_kv *kv)
{
    return kv->type == TLR_KV_Q8 ? (kv->head_dim + SCALE_DIMS - 1) / SCALE_DIMS
                                 : 0;
}

void tlr_kv_layout(struct tlr_kv *kv, uint32_t n_ctx, uint32_t n_branches,
                   uint32_t branch_tok)
{
    kv->elem_bytes = kv->type == TLR_KV_F32 ? 4 : kv->type == TLR_KV_F16 ? 2 : 1;
    kv->n_blocks = n_ctx / BLOCK + (n_ctx % BLOCK != 0);
    kv->n_branches = n_branches;
    /* up to 15 positions of the timeline come first */
    kv->branch_blocks = (branch_tok + BLOCK - 2) / BLOCK + 1;
    kv->block_bytes = BLOCK * tlr_kv_pos_bytes(kv);
}

bool tlr_kv_bytes(const struct tlr_kv *kv, uint64_t *timeline,
                  uint64_t *branches)
{
    /* Limits of the configuration keep the first product far below 2^64. */
    uint64_t per_block =
        (uint64_t)kv->n_layers * kv->n_kv_heads * kv->block_bytes;
    return tlr_mul_u64(per_block, kv->n_blocks, timeline) &&
           tlr_mul_u64(per_block, (uint64_t)kv->n_branches * kv->branch_blocks,
                       branches);
}

uint64_t tlr_kv_offset(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                       uint32_t block)
{
    uint64_t row = (uint64_t)layer * kv->n_kv_heads + head;
    return (row * kv->n_blocks + block) * kv->block_bytes;
}

uint64_t tlr_kv_branch_offset(const struct tlr_kv *kv, uint32_t layer,
                              uint32_t head, uint32_t branch, uint32_t block)
{
    uint64_t row = ((uint64_t)layer * kv->n_kv_heads + head) * kv->n_branches;
    return ((row + branch) * kv->branch_blocks + block) * kv->block_bytes;
}

size_t tlr_kv_pos_bytes(const struct tlr_kv *kv)
{
    return n_scales(kv) * sizeof(uint16_t) + kv->head_dim * kv->elem_bytes;
}

void tlr_kv_get(const struct tlr_kv *kv, uint8_t *dst, const uint8_t *block,
                uint32_t p, bool is_key)
{
    size_t size = kv->elem_bytes;
    for (uint32_t m = 0; m < n_scales(kv); m++, dst += 2) {
        memcpy(dst, block + (m * BLOCK + p) * 2, 2);
    }
    block += n_scales(kv) * BLOCK * 2;
    if (!is_key) {
        memcpy(dst, block + p * kv->head_dim * size, kv->head_dim * size);
        return;
    }
    for (uint32_t i = 0; i < kv->head_dim; i++) {
        memcpy(dst + i * size, block + (i * BLOCK + p) * size, size);
    }
}

/* [n] elements of a constant size to place p of a block of keys. */
static inline void scatter(uint8_t *block, uint32_t p, const uint8_t *src,
                           uint32_t n, const size_t size)
{
    for (uint32_t i = 0; i < n; i++) {
        memcpy(block + (i * BLOCK + p) * size, src + i * size, size);
    }
}

void tlr_kv_put(const struct tlr_kv *kv, uint8_t *block, uint32_t p,
                const uint8_t *src, bool is_key)
{
    for (uint32_t m = 0; m < n_scales(kv); m++, src += 2) {
        memcpy(block + (m * BLOCK + p) * 2, src, 2);
    }
    block += n_scales(kv) * BLOCK * 2;
    if (!is_key) {
        size_t n_bytes = kv->head_dim * kv->elem_bytes;
        memcpy(block + p * n_bytes, src, n_bytes);
    } else if (kv->type == TLR_KV_F32) {
        scatter(block, p, src, kv->head_dim, 4);
    } else if (kv->type == TLR_KV_F16) {
        scatter(block, p, src, kv->head_dim, 2);
    } else {
        scatter(block, p, src, kv->head_dim, 1);
    }
}

/* One position, [n] f16 scales and [head_dim] int8. */
static void quantise(uint8_t *dst, const float *src, uint32_t head_dim)
{
    uint32_t n = (head_dim + SCALE_DIMS - 1) / SCALE_DIMS;
    int8_t *q = (int8_t *)dst + n * sizeof(uint16_t);
    for (uint32_t i = 0; i < head_dim; i += SCALE_DIMS) {
        uint32_t end = i + SCALE_DIMS < head_dim ? i + SCALE_DIMS : head_dim;
        float largest = 0;
        for (uint32_t j = i; j < end; j++) {
            largest = fabsf(src[j]) > largest ? fabsf(src[j]) : largest;
        }
        uint16_t half = tlr_f32_to_f16(largest / 127);
        float d = tlr_f16_to_f32(half), inverse = d > 0 ? 1 / d : 0;
        memcpy(dst + i / SCALE_DIMS * 2, &half, 2);
        for (uint32_t j = i; j < end; j++) {
            /* a scale rounded down wants up to 127.06 */
            float x = fminf(fmaxf(src[j] * inverse, -127), 127);
            q[j] = (int8_t)lrintf(x);
        }
    }
}

static void store(const struct tlr_kv *kv, const struct tlr_kernels *k,
                  uint8_t *block, uint32_t p, const float *src, bool is_key)
{
    uint16_t pos[TLR_MAX_HEAD_DIM];
    const uint8_t *bytes = (const uint8_t *)pos;
    if (kv->type == TLR_KV_F32) {
        bytes = (const uint8_t *)src;
    } else if (kv->type == TLR_KV_F16) {
        k->to_f16(pos, src, (int)kv->head_dim);
    } else {
        quantise((uint8_t *)pos, src, kv->head_dim);
    }
    tlr_kv_put(kv, block, p, bytes, is_key);
}

void tlr_kv_store_key(const struct tlr_kv *kv, const struct tlr_kernels *k,
                      uint8_t *block, uint32_t p, const float *src)
{
    store(kv, k, block, p, src, true);
}

void tlr_kv_store_value(const struct tlr_kv *kv, const struct tlr_kernels *k,
                        uint8_t *block, uint32_t p, const float *src)
{
    store(kv, k, block, p, src, false);
}

void tlr_kv_fork(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                 uint32_t branch, uint32_t pos)
{
    if (pos % BLOCK == 0) {
        return;
    }
    uint64_t from = tlr_kv_offset(kv, layer, head, pos / BLOCK);
    uint64_t to = tlr_kv_branch_offset(kv, layer, head, branch, 0);
    memcpy(kv->branch_k + to, kv->k + from, kv->block_bytes);
    memcpy(kv->branch_v + to, kv->v + from, kv->block_bytes);
}

void tlr_kv_copy(struct tlr_kv *to, const struct tlr_kv *from, uint32_t first,
                 uint32_t end)
{
    uint32_t block = first / BLOCK;
    size_t n_bytes = ((end + BLOCK - 1) / BLOCK - block) * to->block_bytes;
    for (uint32_t layer = 0; layer < to->n_layers; layer++) {
        for (uint32_t head = 0; head < to->n_kv_heads; head++) {
            uint64_t dst = tlr_kv_offset(to, layer, head, block);
            uint64_t src = tlr_kv_offset(from, layer, head, block);
            memcpy(to->k + dst, from->k + src, n_bytes);
            memcpy(to->v + dst, from->v + src, n_bytes);
        }
    }
}

void tlr_kv_keep(struct tlr_kv *kv, uint32_t branch, uint32_t n_tok,
                 uint32_t pos)
{
    /* Whole blocks: the first one's start is the timeline's own. */
    uint32_t n_blocks = (pos % BLOCK + n_tok + BLOCK - 1) / BLOCK;
    for (uint32_t layer = 0; layer < kv->n_layers; layer++) {
        for (uint32_t head = 0; head < kv->n_kv_heads; head++) {
            uint64_t to = tlr_kv_offset(kv, layer, head, pos / BLOCK);
            uint64_t from = tlr_kv_branch_offset(kv, layer, head, branch, 0);
            memcpy(kv->k + to, kv->branch_k + from, n_blocks * kv->block_bytes);
            memcpy(kv->v + to, kv->branch_v + from, n_blocks * kv->block_bytes);
        }
    }
}
