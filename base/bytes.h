/* bytes.h - little-endian numbers at any address, written and read; for bytes
 * whose length was checked before (unchecked ones go through span.h).
 */
#ifndef TLR_BASE_BYTES_H
#define TLR_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t tlr_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t tlr_get_u32(const uint8_t *p)
{
    return tlr_get_u16(p) | (uint32_t)tlr_get_u16(p + 2) << 16;
}

static inline uint64_t tlr_get_u64(const uint8_t *p)
{
    return tlr_get_u32(p) | (uint64_t)tlr_get_u32(p + 4) << 32;
}

static inline float tlr_get_f32(const uint8_t *p)
{
    uint32_t bits = tlr_get_u32(p);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline void tlr_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void tlr_put_u32(uint8_t *p, uint32_t v)
{
    tlr_put_u16(p, (uint16_t)v);
    tlr_put_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void tlr_put_u64(uint8_t *p, uint64_t v)
{
    tlr_put_u32(p, (uint32_t)v);
    tlr_put_u32(p + 4, (uint32_t)(v >> 32));
}

static inline void tlr_put_f32(uint8_t *p, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    tlr_put_u32(p, bits);
}

#endif
