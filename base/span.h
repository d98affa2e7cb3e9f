/* span.h - a view of bytes that cannot be read past its end.
 *
 * All foreign bytes (model files, GGUF, safetensors) are read through a span:
 * a failed read sets `bad` and yields zeros from then on, so a parser checks
 * once at the end of a record and not after every field.  Little-endian, any
 * alignment.
 */
#ifndef TLR_BASE_SPAN_H
#define TLR_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tlr_bytes { /* borrowed memory */
    const uint8_t *ptr;
    size_t len;
};

struct tlr_span {
    const uint8_t *ptr;
    size_t len; /* whole view */
    size_t pos; /* next byte to read; pos <= len always */
    bool bad;   /* a read went past the end */
};

struct tlr_span tlr_span_of(const void *ptr, size_t len);
size_t tlr_span_left(const struct tlr_span *s);

uint8_t tlr_span_u8(struct tlr_span *s);
uint16_t tlr_span_u16(struct tlr_span *s);
uint32_t tlr_span_u32(struct tlr_span *s);
uint64_t tlr_span_u64(struct tlr_span *s);
float tlr_span_f32(struct tlr_span *s);
double tlr_span_f64(struct tlr_span *s);

/* The next n bytes, or NULL (and bad) when fewer are left; n = 0 is fine. */
const uint8_t *tlr_span_take(struct tlr_span *s, uint64_t n);

/* True for well-formed UTF-8 (no surrogates, no overlong forms, <= U+10FFFF). */
bool tlr_utf8_valid(const void *bytes, size_t len);

#endif
