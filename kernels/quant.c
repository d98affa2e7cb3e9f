/* quant.c - sizes, scalar encode and decode of every weight type.
 *
 * The layouts are drawn in quant.h.  The rounding to q8, q4 and q4m is that of
 * the reference quantiser of GGML, step by step in binary32: a model converted
 * here and one converted there hold the same numbers.  (So q is x times 1/d
 * before d is rounded to f16.)
 */
#include "kernels/quant.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum {
    SCALE_BYTES = 2 * TLR_TILE_ROWS, /* d[16], and m[16] in q4m */
    GROUP_BYTES = 64,                /* 16 rows x 4 bytes */
    Q4N_TRIES = 8 /* of each sign */
};

static const struct {
    const char *name;
    unsigned tile_bytes;    /* 0: row-major */
    unsigned element_bytes; /* row-major only */
} types[TLR_N_TYPES] = {
    [TLR_F32] = {"f32", 0, 4},    [TLR_BF16] = {"bf16", 0, 2},
    [TLR_Q8] = {"q8", 544, 0},    [TLR_Q4] = {"q4", 288, 0},
    [TLR_Q4M] = {"q4m", 320, 0},  [TLR_Q4N] = {"q4n", 288, 0},
    [TLR_Q8P] = {"q8p", TLR_HIGH_BYTES + TLR_LOW_BYTES, 0},
};

const int8_t tlr_q4n_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

const char *tlr_type_name(unsigned type)
{
    return type < TLR_N_TYPES ? types[type].name : NULL;
}

bool tlr_type_parse(const char *name, enum tlr_type *out)
{
    for (int i = 0; i < TLR_N_TYPES; i++) {
        if (strcmp(name, types[i].name) == 0) {
            *out = (enum tlr_type)i;
            return true;
        }
    }
    return false;
}

bool tlr_type_is_tiled(enum tlr_type type)
{
    return types[type].tile_bytes != 0;
}

unsigned tlr_tile_bytes(enum tlr_type type)
{
    return types[type].tile_bytes;
}

/* kernels/ stands on nothing, so the overflow checks of base/ are not here. */
static bool mul(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b != 0 && a > UINT64_MAX / b)
        return false;
    *out = a * b;
    return true;
}

uint64_t tlr_matrix_bytes(unsigned type, uint64_t n_rows, uint64_t n_cols)
{
    uint64_t bytes;
    if (type >= TLR_N_TYPES)
        return 0;
    if (types[type].tile_bytes == 0) {
        bool ok = mul(n_rows, n_cols, &bytes) &&
                  mul(bytes, types[type].element_bytes, &bytes);
        return ok ? bytes : 0;
    }
    if (n_cols % TLR_TILE_COLS != 0 || n_rows > UINT64_MAX / 2)
        return 0;
    uint64_t unit = type == TLR_Q8P ? TLR_PLANES_ROWS : TLR_TILE_ROWS;
    uint64_t units = n_rows / unit + (n_rows % unit != 0);
    uint64_t bands = units * (unit / TLR_TILE_ROWS); /* n_rows < 2^63 */
    bool ok = mul(bands, n_cols / TLR_TILE_COLS, &bytes) &&
              mul(bytes, types[type].tile_bytes, &bytes);
    return ok ? bytes : 0;
}

uint64_t tlr_band_bytes(enum tlr_type type, uint64_t n_cols)
{
    if (types[type].tile_bytes == 0)
        return TLR_TILE_ROWS * n_cols * types[type].element_bytes;
    return n_cols / TLR_TILE_COLS * types[type].tile_bytes;
}

/* f16 number `index` of the scales at the head of a tile. */
static void put_u16(uint8_t *tile, int index, uint16_t v)
{
    tile[2 * index] = (uint8_t)v;
    tile[2 * index + 1] = (uint8_t)(v >> 8);
}

static float get_f16(const uint8_t *tile, int index)
{
    unsigned v = tile[2 * index] | (unsigned)tile[2 * index + 1] << 8;
    return tlr_f16_to_f32((uint16_t)v);
}

