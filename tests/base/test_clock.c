/* test_clock.c - time goes forward, the memory peak is a peak. */
#include <stdint.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/support/tlr_check.h"

START_TEST(never_back)
{
    uint64_t last = tlr_now_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = tlr_now_ns();
        ck_assert_uint_ge(now, last);
        last = now;
    }
    ck_assert_uint_gt(last, 0);
}
END_TEST

START_TEST(milliseconds)
{
    ck_assert_double_eq(tlr_ms_between(1000000, 3500000), 2.5);
    ck_assert_double_eq(tlr_ms_between(3500000, 1000000), -2.5);
    /* Small differences survive a large start. */
    ck_assert_double_eq_tol(tlr_ms_between(1ull << 62, (1ull << 62) + 1),
                            1e-6, 1e-12);
}
END_TEST

START_TEST(peak_rises_with_use)
{
    const size_t n_bytes = 64u << 20;
    uint64_t before = tlr_peak_rss_bytes();
    ck_assert_uint_gt(before, 100000);
    volatile char *p = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        p[i] = 1; /* volatile: compilers see that nobody reads it */
    }
    uint64_t during = tlr_peak_rss_bytes();
    ck_assert_int_eq(p[n_bytes - 1], 1);
    free((char *)(uintptr_t)p);
    ck_assert_uint_gt(during, n_bytes);
    /* Still the peak; the kernel's count is good to some pages only. */
    ck_assert_uint_gt(tlr_peak_rss_bytes(), n_bytes);
}
END_TEST

Suite *suite_clock(void);
Suite *suite_clock(void)
{
    Suite *s = suite_create("clock");
    TCase *t = tcase_create("clock");
    tcase_add_test(t, never_back);
    tcase_add_test(t, milliseconds);
    tcase_add_test(t, peak_rises_with_use);
    suite_add_tcase(s, t);
    return s;
}
