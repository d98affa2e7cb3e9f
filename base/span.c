/* span.c - checked reads of little-endian bytes, and UTF-8 validity.
 *
 * Values are put together byte by byte, so neither alignment nor the byte
 * order of the machine matters; compilers make one load of it.  UTF-8:
 * Unicode 15, table 3-7 (well-formed byte sequences).
 */
#include "base/span.h"

#include <string.h>

struct tlr_span tlr_span_of(const void *ptr, size_t len)
{
    return (struct tlr_span){.ptr = ptr, .len = len};
}

size_t tlr_span_left(const struct tlr_span *s)
{
    return s->bad ? 0 : s->len - s->pos;
}

const uint8_t *tlr_span_take(struct tlr_span *s, uint64_t n)
{
    static const uint8_t none[1];
    if (s->bad || n > s->len - s->pos) {
        s->bad = true;
        return NULL;
    }
    const uint8_t *at = s->ptr ? s->ptr + s->pos : none;
    s->pos += (size_t)n;
    return at;
}

static uint64_t take_le(struct tlr_span *s, int n_bytes)
{
    const uint8_t *p = tlr_span_take(s, (uint64_t)n_bytes);
    uint64_t v = 0;
    for (int i = 0; p && i < n_bytes; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

uint8_t tlr_span_u8(struct tlr_span *s)
{
    return (uint8_t)take_le(s, 1);
}

uint16_t tlr_span_u16(struct tlr_span *s)
{
    return (uint16_t)take_le(s, 2);
}

uint32_t tlr_span_u32(struct tlr_span *s)
{
    return (uint32_t)take_le(s, 4);
}

uint64_t tlr_span_u64(struct tlr_span *s)
{
    return take_le(s, 8);
}

float tlr_span_f32(struct tlr_span *s)
{
    uint32_t bits = tlr_span_u32(s);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

double tlr_span_f64(struct tlr_span *s)
{
    uint64_t bits = tlr_span_u64(s);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Length of the well-formed non-ASCII sequence at p, 0 if there is none. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    size_t n;
    uint8_t low = 0x80, high = 0xbf; /* bounds of the second byte */
    if (lead >= 0xc2 && lead <= 0xdf) {
        n = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        n = 3;
        low = lead == 0xe0 ? 0xa0 : low;   /* no overlong forms */
        high = lead == 0xed ? 0x9f : high; /* no surrogates */
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        n = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high; /* at most U+10FFFF */
    } else {
        return 0;
    }
    if (n > left || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

bool tlr_utf8_valid(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        size_t n = p[i] < 0x80 ? 1 : sequence_len(p + i, len - i);
        if (!n) {
            return false;
        }
        i += n;
    }
    return true;
}
