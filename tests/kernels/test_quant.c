/* test_quant.c - the layouts of quant.h, drawn again here byte by byte, and the
 * rounding against the gguf package (tests/golden/quant). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernels/quant.h"
#include "tests/golden/quant/quant_golden.inc"
#include "tests/support/tlr_check.h"

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* The drawing: where the number of (r, c) lies, from the start of its tile. */
static unsigned q8_at(unsigned r, unsigned c)
{
    return 32 + (c / 4) * 64 + r * 4 + c % 4;
}

static unsigned nibble_at(unsigned r, unsigned c, unsigned first)
{
    return first + (c / 8) * 64 + r * 4 + c % 4;
}

static float drawn_value(enum tlr_type type, const uint8_t *tile, unsigned r,
                         unsigned c)
{
    float d = tlr_f16_to_f32(u16_at(tile + 2 * r));
    if (type == TLR_Q8)
        return d * (float)(int8_t)tile[q8_at(r, c)];
    unsigned byte = tile[nibble_at(r, c, type == TLR_Q4M ? 64 : 32)];
    unsigned n = c % 8 < 4 ? byte % 16 : byte / 16;
    if (type == TLR_Q4)
        return d * ((float)n - 8);
    if (type == TLR_Q4N)
        return d * (float)tlr_q4n_levels[n];
    float m = tlr_f16_to_f32(u16_at(tile + 32 + 2 * r));
    return d * (float)n + m;
}

static const struct {
    enum tlr_type type;
    const char *name;
    unsigned tile_bytes;
} tiled[] = {
    {TLR_Q8, "q8", 544},
    {TLR_Q4, "q4", 288},
    {TLR_Q4M, "q4m", 320},
    {TLR_Q4N, "q4n", 288}};

/* Random bytes in 3 x 2 tiles, 41 rows x 64 columns. */
START_TEST(decode_follows_the_drawing)
{
    enum { ROWS = 41, COLS = 64 };
    enum tlr_type type = tiled[_i].type;
    unsigned size = tiled[_i].tile_bytes;
    struct tlr_rng rng = {tlr_test_seed(), 0};
    ck_assert_str_eq(tlr_type_name(type), tiled[_i].name);
    ck_assert_uint_eq(tlr_tile_bytes(type), size);
    ck_assert(tlr_type_is_tiled(type));
    ck_assert_uint_eq(tlr_matrix_bytes(type, ROWS, COLS), 6 * size);
    ck_assert_uint_eq(tlr_band_bytes(type, COLS), 2 * size);
    uint8_t *w = malloc(6 * size);
    ck_assert_ptr_nonnull(w);
    for (unsigned i = 0; i < 6 * size; i++) {
        w[i] = (uint8_t)tlr_rng_u64(&rng);
        if (i % size < 64 && i % 2) /* keeps the scales finite */
            w[i] &= 0xbf;
    }
    for (unsigned r = 0; r < ROWS; r++) {
        float row[COLS];
        tlr_row_decode(type, row, w, r, COLS);
        for (unsigned c = 0; c < COLS; c++) {
            const uint8_t *tile = w + (r / 16 * 2 + c / 32) * size;
            float want = drawn_value(type, tile, r % 16, c % 32);
            ck_assert_msg(memcmp(&row[c], &want, 4) == 0,
                          "%s row %u column %u: expected %g, found %g",
                          tiled[_i].name, r, c, (double)want, (double)row[c]);
        }
    }
    free(w);
}
END_TEST

/* Each element alone changes its own bits of its own byte and nothing else. */
START_TEST(put_follows_the_drawing)
{
    enum tlr_type type = tiled[_i].type;
    unsigned size = tiled[_i].tile_bytes;
    for (unsigned r = 0; r < 16; r++) {
        for (unsigned c = 0; c < 32; c++) {
            uint8_t got[544], want[544];
            memset(got, 0xee, sizeof got);
            memset(want, 0xee, sizeof want);
            int8_t q[32] = {0};
            uint8_t n[32] = {0};
            q[c] = -77;
            n[c] = 11;
            want[2 * r] = 0x34;
            want[2 * r + 1] = 0x12;
            if (type == TLR_Q4M) {
                want[32 + 2 * r] = 0x78;
                want[32 + 2 * r + 1] = 0x56;
            }
            for (unsigned i = 0; i < 32; i++) {
                if (type == TLR_Q8)
                    want[q8_at(r, i)] = 0;
                else
                    want[nibble_at(r, i, size - 256)] = 0;
            }
            if (type == TLR_Q8)
                want[q8_at(r, c)] = 179; /* -77 in two's complement */
            else
                want[nibble_at(r, c, size - 256)] = c % 8 < 4 ? 11 : 11 * 16;
            if (type == TLR_Q8)
                tlr_tile_put_q8(got, (int)r, 0x1234, q);
            else if (type != TLR_Q4M)
                tlr_tile_put_q4(got, (int)r, 0x1234, n);
            else
                tlr_tile_put_q4m(got, (int)r, 0x1234, 0x5678, n);
            ck_assert_mem_eq(got, want, sizeof got);
        }
    }
}
END_TEST