void tlr_tile_put_q8(void *tile, int lane, uint16_t d, const int8_t q[32])
{
    uint8_t *t = tile;
    put_u16(t, lane, d);
    for (int c = 0; c < TLR_TILE_COLS; c++)
        t[SCALE_BYTES + c / 4 * GROUP_BYTES + lane * 4 + c % 4] = (uint8_t)q[c];
}

static void put_nibbles(uint8_t *groups, int lane, const uint8_t n[32])
{
    for (int c = 0; c < TLR_TILE_COLS; c += 8) {
        uint8_t *bytes = groups + c / 8 * GROUP_BYTES + lane * 4;
        for (int j = 0; j < 4; j++)
            bytes[j] = (uint8_t)((n[c + j] & 15) | n[c + j + 4] << 4);
    }
}

void tlr_tile_put_q4(void *tile, int lane, uint16_t d, const uint8_t n[32])
{
    put_u16(tile, lane, d);
    put_nibbles((uint8_t *)tile + SCALE_BYTES, lane, n);
}

void tlr_tile_put_q4m(void *tile, int lane, uint16_t d, uint16_t m,
                      const uint8_t n[32])
{
    put_u16(tile, lane, d);
    put_u16(tile, TLR_TILE_ROWS + lane, m);
    put_nibbles((uint8_t *)tile + 2 * SCALE_BYTES, lane, n);
}

/* Tiles of a q8p row: of the group that holds it, high plane and low plane. */
static size_t high_offset(int row, int block, int n_cols)
{
    size_t blocks = (size_t)n_cols / TLR_TILE_COLS;
    return ((size_t)row / TLR_TILE_ROWS * blocks + (size_t)block) *
           TLR_HIGH_BYTES;
}

static size_t low_offset(int row, int block, int n_cols)
{
    size_t blocks = (size_t)n_cols / TLR_TILE_COLS;
    size_t bands = TLR_PLANES_ROWS / TLR_TILE_ROWS;
    return bands * blocks * TLR_HIGH_BYTES +
           ((size_t)row / TLR_TILE_ROWS * blocks + (size_t)block) *
               TLR_LOW_BYTES;
}

void tlr_planes_put(void *group, int row, int block, int n_cols, uint16_t d,
                    const int8_t q[32])
{
    uint8_t high[TLR_TILE_COLS], low[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++) {
        unsigned u = (unsigned)(q[c] + 128);
        high[c] = (uint8_t)(u >> 4);
        low[c] = (uint8_t)(u & 15);
    }
    uint8_t *bytes = group;
    int lane = row % TLR_TILE_ROWS;
    tlr_tile_put_q4(bytes + high_offset(row, block, n_cols), lane, d, high);
    put_nibbles(bytes + low_offset(row, block, n_cols), lane, low);
}

void tlr_planes_put_band(void *group, int row, const void *band, int n_rows,
                         int n_cols)
{
    const uint8_t *tile = band;
    for (int b = 0; b < n_cols / TLR_TILE_COLS; b++) {
        for (int lane = 0; lane < n_rows; lane++) {
            int8_t q[TLR_TILE_COLS];
            for (int c = 0; c < TLR_TILE_COLS; c++)
                q[c] = (int8_t)tile[SCALE_BYTES + c / 4 * GROUP_BYTES +
                                    lane * 4 + c % 4];
            uint16_t d = (uint16_t)(tile[2 * lane] | tile[2 * lane + 1] << 8);
            tlr_planes_put(group, row + lane, b, n_cols, d, q);
        }
        tile += types[TLR_Q8].tile_bytes;
    }
}

/* 1/d, or 0 where the block is (nearly) flat and 1/d would overflow. */
static float inverse(float d)
{
    return fabsf(d) >= FLT_MIN ? 1.0f / d : 0.0f;
}

static float clamp(float v, float low, float high)
{
    return v < low ? low : v > high ? high : v;
}

/* The largest finite f16: a scale beyond it saturates the numbers instead of
 * turning them into infinities. */
static float clamp_f16(float v)
{
    return clamp(v, -65504.0f, 65504.0f);
}

