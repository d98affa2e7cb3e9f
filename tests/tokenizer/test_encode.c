/* test_encode.c - ids against Hugging Face's tokenizers (goldens), and what must
 * hold for any bytes. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/tokenizer/corpus.h"
#include "tests/tokenizer/load.h"

#define GOLDEN "tests/golden/tokenizer/"

enum { SEED = 1, N_ATOMS = 500 };

static struct tlr_ids encode(const struct test_tokenizer *t, const char *text,
                             size_t len, unsigned flags)
{
    struct tlr_ids ids = {0};
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(tlr_encode(t->t, text, len, flags, &ids, &err) == 0, "%s",
                  err.text);
    return ids;
}

/* decode(ids) is text, byte by byte. */
static bool decodes_to(const struct test_tokenizer *t, const struct tlr_ids *ids,
                       const char *text, size_t len)
{
    size_t pos = 0;
    for (size_t i = 0; i < ids->n; i++) {
        struct tlr_bytes b = tlr_token_bytes(t->t, ids->ids[i]);
        if (b.len == 0 || b.len > len - pos ||
            memcmp(text + pos, b.ptr, b.len) != 0) {
            return false;
        }
        pos += b.len;
    }
    return pos == len;
}

/* The same vocabulary behind another pre-tokenizer. */
static void rebuild(struct test_tokenizer *t, uint32_t pre, uint32_t flags)
{
    struct tlr_vocab v = *tlr_tokenizer_vocab(t->t);
    struct tlr_err err = TLR_ERR_INIT;
    uint8_t *packed;
    size_t len;
    v.pre = pre;
    v.flags = flags;
    ck_assert_int_eq(tlr_vocab_pack(&v, &packed, &len, &err), 0);
    tlr_tokenizer_free(t->t);
    tlr_free(t->packed);
    t->packed = packed;
    struct tlr_bytes bytes = {packed, len};
    ck_assert_int_eq(tlr_tokenizer_new(&t->t, bytes, "packed", &err), 0);
}

static void check_corpus(const struct test_tokenizer *t, const char *golden,
                         unsigned flags)
{
    struct corpus c;
    size_t len, n_points = 0;
    char *text = read_golden(golden, &len);
    corpus_load(&c);
    uint64_t k = 0;
    for (char *line = text; *line; k++) {
        uint64_t hash = strtoull(line, &line, 16);
        uint64_t n = strtoull(line, &line, 10);
        line += strspn(line, "\n");
        size_t n_bytes;
        char *segment = corpus_segment(&c, SEED, k, N_ATOMS, &n_bytes);
        struct tlr_ids ids = encode(t, segment, n_bytes, flags);
        ck_assert_msg(ids.n == n && ids_hash(ids.ids, ids.n) == hash,
                      "%s: segment %llu: expected %llu ids of hash %016llx, "
                      "found %zu of %016llx",
                      golden, (unsigned long long)k, (unsigned long long)n,
                      (unsigned long long)hash, ids.n,
                      (unsigned long long)ids_hash(ids.ids, ids.n));
        for (size_t i = 0; i < n_bytes; i++) {
            n_points += (segment[i] & 0xc0) != 0x80;
        }
        tlr_ids_clear(&ids);
        free(segment);
    }
    ck_assert_uint_gt(n_points, 1000000);
    corpus_clear(&c);
    free(text);
}

START_TEST(qwen3_agrees_on_a_million_code_points)
{
    struct test_tokenizer t;
    load_qwen3(&t);
    if (!t.t) {
        TLR_SKIP_SHARED("no ../shared/data/qwen3-tokenizer, or no xz");
    }
    check_corpus(&t, GOLDEN "corpus-qwen3.txt", TLR_ENCODE_SPECIAL);
    check_corpus(&t, GOLDEN "corpus-qwen3-plain.txt", 0);
    unload(&t);
}
END_TEST

START_TEST(smollm2_agrees_on_a_million_code_points)
{
    struct test_tokenizer t;
    load_smollm2(&t);
    if (!t.t) {
        TLR_SKIP("no models/smollm2-135m-instruct.gguf");
    }
    check_corpus(&t, GOLDEN "corpus-smollm2.txt", TLR_ENCODE_SPECIAL);
    rebuild(&t, TLR_PRE_GPT2, 0);
    check_corpus(&t, GOLDEN "corpus-gpt2.txt", TLR_ENCODE_SPECIAL);
    rebuild(&t, TLR_PRE_LLAMA3, TLR_VOCAB_IGNORE_MERGES);
    check_corpus(&t, GOLDEN "corpus-llama3.txt", TLR_ENCODE_SPECIAL);
    unload(&t);
}
END_TEST

static json_t *load_cases(const char *path)
{
    json_error_t error;
    json_t *cases = json_load_file(path, 0, &error);
    ck_assert_msg(cases != NULL, "%s: %s", path, error.text);
    return cases;
}

static void check_ids(const struct test_tokenizer *t, const json_t *text,
                      const json_t *want, unsigned flags)
{
    const char *s = json_string_value(text);
    struct tlr_ids ids = encode(t, s, json_string_length(text), flags);
    bool same = ids.n == json_array_size(want);
    for (size_t i = 0; same && i < ids.n; i++) {
        same = ids.ids[i] == json_integer_value(json_array_get(want, i));
    }
    char *expected = json_dumps(want, JSON_COMPACT);
    ck_assert_msg(same, "\"%s\": expected %s, found %zu ids, first %d", s,
                  expected, ids.n, ids.n ? ids.ids[0] : -1);
    free(expected);
    tlr_ids_clear(&ids);
}