START_TEST(row_major_types)
{
    const float src[6] = {1, -2.5f, 3, 0x1.01p0f, 0x1.03p0f, -0.0f};
    float row[3], out[6];
    uint16_t half[6];
    tlr_band_encode(TLR_F32, out, src, 2, 3);
    ck_assert_mem_eq(out, src, sizeof src);
    tlr_band_encode(TLR_BF16, half, src, 2, 3);
    const uint16_t want[6] = {0x3f80, 0xc020, 0x4040, 0x3f80, 0x3f82, 0x8000};
    ck_assert_mem_eq(half, want, sizeof want); /* ties to even, both ways */
    tlr_row_decode(TLR_F32, row, src, 1, 3);
    ck_assert_mem_eq(row, src + 3, sizeof row);
    tlr_row_decode(TLR_BF16, row, half, 1, 3);
    ck_assert(row[0] == 1 && row[1] == 0x1.04p0f && row[2] == 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_F32, 3, 5), 60);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_BF16, 3, 5), 30);
    ck_assert_uint_eq(tlr_band_bytes(TLR_BF16, 5), 160);
    ck_assert(!tlr_type_is_tiled(TLR_F32) && !tlr_type_is_tiled(TLR_BF16));
}
END_TEST

START_TEST(sizes_refuse_nonsense)
{
    const uint64_t huge = UINT64_MAX;
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_N_TYPES, 16, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(~0u, 16, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q8, 16, 33), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_F32, huge, 2), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_F32, huge / 4 + 1, 1), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_BF16, 1ull << 32, 1ull << 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q4, huge, 32ull << 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q4, huge, 32), 0);
    ck_assert_uint_eq(tlr_matrix_bytes(TLR_Q4, 17, 64), 4 * 288);
    ck_assert_ptr_null(tlr_type_name(TLR_N_TYPES));
    enum tlr_type type;
    for (unsigned i = 0; i < TLR_N_TYPES; i++)
        ck_assert(tlr_type_parse(tlr_type_name(i), &type) && type == i);
    ck_assert(tlr_type_parse("q4m", &type) && type == TLR_Q4M);
    ck_assert(!tlr_type_parse("q4x", &type) && !tlr_type_parse("", &type));
}
END_TEST

static float golden_input(uint64_t i)
{
    float u = (float)(tlr_hash_u64(1, i) >> 40) * 0x1p-23f - 1.0f;
    return ldexpf(u, (int)(i / 32 % 12) - 8);
}

/* One block a row: encode, then read the block back in GGML's order. */
START_TEST(rounding_is_that_of_gguf)
{
    const unsigned char *golden[3] = {golden_q8_0, golden_q4_0, golden_q4_1};
    const size_t n_bytes[3] = {sizeof golden_q8_0, sizeof golden_q4_0,
                               sizeof golden_q4_1};
    const size_t block[3] = {34, 18, 20};
    enum tlr_type type = tiled[_i].type;
    size_t n_blocks = n_bytes[_i] / block[_i];
    ck_assert_uint_eq(n_blocks, 40);
    for (size_t k = 0; k < n_blocks; k++) {
        unsigned r = (unsigned)k % 16, header = type == TLR_Q4M ? 4 : 2;
        float x[16 * 32] = {0};
        uint8_t tile[544];
        for (size_t c = 0; c < 32; c++)
            x[r * 32 + c] = golden_input(k * 32 + c);
        tlr_band_encode(type, tile, x, 16, 32);
        const unsigned char *want = golden[_i] + k * block[_i];
        ck_assert_uint_eq(u16_at(tile + 2 * r), u16_at(want));
        if (type == TLR_Q4M)
            ck_assert_uint_eq(u16_at(tile + 32 + 2 * r), u16_at(want + 2));
        for (unsigned c = 0; c < 32; c++) {
            if (type == TLR_Q8) {
                ck_assert_uint_eq(tile[q8_at(r, c)], want[header + c]);
                continue;
            }
            /* GGML: low nibbles are columns 0..15, high ones 16..31 */
            unsigned n = c < 16 ? want[header + c] % 16u
                                : want[header + c - 16] / 16u;
            unsigned byte =
                tile[nibble_at(r, c, tiled[_i].tile_bytes - 256)];
            ck_assert_uint_eq(c % 8 < 4 ? byte % 16 : byte / 16, n);
        }
    }
}
END_TEST

