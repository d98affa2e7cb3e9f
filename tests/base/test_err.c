/* test_err.c - first error wins, one clean line, whatever the bytes are. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "tests/support/tlr_check.h"

START_TEST(first_wins)
{
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_err_set(&err, TLR_EFORMAT, "a.bin: %d", 7),
                     TLR_EFORMAT);
    ck_assert_int_eq(tlr_err_set(&err, TLR_EIO, "later"), TLR_EIO);
    ck_assert_int_eq(tlr_err_set_errno(&err, TLR_EIO, EIO, "later"), TLR_EIO);
    ck_assert_int_eq(tlr_err_nomem(&err, "later", 1), TLR_ENOMEM);
    ck_assert_int_eq(err.code, TLR_EFORMAT);
    ck_assert_str_eq(err.text, "a.bin: 7");
    tlr_err_clear(&err);
    ck_assert_int_eq(err.code, 0);
    ck_assert_str_eq(err.text, "");
    ck_assert_int_eq(tlr_err_nomem(&err, "map", 12), TLR_ENOMEM);
    ck_assert_str_eq(err.text, "map: out of memory for 12 bytes");
}
END_TEST

START_TEST(null_is_allowed)
{
    ck_assert_int_eq(tlr_err_set(NULL, TLR_EIO, "x"), TLR_EIO);
    ck_assert_int_eq(tlr_err_set_errno(NULL, TLR_EIO, EIO, "x"), TLR_EIO);
    ck_assert_int_eq(tlr_err_nomem(NULL, "x", 1), TLR_ENOMEM);
}
END_TEST

START_TEST(own_text_as_argument)
{
    struct tlr_err err = TLR_ERR_INIT, outer = TLR_ERR_INIT;
    tlr_err_set(&err, TLR_EIO, "inner");
    tlr_err_set(&outer, err.code, "outer: %s", err.text);
    ck_assert_str_eq(outer.text, "outer: inner");
}
END_TEST

START_TEST(long_text_ends_in_dots)
{
    char text[2 * TLR_ERR_TEXT_BYTES];
    size_t max = TLR_ERR_TEXT_BYTES - 1;
    for (size_t len = max - 2; len <= max + 3; len++) {
        struct tlr_err err = TLR_ERR_INIT;
        memset(text, 'x', len);
        text[len] = '\0';
        tlr_err_set(&err, TLR_EIO, "%s", text);
        if (len <= max) {
            ck_assert_str_eq(err.text, text);
        } else {
            ck_assert_uint_eq(strlen(err.text), max);
            ck_assert_str_eq(err.text + max - 4, "x...");
        }
    }
}
END_TEST

/* A cut may fall on any byte of a character; none may be left in part. */
START_TEST(cut_keeps_characters_whole)
{
    char text[2 * TLR_ERR_TEXT_BYTES];
    for (size_t shift = 0; shift < 4; shift++) {
        struct tlr_err err = TLR_ERR_INIT;
        memset(text, 'x', sizeof text);
        for (size_t i = shift; i + 4 < sizeof text; i += 4) {
            memcpy(text + i, "\xf0\x9f\x98\x80", 4);
        }
        text[sizeof text - 1] = '\0';
        tlr_err_set(&err, TLR_EIO, "%s", text);
        size_t len = strlen(err.text);
        ck_assert_str_eq(err.text + len - 3, "...");
        ck_assert_uint_eq((len - 3 - shift) % 4, 0);
        ck_assert_uint_gt(len, TLR_ERR_TEXT_BYTES - 8);
    }
}
END_TEST

START_TEST(controls_are_replaced)
{
    struct tlr_err err = TLR_ERR_INIT;
    tlr_err_set(&err, TLR_EFORMAT, "%s",
                "a\x1b[2Jb\nc\td\x7f"
                "e\xc2\x9b"
                "f\xc2\xa0\xe4\xb8\xad");
    ck_assert_str_eq(err.text, "a?[2Jb?c?d?e??f\xc2\xa0\xe4\xb8\xad");
    for (int c = 1; c < 0x20; c++) {
        struct tlr_err one = TLR_ERR_INIT;
        tlr_err_set(&one, TLR_EFORMAT, "<%c>", c);
        ck_assert_str_eq(one.text, "<?>");
    }
}
END_TEST

START_TEST(errno_is_named)
{
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_err_set_errno(&err, TLR_EIO, ENOSPC, "%s", "m.bin"),
                     TLR_EIO);
    ck_assert_str_eq(err.text, "m.bin: No space left on device");
    char text[2 * TLR_ERR_TEXT_BYTES];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    tlr_err_clear(&err);
    tlr_err_set_errno(&err, TLR_EIO, ENOSPC, "%s", text);
    ck_assert_ptr_nonnull(strstr(err.text, "x...: No space left on device"));
    tlr_err_clear(&err);
    tlr_err_set_errno(&err, TLR_EIO, 99999, "odd");
    ck_assert_ptr_eq(strstr(err.text, "odd: "), err.text);
    ck_assert_uint_gt(strlen(err.text), 5);
}
END_TEST

START_TEST(codes_have_names)
{
    ck_assert_str_eq(tlr_err_name(TLR_EIO), "TLR_EIO");
    ck_assert_str_eq(tlr_err_name(0), "TLR_OK");
    ck_assert_str_eq(tlr_err_generic(TLR_ENOMEM), "out of memory");
    ck_assert_ptr_nonnull(tlr_err_name(12345));
    ck_assert_ptr_nonnull(tlr_err_generic(12345));
#define NEGATIVE(name, code, text) ck_assert_int_lt(name, 0);
    TLR_ERRORS(NEGATIVE)
#undef NEGATIVE
}
END_TEST

Suite *suite_err(void);
Suite *suite_err(void)
{
    Suite *s = suite_create("err");
    TCase *t = tcase_create("err");
    tcase_add_test(t, first_wins);
    tcase_add_test(t, null_is_allowed);
    tcase_add_test(t, own_text_as_argument);
    tcase_add_test(t, long_text_ends_in_dots);
    tcase_add_test(t, cut_keeps_characters_whole);
    tcase_add_test(t, controls_are_replaced);
    tcase_add_test(t, errno_is_named);
    tcase_add_test(t, codes_have_names);
    suite_add_tcase(s, t);
    return s;
}
