/* test_format.c - FORMAT.md's numbers, written out once more.
 *
 * Nothing of layout.h is used here, so that a constant changed there by mistake
 * does not change writer and reader alike and go unseen. */
#include <zlib.h>

#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/weights/tiny.h"

static uint64_t le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    while (n-- > 0) {
        v = v << 8 | p[n];
    }
    return v;
}

static uint32_t crc(const uint8_t *p, uint64_t n)
{
    return (uint32_t)crc32_z(0, p, (size_t)n);
}

static uint64_t mix(uint64_t s, uint64_t i)
{
    uint64_t z = s + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t fnv(const uint8_t *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) {
        h = (h ^ *name) * 0x100000001b3u;
    }
    return h;
}

START_TEST(header)
{
    static const uint8_t magic[] = {0x89, 'T', 'L', 'R', 13, 10, 26, 10};
    static const uint8_t mark[] = {4, 3, 2, 1};
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, TLR_Q8);
    size_t len;
    uint8_t *p = tiny_image(&t, &len);
    ck_assert_mem_eq(p, magic, 8);
    ck_assert_uint_eq(le(p + 8, 4), 1);
    ck_assert_uint_eq(le(p + 12, 4), 1);
    ck_assert_mem_eq(p + 16, mark, 4);
    ck_assert_uint_eq(le(p + 20, 4), 0);
    ck_assert_uint_eq(le(p + 24, 8), len);
    ck_assert_uint_eq(le(p + 32, 4), 6);
    ck_assert_uint_eq(le(p + 36, 4), 27);
    ck_assert_uint_eq(le(p + 40, 4), crc(p + 128, 512 + 64 * 27));
    for (int i = 44; i < 124; i++) {
        ck_assert_uint_eq(p[i], 0);
    }
    ck_assert_uint_eq(le(p + 124, 4), crc(p, 124));
    tlr_free(p);
}
END_TEST

START_TEST(sections_and_tensors)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, TLR_Q8);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    size_t len;
    uint8_t *p = tiny_image(&t, &len);
    const uint8_t flags[] = {1, 1, 1, 1, 0, 0};
    uint64_t at = 640 + 64 * 27, h = 0;
    for (unsigned i = 0; i < 6; i++) {
        const uint8_t *slot = p + 128 + 32 * i;
        at = (at + 63) / 64 * 64;
        ck_assert_uint_eq(le(slot, 4), i + 1);
        ck_assert_uint_eq(le(slot + 4, 4), flags[i]);
        ck_assert_uint_eq(le(slot + 8, 8), at);
        ck_assert_uint_eq(le(slot + 24, 4), crc(p + at, le(slot + 16, 8)));
        ck_assert_uint_eq(le(slot + 28, 4), 0);
        if (i == 0) {
            ck_assert_uint_eq(le(slot + 16, 8), 64);
            h = mix(0, le(slot + 24, 4));
        }
        at += le(slot + 16, 8);
    }
    for (unsigned i = 0; i < 27; i++) {
        const uint8_t *entry = p + 640 + 64 * i;
        uint64_t rows = le(entry + 36, 4), cols = le(entry + 40, 4);
        uint64_t type = le(entry + 32, 4);
        at = (at + 63) / 64 * 64;
        ck_assert_uint_eq(le(entry + 48, 8), at);
        ck_assert_uint_eq(le(entry + 56, 8),
                          type == 2 ? (rows + 15) / 16 * (cols / 32) * 544
                                    : 4 * rows * cols);
        ck_assert_uint_eq(le(entry + 44, 4), crc(p + at, le(entry + 56, 8)));
        h = mix(h, fnv(entry));
        h = mix(h, type << 32 | le(entry + 44, 4));
        at += le(entry + 56, 8);
    }
    ck_assert_uint_eq(at, len);
    ck_assert_msg(tlr_file_open_bytes(&f, p, len, "tiny", &err) == 0, "%s",
                  err.text);
    ck_assert_uint_eq(tlr_file_fingerprint(f), h);
    tlr_file_close(f);
    tlr_free(p);
}
END_TEST

START_TEST(config_words)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, TLR_Q8);
    const uint32_t words[] = {2, 1, 32, 64, 2, 4, 2, 8, 20, 128, 0x358637bdu,
                              0x461c4000u};
    size_t len;
    uint8_t *p = tiny_image(&t, &len);
    for (unsigned i = 0; i < 12; i++) {
        ck_assert_uint_eq(le(p + 640 + 64 * 27 + 4 * i, 4), words[i]);
    }
    ck_assert_str_eq((char *)p + 640, "embed");
    ck_assert_str_eq((char *)p + 640 + 64 * 26, "blk.1.down");
    tlr_free(p);
}
END_TEST

Suite *suite_format(void);
Suite *suite_format(void)
{
    Suite *s = suite_create("format");
    TCase *tc = tcase_create("model_file");
    tcase_add_test(tc, header);
    tcase_add_test(tc, sections_and_tensors);
    tcase_add_test(tc, config_words);
    suite_add_tcase(s, tc);
    return s;
}
