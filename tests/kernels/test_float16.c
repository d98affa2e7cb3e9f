/* test_float16.c - binary16 and bfloat16 against two other definitions: the
 * nearest number of the whole table by search in double, and the compiler's
 * _Float16 where it has one.  (The F16C instructions are compared with this
 * code by test_variants, over the same values.) */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "tests/support/tlr_check.h"

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* IEEE 754: value of the fields, in double. */
static double f16_value(unsigned h)
{
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double m = exponent ? 1024 + mantissa : mantissa;
    double v = ldexp(m, (exponent ? exponent : 1) - 25);
    return h & 0x8000 ? -v : v;
}

static double bf16_value(unsigned h)
{
    int exponent = (int)(h >> 7 & 255), mantissa = (int)(h & 127);
    double m = exponent ? 128 + mantissa : mantissa;
    double v = ldexp(m, (exponent ? exponent : 1) - 134);
    return h & 0x8000 ? -v : v;
}

/* Nearest of the finite non-negative numbers 0..limit-1, ties to even;
 * `limit` (infinity) counts as the next number of the sequence. */
static unsigned nearest(double v, unsigned limit, double (*value)(unsigned))
{
    unsigned low = 0, high = limit;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (value(middle) <= v)
            low = middle;
        else
            high = middle;
    }
    double below = v - value(low), above = value(high) - v;
    if (below == above)
        return low % 2 ? high : low;
    return below < above ? low : high;
}

START_TEST(f16_every_value)
{
    for (unsigned h = 0; h < 65536; h++) {
        float got = tlr_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) != 0x7c00) {
            ck_assert(((double)got == f16_value(h)));
            ck_assert_int_eq(signbit(got) != 0, h >> 15);
            ck_assert_uint_eq(tlr_f32_to_f16(got), h);
        } else if (h & 0x3ff) {
            ck_assert(isnan(got));
            ck_assert_uint_eq(tlr_f32_to_f16(got), h | 0x200);
        } else {
            ck_assert(isinf(got) && (got < 0) == (h >> 15));
            ck_assert_uint_eq(tlr_f32_to_f16(got), h);
        }
    }
}
END_TEST

START_TEST(f16_rounding)
{
    for (unsigned h = 0; h < 0x7c00; h++) {
        double middle = (f16_value(h) + f16_value(h + 1)) / 2;
        uint32_t at = bits_of((float)middle);
        ck_assert(((double)(float)middle == middle));
        for (uint32_t bits = at - 1; bits != at + 2; bits++) {
            float f = float_of(bits);
            unsigned want = nearest((double)f, 0x7c00, f16_value);
            ck_assert_msg(tlr_f32_to_f16(f) == want &&
                              tlr_f32_to_f16(-f) == (want | 0x8000),
                          "%a: expected %#x, found %#x", (double)f, want,
                          tlr_f32_to_f16(f));
        }
    }
    ck_assert_uint_eq(tlr_f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(tlr_f32_to_f16(65520), 0x7c00);
    ck_assert_uint_eq(tlr_f32_to_f16(3e38f), 0x7c00);
    ck_assert_uint_eq(tlr_f32_to_f16(-INFINITY), 0xfc00);
    ck_assert_uint_eq(tlr_f32_to_f16(float_of(1)), 0);
    ck_assert_uint_eq(tlr_f32_to_f16(-float_of(1)), 0x8000);
}
END_TEST

START_TEST(f16_random_bits)
{
    struct tlr_rng rng = {tlr_test_seed(), 0};
    for (int i = 0; i < 300000; i++) {
        float f = float_of((uint32_t)tlr_rng_u64(&rng) & 0x7fffffff);
        if (i % 2) /* half of them where f16 has numbers */
            f = fabsf(tlr_rng_normal(&rng)) * ldexpf(1, i % 32 - 24);
        if (isnan(f) || isinf(f))
            continue;
        ck_assert_uint_eq(tlr_f32_to_f16(f),
                          nearest((double)f, 0x7c00, f16_value));
    }
}
END_TEST

/* A second opinion where there is one; the search above needs none. */
#if defined(__FLT16_MAX__)
START_TEST(f16_as_the_compiler)
{
    for (unsigned h = 0; h < 65536; h++) {
        _Float16 native;
        uint16_t in = (uint16_t)h, out;
        memcpy(&native, &in, sizeof native);
        float f = tlr_f16_to_f32(in);
        if (isnan(f))
            continue;
        ck_assert_uint_eq(bits_of(f), bits_of((float)native));
        uint32_t next = bits_of(f) + 0x1000; /* ties of the normal numbers */
        for (uint32_t bits = next - 1; bits != next + 2; bits++) {
            if (isnan(float_of(bits)))
                continue;
            native = (_Float16)float_of(bits);
            memcpy(&out, &native, sizeof out);
            ck_assert_uint_eq(tlr_f32_to_f16(float_of(bits)), out);
        }
    }
}
END_TEST
#endif

START_TEST(bf16_every_value)
{
    for (unsigned h = 0; h < 65536; h++) {
        float got = tlr_bf16_to_f32((uint16_t)h);
        ck_assert_uint_eq(bits_of(got), h << 16);
        bool nan = (h & 0x7fff) > 0x7f80;
        ck_assert_uint_eq(tlr_f32_to_bf16(got), nan ? (h | 0x40) : h);
        if ((h & 0x7fff) >= 0x7f80)
            continue;
        ck_assert(((double)got == bf16_value(h)));
        uint32_t tie = (h & 0x7fff) << 16 | 0x8000;
        for (uint32_t bits = tie - 1; bits != tie + 2; bits++) {
            unsigned want = nearest((double)float_of(bits), 0x7f80, bf16_value);
            unsigned sign = h & 0x8000;
            ck_assert_uint_eq(tlr_f32_to_bf16(float_of(bits | sign << 16)),
                              want | sign);
        }
    }
}
END_TEST

Suite *suite_float16(void);
Suite *suite_float16(void)
{
    Suite *suite = suite_create("float16");
    TCase *tc = tcase_create("float16");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, f16_every_value);
    tcase_add_test(tc, f16_rounding);
    tcase_add_test(tc, f16_random_bits);
#if defined(__FLT16_MAX__)
    tcase_add_test(tc, f16_as_the_compiler);
#endif
    tcase_add_test(tc, bf16_every_value);
    suite_add_tcase(suite, tc);
    return suite;
}
