/* vocab_build.h - grows a vocabulary out of a foreign file's token strings.
 *
 * hf_tokenizer.c and gguf_vocab.c feed it; it owns the bytes, undoes GPT-2's
 * byte letters and finds the ids that merges name.  The checks of the finished
 * vocabulary are engine/vocab.h's, the same that a model file is held to.
 */
#ifndef TLR_CONVERT_VOCAB_BUILD_H
#define TLR_CONVERT_VOCAB_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "engine/bpe.h"
#include "engine/vocab.h"

/* A vocabulary with what it points to.  Zero it first; read `vocab`, leave the
 * rest alone. */
struct tlr_vocab_owned {
    struct tlr_vocab vocab;
    struct tlr_vocab_token *tokens;
    struct tlr_vocab_merge *merges;
    uint8_t *bytes; /* of all tokens */
    size_t n_bytes, cap_bytes;
    struct tlr_token_index index;
};

/* A zeroed one is allowed, and so is one that a failed read left behind. */
void tlr_vocab_owned_clear(struct tlr_vocab_owned *v);

/* ---- for the two readers ---- */

/* Room for ids 0 .. n_tokens - 1, all UNUSED, and n_merges merges.  cap_bytes
 * bounds the token bytes of all calls to come. */
int tlr_vocab_build_begin(struct tlr_vocab_owned *v, const char *where,
                          uint64_t n_tokens, uint64_t n_merges,
                          uint64_t cap_bytes, struct tlr_err *err);
/* Sets token id, which must be UNUSED.  is_letters: text is spelled in GPT-2's
 * byte letters, else it is taken as it is. */
int tlr_vocab_build_token(struct tlr_vocab_owned *v, const char *where,
                          uint64_t id, struct tlr_bytes text, bool is_letters,
                          unsigned flags, struct tlr_err *err);
/* Call once after all tokens that merges may name (none is ADDED only). */
int tlr_vocab_build_index(struct tlr_vocab_owned *v, const char *where,
                          struct tlr_err *err);
/* Appends the merge of two spellings in byte letters. */
int tlr_vocab_build_merge(struct tlr_vocab_owned *v, const char *where,
                          struct tlr_bytes left, struct tlr_bytes right,
                          struct tlr_err *err);
/* "left right": one blank between two words. */
int tlr_vocab_build_merge_line(struct tlr_vocab_owned *v, const char *where,
                               struct tlr_bytes line, struct tlr_err *err);
/* Id of the token with these bytes, -1 if none; after build_index. */
int32_t tlr_vocab_build_find(const struct tlr_vocab_owned *v,
                             struct tlr_bytes bytes);
/* Runs the checks of engine/vocab.h on what was built. */
int tlr_vocab_build_end(struct tlr_vocab_owned *v, const char *where,
                        struct tlr_err *err);

#endif