/* Rounded values lie within half a step; padding is zero; flat, tiny and huge
 * blocks stay finite. */
START_TEST(rounding_stays_near)
{
    enum tlr_type type = tiled[_i].type;
    const float sizes[] = {0, 1e-42f, 1e-9f, 1, 300, 1e4f, 3e38f};
    struct tlr_rng rng = {tlr_test_seed(), 0};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        float x[5 * 32], back[32];
        uint8_t tile[544];
        memset(tile, 0xee, sizeof tile);
        for (int i = 0; i < 5 * 32; i++) {
            float u = (float)(tlr_rng_u64(&rng) >> 40) * 0x1p-23f - 1.0f;
            x[i] = u * sizes[s];
        }
        tlr_band_encode(type, tile, x, 5, 32);
        /* half a step of the range [-1, 1], and the f16 scale's rounding; q4
         * has one step less above zero than below */
        double step = type == TLR_Q8 ? 2 / 254.0 : 2 / 15.0;
        if (type == TLR_Q4)
            step = 2 / 8.0;
        /* q4n: the end beyond the last level, 113, where the other extreme is
         * at most at 140 (quant.c) */
        if (type == TLR_Q4N)
            step = 2 * 27 / 140.0;
        double tolerance = (step / 2 + 0x1p-10) * (double)sizes[s] + 0x1p-20;
        for (unsigned r = 0; r < 16; r++) {
            tlr_row_decode(type, back, tile, r, 32);
            for (unsigned c = 0; c < 32; c++) {
                ck_assert_msg(isfinite(back[c]), "size %g: not finite",
                              (double)sizes[s]);
                float want = r < 5 ? x[r * 32 + c] : 0;
                if (sizes[s] <= 1e4f)
                    ck_assert_double_le(fabs((double)(back[c] - want)),
                                        tolerance);
            }
        }
    }
}
END_TEST

/* What gguf reads from blocks of IQ4_NL is what q4n means by them. */
START_TEST(q4n_is_iq4_nl)
{
    for (unsigned k = 0; k < sizeof golden_iq4_nl_values / 4 / 32; k++) {
        uint8_t tile[288] = {0}, n[32];
        float back[32];
        const unsigned char *block = golden_iq4_nl + 18 * k;
        for (int c = 0; c < 32; c++)
            n[c] = c < 16 ? block[2 + c] % 16 : block[2 + c - 16] / 16;
        tlr_tile_put_q4(tile, (int)(k % 16), u16_at(block), n);
        tlr_row_decode(TLR_Q4N, back, tile, k % 16, 32);
        ck_assert_mem_eq(back, golden_iq4_nl_values + 32 * k, sizeof back);
    }
}
END_TEST

static double squared_error(const float *x, const float *y)
{
    double sum = 0;
    for (int c = 0; c < 32; c++)
        sum += ((double)x[c] - (double)y[c]) * ((double)x[c] - (double)y[c]);
    return sum;
}

/* Squared error when the numbers nearest for scale `first` get the scale that
 * suits them best. */
static double error_of_scale(const float *x, double first)
{
    double xx = 0, xl = 0, ll = 0;
    for (int c = 0; c < 32; c++) {
        double v = (double)x[c] / first, level = 0, least = INFINITY;
        for (int i = 0; i < 16; i++) {
            double e = fabs(v - tlr_q4n_levels[i]);
            level = e < least ? tlr_q4n_levels[i] : level;
            least = fmin(least, e);
        }
        xx += (double)x[c] * (double)x[c];
        xl += (double)x[c] * level;
        ll += level * level;
    }
    return xx - xl * xl / ll;
}

