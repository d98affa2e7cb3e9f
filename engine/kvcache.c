/* kvcache.c - where keys and values lie; the memory is the session's arena. */
#include "engine/kvcache.h"

#include <string.h>

#include "base/mem.h"

bool tlr_kv_bytes(const struct tlr_kv *kv, uint64_t *timeline,
                  uint64_t *branches)
{
    /* Limits of the configuration keep the first product far below 2^64. */
    uint64_t per_pos = (uint64_t)kv->n_layers * kv->n_kv_heads * kv->head_dim *
                       kv->elem_bytes;
    return tlr_mul_u64(per_pos, kv->n_ctx, timeline) &&
           tlr_mul_u64(per_pos, (uint64_t)kv->n_branches * kv->branch_tok,
                       branches);
}

uint64_t tlr_kv_offset(const struct tlr_kv *kv, uint32_t layer, uint32_t head,
                       uint32_t pos)
{
    uint64_t row = ((uint64_t)layer * kv->n_kv_heads + head) * kv->n_ctx + pos;
    return row * kv->head_dim * kv->elem_bytes;
}

uint64_t tlr_kv_branch_offset(const struct tlr_kv *kv, uint32_t layer,
                              uint32_t head, uint32_t branch, uint32_t pos)
{
    uint64_t row = ((uint64_t)layer * kv->n_kv_heads + head) * kv->n_branches;
    row = (row + branch) * kv->branch_tok + pos;
    return row * kv->head_dim * kv->elem_bytes;
}

void tlr_kv_store(const struct tlr_kv *kv, const struct tlr_kernels *k,
                  uint8_t *dst, const float *src)
{
    if (kv->elem_bytes == 4) {
        memcpy(dst, src, kv->head_dim * sizeof *src);
    } else {
        k->to_f16((uint16_t *)(void *)dst, src, (int)kv->head_dim);
    }
}

void tlr_kv_keep(struct tlr_kv *kv, uint32_t branch, uint32_t n_tok,
                 uint32_t pos)
{
    size_t n_bytes = (size_t)n_tok * kv->head_dim * kv->elem_bytes;
    for (uint32_t layer = 0; layer < kv->n_layers; layer++) {
        for (uint32_t head = 0; head < kv->n_kv_heads; head++) {
            uint64_t to = tlr_kv_offset(kv, layer, head, pos);
            uint64_t from = tlr_kv_branch_offset(kv, layer, head, branch, 0);
            memcpy(kv->k + to, kv->branch_k + from, n_bytes);
            memcpy(kv->v + to, kv->branch_v + from, n_bytes);
        }
    }
}
