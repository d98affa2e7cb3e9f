/* test_safetensors.c - the rules of the format: one good file, one bad file per
 * rule.  The same good file was read by the reference implementation through
 * the golden folders (test_hf.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/safetensors.h"
#include "tests/convert/helpers.h"
#include "tests/support/tlr_check.h"

#define GOOD_A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"
#define GOOD_B "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]}"

static struct bytes file_of(const char *header, uint64_t header_len,
                            size_t data_len)
{
    struct bytes b = {0};
    put_u64(&b, header_len);
    put(&b, header, strlen(header));
    for (size_t i = 0; i < data_len; i++) {
        put(&b, "\1", 1);
    }
    uint8_t *exact = malloc(b.len); /* of exactly this size, for ASan */
    memcpy(exact, b.data, b.len);
    free(b.data);
    b.data = exact;
    return b;
}

static int parse(struct tlr_safetensors *s, const char *header,
                 size_t data_len, struct tlr_err *err)
{
    struct bytes b = file_of(header, strlen(header), data_len);
    int rc = tlr_safetensors_parse(s, b.data, b.len, "m.safetensors", err);
    tlr_safetensors_clear(s);
    free(b.data);
    return rc;
}

START_TEST(good_file)
{
    const char *header = "{" GOOD_B ",\"__metadata__\":{\"format\":\"pt\"},"
                         GOOD_A "}   ";
    struct bytes b = file_of(header, strlen(header), 22);
    struct tlr_safetensors s;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_safetensors_parse(&s, b.data, b.len, "m", &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(s.n, 2);
    ck_assert_str_eq(s.tensors[0].name, "a"); /* in the order of the data */
    ck_assert_str_eq(s.tensors[1].dtype, "BF16");
    ck_assert_uint_eq(s.tensors[0].shape[1], 2);
    ck_assert_uint_eq(s.tensors[1].n_bytes, 6);
    ck_assert_ptr_eq(s.tensors[1].data + 6, b.data + b.len);
    tlr_safetensors_clear(&s);
    free(b.data);
}
END_TEST

/* Rank 0, empty tensors and sub-byte types are legal. */
START_TEST(legal_oddities)
{
    static const struct {
        const char *header;
        size_t data_len;
    } rows[] = {
        {"{}", 0},
        {"{\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8},
        {"{\"e\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[0,0]},"
         GOOD_A "}", 16},
        {"{" GOOD_A ",\"e\":{\"dtype\":\"I8\",\"shape\":[0],"
         "\"data_offsets\":[16,16]}}", 16},
        {"{\"f\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[0,3]}}", 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tlr_safetensors s;
        struct tlr_err err = TLR_ERR_INIT;
        int rc = parse(&s, rows[i].header, rows[i].data_len, &err);
        ck_assert_msg(rc == 0, "%s: %s", rows[i].header, err.text);
    }
}
END_TEST

#define ONE(dtype, shape, offsets)                                             \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets \
    "}}"

static const struct bad {
    const char *header;
    size_t data_len;
    int code;
    const char *part;
} bad_headers[] = {
    /* JSON */
    {"[]", 0, TLR_EFORMAT, "begins with '{'"},
    {" {}", 0, TLR_EFORMAT, "begins with '{'"},
    {"{", 0, TLR_EFORMAT, "begins with '{'"},
    {"{\"a\"", 0, TLR_EFORMAT, "not valid JSON"},
    {"{} x", 0, TLR_EFORMAT, "not valid JSON"},
    {"{" GOOD_A "," GOOD_A "}", 16, TLR_EFORMAT, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0, TLR_EFORMAT, "duplic"},
    {"{\"a\\u0000b\":{}}", 0, TLR_EFORMAT, "not valid JSON"},
    {"{\"\xff\":{}}", 0, TLR_EFORMAT, "not valid JSON"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
     TLR_EFORMAT, "names of 1..255 bytes"},
    {"{\"a\":[]}", 0, TLR_EFORMAT, "expected an object with dtype"},
    {"{\"a\":{}}", 0, TLR_EFORMAT, "dtype (missing)"},
    {"{\"__metadata__\":[]}", 0, TLR_EFORMAT, "object of strings"},
    {"{\"__metadata__\":{\"a\":1}}", 0, TLR_EFORMAT, "object of strings"},
    /* dtype, shape */
    {ONE("\"F33\"", "[1]", "[0,4]"), 4, TLR_EFORMAT, "dtype F33"},
    {ONE("7", "[1]", "[0,4]"), 4, TLR_EFORMAT, "dtype (missing)"},
    {ONE("\"F32\"", "4", "[0,16]"), 16, TLR_EFORMAT, "shape: expected a list"},
    {ONE("\"F32\"", "[-1]", "[0,4]"), 4, TLR_EFORMAT, "shape: expected a list"},
    {ONE("\"F32\"", "[1.0]", "[0,4]"), 4, TLR_EFORMAT, "shape: expected a list"},
    {ONE("\"F32\"", "[true]", "[0,4]"), 4, TLR_EFORMAT, "shape: expected a lis"},
    {ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, TLR_EFORMAT, "up to 8"},
    {ONE("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, TLR_EFORMAT,
     "overflows"},
    {ONE("\"F32\"", "[9223372036854775807,9]", "[0,4]"), 4, TLR_EFORMAT,
     "overflows"},
    {ONE("\"F32\"", "[99999999999999999999]", "[0,4]"), 4, TLR_EFORMAT,
     "shape: expected a list"},
    {ONE("\"F4\"", "[3]", "[0,2]"), 2, TLR_EFORMAT, "whole bytes"},
    /* offsets */
    {ONE("\"F32\"", "[1]", "[0]"), 4, TLR_EFORMAT, "data_offsets: expected"},
    {ONE("\"F32\"", "[1]", "[0,4,8]"), 4, TLR_EFORMAT, "data_offsets: expecte"},
    {ONE("\"F32\"", "[1]", "[4,0]"), 4, TLR_EFORMAT, "found [4, 0]"},
    {ONE("\"F32\"", "[1]", "[-4,0]"), 4, TLR_EFORMAT, "data_offsets: expected"},
    {ONE("\"F32\"", "[1]", "[0,\"4\"]"), 4, TLR_EFORMAT, "data_offsets: expec"},
    {ONE("\"F32\"", "[2]", "[0,8]"), 4, TLR_EFORMAT, "<= 4, found [0, 8]"},
    {ONE("\"F32\"", "[1]", "[9223372036854775803,9223372036854775807]"), 4,
     TLR_EFORMAT, "begin <= end <= 4"},
    {ONE("\"F32\"", "[2]", "[0,4]"), 4, TLR_EFORMAT, "expected 8 bytes"},
    /* data: first byte, holes, overlap, last byte */
    {ONE("\"F32\"", "[1]", "[4,8]"), 8, TLR_EFORMAT, "data at byte 0"},
    {"{" GOOD_A ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
     "\"data_offsets\":[18,20]}}", 20, TLR_EFORMAT, "expected its data at"},
    {"{" GOOD_A ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],"
     "\"data_offsets\":[12,20]}}", 20, TLR_EFORMAT, "expected its data at"},
    {"{" GOOD_A "," GOOD_B "}", 23, TLR_EFORMAT, "expected 22 bytes of data"},
    {"{}", 1, TLR_EFORMAT, "expected 0 bytes of data"},
};

START_TEST(bad_header)
{
    const struct bad *row = &bad_headers[_i];
    struct tlr_safetensors s;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = parse(&s, row->header, row->data_len, &err);
    expect_error(row->header, rc, &err, row->code, row->part);
    expect_error(row->header, rc, &err, row->code, "m.safetensors: ");
}
END_TEST

START_TEST(bad_length)
{
    const uint64_t lengths[] = {0, 1, 3, 100000001, UINT64_MAX, UINT64_MAX - 7,
                                (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct bytes b = file_of("{}", lengths[i], 0);
        struct tlr_safetensors s;
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_safetensors_parse(&s, b.data, b.len, "m", &err);
        expect_error("length", rc, &err, TLR_EFORMAT,
                     lengths[i] < 2 ? "begins with '{'" : "header length");
        tlr_safetensors_clear(&s);
        free(b.data);
    }
    for (size_t len = 0; len < 8; len++) {
        uint8_t *few = calloc(len + !len, 1);
        struct tlr_safetensors s;
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_safetensors_parse(&s, few, len, "m", &err);
        expect_error("short", rc, &err, TLR_EFORMAT, "header length");
        tlr_safetensors_clear(&s);
        free(few);
    }
}
END_TEST

START_TEST(deep_header)
{
    struct bytes h = {0};
    put(&h, "{\"a\":", 5);
    for (int i = 0; i < 70; i++) {
        put(&h, "[", 1);
    }
    for (int i = 0; i < 70; i++) {
        put(&h, "]", 1);
    }
    put(&h, "}", 2);
    struct tlr_safetensors s;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = parse(&s, (const char *)h.data, 0, &err);
    expect_error("depth", rc, &err, TLR_ELIMIT, "nested 71 levels");
    free(h.data);
}
END_TEST

START_TEST(out_of_memory)
{
    for (long k = 0;; k++) {
        struct tlr_safetensors s;
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        int rc = parse(&s, "{" GOOD_A "," GOOD_B "}", 22, &err);
        tlr_mem_fail_after(-1);
        if (rc == 0) {
            ck_assert_int_ge(k, 3);
            break;
        }
        ck_assert_int_eq(rc, TLR_ENOMEM);
    }
}
END_TEST

Suite *suite_safetensors(void);
Suite *suite_safetensors(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tc = tcase_create("safetensors");
    tcase_add_test(tc, good_file);
    tcase_add_test(tc, legal_oddities);
    tcase_add_loop_test(tc, bad_header, 0,
                        (int)(sizeof bad_headers / sizeof *bad_headers));
    tcase_add_test(tc, bad_length);
    tcase_add_test(tc, deep_header);
    tcase_add_test(tc, out_of_memory);
    suite_add_tcase(suite, tc);
    return suite;
}
