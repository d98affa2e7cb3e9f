/* bpe.h - tables of a vocabulary and the merging of one piece.
 *
 * All tables are built once and then only read, so threads share them.
 */
#ifndef TLR_ENGINE_BPE_H
#define TLR_ENGINE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/tokenizer.h"
#include "engine/vocab.h"

/* Token bytes -> id, over all tokens but holes.  Of tokens with equal bytes the
 * first that is not ADDED counts, so that merges find the right one. */
struct tlr_token_index {
    uint32_t *slots; /* id + 1; 0: free */
    uint32_t mask;
};
int tlr_token_index_build(struct tlr_token_index *x, const struct tlr_vocab *v,
                          const char *where, struct tlr_err *err);
void tlr_token_index_clear(struct tlr_token_index *x);
int32_t tlr_token_index_find(const struct tlr_token_index *x,
                             const struct tlr_vocab *v, const uint8_t *bytes,
                             size_t len);
/* Hash of bytes, also the word cache's. */
uint64_t tlr_bytes_hash(const uint8_t *bytes, size_t len);

struct tlr_merge_slot {
    uint64_t pair; /* left << 32 | right; all ones: free */
    uint32_t rank, result;
};

struct tlr_bpe {
    int32_t byte_id[256]; /* -1: this byte has no token */
    struct tlr_merge_slot *merges;
    uint32_t merge_mask;
    int merge_shift;
};
int tlr_bpe_build(struct tlr_bpe *b, const struct tlr_vocab *v,
                  const struct tlr_token_index *x, const char *where,
                  struct tlr_err *err);
void tlr_bpe_clear(struct tlr_bpe *b);

/* Appends the ids of one piece: starts from its bytes (those without a token
 * are dropped) and merges the pair of lowest rank, the leftmost first, until
 * none is left.  O(n log n). */
int tlr_bpe_encode(const struct tlr_bpe *b, const uint8_t *piece, size_t len,
                   struct tlr_ids *out, struct tlr_err *err);

#endif
