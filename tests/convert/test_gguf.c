/* test_gguf.c - the GGUF directory: a small good file, and one bad file of each
 * class that has ever hurt a reader of this format.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/gguf.h"
#include "tests/convert/helpers.h"
#include "tests/support/tlr_check.h"

/* ---- a good file, in parts that a test can replace ---- */

struct parts {
    uint32_t version;
    uint64_t n_tensors, n_kv;
    struct bytes kv, tensors, data;
    uint32_t alignment;
    const char *magic;
};

static void put_kv_u32(struct bytes *b, const char *key, uint32_t value)
{
    put_string(b, key);
    put_u32(b, TLR_GGUF_U32);
    put_u32(b, value);
}

static void put_tensor(struct bytes *b, const char *name, uint32_t n_dims,
                       const uint64_t *ne, uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t d = 0; d < n_dims && d < 8; d++) {
        put_u64(b, ne[d]);
    }
    put_u32(b, type);
    put_u64(b, offset);
}

/* Two keys, a Q4_0 matrix [3,64] (108 bytes) and an f32 vector [8]. */
static void begin_good(struct parts *p)
{
    memset(p, 0, sizeof *p);
    p->magic = "GGUF";
    p->version = 3;
    p->alignment = 32;
    put_kv_u32(&p->kv, "answer", 42);
    put_string(&p->kv, "words");
    put_u32(&p->kv, TLR_GGUF_ARRAY);
    put_u32(&p->kv, TLR_GGUF_STRING);
    put_u64(&p->kv, 2);
    put_string(&p->kv, "one");
    put_string(&p->kv, "");
    p->n_kv = 2;
    put_tensor(&p->tensors, "matrix", 2, (uint64_t[]){64, 3}, 2, 0);
    put_tensor(&p->tensors, "vector", 1, (uint64_t[]){8}, 0, 128);
    p->n_tensors = 2;
    uint8_t zeros[160] = {0};
    put(&p->data, zeros, sizeof zeros);
}

static struct bytes join_parts(struct parts *p)
{
    struct bytes b = {0};
    put(&b, p->magic, 4);
    put_u32(&b, p->version);
    put_u64(&b, p->n_tensors);
    put_u64(&b, p->n_kv);
    put(&b, p->kv.data, p->kv.len);
    put(&b, p->tensors.data, p->tensors.len);
    while (p->data.len > 0 && b.len % p->alignment != 0) {
        put(&b, "", 1);
    }
    put(&b, p->data.data, p->data.len);
    free(p->kv.data);
    free(p->tensors.data);
    free(p->data.data);
    return b;
}

/* Parses memory of exactly this size, so that ASan sees a read past it. */
static int parse(struct tlr_gguf *g, struct bytes *b, struct tlr_err *err)
{
    uint8_t *exact = malloc(b->len ? b->len : 1);
    if (b->len) {
        memcpy(exact, b->data, b->len);
    }
    free(b->data);
    b->data = exact;
    return tlr_gguf_parse(g, b->data, b->len, "f.gguf", err);
}

static void expect_bad(const char *what, struct parts *p, int code,
                       const char *part)
{
    struct bytes b = join_parts(p);
    struct tlr_gguf g;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = parse(&g, &b, &err);
    expect_error(what, rc, &err, code, part);
    expect_error(what, rc, &err, code, "f.gguf: ");
    tlr_gguf_clear(&g);
    free(b.data);
}

