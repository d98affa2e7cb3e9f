/* tokenizer.h - text to ids and back: byte-level BPE as Hugging Face does it.
 *
 * Immutable after creation and shareable by threads.  Text is any bytes: what
 * is not valid UTF-8 is documented in tokenizer.c and still round-trips.
 */
#ifndef TLR_ENGINE_TOKENIZER_H
#define TLR_ENGINE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/vocab.h"

struct tlr_tokenizer;

/* Unpacks the TOKENIZER section; `bytes` must outlive the tokenizer. */
int tlr_tokenizer_new(struct tlr_tokenizer **out, struct tlr_bytes bytes,
                      const char *where, struct tlr_err *err);
void tlr_tokenizer_free(struct tlr_tokenizer *t);

/* Growing array of ids; zero it first, clear when done. */
struct tlr_ids {
    int32_t *ids;
    size_t n, cap;
};
int tlr_ids_push(struct tlr_ids *a, int32_t id, struct tlr_err *err);
void tlr_ids_clear(struct tlr_ids *a);

enum tlr_encode_flags {
    TLR_ENCODE_SPECIAL = 1 << 0, /* special tokens inside the text become
                                    their ids; without it they are plain text */
    TLR_ENCODE_BOS = 1 << 1      /* start with bos where the model wants it */
};

/* Appends the ids of text [len bytes] to out. */
int tlr_encode(const struct tlr_tokenizer *t, const char *text, size_t len,
               unsigned flags, struct tlr_ids *out, struct tlr_err *err);

/* The first added token in text at or after *pos: its id, and *start and *pos
 * become its beginning and end; -1 if there is none.  For text that is trusted to
 * name special tokens. */
int32_t tlr_tokenizer_next_added(const struct tlr_tokenizer *t,
                                 const char *text, size_t len, size_t *start,
                                 size_t *pos);

/* The bytes of one token (borrowed, may be part of a character); len 0 for ids
 * out of range and holes. */
struct tlr_bytes tlr_token_bytes(const struct tlr_tokenizer *t, int32_t id);
bool tlr_token_is_special(const struct tlr_tokenizer *t, int32_t id);
/* Id of the token with exactly these bytes, -1 if none. */
int32_t tlr_token_find(const struct tlr_tokenizer *t, const char *bytes,
                       size_t len);
uint32_t tlr_tokenizer_n_tokens(const struct tlr_tokenizer *t);
/* The vocabulary it was made from (borrowed). */
const struct tlr_vocab *tlr_tokenizer_vocab(const struct tlr_tokenizer *t);

/* Streaming decode that never emits part of a character: bytes of an unfinished
 * UTF-8 sequence wait; a sequence that cannot be finished becomes U+FFFD. */
struct tlr_utf8_stream {
    uint8_t pending[4];
    int n_pending;
};
/* Adds the bytes of a token, writes what is complete to out and its length to
 * *out_len.  out holds 3*(len + 4) bytes (every stray byte may become U+FFFD).
 * With bytes.len = 0 and flush, what waits is written as U+FFFD. */
void tlr_utf8_stream_push(struct tlr_utf8_stream *s, struct tlr_bytes bytes,
                          bool flush, char *out, size_t *out_len);

#endif