static void encode_q8(void *tile, int lane, const float *x)
{
    float max = 0;
    for (int c = 0; c < TLR_TILE_COLS; c++)
        max = fmaxf(max, fabsf(x[c]));
    float d = clamp_f16(max / 127);
    float id = inverse(d);
    int8_t q[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++)
        q[c] = (int8_t)roundf(clamp(x[c] * id, -127, 127));
    tlr_tile_put_q8(tile, lane, tlr_f32_to_f16(d), q);
}

static void encode_q4(void *tile, int lane, const float *x)
{
    float extreme = 0; /* the value of largest magnitude, with its sign */
    for (int c = 0; c < TLR_TILE_COLS; c++) {
        if (fabsf(x[c]) > fabsf(extreme))
            extreme = x[c];
    }
    float d = clamp_f16(extreme / -8);
    float id = inverse(d);
    uint8_t n[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++)
        n[c] = (uint8_t)clamp(x[c] * id + 8.5f, 0, 15);
    tlr_tile_put_q4(tile, lane, tlr_f32_to_f16(d), n);
}

static void encode_q4m(void *tile, int lane, const float *x)
{
    float min = x[0], max = x[0];
    for (int c = 1; c < TLR_TILE_COLS; c++) {
        min = fminf(min, x[c]);
        max = fmaxf(max, x[c]);
    }
    float m = clamp_f16(min);
    float d = clamp_f16((max - min) / 15);
    float id = inverse(d);
    uint8_t n[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++)
        n[c] = (uint8_t)clamp((x[c] - m) * id + 0.5f, 0, 15);
    tlr_tile_put_q4m(tile, lane, tlr_f32_to_f16(d), tlr_f32_to_f16(m), n);
}

/* Levels nearest to x/d, and their sums with x and themselves. */
static void round_to_levels(float level[TLR_TILE_COLS], const float *x,
                            float inverse_d, float *x_level, float *level2)
{
    float v[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++)
        v[c] = x[c] * inverse_d;
    tlr_q4n_nearest(level, v, TLR_TILE_COLS);
    *x_level = *level2 = 0;
    for (int c = 0; c < TLR_TILE_COLS; c++) {
        *x_level += x[c] * level[c];
        *level2 += level[c] * level[c];
    }
}

/* Tries scales that put the extreme value on levels from 100 to 142, of both
 * signs.  With the levels chosen, the best scale is sum(x l) / sum(l l), and the
 * squared error falls short of sum(x x) by sum(x l)^2 / sum(l l). */
static void encode_q4n(void *tile, int lane, const float *x)
{
    float extreme = 0, best = -1, d = 0, level[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++) {
        if (fabsf(x[c]) > fabsf(extreme))
            extreme = x[c];
    }
    float x_level, level2;
    for (int i = 0; i < 2 * Q4N_TRIES; i++) {
        float end = 100 + 6 * (float)(i / 2);
        float id = inverse(clamp_f16(extreme / (i % 2 ? end : -end)));
        round_to_levels(level, x, id, &x_level, &level2);
        float gain = x_level * (x_level / level2);
        if (gain > best) {
            best = gain;
            d = clamp_f16(x_level / level2);
        }
    }
    uint16_t h = tlr_f32_to_f16(d);
    round_to_levels(level, x, inverse(tlr_f16_to_f32(h)), &x_level, &level2);
    uint8_t n[TLR_TILE_COLS];
    for (int c = 0; c < TLR_TILE_COLS; c++)
        n[c] = tlr_q4n_number(level[c]);
    tlr_tile_put_q4(tile, lane, h, n);
}

void tlr_band_encode(enum tlr_type type, void *dst, const float *src,
                     int n_rows, int n_cols)
{
    assert(n_rows >= 0 && n_rows <= TLR_TILE_ROWS && n_cols >= 0);
    size_t n = (size_t)n_rows * (size_t)n_cols;
    if (type == TLR_F32) {
        if (n > 0)
            memcpy(dst, src, n * sizeof *src);
        return;
    }
    if (type == TLR_BF16) {
        uint16_t *out = dst;
        for (size_t i = 0; i < n; i++)
            out[i] = tlr_f32_to_bf16(src[i]);
        return;
    }
    assert(type != TLR_Q8P && n_cols % TLR_TILE_COLS == 0);
    memset(dst, 0, tlr_band_bytes(type, (uint64_t)n_cols));
    for (int row = 0; row < n_rows; row++) {
        for (int c = 0; c < n_cols; c += TLR_TILE_COLS) {
            const float *x = src + (size_t)row * (size_t)n_cols + c;
            uint8_t *tile = (uint8_t *)dst + (size_t)(c / TLR_TILE_COLS) *
                                                 types[type].tile_bytes;
            if (type == TLR_Q8)
                encode_q8(tile, row, x);
            else if (type == TLR_Q4)
                encode_q4(tile, row, x);
            else if (type == TLR_Q4N)
                encode_q4n(tile, row, x);
            else
                encode_q4m(tile, row, x);
        }
    }
}

