/* gguf_blocks.h - GGML's block formats: what their bytes mean as f32, and
 * which of them fit our tiles bit for bit.
 *
 * Also serves safetensors, whose F32, F16 and BF16 are blocks of one element.
 */
#ifndef TLR_CONVERT_GGUF_BLOCKS_H
#define TLR_CONVERT_GGUF_BLOCKS_H

#include <stdint.h>

#include "kernels/quant.h"

struct tlr_block_type {
    const char *name;   /* "Q4_1" */
    uint32_t id;        /* ggml's number */
    uint32_t n_elems;   /* of one block */
    uint32_t n_bytes;   /* of one block */
    int exact;          /* enum tlr_type that holds every value, or -1 */
    void (*decode)(float *dst, const uint8_t *src, uint32_t n_blocks);
};

/* NULL when the number (the name) is none that tlr reads. */
const struct tlr_block_type *tlr_block_type_by_id(uint32_t id);
const struct tlr_block_type *tlr_block_type_by_name(const char *name);
/* Name of any of ggml's types, also those that tlr does not read; NULL when
 * the number is unknown. */
const char *tlr_block_type_any_name(uint32_t id);

/* One row of n_cols (a multiple of n_elems) to dst f32. */
void tlr_block_row_decode(const struct tlr_block_type *type, float *dst,
                          const uint8_t *src, uint32_t n_cols);

/* Blocks of one row into lane `lane` of a band in the layout of type->exact;
 * Q8_0, Q4_0, Q4_1 and IQ4_NL only.  Returns 0, or -1 when a scale is not finite. */
int tlr_block_row_carry(const struct tlr_block_type *type, uint8_t *band,
                        int lane, const uint8_t *src, uint32_t n_cols);

#endif
