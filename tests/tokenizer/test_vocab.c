/* test_vocab.c - the packed vocabulary and tokenizer.json: what they refuse. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/hf_tokenizer.h"
#include "engine/tokenizer.h"
#include "tests/support/tlr_check.h"

/* Offsets of FORMAT.md's drawing in the vocabulary below. */
enum { VERSION = 0, PRE = 4, FLAGS = 8, BOS = 12, N_TOKENS = 16, N_MERGES = 20,
       N_BYTES = 24, TOKENS = 32, MERGES = 48, BYTES = 60, TOTAL = 64 };

static uint8_t *pack(void)
{
    static const struct tlr_vocab_token tokens[] = {
        {(const uint8_t *)"a", 1, 0},
        {(const uint8_t *)"b", 1, 0},
        {(const uint8_t *)"ab", 2, 0},
        {NULL, 0, TLR_TOKEN_UNUSED}};
    static const struct tlr_vocab_merge merges[] = {{0, 1, 2}};
    struct tlr_vocab v = {TLR_PRE_QWEN2, TLR_VOCAB_NFC, 4, 1, -1, tokens,
                          merges};
    uint8_t *bytes;
    size_t len;
    ck_assert_int_eq(tlr_vocab_pack(&v, &bytes, &len, NULL), 0);
    ck_assert_uint_eq(len, TOTAL);
    return bytes;
}

static int open_bytes(const uint8_t *bytes, size_t len, struct tlr_err *err)
{
    struct tlr_tokenizer *t;
    int rc = tlr_tokenizer_new(&t, (struct tlr_bytes){bytes, len}, "v", err);
    tlr_tokenizer_free(t);
    return rc;
}

START_TEST(packed_form_is_as_drawn)
{
    static const uint8_t want[TOTAL] = {
        1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        4, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 64, 0,
        0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 'a', 'b', 'a', 'b'};
    uint8_t *bytes = pack();
    ck_assert_mem_eq(bytes, want, TOTAL);
    ck_assert_int_eq(open_bytes(bytes, TOTAL, NULL), 0);
    tlr_free(bytes);
}
END_TEST

START_TEST(bad_packed_vocabularies_are_refused)
{
    static const struct {
        int at;
        uint8_t value;
    } bad[] = {{VERSION, 2}, {PRE, 0}, {PRE, 9}, {FLAGS, 0x80}, {BOS + 3, 0x7f},
               {BOS, 0xfe}, {N_TOKENS, 5}, {N_TOKENS + 3, 0x40}, {N_TOKENS, 0},
               {N_MERGES, 0}, {N_MERGES + 3, 0x40}, {N_BYTES, 3},
               {N_BYTES + 7, 0x80}, {TOKENS, 0}, {TOKENS, 2}, {TOKENS + 2, 64},
               {TOKENS + 2, 128}, {TOKENS + 14, 0}, {MERGES, 1}, {MERGES, 3},
               {MERGES + 4, 7}, {MERGES + 8, 9}, {MERGES + 8, 0}, {BYTES, 'x'}};
    uint8_t *bytes = pack();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        uint8_t was = bytes[bad[i].at];
        bytes[bad[i].at] = bad[i].value;
        ck_assert_msg(open_bytes(bytes, TOTAL, &err) == TLR_EFORMAT,
                      "byte %d = %d", bad[i].at, bad[i].value);
        ck_assert(strncmp(err.text, "v: ", 3) == 0);
        bytes[bad[i].at] = was;
    }
    for (size_t len = 0; len < TOTAL; len++) {
        uint8_t *cut = malloc(len + 1);
        memcpy(cut, bytes, len);
        ck_assert_int_eq(open_bytes(cut, len, NULL), TLR_EFORMAT);
        free(cut);
    }
    tlr_free(bytes);
}
END_TEST

START_TEST(out_of_memory_is_reported)
{
    uint8_t *bytes = pack();
    int rc = TLR_ENOMEM;
    for (long k = 0; rc != 0; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert_int_lt(k, 100);
        tlr_mem_fail_after(k);
        rc = open_bytes(bytes, TOTAL, &err);
        tlr_mem_fail_after(-1);
        ck_assert(rc == 0 || rc == TLR_ENOMEM);
    }
    tlr_free(bytes);
}
END_TEST