static void check_cases(const struct test_tokenizer *t, const char *key)
{
    json_t *cases = load_cases(GOLDEN "cases.json");
    ck_assert_uint_gt(json_array_size(cases), 300);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        check_ids(t, json_object_get(c, "text"), json_object_get(c, key),
                  TLR_ENCODE_SPECIAL);
    }
    json_decref(cases);
}

START_TEST(spelled_out_cases_agree)
{
    struct test_tokenizer t;
    load_smollm2(&t);
    if (!t.t) {
        TLR_SKIP("no models/smollm2-135m-instruct.gguf");
    }
    check_cases(&t, "smollm2");
    unload(&t);
    load_qwen3(&t);
    if (!t.t) {
        TLR_SKIP_SHARED("no ../shared/data/qwen3-tokenizer, or no xz");
    }
    check_cases(&t, "qwen3");
    unload(&t);
}
END_TEST

static void load_added(struct test_tokenizer *t, json_t **golden)
{
    *golden = load_cases(GOLDEN "added.json");
    char *text = json_dumps(json_object_get(*golden, "tokenizer"), 0);
    load_json(t, text);
    free(text);
}

START_TEST(added_tokens_match_as_in_tokenizers)
{
    struct test_tokenizer t;
    json_t *golden;
    load_added(&t, &golden);
    const json_t *cases = json_object_get(golden, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const json_t *text = json_object_get(c, "text");
        check_ids(&t, text, json_object_get(c, "ids"), TLR_ENCODE_SPECIAL);
        check_ids(&t, text, json_object_get(c, "plain"), 0);
    }
    json_decref(golden);
    unload(&t);
}
END_TEST

/* Broken UTF-8 of all kinds among valid text. */
START_TEST(random_bytes_round_trip)
{
    struct test_tokenizer t;
    json_t *golden;
    load_added(&t, &golden);
    rebuild(&t, TLR_PRE_QWEN2, 0); /* no NFC: every byte must come back */
    struct tlr_rng rng = {tlr_test_seed(), 0};
    for (int round = 0; round < 2000; round++) {
        char text[200];
        size_t len = tlr_rng_u64(&rng) % sizeof text;
        for (size_t i = 0; i < len; i++) {
            uint64_t r = tlr_rng_u64(&rng);
            text[i] = (char)(r % 3 == 0 ? 'a' + (r >> 8) % 26 : r >> 16);
        }
        struct tlr_ids ids = encode(&t, text, len, 0);
        ck_assert(decodes_to(&t, &ids, text, len));
        tlr_ids_clear(&ids);
    }
    json_decref(golden);
    unload(&t);
}
END_TEST

START_TEST(invalid_bytes_cut_the_text)
{
    struct test_tokenizer t;
    json_t *golden;
    load_added(&t, &golden);
    struct tlr_ids a = encode(&t, "x\xff\xc3", 3, 0);
    ck_assert_uint_eq(a.n, 3);
    ck_assert_int_eq(a.ids[1], tlr_token_find(t.t, "\xff", 1));
    ck_assert_int_eq(a.ids[2], tlr_token_find(t.t, "\xc3", 1));
    tlr_ids_clear(&a);
    json_decref(golden);
    unload(&t);
}
END_TEST

/* A megabyte in one word, or of one kind of mark, would take minutes if
 * anything were quadratic. */
START_TEST(hostile_text_is_not_quadratic)
{
    struct test_tokenizer t;
    load_qwen3(&t);
    if (!t.t) {
        TLR_SKIP_SHARED("no ../shared/data/qwen3-tokenizer, or no xz");
    }
    static const char *const units[] = {"a", " ", "\n", "ab", "\xcc\x80\xcc\xa7",
                                        "\xff", "<|im_start|", "'s", "e\xcc\x81",
                                        "\xe1\x84\x80\xe1\x85\xa1", "0", "\t"};
    enum { LEN = 1 << 20 };
    char *text = malloc(LEN);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]), len = LEN / n * n;
        for (size_t i = 0; i < len; i++) {
            text[i] = units[u][i % n];
        }
        struct tlr_ids ids = encode(&t, text, len, TLR_ENCODE_SPECIAL);
        ck_assert_uint_gt(ids.n, 0);
        tlr_ids_clear(&ids);
    }
    free(text);
    unload(&t);
}
END_TEST

Suite *suite_encode(void);

Suite *suite_encode(void)
{
    Suite *s = suite_create("encode");
    TCase *c = tcase_create("encode");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, qwen3_agrees_on_a_million_code_points);
    tcase_add_test(c, smollm2_agrees_on_a_million_code_points);
    tcase_add_test(c, spelled_out_cases_agree);
    tcase_add_test(c, added_tokens_match_as_in_tokenizers);
    tcase_add_test(c, random_bytes_round_trip);
    tcase_add_test(c, invalid_bytes_cut_the_text);
    tcase_add_test(c, hostile_text_is_not_quadratic);
    suite_add_tcase(s, c);
    return s;
}
