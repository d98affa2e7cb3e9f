/* quant.h - how weights lie in memory, and the scalar encode/decode of each.
 *
 * A matrix is [n_rows, n_cols]; row r makes output r.  Two families of layout:
 *
 *   f32, bf16   row-major, no padding.
 *   q8, q4, q4m, q4n
 *               tiles of 16 rows x 32 columns.  All tiles of the first 16 rows
 *               come first, left to right, then those of the next 16 rows; the
 *               last tile row is padded with zero rows.  n_cols % 32 == 0.
 *   q8p         the numbers of q8 in two planes of 4 bits, so that a head can
 *               be searched at the traffic of one.  Groups of 1024 rows: first
 *               the high tiles of all 64 bands of the group, then their low
 *               tiles; the last group is padded with zero rows.
 *
 * A tile, byte by byte (f16 = IEEE binary16, little-endian; r = row in tile,
 * c = column in tile; test_quant.c proves each drawing):
 *
 *   q8   544 bytes   0..31   d[16]  f16 scale of row r at 2*r
 *                    32..543 q[8][16][4] int8: column c of row r at
 *                            32 + (c/4)*64 + r*4 + c%4
 *                    value = d[r] * q                         (as GGML Q8_0)
 *   q4   288 bytes   0..31   d[16]
 *                    32..287 n[4][16][4] bytes: columns c and c+4 of the group
 *                            of eight g = c/8 share the byte
 *                            32 + g*64 + r*4 + c%4; low nibble for c%8 < 4,
 *                            high nibble for c%8 >= 4
 *                    value = d[r] * (n - 8)                   (as GGML Q4_0)
 *   q4m  320 bytes   0..31   d[16]
 *                    32..63  m[16]  f16 minimum of row r
 *                    64..319 n as in q4
 *                    value = d[r] * n + m[r]                  (as GGML Q4_1)
 *   q4n  288 bytes   as q4
 *                    value = d[r] * tlr_q4n_levels[n]       (as GGML IQ4_NL)
 *   q8p  288 bytes   high tile: as q4, n the upper four bits of q + 128
 *        256 bytes   low tile: as the n of q4, the lower four bits of q + 128
 *                    value = d[r] * (16 * high + low - 128)
 *
 * One 64-byte group holds 16 rows x 4 (8) columns with a row's bytes in one
 * 32-bit lane: vpdpbusd, sdot and a float kernel that shifts lanes all read it
 * in place, so one file serves x86 and Arm without repacking.
 */
#ifndef TLR_KERNELS_QUANT_H
#define TLR_KERNELS_QUANT_H

#include <stdbool.h>
#include <stdint.h>

enum tlr_type {
    TLR_F32 = 0,
    TLR_BF16 = 1,
    TLR_Q8 = 2,
    TLR_Q4 = 3,
    TLR_Q4M = 4,
    TLR_Q4N = 5,
    TLR_Q8P = 6,
    TLR_N_TYPES
};

enum { TLR_TILE_ROWS = 16, TLR_TILE_COLS = 32 };
enum {
    TLR_PLANES_ROWS = 1024, /* of one group of q8p */
    TLR_HIGH_BYTES = 288,
    TLR_LOW_BYTES = 256
};

/* Ascending; denser around zero, where trained weights are. */
extern const int8_t tlr_q4n_levels[16];

/* level[i] = the level nearest to v[i], i < n; ties go up.  Counting the
 * midpoints below a value needs no branch; with a constant n it is vectors. */
static inline void tlr_q4n_nearest(float *level, const float *v, int n)
{
    for (int i = 0; i < n; i++)
        level[i] = tlr_q4n_levels[0];
    for (int k = 0; k < 15; k++) {
        float gap = (float)(tlr_q4n_levels[k + 1] - tlr_q4n_levels[k]);
        float middle = (float)tlr_q4n_levels[k] + gap / 2;
        for (int i = 0; i < n; i++)
            level[i] += v[i] >= middle ? gap : 0;
    }
}

/* The number of a level. */
static inline uint8_t tlr_q4n_number(float level)
{
    uint8_t n = 0;
    while (n < 15 && level > tlr_q4n_levels[n])
        n++;
    return n;
}

/* "f32", "bf16", "q8", "q4", "q4m", "q4n", "q8p"; NULL when type is out of the enum. */
const char *tlr_type_name(unsigned type);
/* false when no type has that name. */
bool tlr_type_parse(const char *name, enum tlr_type *out);
bool tlr_type_is_tiled(enum tlr_type type);
/* Bytes of one 16 x 32 tile (q8p: both planes); 0 for the row-major types. */
unsigned tlr_tile_bytes(enum tlr_type type);

/* Bytes of the whole matrix, padding included; 0 when the type is unknown,
 * n_cols does not divide into tiles or the product overflows. */
uint64_t tlr_matrix_bytes(unsigned type, uint64_t n_rows, uint64_t n_cols);

/* Bytes that 16 consecutive rows take: where the rows [16*t, 16*t+16) start,
 * except in q8p, whose rows lie in two places. */
uint64_t tlr_band_bytes(enum tlr_type type, uint64_t n_cols);

/* Rounds 16 rows (a "band") src f32 [n_rows <= 16, n_cols] into dst, which
 * holds tlr_band_bytes for the tiled types, n_rows * n_cols elements otherwise.
 * Not for q8p.  q8: d = max|x|/127, round to nearest.  q4: d = x_extreme/-8 (as Q4_0).
 * q4m: d = (max-min)/15.  q4n: the scale of least squared error among
 * some.  bf16: round to nearest even.  NaN and infinity are
 * the caller's to refuse. */
void tlr_band_encode(enum tlr_type type, void *dst, const float *src,
                     int n_rows, int n_cols);

/* Row r of the matrix at w to dst f32 [n_cols]: the definition of what the
 * weights mean, used by the embedding lookup and by every test. */
void tlr_row_decode(enum tlr_type type, float *dst, const void *w, uint64_t row,
                    int n_cols);

/* Writes one block of 32 columns of row `lane` (0..15) into its tile without
 * rounding: what the lossless carry-over of GGML blocks uses.  d and m are f16
 * bits. */
void tlr_tile_put_q8(void *tile, int lane, uint16_t d, const int8_t q[32]);
void tlr_tile_put_q4(void *tile, int lane, uint16_t d, const uint8_t n[32]);
void tlr_tile_put_q4m(void *tile, int lane, uint16_t d, uint16_t m,
                      const uint8_t n[32]);

/* The same for block `block` of a row (0..1023) of a q8p group of
 * TLR_PLANES_ROWS rows of n_cols columns; q + 128 is split between the planes. */
void tlr_planes_put(void *group, int row, int block, int n_cols, uint16_t d,
                    const int8_t q[32]);

/* n_rows <= 16 rows in the layout of q8 to the rows from `row` (a multiple of
 * 16) on of a q8p group: the same numbers. */
void tlr_planes_put_band(void *group, int row, const void *band, int n_rows,
                         int n_cols);

/* IEEE binary16 and bfloat16, round to nearest even, infinities and NaN kept. */
float tlr_f16_to_f32(uint16_t h);
uint16_t tlr_f32_to_f16(float f);
float tlr_bf16_to_f32(uint16_t h);
uint16_t tlr_f32_to_bf16(float f);

#endif
