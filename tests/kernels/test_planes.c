/* test_planes.c - the layout of q8p, drawn again here byte by byte. */
#include <stdlib.h>
#include <string.h>

#include "kernels/quant.h"
#include "tests/support/tlr_check.h"

enum { COLS = 64, BLOCKS = 2, GROUP_BYTES = 64 * BLOCKS * (288 + 256) };

/* The drawing: the high tiles of all 64 bands, then their low tiles. */
static size_t high_at(unsigned row, unsigned block)
{
    return (row / 16 * BLOCKS + block) * 288;
}

static size_t low_at(unsigned row, unsigned block)
{
    return (size_t)64 * BLOCKS * 288 + (row / 16 * BLOCKS + block) * 256;
}

static size_t nibble_at(unsigned row, unsigned c)
{
    return c / 8 * 64 + row % 16 * 4 + c % 4;
}

static void put_nibble(uint8_t *byte, unsigned c, unsigned n)
{
    *byte = (uint8_t)(c % 8 < 4 ? (*byte & 0xf0) | n : (*byte & 0x0f) | n << 4);
}

static unsigned get_nibble(uint8_t byte, unsigned c)
{
    return c % 8 < 4 ? byte % 16 : byte / 16;
}

/* A block changes its scale and its own nibbles of both planes, nothing else. */
START_TEST(put_follows_the_drawing)
{
    static const unsigned rows[] = {0, 1, 15, 16, 517, 1007, 1008, 1023};
    unsigned row = rows[_i];
    struct tlr_rng rng = {tlr_test_seed() + (uint64_t)_i, 0};
    uint8_t *got = malloc(GROUP_BYTES), *want = malloc(GROUP_BYTES);
    ck_assert(got != NULL && want != NULL);
    memset(got, 0xee, GROUP_BYTES);
    memset(want, 0xee, GROUP_BYTES);
    for (unsigned b = 0; b < BLOCKS; b++) {
        int8_t q[32];
        uint8_t *high = want + high_at(row, b), *low = want + low_at(row, b);
        high[2 * (row % 16)] = 0x34;
        high[2 * (row % 16) + 1] = 0x12;
        for (unsigned c = 0; c < 32; c++) {
            q[c] = (int8_t)tlr_rng_u64(&rng);
            q[c] = c == 3 ? -128 : c == 9 ? 127 : q[c];
            unsigned u = (unsigned)(q[c] + 128);
            put_nibble(high + 32 + nibble_at(row, c), c, u / 16);
            put_nibble(low + nibble_at(row, c), c, u % 16);
        }
        tlr_planes_put(got, (int)row, (int)b, COLS, 0x1234, q);
    }
    ck_assert_mem_eq(got, want, GROUP_BYTES);
    free(want);
    free(got);
}
END_TEST

/* Two groups of random bytes; the value of (row, column). */
START_TEST(decode_follows_the_drawing)
{
    struct tlr_rng rng = {tlr_test_seed(), 0};
    uint8_t *w = malloc(2 * GROUP_BYTES);
    ck_assert_ptr_nonnull(w);
    for (size_t i = 0; i < 2 * GROUP_BYTES; i++) {
        w[i] = (uint8_t)tlr_rng_u64(&rng);
        size_t in = i % GROUP_BYTES;
        bool scale = in < 64 * BLOCKS * 288 && in % 288 < 32;
        if (scale && i % 2) /* keeps it finite */
            w[i] &= 0xbf;
    }
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1025, COLS), 2 * GROUP_BYTES);
    for (unsigned r = 0; r < 2048; r++) {
        float row[COLS];
        const uint8_t *group = w + r / 1024 * GROUP_BYTES;
        unsigned in = r % 1024;
        tlr_row_decode(TLR_Q8P, row, w, r, COLS);
        for (unsigned c = 0; c < COLS; c++) {
            const uint8_t *high = group + high_at(in, c / 32);
            const uint8_t *low = group + low_at(in, c / 32);
            unsigned lane = in % 16, at = (unsigned)nibble_at(in, c % 32);
            float d = tlr_f16_to_f32(
                (uint16_t)(high[2 * lane] | high[2 * lane + 1] << 8));
            int q = (int)(16 * get_nibble(high[32 + at], c) +
                          get_nibble(low[at], c)) -
                    128;
            float want = d * (float)q;
            ck_assert_msg(memcmp(&row[c], &want, 4) == 0,
                          "row %u column %u: expected %g, found %g", r, c,
                          (double)want, (double)row[c]);
        }
    }
    free(w);
}
END_TEST

/* Rows of a q8 band keep their values; rows beside them keep theirs. */
START_TEST(band_keeps_its_values)
{
    struct tlr_rng rng = {tlr_test_seed(), 0};
    uint8_t *group = calloc(1, GROUP_BYTES), band[BLOCKS * 544];
    float x[16 * COLS], want[COLS], got[COLS], zero[COLS] = {0};
    ck_assert_ptr_nonnull(group);
    for (int i = 0; i < 16 * COLS; i++)
        x[i] = tlr_rng_normal(&rng);
    tlr_band_encode(TLR_Q8, band, x, 16, COLS);
    tlr_planes_put_band(group, 1008, band, 16, COLS);
    tlr_planes_put_band(group, 32, band, 5, COLS);
    for (unsigned r = 0; r < 16; r++) {
        tlr_row_decode(TLR_Q8, want, band, r, COLS);
        tlr_row_decode(TLR_Q8P, got, group, 1008 + r, COLS);
        ck_assert_mem_eq(got, want, sizeof want);
        tlr_row_decode(TLR_Q8P, got, group, 32 + r, COLS);
        for (int c = 0; c < COLS; c++)
            ck_assert(got[c] == (r < 5 ? want[c] : zero[c]));
        tlr_row_decode(TLR_Q8P, got, group, 992 + r, COLS);
        for (int c = 0; c < COLS; c++)
            ck_assert(got[c] == 0);
    }
    free(group);
}
END_TEST

START_TEST(sizes)
{
    const uint64_t huge = UINT64_MAX, group = 64 * 544;
    ck_assert_uint_eq(tlr_tile_bytes(TLR_Q8P), 288 + 256);
    ck_assert_uint_eq(tlr_band_bytes(TLR_Q8P, 96), 3 * 544);
    ck_assert(tlr_type_is_tiled(TLR_Q8P));
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 0, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1, 32), group);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1024, 32), group);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1025, 32), 2 * group);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 151936, 896),
                      149 * 28 * group);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1024, 33), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, huge, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, huge / 2, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1024, huge / 32 * 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1ull << 40, 1ull << 30), 0);
    /* bands, blocks and bytes each fit, their product does not */
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8P, 1ull << 32, 1ull << 32), 0);
}
END_TEST

Suite *suite_planes(void);
Suite *suite_planes(void)
{
    Suite *suite = suite_create("planes");
    TCase *tc = tcase_create("layout");
    tcase_add_loop_test(tc, put_follows_the_drawing, 0, 8);
    tcase_add_test(tc, decode_follows_the_drawing);
    tcase_add_test(tc, band_keeps_its_values);
    tcase_add_test(tc, sizes);
    suite_add_tcase(suite, tc);
    return suite;
}