#define PRE_OK                                                                 \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define MODEL(vocab, merges)                                                   \
    "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}"
#define AB "{\"a\":0,\"b\":1,\"ab\":2}"

static int read_json(const char *json, struct tlr_err *err)
{
    struct tlr_hf_tokenizer t = {0};
    struct tlr_bytes bytes = {(const uint8_t *)json, strlen(json)};
    int rc = tlr_hf_tokenizer_read(&t, bytes, "tokenizer.json",
                                   (struct tlr_bytes){NULL, 0}, NULL, err);
    tlr_hf_tokenizer_clear(&t);
    return rc;
}

START_TEST(unknown_tokenizers_are_refused_by_name)
{
    static const struct {
        const char *json;
        int rc;
        const char *names; /* stands in the message */
    } cases[] = {
        {"{" PRE_OK "," MODEL(AB, "[\"a b\"]") "}", 0, ""},
        {"{" PRE_OK "," MODEL(AB, "[[\"a\",\"b\"]]") "}", 0, ""},
        {"{" PRE_OK "," MODEL(AB, "[\"ab\"]") "}", TLR_EFORMAT, "merge 0"},
        {"{" PRE_OK "," MODEL(AB, "[\"b a\"]") "}", TLR_EFORMAT, "merge 0"},
        {"{" PRE_OK "," MODEL("{\"a\":0,\"b\":0}", "[]") "}", TLR_EFORMAT,
         "twice"},
        {"{" PRE_OK "," MODEL("{\"a\":-1}", "[]") "}", TLR_EFORMAT, "1.."},
        {"{" PRE_OK "," MODEL("{\"a\":4000000000}", "[]") "}", TLR_EFORMAT,
         "4000000001"},
        {"{" PRE_OK "," MODEL("{\"\":0}", "[]") "}", TLR_EFORMAT, "1..1024"},
        {"{" PRE_OK "," MODEL("{\"a b\":0}", "[]") "}", TLR_EFORMAT, "a b"},
        {"{" PRE_OK "," MODEL(AB, "{}") "}", TLR_EFORMAT, "merges"},
        {"{" PRE_OK ",\"model\":{\"type\":\"Unigram\"}}", TLR_EUNSUPPORTED,
         "Unigram"},
        {"{" MODEL(AB, "[]") "}", TLR_EUNSUPPORTED, "pre_tokenizer"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\"}," MODEL(AB, "[]") "}",
         TLR_EUNSUPPORTED, "Metaspace"},
        {"{\"normalizer\":{\"type\":\"NFKC\"}," PRE_OK "," MODEL(AB, "[]") "}",
         TLR_EUNSUPPORTED, "NFKC"},
        {"{\"decoder\":{\"type\":\"Fuse\"}," PRE_OK "," MODEL(AB, "[]") "}",
         TLR_EUNSUPPORTED, "Fuse"},
        {"{\"post_processor\":{\"type\":\"BertProcessing\"}," PRE_OK ","
         MODEL(AB, "[]") "}", TLR_EUNSUPPORTED, "BertProcessing"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," PRE_OK ","
         MODEL(AB, "[]") "}", TLR_EFORMAT, "twice"},
        {"{\"added_tokens\":[{\"content\":\"x\"}]," PRE_OK "," MODEL(AB, "[]")
         "}", TLR_EFORMAT, "added_tokens"},
        {"[]", TLR_EFORMAT, "object"}, {"{", TLR_EFORMAT, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        int rc = read_json(cases[i].json, &err);
        ck_assert_msg(rc == cases[i].rc && strstr(err.text, cases[i].names),
                      "%s: %d \"%s\"", cases[i].json, rc, err.text);
    }
}
END_TEST

Suite *suite_vocab(void);
Suite *suite_vocab(void)
{
    Suite *s = suite_create("vocab");
    TCase *c = tcase_create("vocab");
    tcase_add_test(c, packed_form_is_as_drawn);
    tcase_add_test(c, bad_packed_vocabularies_are_refused);
    tcase_add_test(c, out_of_memory_is_reported);
    tcase_add_test(c, unknown_tokenizers_are_refused_by_name);
    suite_add_tcase(s, c);
    return s;
}