/* Nibble of column c of a lane; groups points behind the scales. */
static int get_nibble(const uint8_t *groups, int lane, int c)
{
    unsigned byte = groups[c / 8 * GROUP_BYTES + lane * 4 + c % 4];
    return (int)(c % 8 < 4 ? byte & 15 : byte >> 4);
}

static void decode_planes(float *dst, const uint8_t *w, uint64_t row,
                          int n_cols)
{
    uint64_t group_rows = TLR_PLANES_ROWS;
    w += row / group_rows * tlr_matrix_bytes(TLR_Q8P, group_rows,
                                             (uint64_t)n_cols);
    int r = (int)(row % group_rows), lane = r % TLR_TILE_ROWS;
    for (int b = 0; b < n_cols / TLR_TILE_COLS; b++) {
        const uint8_t *high = w + high_offset(r, b, n_cols);
        const uint8_t *low = w + low_offset(r, b, n_cols);
        float d = get_f16(high, lane);
        for (int c = 0; c < TLR_TILE_COLS; c++) {
            int q = 16 * get_nibble(high + SCALE_BYTES, lane, c) +
                    get_nibble(low, lane, c) - 128;
            *dst++ = d * (float)q;
        }
    }
}

/* 32 values of one lane of a tile; each product is exact in binary32. */
static void decode_block(enum tlr_type type, float *dst, const uint8_t *tile,
                         int lane)
{
    float d = get_f16(tile, lane);
    if (type == TLR_Q8) {
        for (int c = 0; c < TLR_TILE_COLS; c++) {
            int at = SCALE_BYTES + c / 4 * GROUP_BYTES + lane * 4 + c % 4;
            dst[c] = d * (float)(int8_t)tile[at];
        }
        return;
    }
    float m = type == TLR_Q4M ? get_f16(tile, TLR_TILE_ROWS + lane) : 0;
    const uint8_t *n = tile + (type == TLR_Q4M ? 2 : 1) * SCALE_BYTES;
    for (int c = 0; c < TLR_TILE_COLS; c++) {
        int nibble = get_nibble(n, lane, c);
        int level = type == TLR_Q4N ? tlr_q4n_levels[nibble] : nibble - 8;
        dst[c] = type == TLR_Q4M ? d * (float)nibble + m : d * (float)level;
    }
}

void tlr_row_decode(enum tlr_type type, float *dst, const void *w, uint64_t row,
                    int n_cols)
{
    const uint8_t *bytes = w;
    uint64_t cols = (uint64_t)n_cols;
    if (type == TLR_F32) {
        memcpy(dst, bytes + row * cols * 4, (size_t)cols * 4);
        return;
    }
    if (type == TLR_BF16) {
        for (uint64_t c = 0; c < cols; c++) {
            uint16_t h;
            memcpy(&h, bytes + (row * cols + c) * 2, sizeof h);
            dst[c] = tlr_bf16_to_f32(h);
        }
        return;
    }
    assert(n_cols % TLR_TILE_COLS == 0);
    if (type == TLR_Q8P) {
        decode_planes(dst, w, row, n_cols);
        return;
    }
    const uint8_t *tile =
        bytes + row / TLR_TILE_ROWS * tlr_band_bytes(type, cols);
    for (int c = 0; c < n_cols; c += TLR_TILE_COLS) {
        decode_block(type, dst + c, tile, (int)(row % TLR_TILE_ROWS));
        tile += types[type].tile_bytes;
    }
}
