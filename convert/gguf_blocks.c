/* gguf_blocks.c - GGML's block formats, scalar and literal.
 *
 * Every product of an f16 scale, a sub-block scale and a quant except Q6_K's
 * fits f32 exactly, so the values do not depend on the compiler's contraction.
 * Layouts: ggml-common.h's block structs; proved against the gguf Python
 * package by tests/convert/test_blocks.c.
 */
#include "convert/gguf_blocks.h"

#include <stddef.h>
#include <string.h>

#include "base/bytes.h"

static float load_f16(const uint8_t *p)
{
    return tlr_f16_to_f32(tlr_get_u16(p));
}

static void decode_f32(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        dst[i] = tlr_get_f32(src + 4 * (size_t)i);
    }
}

static void decode_f16(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        dst[i] = load_f16(src + 2 * (size_t)i);
    }
}

static void decode_bf16(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        dst[i] = tlr_bf16_to_f32(tlr_get_u16(src + 2 * (size_t)i));
    }
}

static void decode_q8_0(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 34, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 32; j++) {
            dst[j] = d * (float)(int8_t)src[2 + j];
        }
    }
}

/* The 4-bit formats keep element j and j + 16 in byte j. */
static void decode_q4_0(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 18, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((src[2 + j] & 15) - 8);
            dst[j + 16] = d * (float)((src[2 + j] >> 4) - 8);
        }
    }
}

static void decode_q4_1(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 20, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)(src[4 + j] & 15) + m;
            dst[j + 16] = d * (float)(src[4 + j] >> 4) + m;
        }
    }
}

static void decode_iq4_nl(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 18, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)tlr_q4n_levels[src[2 + j] & 15];
            dst[j + 16] = d * (float)tlr_q4n_levels[src[2 + j] >> 4];
        }
    }
}

/* Quants 0..31 of a 5-bit block: low bits at `low`, fifth bits in `high`. */
static void unpack_5bit(uint8_t q[32], const uint8_t *low, uint32_t high)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (uint8_t)((low[j] & 15) | (high >> j & 1) << 4);
        q[j + 16] = (uint8_t)(low[j] >> 4 | (high >> (j + 16) & 1) << 4);
    }
}

static void decode_q5_0(float *dst, const uint8_t *src, uint32_t n)
{
    uint8_t q[32];
    for (uint32_t b = 0; b < n; b++, src += 22, dst += 32) {
        float d = load_f16(src);
        unpack_5bit(q, src + 6, tlr_get_u32(src + 2));
        for (int j = 0; j < 32; j++) {
            dst[j] = d * (float)(q[j] - 16);
        }
    }
}

static void decode_q5_1(float *dst, const uint8_t *src, uint32_t n)
{
    uint8_t q[32];
    for (uint32_t b = 0; b < n; b++, src += 24, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        unpack_5bit(q, src + 8, tlr_get_u32(src + 4));
        for (int j = 0; j < 32; j++) {
            dst[j] = d * (float)q[j] + m;
        }
    }
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes. */
static void unpack_scales(uint8_t sc[8], uint8_t m[8], const uint8_t *s)
{
    for (int j = 0; j < 4; j++) {
        sc[j] = s[j] & 63;
        m[j] = s[j + 4] & 63;
        sc[j + 4] = (uint8_t)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        m[j + 4] = (uint8_t)(s[j + 8] >> 4 | (s[j + 4] >> 6) << 4);
    }
}

/* Q4_K and Q5_K: eight sub-blocks of 32; sub-blocks 2g and 2g+1 are the low
 * and high nibbles of 32 bytes.  high: 32 bytes whose bit j is the fifth bit of
 * sub-block j, or NULL. */
static void decode_k45(float *dst, const uint8_t *head, const uint8_t *high,
                       const uint8_t *low)
{
    float d = load_f16(head), dmin = load_f16(head + 2);
    uint8_t sc[8], m[8];
    unpack_scales(sc, m, head + 4);
    for (int j = 0; j < 8; j++) {
        float scale = d * (float)sc[j], min = dmin * (float)m[j];
        const uint8_t *bytes = low + 32 * (j / 2);
        for (int l = 0; l < 32; l++) {
            int q = j % 2 ? bytes[l] >> 4 : bytes[l] & 15;
            if (high) {
                q |= (high[l] >> j & 1) << 4;
            }
            dst[32 * j + l] = scale * (float)q - min;
        }
    }
}

static void decode_q4_k(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 144, dst += 256) {
        decode_k45(dst, src, NULL, src + 16);
    }
}

static void decode_q5_k(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 176, dst += 256) {
        decode_k45(dst, src, src + 16, src + 48);
    }
}

