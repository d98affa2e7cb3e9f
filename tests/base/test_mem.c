/* test_mem.c - sizes that overflow are refused, failures come when asked for. */
#include <string.h>

#include "base/mem.h"
#include "tests/support/tlr_check.h"

START_TEST(products_and_sums)
{
    uint64_t v = 99;
    ck_assert(tlr_mul_u64(0, UINT64_MAX, &v) && v == 0);
    ck_assert(tlr_mul_u64(UINT64_MAX, 1, &v) && v == UINT64_MAX);
    ck_assert(tlr_mul_u64(UINT32_MAX, UINT32_MAX, &v));
    ck_assert_uint_eq(v, 0xfffffffe00000001u);
    ck_assert(tlr_mul_u64(UINT64_MAX / 3, 3, &v) && v == UINT64_MAX);
    v = 99;
    ck_assert(!tlr_mul_u64(UINT64_MAX / 3 + 1, 3, &v));
    ck_assert(!tlr_mul_u64(1ull << 32, 1ull << 32, &v));
    ck_assert(!tlr_mul_u64(2, UINT64_MAX, &v));
    ck_assert_uint_eq(v, 99);
    ck_assert(tlr_add_u64(UINT64_MAX - 5, 5, &v) && v == UINT64_MAX);
    v = 99;
    ck_assert(!tlr_add_u64(UINT64_MAX - 5, 6, &v));
    ck_assert(!tlr_add_u64(6, UINT64_MAX - 5, &v));
    ck_assert_uint_eq(v, 99);
}
END_TEST

START_TEST(overflow_is_refused)
{
    ck_assert_ptr_null(tlr_calloc(SIZE_MAX / 2 + 1, 2));
    ck_assert_ptr_null(tlr_calloc(SIZE_MAX, SIZE_MAX));
    ck_assert_ptr_null(tlr_calloc(SIZE_MAX / 16 + 2, 16));
    ck_assert_ptr_null(tlr_alloc_aligned(SIZE_MAX));
    ck_assert_ptr_null(tlr_alloc_aligned(SIZE_MAX - 62));
    ck_assert_ptr_null(tlr_alloc_aligned((size_t)PTRDIFF_MAX + 1));
    char *p = tlr_strdup("kept");
    ck_assert_ptr_null(tlr_realloc(p, SIZE_MAX / 4 + 1, 4));
    ck_assert_str_eq(p, "kept");
    tlr_free(p);
}
END_TEST

START_TEST(what_is_handed_out)
{
    unsigned char *p = tlr_calloc(1000, 3);
    for (int i = 0; i < 3000; i++) {
        ck_assert_uint_eq(p[i], 0);
    }
    memset(p, 7, 3000);
    p = tlr_realloc(p, 100000, 1);
    for (int i = 0; i < 3000; i++) {
        ck_assert_uint_eq(p[i], 7);
    }
    tlr_free(p);
    void *zero[] = {tlr_calloc(0, 8), tlr_calloc(8, 0), tlr_alloc_aligned(0),
                    tlr_realloc(NULL, 0, 1)};
    for (int i = 0; i < 4; i++) {
        ck_assert_ptr_nonnull(zero[i]);
        tlr_free(zero[i]);
    }
    tlr_free(NULL);
    size_t sizes[] = {1, 63, 64, 65, 4097};
    for (int i = 0; i < 5; i++) {
        unsigned char *a = tlr_alloc_aligned(sizes[i]);
        ck_assert_uint_eq((uintptr_t)a % 64, 0);
        memset(a, 1, sizes[i]);
        tlr_free(a);
    }
}
END_TEST

/* One of each kind, until one fails; how many succeeded. */
static int allocate_five(void)
{
    void *p[5] = {0};
    int n = 0;
    p[0] = tlr_calloc(1, 8);
    p[1] = tlr_alloc_aligned(8);
    p[2] = tlr_strdup("x");
    p[3] = tlr_realloc(NULL, 1, 8);
    p[4] = tlr_calloc(1, 8);
    for (int i = 0; i < 5; i++) {
        n += p[i] != NULL;
        ck_assert(i == 0 || p[i - 1] || !p[i]); /* failing goes on */
        tlr_free(p[i]);
    }
    return n;
}

START_TEST(fails_on_demand)
{
    for (int k = 0; k < 5; k++) {
        tlr_mem_fail_after(k);
        unsigned long long before = tlr_mem_count();
        ck_assert_int_eq(allocate_five(), k);
        ck_assert_uint_eq(tlr_mem_count() - before, (unsigned)k);
    }
    tlr_mem_fail_after(5);
    ck_assert_int_eq(allocate_five(), 5);
    ck_assert_int_eq(allocate_five(), 0);
    tlr_mem_fail_after(-1);
    ck_assert_int_eq(allocate_five(), 5);
    char *p = tlr_strdup("kept");
    tlr_mem_fail_after(0);
    ck_assert_ptr_null(tlr_realloc(p, 100, 1));
    ck_assert_str_eq(p, "kept");
    tlr_free(p);
}
END_TEST

Suite *suite_mem(void);
Suite *suite_mem(void)
{
    Suite *s = suite_create("mem");
    TCase *t = tcase_create("mem");
    tcase_add_test(t, products_and_sums);
    tcase_add_test(t, overflow_is_refused);
    tcase_add_test(t, what_is_handed_out);
    tcase_add_test(t, fails_on_demand);
    suite_add_tcase(s, t);
    return s;
}
