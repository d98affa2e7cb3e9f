/* test_utf8.c - well-formed is what Unicode's table 3-7 and utf8proc say. */
#include <string.h>
#include <utf8proc.h>

#include "base/span.h"
#include "tests/support/tlr_check.h"

/* First and last of each length, and the edges of what is left out. */
static const struct {
    const char *bytes;
    bool good;
} forms[] = {
    {"", true},
    {"\x7f", true},
    {"\x80", false},
    {"\xbf", false},
    {"\xc0\x80", false},
    {"\xc1\xbf", false},
    {"\xc2\x7f", false},
    {"\xc2\x80", true},
    {"\xdf\xbf", true},
    {"\xdf\xc0", false},
    {"\xe0\x9f\xbf", false},
    {"\xe0\xa0\x80", true},
    {"\xed\x9f\xbf", true},
    {"\xed\xa0\x80", false},
    {"\xed\xbf\xbf", false},
    {"\xee\x80\x80", true},
    {"\xef\xbf\xbf", true},
    {"\xf0\x8f\xbf\xbf", false},
    {"\xf0\x90\x80\x80", true},
    {"\xf4\x8f\xbf\xbf", true},
    {"\xf4\x90\x80\x80", false},
    {"\xf5\x80\x80\x80", false},
    {"\xf8\x88\x80\x80\x80", false},
    {"\xfe", false},
    {"\xff", false},
};

enum { N_FORMS = sizeof forms / sizeof forms[0] };

START_TEST(boundary_forms)
{
    size_t len = strlen(forms[_i].bytes);
    uint8_t *p = tlr_test_guarded(len);
    memcpy(p, forms[_i].bytes, len);
    ck_assert(tlr_utf8_valid(p, len) == forms[_i].good);
    /* In every place of a longer text, so that the fast way meets it too. */
    for (size_t before = 0; before < 20; before++) {
        uint8_t *text = tlr_test_guarded(40);
        memset(text, 'a', 40);
        memcpy(text + before, p, len);
        ck_assert(tlr_utf8_valid(text, 40) == forms[_i].good);
    }
    /* Cut short, a sequence is never good, nor read past its end. */
    for (size_t cut = 1; cut < len; cut++) {
        uint8_t *part = tlr_test_guarded(cut);
        memcpy(part, forms[_i].bytes, cut);
        ck_assert(!tlr_utf8_valid(part, cut));
    }
}
END_TEST

START_TEST(zero_bytes_are_text)
{
    ck_assert(tlr_utf8_valid("a\0b", 3));
    ck_assert(tlr_utf8_valid(NULL, 0));
}
END_TEST

static bool peer_says_valid(const uint8_t *p, size_t len)
{
    while (len > 0) {
        utf8proc_int32_t code;
        utf8proc_ssize_t n = utf8proc_iterate(p, (utf8proc_ssize_t)len, &code);
        if (n < 1) {
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* Bytes at and around each bound of the table. */
static const uint8_t edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0,
                                0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
                                0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5,
                                0xff};

START_TEST(agrees_with_utf8proc)
{
    const size_t n = sizeof edges;
    int n_valid = 0;
    for (size_t i = 0; i < n * n * n * n; i++) {
        const uint8_t text[4] = {edges[i % n], edges[i / n % n],
                                 edges[i / n / n % n], edges[i / n / n / n]};
        for (size_t len = 1; len <= 4; len++) {
            bool valid = tlr_utf8_valid(text, len);
            n_valid += valid;
            ck_assert_msg(valid == peer_says_valid(text, len),
                          "%02x %02x %02x %02x, %zu bytes", text[0], text[1],
                          text[2], text[3], len);
        }
    }
    ck_assert_int_gt(n_valid, 1000);
}
END_TEST

START_TEST(every_code_point)
{
    for (utf8proc_int32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t text[4];
        if (c >= 0xd800 && c <= 0xdfff) {
            continue; /* surrogates have no form; boundary_forms has theirs */
        }
        utf8proc_ssize_t n = utf8proc_encode_char(c, text);
        if (!tlr_utf8_valid(text, (size_t)n)) {
            ck_abort_msg("U+%04X refused", (unsigned)c);
        }
    }
}
END_TEST

Suite *suite_utf8(void);
Suite *suite_utf8(void)
{
    Suite *s = suite_create("utf8");
    TCase *t = tcase_create("utf8");
    tcase_add_loop_test(t, boundary_forms, 0, N_FORMS);
    tcase_add_test(t, zero_bytes_are_text);
    tcase_add_test(t, agrees_with_utf8proc);
    tcase_add_test(t, every_code_point);
    suite_add_tcase(s, t);
    return s;
}
