/* gguf_vocab.h - the tokenizer keys of a .gguf file as a vocabulary.
 *
 * tokenizer.ggml.model must be "gpt2" (byte-level BPE) and tokenizer.ggml.pre
 * one of "smollm", "qwen2", "llama-bpe" (llama3, llama-v3), "gpt-2"; any other
 * is refused by name: a wrong pre-tokenizer still seems to work.
 */
#ifndef TLR_CONVERT_GGUF_VOCAB_H
#define TLR_CONVERT_GGUF_VOCAB_H

#include "base/err.h"
#include "convert/gguf.h"
#include "convert/vocab_build.h"

/* Zero out first; clear with tlr_vocab_owned_clear, also after failure.  What it
 * holds does not point into g. */
int tlr_gguf_vocab_read(struct tlr_vocab_owned *out, const struct tlr_gguf *g,
                        struct tlr_err *err);

#endif
