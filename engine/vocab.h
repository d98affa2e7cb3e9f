/* vocab.h - the tokenizer's data, and its byte form in the model file.
 *
 * convert/ fills a struct tlr_vocab from tokenizer.json or GGUF and packs it;
 * engine/tokenizer.c unpacks and checks it.  weights/FORMAT.md draws the bytes.
 */
#ifndef TLR_ENGINE_VOCAB_H
#define TLR_ENGINE_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

/* How text is cut before BPE; the patterns stand in engine/pretokenize.c. */
enum tlr_pretokenizer {
    TLR_PRE_GPT2 = 1,
    TLR_PRE_QWEN2 = 2,   /* Qwen2, 2.5, 3: digits one by one */
    TLR_PRE_LLAMA3 = 3,  /* digits in groups of up to three */
    TLR_PRE_SMOLLM = 4   /* each digit alone, then GPT-2 */
};

enum tlr_vocab_flags {
    TLR_VOCAB_NFC = 1u << 0,          /* text is normalised to NFC first */
    TLR_VOCAB_ADD_BOS = 1u << 1,      /* encode() starts with bos_id */
    TLR_VOCAB_IGNORE_MERGES = 1u << 2 /* a whole piece in the vocabulary is
                                         taken before merging (Llama 3) */
};

enum tlr_token_flags {
    TLR_TOKEN_ADDED = 1u << 0,   /* matched in the text before BPE */
    TLR_TOKEN_SPECIAL = 1u << 1, /* control token: not shown by decode */
    TLR_TOKEN_LSTRIP = 1u << 2,  /* swallows white space before it */
    TLR_TOKEN_RSTRIP = 1u << 3,
    TLR_TOKEN_SINGLE_WORD = 1u << 4,
    TLR_TOKEN_NORMALIZED = 1u << 5, /* matched in the normalised text */
    TLR_TOKEN_UNUSED = 1u << 6      /* a hole in the id range */
};

enum { TLR_TOKEN_MAX_BYTES = 1024 };

struct tlr_vocab_token {
    const uint8_t *bytes; /* the text bytes it stands for (not GPT-2's letters);
                             not NUL-terminated */
    uint32_t len;
    uint32_t flags; /* enum tlr_token_flags */
};

struct tlr_vocab_merge {
    uint32_t left, right, result; /* ids; rank = index in the list */
};

struct tlr_vocab {
    uint32_t pre;   /* enum tlr_pretokenizer */
    uint32_t flags; /* enum tlr_vocab_flags */
    uint32_t n_tokens;
    uint32_t n_merges;
    int32_t bos_id; /* -1: none */
    const struct tlr_vocab_token *tokens; /* [n_tokens] */
    const struct tlr_vocab_merge *merges; /* [n_merges] */
};

/* What every vocabulary is held to, wherever it comes from: known enums and
 * flags, ids within range, no over-long and (other than UNUSED) no empty token,
 * added tokens in UTF-8, merges whose result is the concatenation of their
 * parts.  A single byte without a token is allowed (SmolLM2 lacks 21): such a
 * byte has no id and encoding drops it, as Hugging Face does. */
int tlr_vocab_check(const struct tlr_vocab *v, const char *where,
                    struct tlr_err *err);

/* Byte form, allocated with tlr_calloc (free with tlr_free). */
int tlr_vocab_pack(const struct tlr_vocab *v, uint8_t **out, size_t *out_len,
                   struct tlr_err *err);

/* Checked view of a packed vocabulary; token bytes stay in `bytes`, the arrays
 * are allocated and freed by tlr_vocab_clear.  `where` opens the message. */
int tlr_vocab_unpack(struct tlr_vocab *out, struct tlr_bytes bytes,
                     const char *where, struct tlr_err *err);
void tlr_vocab_clear(struct tlr_vocab *v);

#endif