/* Two halves of 128: quarter r takes nibble r/2 of the 32 bytes at
 * 64*half + 32*(r%2) and two high bits at 2*r. */
static void decode_q6_k(float *dst, const uint8_t *src, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++, src += 210, dst += 256) {
        const uint8_t *ql = src, *qh = src + 128, *sc = src + 192;
        float d = load_f16(src + 208);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, r = i / 32 % 4, l = i % 32;
            int low = ql[64 * half + 32 * (r % 2) + l] >> (r / 2 * 4) & 15;
            int q = low | (qh[32 * half + l] >> (2 * r) & 3) << 4;
            float scale = d * (float)(int8_t)sc[i / 16];
            dst[i] = scale * (float)(q - 32);
        }
    }
}

static const struct tlr_block_type types[] = {
    {"F32", 0, 1, 4, TLR_F32, decode_f32},
    {"F16", 1, 1, 2, TLR_F32, decode_f16},
    {"Q4_0", 2, 32, 18, TLR_Q4, decode_q4_0},
    {"Q4_1", 3, 32, 20, TLR_Q4M, decode_q4_1},
    {"Q5_0", 6, 32, 22, -1, decode_q5_0},
    {"Q5_1", 7, 32, 24, -1, decode_q5_1},
    {"Q8_0", 8, 32, 34, TLR_Q8, decode_q8_0},
    {"Q4_K", 12, 256, 144, -1, decode_q4_k},
    {"Q5_K", 13, 256, 176, -1, decode_q5_k},
    {"Q6_K", 14, 256, 210, -1, decode_q6_k},
    {"IQ4_NL", 20, 32, 18, TLR_Q4N, decode_iq4_nl},
    {"BF16", 30, 1, 2, TLR_BF16, decode_bf16},
};

/* ggml's numbering, with the types that it has withdrawn left empty. */
static const char *const all_names[] = {
    "F32",     "F16",    "Q4_0",  "Q4_1",   "Q4_2",   "Q4_3",    "Q5_0",
    "Q5_1",    "Q8_0",   "Q8_1",  "Q2_K",   "Q3_K",   "Q4_K",    "Q5_K",
    "Q6_K",    "Q8_K",   "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",
    "IQ3_S",   "IQ2_S",  "IQ4_XS", "I8",    "I16",    "I32",     "I64",
    "F64",     "IQ1_M",  "BF16",  NULL,     NULL,     NULL,      "TQ1_0",
    "TQ2_0",   NULL,     NULL,    NULL,     "MXFP4",  "NVFP4",   "Q1_0",
};

const struct tlr_block_type *tlr_block_type_by_id(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].id == id) {
            return &types[i];
        }
    }
    return NULL;
}

const struct tlr_block_type *tlr_block_type_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

const char *tlr_block_type_any_name(uint32_t id)
{
    return id < sizeof all_names / sizeof *all_names ? all_names[id] : NULL;
}

void tlr_block_row_decode(const struct tlr_block_type *type, float *dst,
                          const uint8_t *src, uint32_t n_cols)
{
    type->decode(dst, src, n_cols / type->n_elems);
}

static int f16_is_finite(uint16_t h)
{
    return (h & 0x7c00) != 0x7c00;
}

static void split_nibbles(uint8_t n[32], const uint8_t *packed)
{
    for (int j = 0; j < 16; j++) {
        n[j] = packed[j] & 15;
        n[j + 16] = packed[j] >> 4;
    }
}

int tlr_block_row_carry(const struct tlr_block_type *type, uint8_t *band,
                        int lane, const uint8_t *src, uint32_t n_cols)
{
    unsigned tile_bytes = tlr_tile_bytes((enum tlr_type)type->exact);
    uint8_t n[32];
    int8_t q[32];
    for (uint32_t c = 0; c < n_cols; c += 32) {
        uint16_t d = tlr_get_u16(src);
        uint16_t m = type->exact == TLR_Q4M ? tlr_get_u16(src + 2) : 0;
        if (!f16_is_finite(d) || !f16_is_finite(m)) {
            return -1;
        }
        if (type->exact == TLR_Q8) {
            memcpy(q, src + 2, sizeof q);
            tlr_tile_put_q8(band, lane, d, q);
        } else if (type->exact == TLR_Q4 || type->exact == TLR_Q4N) {
            split_nibbles(n, src + 2);
            tlr_tile_put_q4(band, lane, d, n);
        } else {
            split_nibbles(n, src + 4);
            tlr_tile_put_q4m(band, lane, d, m, n);
        }
        src += type->n_bytes;
        band += tile_bytes;
    }
    return 0;
}
