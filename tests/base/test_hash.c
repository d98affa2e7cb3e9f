/* test_hash.c - published vectors. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/support/tlr_check.h"

START_TEST(crc32_vectors)
{
    ck_assert_uint_eq(tlr_crc32(0, "123456789", 9), 0xcbf43926u);
    ck_assert_uint_eq(tlr_crc32(0, "", 0), 0);
    ck_assert_uint_eq(tlr_crc32(0, "a", 1), 0xe8b7be43u);
    uint32_t crc = tlr_crc32(0, "1234", 4);
    crc = tlr_crc32(crc, NULL, 0); /* nothing more is nothing changed */
    ck_assert_uint_eq(tlr_crc32(crc, "56789", 5), 0xcbf43926u);
}
END_TEST

static const struct {
    const char *unit;
    int times;
    const char *hex;
} sha[] = {
    /* FIPS 180-2, appendix B. */
    {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 1,
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"a", 1000000,
     "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};

START_TEST(sha256_vectors)
{
    size_t unit = strlen(sha[_i].unit), len = unit * (size_t)sha[_i].times;
    char *data = malloc(len + 1), hex[65];
    for (size_t i = 0; i < len; i++) {
        data[i] = sha[_i].unit[i % unit];
    }
    struct tlr_err err = TLR_ERR_INIT;
    for (size_t piece = len + 1; piece > 0; piece = piece / 2 / 4093) {
        struct tlr_sha256 *s = NULL; /* all at once, then in odd pieces */
        ck_assert_int_eq(tlr_sha256_begin(&s, &err), 0);
        for (size_t at = 0; at < len; at += piece) {
            size_t n = len - at < piece ? len - at : piece;
            ck_assert_int_eq(tlr_sha256_add(s, data + at, n, &err), 0);
        }
        ck_assert_int_eq(tlr_sha256_end(s, hex, &err), 0);
        ck_assert_str_eq(hex, sha[_i].hex);
    }
    free(data);
}
END_TEST

START_TEST(splitmix64_vectors)
{
    /* First outputs of the published generator started at 1234567. */
    const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                             9817491932198370423u, 4593380528125082431u,
                             16408922859458223821u};
    for (uint64_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(tlr_hash_u64(1234567, i), want[i]);
    }
}
END_TEST

START_TEST(fnv1a_vectors)
{
    ck_assert_uint_eq(tlr_hash_name(0, ""), 0xcbf29ce484222325u);
    ck_assert_uint_eq(tlr_hash_name(0, "a"), 0xaf63dc4c8601ec8cu);
    ck_assert_uint_eq(tlr_hash_name(0, "foobar"), 0x85944171f73967e8u);
    ck_assert_uint_ne(tlr_hash_name(1, "foobar"), tlr_hash_name(0, "foobar"));
    /* Bytes above 0x7f count as they are, on a signed char too. */
    ck_assert_uint_eq(tlr_hash_name(0, "\xff"),
                      (0xcbf29ce484222325u ^ 0xff) * 0x100000001b3u);
}
END_TEST

Suite *suite_hash(void);
Suite *suite_hash(void)
{
    Suite *s = suite_create("hash");
    TCase *t = tcase_create("hash");
    tcase_add_test(t, crc32_vectors);
    tcase_add_loop_test(t, sha256_vectors, 0, sizeof sha / sizeof sha[0]);
    tcase_add_test(t, splitmix64_vectors);
    tcase_add_test(t, fnv1a_vectors);
    suite_add_tcase(s, t);
    return s;
}
