/* pretokenize.h - cuts text into the pieces that BPE sees one by one. */
#ifndef TLR_ENGINE_PRETOKENIZE_H
#define TLR_ENGINE_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

/* End of the piece that starts at pos < len.  text: well-formed UTF-8; pre:
 * enum tlr_pretokenizer. */
size_t tlr_pretokenize_next(uint32_t pre, const uint8_t *text, size_t len,
                            size_t pos);

/* The patterns as the tokenizers' files spell them, for recognising and for the
 * tests' oracle; NULL when there is no single one (SmolLM). */
const char *tlr_pretokenize_pattern(uint32_t pre);

#endif