START_TEST(good_file)
{
    for (uint32_t version = 2; version <= 3; version++) {
        struct parts p;
        begin_good(&p);
        p.version = version;
        struct bytes b = join_parts(&p);
        struct tlr_gguf g;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_msg(parse(&g, &b, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(g.n_tensors, 2);
        ck_assert_str_eq(g.tensors[0].name, "matrix");
        ck_assert_uint_eq(g.tensors[0].n_bytes, 108);
        ck_assert_uint_eq(g.tensors[1].ne[0], 8);
        ck_assert_int_eq(g.tensors[1].data - g.tensors[0].data, 128);
        ck_assert_ptr_eq(g.tensors[1].data + 32, b.data + b.len);
        uint64_t answer = 0;
        ck_assert_int_eq(
            tlr_gguf_get_u64(&g, "answer", true, 100, &answer, &err), 0);
        ck_assert_uint_eq(answer, 42);
        struct tlr_gguf_kv words;
        ck_assert_int_eq(tlr_gguf_get_array(&g, "words", true, TLR_GGUF_STRING,
                                            &words, &err), 0);
        struct tlr_span s = tlr_span_of(words.data.ptr, words.data.len);
        ck_assert_uint_eq(tlr_gguf_next_string(&s).len, 3);
        ck_assert_uint_eq(tlr_gguf_next_string(&s).len, 0);
        ck_assert(!s.bad && tlr_span_left(&s) == 0);
        tlr_gguf_clear(&g);
        free(b.data);
    }
}
END_TEST

/* Any shorter file is refused, and none is read past its end. */
START_TEST(every_truncation)
{
    struct parts p;
    begin_good(&p);
    struct bytes whole = join_parts(&p);
    for (size_t len = 0; len < whole.len; len++) {
        struct bytes b = {0};
        put(&b, whole.data, len);
        struct tlr_gguf g;
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_int_ne(parse(&g, &b, &err), 0);
        tlr_gguf_clear(&g);
        free(b.data);
    }
    free(whole.data);
}
END_TEST

START_TEST(bad_header)
{
    struct parts p;
    begin_good(&p);
    p.magic = "GGML";
    expect_bad("magic", &p, TLR_EFORMAT, "expected a GGUF file");
    const uint32_t versions[] = {0, 1, 4, UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        begin_good(&p);
        p.version = versions[i];
        expect_bad("version", &p, TLR_EUNSUPPORTED, "GGUF version 2 or 3");
    }
    begin_good(&p);
    p.version = 0x03000000;
    expect_bad("endian", &p, TLR_EUNSUPPORTED, "big-endian");
    const uint64_t counts[] = {1000, UINT64_MAX, (uint64_t)1 << 61};
    for (int i = 0; i < 3; i++) {
        begin_good(&p);
        p.n_kv = counts[i];
        expect_bad("n_kv", &p, TLR_EFORMAT, "metadata keys cannot be");
        begin_good(&p);
        p.n_tensors = counts[i];
        expect_bad("n_tensors", &p, TLR_EFORMAT, "tensors cannot be");
    }
}
END_TEST

/* What follows the two good keys as a third. */
static void expect_bad_key(const char *what, const char *key, size_t key_len,
                           const struct bytes *value, const char *part)
{
    struct parts p;
    begin_good(&p);
    put_u64(&p.kv, key_len);
    put(&p.kv, key, strlen(key));
    put(&p.kv, value->data, value->len);
    p.n_kv++;
    expect_bad(what, &p, TLR_EFORMAT, part);
}

START_TEST(bad_keys)
{
    struct bytes v = {0};
    put_u32(&v, TLR_GGUF_U32);
    put_u32(&v, 1);
    expect_bad_key("duplicate", "answer", 6, &v, "key answer appears twice");
    expect_bad_key("empty name", "", 0, &v, "1..255 bytes");
    expect_bad_key("huge name", "x", (uint64_t)1 << 40, &v, "1..255 bytes");
    expect_bad_key("not UTF-8", "\xff\xfe", 2, &v, "not UTF-8");
    v.len = 0;
    put_u32(&v, 13);
    put_u32(&v, 1);
    expect_bad_key("value type", "x", 1, &v, "value type of 0..12");
    v.len = 0;
    put_u32(&v, UINT32_MAX);
    expect_bad_key("negative type", "x", 1, &v, "value type of 0..12");
    v.len = 0;
    put_u32(&v, TLR_GGUF_STRING);
    put_u64(&v, (uint64_t)1 << 62);
    expect_bad_key("long string", "x", 1, &v, "do not fit the file");
    v.len = 0;
    put_u32(&v, TLR_GGUF_BOOL);
    put(&v, "\2", 1);
    expect_bad_key("bool of 2", "x", 1, &v, "malformed");
    free(v.data);
}
END_TEST

START_TEST(bad_arrays)
{
    struct bytes v = {0};
    const uint64_t counts[] = {(uint64_t)1 << 63, UINT64_MAX, 1000000,
                               ((uint64_t)1 << 61) + 1};
    for (uint32_t type = 0; type < TLR_N_GGUF_TYPES; type++) {
        for (int i = 0; i < 4; i++) {
            v.len = 0;
            put_u32(&v, TLR_GGUF_ARRAY);
            put_u32(&v, type);
            put_u64(&v, counts[i]);
            expect_bad_key("array", "x", 1, &v, "do not fit the file");
        }
    }
    v.len = 0;
    put_u32(&v, TLR_GGUF_ARRAY);
    put_u32(&v, 99);
    put_u64(&v, 0);
    expect_bad_key("element type", "x", 1, &v, "value type of 0..12");
    v.len = 0;
    put_u32(&v, TLR_GGUF_ARRAY); /* arrays of one array, 40 levels deep */
    for (int i = 0; i < 40; i++) {
        put_u32(&v, TLR_GGUF_ARRAY);
        put_u64(&v, 1);
    }
    put_u32(&v, TLR_GGUF_U8);
    put_u64(&v, 0);
    expect_bad_key("nesting", "x", 1, &v, "nest too deep");
    free(v.data);
}
END_TEST

START_TEST(bad_alignment)
{
    const uint32_t bad[] = {0, 3, 33, UINT32_MAX, 1u << 21};
    for (int i = 0; i < 5; i++) {
        struct parts p;
        begin_good(&p);
        put_kv_u32(&p.kv, "general.alignment", bad[i]);
        p.n_kv++;
        expect_bad("alignment", &p, TLR_EFORMAT, "general.alignment");
    }
    struct parts p;
    begin_good(&p);
    put_string(&p.kv, "general.alignment");
    put_u32(&p.kv, TLR_GGUF_STRING);
    put_string(&p.kv, "32");
    p.n_kv++;
    expect_bad("alignment type", &p, TLR_EFORMAT, "expected an integer");
}
END_TEST

/* A third tensor behind the two good ones. */
static void expect_bad_tensor(const char *what, const char *name,
                              uint32_t n_dims, const uint64_t *ne,
                              uint32_t type, uint64_t offset, int code,
                              const char *part)
{
    struct parts p;
    begin_good(&p);
    put_tensor(&p.tensors, name, n_dims, ne, type, offset);
    p.n_tensors++;
    expect_bad(what, &p, code, part);
}

START_TEST(bad_tensors)
{
    const uint64_t max = UINT64_MAX, big = (uint64_t)1 << 62;
    const struct {
        const char *what, *name;
        uint32_t n_dims;
        uint64_t ne[4];
        uint32_t type;
        uint64_t offset;
        int code;
        const char *part;
    } rows[] = {
        {"duplicate", "vector", 1, {8}, 0, 160, TLR_EFORMAT, "its data in bytes"},
        {"no name", "", 1, {8}, 0, 160, TLR_EFORMAT, "1..255 bytes"},
        {"no dims", "t", 0, {8}, 0, 160, TLR_EFORMAT, "1..4 dimensions"},
        {"five dims", "t", 5, {8, 1, 1, 1}, 0, 160, TLR_EFORMAT, "1..4 dim"},
        {"dims", "t", UINT32_MAX, {8}, 0, 160, TLR_EFORMAT, "1..4 dimensions"},
        {"zero", "t", 2, {8, 0}, 0, 160, TLR_EFORMAT, "impossible"},
        {"negative", "t", 2, {8, max}, 0, 160, TLR_EFORMAT, "impossible"},
        {"product", "t", 2, {big, 8}, 0, 160, TLR_EFORMAT, "impossible"},
        {"wrap", "t", 4, {big, 2, 2, 1}, 0, 160, TLR_EFORMAT, "impossible"},
        {"bytes", "t", 2, {big, 1}, 0, 160, TLR_EFORMAT, "size overflows"},
        {"end", "t", 2, {(uint64_t)1 << 60, 3}, 0, 160, TLR_EFORMAT,
         "its data in bytes"},
        {"type", "t", 1, {8}, 500, 160, TLR_EFORMAT, "type unknown (500)"},
        {"negative type", "t", 1, {8}, UINT32_MAX, 160, TLR_EFORMAT, "unknown"},
        {"withdrawn type", "t", 1, {8}, 4, 160, TLR_EUNSUPPORTED, "Q4_2"},
        {"IQ4_XS", "t", 1, {256}, 23, 160, TLR_EUNSUPPORTED, "type IQ4_XS (23)"},
        {"half a block", "t", 1, {48}, 8, 160, TLR_EFORMAT, "blocks of 32"},
        {"K block", "t", 2, {128, 2}, 12, 160, TLR_EFORMAT, "blocks of 256"},
        {"hole", "t", 1, {8}, 0, 192, TLR_EFORMAT, "expected offset 160"},
        {"overlap", "t", 1, {8}, 0, 128, TLR_EFORMAT, "expected offset 160"},
        {"misaligned", "t", 1, {8}, 0, 161, TLR_EFORMAT, "expected offset 160"},
        {"offset", "t", 1, {8}, 0, max, TLR_EFORMAT, "expected offset 160"},
        {"no data", "t", 1, {8}, 0, 160, TLR_EFORMAT, "its data in bytes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect_bad_tensor(rows[i].what, rows[i].name, rows[i].n_dims,
                          rows[i].ne, rows[i].type, rows[i].offset,
                          rows[i].code, rows[i].part);
    }
    struct parts p;
    begin_good(&p);
    put_tensor(&p.tensors, "vector", 1, (uint64_t[]){8}, 0, 160);
    uint8_t more[32] = {0};
    put(&p.data, more, sizeof more);
    p.n_tensors++;
    expect_bad("duplicate tensor", &p, TLR_EFORMAT, "vector appears twice");
    begin_good(&p);
    put(&p.data, more, sizeof more);
    expect_bad("trailing bytes", &p, TLR_EFORMAT, "expected the file to end");
}
END_TEST

/* A value of another type is an error and never read as if it were. */
START_TEST(typed_access)
{
    struct parts p;
    begin_good(&p);
    put_string(&p.kv, "minus");
    put_u32(&p.kv, TLR_GGUF_I16);
    put(&p.kv, "\xff\xff", 2);
    put_string(&p.kv, "nan");
    put_u32(&p.kv, TLR_GGUF_F32);
    put_u32(&p.kv, 0x7fc00000);
    put_string(&p.kv, "ints");
    put_u32(&p.kv, TLR_GGUF_ARRAY);
    put_u32(&p.kv, TLR_GGUF_I8);
    put_u64(&p.kv, 4);
    put(&p.kv, "abcd", 4);
    p.n_kv += 3;
    struct bytes b = join_parts(&p);
    struct tlr_gguf g;
    struct tlr_err e[8] = {TLR_ERR_INIT};
    ck_assert_msg(parse(&g, &b, &e[0]) == 0, "%s", e[0].text);
    uint64_t u;
    double d;
    bool flag;
    struct tlr_bytes text;
    struct tlr_gguf_kv kv;
    expect_error("minus", tlr_gguf_get_u64(&g, "minus", true, 9, &u, &e[0]),
                 &e[0], TLR_EFORMAT, "negative");
    expect_error("over", tlr_gguf_get_u64(&g, "answer", true, 41, &u, &e[1]),
                 &e[1], TLR_EFORMAT, "expected 0..41, found 42");
    expect_error("nan", tlr_gguf_get_f64(&g, "nan", true, &d, &e[2]), &e[2],
                 TLR_EFORMAT, "finite");
    expect_error("f64", tlr_gguf_get_f64(&g, "answer", true, &d, &e[3]), &e[3],
                 TLR_EFORMAT, "expected f32 or f64, found type u32");
    expect_error("bool", tlr_gguf_get_bool(&g, "answer", true, &flag, &e[4]),
                 &e[4], TLR_EFORMAT, "expected a bool");
    expect_error("text", tlr_gguf_get_string(&g, "ints", true, &text, &e[5]),
                 &e[5], TLR_EFORMAT, "expected a string, found type array of i8");
    expect_error("i8 as f32",
                 tlr_gguf_get_array(&g, "ints", true, TLR_GGUF_F32, &kv, &e[6]),
                 &e[6], TLR_EFORMAT, "expected an array of f32");
    expect_error("none", tlr_gguf_get_u64(&g, "answe", true, 9, &u, &e[7]),
                 &e[7], TLR_EFORMAT, "key answe is missing");
    u = 7;
    ck_assert_int_eq(tlr_gguf_get_u64(&g, "answers", false, 9, &u, NULL), 0);
    ck_assert_uint_eq(u, 7);
    tlr_gguf_clear(&g);
    free(b.data);
}
END_TEST

START_TEST(out_of_memory)
{
    for (long k = 0;; k++) {
        struct parts p;
        begin_good(&p);
        struct bytes b = join_parts(&p);
        struct tlr_gguf g;
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        int rc = parse(&g, &b, &err);
        tlr_mem_fail_after(-1);
        tlr_gguf_clear(&g);
        free(b.data);
        if (rc == 0) {
            ck_assert_int_ge(k, 4);
            break;
        }
        ck_assert_int_eq(rc, TLR_ENOMEM);
    }
}
END_TEST

Suite *suite_gguf(void);
Suite *suite_gguf(void)
{
    Suite *suite = suite_create("gguf");
    TCase *tc = tcase_create("gguf");
    tcase_add_test(tc, good_file);
    tcase_add_test(tc, every_truncation);
    tcase_add_test(tc, bad_header);
    tcase_add_test(tc, bad_keys);
    tcase_add_test(tc, bad_arrays);
    tcase_add_test(tc, bad_alignment);
    tcase_add_test(tc, bad_tensors);
    tcase_add_test(tc, typed_access);
    tcase_add_test(tc, out_of_memory);
    suite_add_tcase(suite, tc);
    return suite;
}