/* No scale that puts the extreme between the levels 100 and 142, on either
 * side, would have been better (but for f16). */
START_TEST(q4n_takes_the_best_scale)
{
    struct tlr_rng rng = {.seed = tlr_test_seed() + 9};
    int n_sides[2] = {0, 0};
    for (int k = 0; k < 200; k++) {
        float x[32], back[32], extreme = 0;
        uint8_t tile[288];
        for (int c = 0; c < 32; c++) {
            x[c] = tlr_rng_normal(&rng);
            extreme = fabsf(x[c]) > fabsf(extreme) ? x[c] : extreme;
        }
        tlr_band_encode(TLR_Q4N, tile, x, 1, 32);
        tlr_row_decode(TLR_Q4N, back, tile, 0, 32);
        double ours = squared_error(x, back), best[2] = {INFINITY, INFINITY};
        for (int i = 0; i < 16; i++) {
            double end = (100 + 6 * (i / 2)) * (i % 2 ? 1 : -1);
            double e = error_of_scale(x, (double)extreme / end);
            best[i % 2] = fmin(best[i % 2], e);
        }
        double least = fmin(best[0], best[1]);
        ck_assert_msg(ours <= 1.005 * least, "block %d: error %g, possible %g",
                      k, ours, least);
        n_sides[best[1] < 0.99 * best[0]]++;
    }
    ck_assert(n_sides[0] > 20 && n_sides[1] > 20);
}
END_TEST

/* Every number is the nearest one for its scale, and over blocks of one size
 * the rounding is no worse than GGML's own. */
START_TEST(q4n_rounds_well)
{
    double ours = 0, theirs = 0;
    ck_assert_uint_eq(sizeof golden_iq4_nl, 40 * 18);
    for (unsigned k = 0; k < 40; k++) {
        float x[32], back[32];
        uint8_t tile[288], n[32];
        for (unsigned c = 0; c < 32; c++)
            x[c] = golden_input(k * 32 + c);
        tlr_band_encode(TLR_Q4N, tile, x, 1, 32);
        tlr_row_decode(TLR_Q4N, back, tile, 0, 32);
        double size = ldexp(1, 2 * ((int)(k % 12) - 8));
        ours += squared_error(x, back) / size;
        double d = (double)tlr_f16_to_f32(u16_at(tile));
        for (int c = 0; c < 32; c++) {
            double error = fabs((double)x[c] - (double)back[c]);
            for (int level = 0; level < 16; level++) {
                double other =
                    fabs((double)x[c] - d * tlr_q4n_levels[level]);
                ck_assert_double_le(error, other + 1e-6 * fabs(d));
            }
        }
        const unsigned char *block = golden_iq4_nl + 18 * k;
        for (int c = 0; c < 32; c++)
            n[c] = c < 16 ? block[2 + c] % 16 : block[2 + c - 16] / 16;
        tlr_tile_put_q4(tile, 0, u16_at(block), n);
        tlr_row_decode(TLR_Q4N, back, tile, 0, 32);
        theirs += squared_error(x, back) / size;
    }
    ck_assert_double_gt(theirs, 0);
    ck_assert_msg(ours <= 1.01 * theirs, "squared error %g, GGML's %g", ours,
                  theirs);
}
END_TEST

Suite *suite_quant(void);
Suite *suite_quant(void)
{
    Suite *suite = suite_create("quant");
    TCase *tc = tcase_create("layout");
    tcase_add_loop_test(tc, decode_follows_the_drawing, 0, 4);
    tcase_add_loop_test(tc, put_follows_the_drawing, 0, 4);
    tcase_add_test(tc, row_major_types);
    tcase_add_test(tc, sizes_refuse_nonsense);
    suite_add_tcase(suite, tc);
    tc = tcase_create("rounding");
    tcase_add_loop_test(tc, rounding_is_that_of_gguf, 0, 3);
    tcase_add_loop_test(tc, rounding_stays_near, 0, 4);
    tcase_add_test(tc, q4n_is_iq4_nl);
    tcase_add_test(tc, q4n_rounds_well);
    tcase_add_test(tc, q4n_takes_the_best_scale);
    suite_add_tcase(suite, tc);
    return suite;
}
