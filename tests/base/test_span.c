/* test_span.c - reads stop at the end: every view lies before an unreadable
 * page, so one byte too far is a fault. */
#include <string.h>

#include "base/span.h"
#include "tests/support/tlr_check.h"

static const uint8_t sample[] = {
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, /* u64 */
    0xfe, 0xff,                                     /* u16 */
    0x78, 0x56, 0x34, 0x92,                         /* u32 */
    0x00, 0x00, 0xc0, 0xbf,                         /* f32 -1.5 */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x40, /* f64 2.5 */
    0x80,                                           /* u8 */
};

static struct tlr_span guarded(const void *bytes, size_t len)
{
    uint8_t *p = tlr_test_guarded(len);
    memcpy(p, bytes, len);
    return tlr_span_of(p, len);
}

START_TEST(values_up_to_the_last_byte)
{
    struct tlr_span s = guarded(sample, sizeof sample);
    ck_assert_uint_eq(tlr_span_left(&s), sizeof sample);
    ck_assert_uint_eq(tlr_span_u64(&s), 0xefcdab8967452301u);
    ck_assert_uint_eq(tlr_span_u16(&s), 0xfffe);
    ck_assert_uint_eq(tlr_span_u32(&s), 0x92345678u);
    ck_assert(tlr_span_f32(&s) == -1.5f);
    ck_assert(tlr_span_f64(&s) == 2.5);
    ck_assert_uint_eq(tlr_span_u8(&s), 0x80);
    ck_assert_uint_eq(tlr_span_left(&s), 0);
    ck_assert(!s.bad);
    ck_assert_ptr_nonnull(tlr_span_take(&s, 0));
    ck_assert(!s.bad);
    ck_assert_uint_eq(tlr_span_u8(&s), 0);
    ck_assert(s.bad);
}
END_TEST

/* Reads one value of n bytes; the value as bits. */
static uint64_t read_one(struct tlr_span *s, int kind)
{
    switch (kind) {
    case 0:
        return tlr_span_u8(s);
    case 1:
        return tlr_span_u16(s);
    case 2:
        return tlr_span_u32(s);
    case 3:
        return tlr_span_u64(s);
    case 4:
        return tlr_span_f32(s) != 0;
    default:
        return tlr_span_f64(s) != 0;
    }
}

START_TEST(too_short_is_bad_and_zero)
{
    static const size_t size[] = {1, 2, 4, 8, 4, 8};
    uint8_t ones[16];
    memset(ones, 0x3f, sizeof ones);
    for (int kind = 0; kind < 6; kind++) {
        for (size_t len = 0; len <= size[kind]; len++) {
            struct tlr_span s = guarded(ones, len);
            bool enough = len == size[kind];
            ck_assert((read_one(&s, kind) != 0) == enough);
            ck_assert(s.bad == !enough);
            ck_assert_uint_eq(s.pos, enough ? len : 0);
        }
    }
}
END_TEST

START_TEST(bad_stays_bad)
{
    struct tlr_span s = guarded(sample, 8);
    ck_assert_uint_eq(tlr_span_u8(&s), 1);
    ck_assert_uint_eq(tlr_span_u64(&s), 0);
    ck_assert(s.bad);
    ck_assert_uint_eq(tlr_span_left(&s), 0);
    ck_assert_uint_eq(tlr_span_u8(&s), 0);
    ck_assert_ptr_null(tlr_span_take(&s, 0));
    ck_assert_ptr_null(tlr_span_take(&s, 1));
    ck_assert_uint_eq(s.pos, 1);
}
END_TEST

START_TEST(take_checks_hostile_sizes)
{
    struct tlr_span s = guarded(sample, 8);
    const uint8_t *at = tlr_span_take(&s, 3);
    ck_assert_ptr_eq(at, s.ptr);
    const uint64_t sizes[] = {6, 8, UINT32_MAX, 1ull << 32, 1ull << 63,
                              UINT64_MAX - 2, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct tlr_span copy = s;
        ck_assert_ptr_null(tlr_span_take(&copy, sizes[i]));
        ck_assert(copy.bad);
    }
    ck_assert_ptr_eq(tlr_span_take(&s, 5), s.ptr + 3);
    ck_assert_uint_eq(tlr_span_left(&s), 0);
}
END_TEST

START_TEST(no_bytes_at_all)
{
    struct tlr_span s = tlr_span_of(NULL, 0);
    ck_assert_ptr_nonnull(tlr_span_take(&s, 0));
    ck_assert(!s.bad);
    ck_assert_uint_eq(tlr_span_u32(&s), 0);
    ck_assert(s.bad);
}
END_TEST

Suite *suite_span(void);
Suite *suite_span(void)
{
    Suite *s = suite_create("span");
    TCase *t = tcase_create("span");
    tcase_add_test(t, values_up_to_the_last_byte);
    tcase_add_test(t, too_short_is_bad_and_zero);
    tcase_add_test(t, bad_stays_bad);
    tcase_add_test(t, take_checks_hostile_sizes);
    tcase_add_test(t, no_bytes_at_all);
    suite_add_tcase(s, t);
    return s;
}
