/* test_unicode.c - the hand-written scanners against PCRE2 and utf8proc. */
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "engine/pretokenize.h"
#include "engine/tokenizer.h"
#include "engine/unicode.h"
#include "tests/support/tlr_check.h"

/* Alphabet of short texts: every class, every special case of the patterns, and
 * no character that PCRE2 10.42 and tokenizers see differently (U+180E). */
static const char *const alphabet[] = {
    " ", " ", "\n", "\r", "\t", "a", "S", "s", "t", "l", "L", "v", "e", "r",
    "'", "'", "1", "2", "!", ".", "\xc5\xbf", "\xc3\xa9", "\xcc\x81",
    "\xe3\x80\x80", "\xc2\xa0", "\xc2\x85", "\xe2\x80\xa8", "\xd9\xa3",
    "\xe4\xb8\xad", "\xf0\x9f\x99\x82", "\xc2\xbd", "\xe2\x80\x8b"};

static void check_pattern(uint32_t pre)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile(
        (PCRE2_SPTR)tlr_pretokenize_pattern(pre), PCRE2_ZERO_TERMINATED,
        PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    ck_assert_ptr_nonnull(re);
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(re, NULL);
    struct tlr_rng rng = {tlr_test_seed(), 0};
    for (int round = 0; round < 100000; round++) {
        char text[128] = "";
        int n = 1 + (int)(tlr_rng_u64(&rng) % 12);
        for (int i = 0; i < n; i++) {
            strcat(text, alphabet[tlr_rng_u64(&rng) %
                                  (sizeof alphabet / sizeof *alphabet)]);
        }
        size_t len = strlen(text);
        for (size_t pos = 0; pos < len;) {
            ck_assert_int_gt(pcre2_match(re, (PCRE2_SPTR)text, len, pos, 0,
                                         match, NULL), 0);
            PCRE2_SIZE *o = pcre2_get_ovector_pointer(match);
            ck_assert_uint_eq(o[0], pos);
            size_t end = tlr_pretokenize_next(pre, (const uint8_t *)text, len,
                                              pos);
            ck_assert_msg(end == o[1], "pre %u \"%s\" at %zu: expected %zu, "
                          "found %zu", pre, text, pos, (size_t)o[1], end);
            pos = end;
        }
    }
    pcre2_match_data_free(match);
    pcre2_code_free(re);
}

START_TEST(scanners_agree_with_pcre2)
{
    check_pattern(TLR_PRE_GPT2);
    check_pattern(TLR_PRE_QWEN2);
    check_pattern(TLR_PRE_LLAMA3);
}
END_TEST

/* Random sequences of characters that normalise: ours must be utf8proc's, as
 * none of these came after Unicode 9. */
START_TEST(nfc_agrees_with_utf8proc)
{
    static const uint32_t points[] = {
        'a', 'e', 'o', 0xe9, 0x1ea5, 0x300, 0x301, 0x302, 0x323, 0x327, 0x334,
        0x345, 0x315, 0x1100, 0x1161, 0x11a8, 0xac00, 0xac01, 0x212b, 0x2126,
        0x9c7, 0x9be, 0x9d7, 0xb47, 0xb57, 0x3b1, 0x313, 0x342, 0x1f00, 0xf900,
        0x304b, 0x3099, 0x958, 0x93c, 0x915, 0x5d0, 0x5b7, 0xfb2e, 0x1d15e,
        0x2f800, 0x4e2d, 0x627, 0x653, 0x654, 0x64b, 0x340, 0xf73, 0xf71};
    struct tlr_rng rng = {tlr_test_seed(), 0};
    struct tlr_nfc w = {0};
    for (int round = 0; round < 50000; round++) {
        uint8_t text[400];
        size_t len = 0;
        int n = 1 + (int)(tlr_rng_u64(&rng) % (round % 100 == 0 ? 90 : 8));
        for (int i = 0; i < n; i++) {
            len += (size_t)utf8proc_encode_char(
                (utf8proc_int32_t)points[tlr_rng_u64(&rng) %
                                         (sizeof points / sizeof *points)],
                text + len);
        }
        struct tlr_bytes out;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_int_eq(tlr_nfc_normalize(&w, text, len, &out, &err), 0);
        utf8proc_uint8_t *want;
        utf8proc_ssize_t n_want =
            utf8proc_map(text, (utf8proc_ssize_t)len, &want,
                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        ck_assert_int_ge(n_want, 0);
        ck_assert_uint_eq(out.len, (size_t)n_want);
        ck_assert_mem_eq(out.ptr, want, out.len);
        free(want);
    }
    tlr_nfc_clear(&w);
}
END_TEST

/* Any way of cutting the bytes gives the same text, valid UTF-8 at every step,
 * and the text itself when it was valid. */
START_TEST(stream_never_breaks_a_character)
{
    struct tlr_rng rng = {tlr_test_seed(), 0};
    static const char valid[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82z";
    for (int round = 0; round < 5000; round++) {
        uint8_t in[24];
        size_t len = round % 2 ? sizeof valid - 1 : sizeof in, n_out = 0;
        char out[128];
        for (size_t i = 0; i < len; i++) {
            in[i] = round % 2 ? (uint8_t)valid[i]
                              : (uint8_t)(0x70 + tlr_rng_u64(&rng) % 0x90);
        }
        struct tlr_utf8_stream s = {0};
        for (size_t i = 0; i < len;) {
            size_t n = 1 + tlr_rng_u64(&rng) % 5, got;
            n = n > len - i ? len - i : n;
            tlr_utf8_stream_push(&s, (struct tlr_bytes){in + i, n}, false,
                                 out + n_out, &got);
            ck_assert(tlr_utf8_valid(out + n_out, got));
            n_out += got;
            i += n;
        }
        size_t got;
        tlr_utf8_stream_push(&s, (struct tlr_bytes){NULL, 0}, true, out + n_out,
                             &got);
        n_out += got;
        ck_assert(tlr_utf8_valid(out, n_out));
        if (round % 2) {
            ck_assert_uint_eq(n_out, len);
            ck_assert_mem_eq(out, in, len);
        }
    }
}
END_TEST

START_TEST(broken_sequences_become_one_replacement_each)
{
    struct tlr_utf8_stream s = {0};
    char out[64];
    size_t n;
    struct tlr_bytes in = {(const uint8_t *)"\xe4\xb8x\xc0\xed\xa0y", 7};
    tlr_utf8_stream_push(&s, in, true, out, &n);
    out[n] = 0;
    ck_assert_str_eq(out, "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdy");
}
END_TEST

Suite *suite_unicode(void);
Suite *suite_unicode(void)
{
    Suite *s = suite_create("unicode");
    TCase *c = tcase_create("unicode");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, scanners_agree_with_pcre2);
    tcase_add_test(c, nfc_agrees_with_utf8proc);
    tcase_add_test(c, stream_never_breaks_a_character);
    tcase_add_test(c, broken_sequences_become_one_replacement_each);
    suite_add_tcase(s, c);
    return s;
}
