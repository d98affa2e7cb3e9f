/* unicode.h - what the tokenizer needs to know of a character.
 *
 * Text given to these functions is well-formed UTF-8 unless said otherwise.
 * Which Unicode version decides is written in unicode.c.
 */
#ifndef TLR_ENGINE_UNICODE_H
#define TLR_ENGINE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

/* The four kinds that the patterns of pretokenize.c tell apart. */
enum tlr_char_class {
    TLR_CHAR_OTHER = 0,
    TLR_CHAR_LETTER = 1, /* \p{L} */
    TLR_CHAR_NUMBER = 2, /* \p{N} */
    TLR_CHAR_SPACE = 3   /* White_Space */
};

extern const uint8_t tlr_ascii_class[128];
enum tlr_char_class tlr_char_class_wide(uint32_t cp); /* cp >= 0x80 */

static inline enum tlr_char_class tlr_char_class(uint32_t cp)
{
    return cp < 0x80 ? (enum tlr_char_class)tlr_ascii_class[cp]
                     : tlr_char_class_wide(cp);
}

/* A number to the digit splitter of SmolLM, which knows a later Unicode. */
bool tlr_char_is_digit_split(uint32_t cp);
/* \w: what single_word tokens may not touch. */
bool tlr_char_is_word(uint32_t cp);

/* The character at text[*pos]; moves *pos past it. */
static inline uint32_t tlr_utf8_next(const uint8_t *text, size_t *pos)
{
    const uint8_t *p = text + *pos;
    if (p[0] < 0x80) {
        *pos += 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *pos += 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *pos += 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *pos += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 |
           (p[3] & 0x3fu);
}

/* Start of the character that ends at text[pos]; pos > 0. */
static inline size_t tlr_utf8_prev(const uint8_t *text, size_t pos)
{
    do {
        pos--;
    } while (pos > 0 && (text[pos] & 0xc0) == 0x80);
    return pos;
}

/* Bytes (1..4) of the character at text, or 0 if what stands there is not the
 * start of a well-formed one.  Any bytes; len > 0. */
size_t tlr_utf8_char_len(const uint8_t *text, size_t len);
/* Length of the longest well-formed beginning; any bytes. */
size_t tlr_utf8_valid_len(const uint8_t *text, size_t len);

/* Scratch of the normaliser; zero it first. */
struct tlr_nfc {
    uint8_t *out;
    size_t n, cap;
    int32_t *cps;
    size_t n_cps, cap_cps;
};
void tlr_nfc_clear(struct tlr_nfc *w);
/* The text in NFC: itself when nothing changes, else bytes in w that live until
 * the next call.  Linear in len whatever the text. */
int tlr_nfc_normalize(struct tlr_nfc *w, const uint8_t *text, size_t len,
                      struct tlr_bytes *out, struct tlr_err *err);

#endif
