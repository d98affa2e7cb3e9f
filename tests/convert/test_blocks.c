/* test_blocks.c - every GGML block type against the gguf package's numbers. */
#include <stdlib.h>
#include <string.h>

#include "base/span.h"
#include "convert/gguf_blocks.h"
#include "tests/convert/helpers.h"
#include "tests/support/tlr_check.h"

START_TEST(values_equal_those_of_gguf)
{
    size_t len;
    uint8_t *data = slurp("tests/golden/gguf/blocks.bin", &len);
    struct tlr_span s = tlr_span_of(data, len);
    int n_types = 0;
    while (tlr_span_left(&s) > 0) {
        const struct tlr_block_type *type =
            tlr_block_type_by_id(tlr_span_u32(&s));
        uint32_t n_blocks = tlr_span_u32(&s), n_values = tlr_span_u32(&s);
        ck_assert_ptr_nonnull(type);
        ck_assert_uint_eq(n_values, n_blocks * type->n_elems);
        const uint8_t *raw = tlr_span_take(&s, n_blocks * type->n_bytes);
        const uint8_t *values = tlr_span_take(&s, n_values * 4);
        ck_assert(!s.bad);
        float *found = malloc(n_values * sizeof *found);
        tlr_block_row_decode(type, found, raw, n_values);
        for (uint32_t i = 0; i < n_values; i++) {
            float expected;
            memcpy(&expected, values + 4 * i, 4);
            ck_assert_msg(found[i] == expected, "%s[%u]: %.9g, gguf has %.9g",
                          type->name, i, (double)found[i], (double)expected);
        }
        free(found);
        n_types++;
    }
    ck_assert_int_eq(n_types, 12);
    free(data);
}
END_TEST

/* Carried blocks decode from the tile to the same bits as from the file. */
START_TEST(carried_blocks_keep_their_bits)
{
    const char *names[] = {"Q8_0", "Q4_0", "Q4_1", "IQ4_NL"};
    enum { COLS = 96 };
    struct tlr_rng rng = {.seed = tlr_test_seed()};
    for (int k = 0; k < 4; k++) {
        const struct tlr_block_type *type = tlr_block_type_by_name(names[k]);
        uint8_t band[3 * 544], row[3 * 34];
        float expected[COLS], found[COLS];
        for (int lane = 0; lane < 16; lane++) {
            for (size_t i = 0; i < sizeof row; i++) {
                row[i] = (uint8_t)tlr_rng_u64(&rng);
            }
            for (unsigned b = 0; b < 3; b++) { /* scales below 2 */
                row[b * type->n_bytes + 1] &= 0xbf;
                row[b * type->n_bytes + 3] &= 0xbf;
            }
            ck_assert_int_eq(
                tlr_block_row_carry(type, band, lane, row, COLS), 0);
            tlr_block_row_decode(type, expected, row, COLS);
            tlr_row_decode((enum tlr_type)type->exact, found, band,
                           (uint64_t)lane, COLS);
            ck_assert_mem_eq(found, expected, sizeof found);
        }
        row[type->n_bytes] = 0; /* second block: an infinite scale */
        row[type->n_bytes + 1] = 0x7c;
        ck_assert_int_eq(tlr_block_row_carry(type, band, 0, row, COLS), -1);
    }
}
END_TEST

START_TEST(names_and_numbers)
{
    ck_assert_ptr_null(tlr_block_type_by_id(19));
    ck_assert_ptr_null(tlr_block_type_by_id(UINT32_MAX));
    ck_assert_ptr_null(tlr_block_type_by_name("IQ4_XS"));
    ck_assert_str_eq(tlr_block_type_any_name(20), "IQ4_NL");
    ck_assert_str_eq(tlr_block_type_any_name(39), "MXFP4");
    ck_assert_str_eq(tlr_block_type_any_name(41), "Q1_0");
    ck_assert_ptr_null(tlr_block_type_any_name(42));
    ck_assert_ptr_null(tlr_block_type_any_name(UINT32_MAX));
    for (uint32_t id = 0; id < 42; id++) {
        const struct tlr_block_type *type = tlr_block_type_by_id(id);
        if (type) {
            ck_assert_str_eq(type->name, tlr_block_type_any_name(id));
        }
    }
}
END_TEST

Suite *suite_blocks(void);
Suite *suite_blocks(void)
{
    Suite *suite = suite_create("blocks");
    TCase *tc = tcase_create("blocks");
    tcase_add_test(tc, values_equal_those_of_gguf);
    tcase_add_test(tc, carried_blocks_keep_their_bits);
    tcase_add_test(tc, names_and_numbers);
    suite_add_tcase(suite, tc);
    return suite;
}
