/* test_seam.c - where a server's words become our tokens: partial words, torn
 * characters, special tokens, and ends of text that are or are not one. */
#include <string.h>

#include "base/mem.h"
#include "engine/tlr.h"
#include "net/seam.h"
#include "router/expert.h"
#include "tests/router/tiny.h"
#include "tests/support/tlr_check.h"

enum { END = 302, OTHER_END = 300, BEGIN = 301 }; /* <|im_end|> and so on */

static const struct tlr_generation gen = {.n_eos = 1, .eos = {END}};

struct rig {
    struct tlr_model *m;
    struct tlr_seam s;
};

static struct rig rig_open(void)
{
    struct rig r = {.m = tiny_model(TLR_F32)};
    r.s = (struct tlr_seam){.tok = tlr_model_tokenizer(r.m), .gen = &gen,
                            .chat = tlr_model_chat(r.m),
                            .n_ids = tlr_model_n_ids(r.m)};
    ck_assert(r.s.chat != NULL);
    return r;
}

static struct tlr_ids encode(const struct rig *r, const char *text, size_t n)
{
    struct tlr_ids ids = {0};
    ck_assert_int_eq(tlr_encode(r->s.tok, text, n, TLR_ENCODE_SPECIAL, &ids,
                                NULL), 0);
    return ids;
}

static struct tlr_net_answer words(const char *text, enum tlr_net_finish finish)
{
    struct tlr_net_answer a = {0};
    tlr_net_answer_begin(&a);
    ck_assert_int_eq(tlr_net_take_text(&a, text, strlen(text), NULL), 0);
    a.finish = finish;
    return a;
}

/* The last tokens of a prefix. */
static struct tlr_seam_want behind(const struct tlr_ids *prefix, int n_tok)
{
    int n = prefix->n < TLR_SEAM_TAIL ? (int)prefix->n : TLR_SEAM_TAIL;
    return (struct tlr_seam_want){.tail = prefix->ids + prefix->n - (size_t)n,
                                  .n_tail = n, .n_tok = n_tok, .n_slack = 1};
}

/* The bytes that ids spell, with ends shown as "|". */
static const char *spell(const struct rig *r, const int32_t *ids, int n)
{
    static char text[256];
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        struct tlr_bytes b = tlr_token_bytes(r->s.tok, ids[i]);
        if (ids[i] == END) {
            text[len++] = '|';
        } else {
            memcpy(text + len, b.ptr, b.len);
            len += b.len;
        }
    }
    text[len] = '\0';
    return text;
}

START_TEST(words_to_ids)
{
    static const struct {
        const char *prefix, *reply;
        enum tlr_net_finish finish;
        int n_tok;
        const char *want; /* spelled; one token of it for n_tok 1 */
    } rows[] = {
        {"so ", "the", TLR_NET_AT_LIMIT, 8, "the"},
        {"so", " the", TLR_NET_AT_LIMIT, 1, " the"},
        /* inside a word: "t" + "he" alone, though "the" is cut otherwise */
        {"t", "he river", TLR_NET_AT_LIMIT, 64, "he river"},
        {" w", "as there", TLR_NET_AT_LIMIT, 64, "as there"},
        {"19", "07", TLR_NET_AT_LIMIT, 8, "07"},
        /* a text that ends, with and without words before it */
        {"so", "", TLR_NET_AT_END, 1, "|"},
        {"so", "", TLR_NET_AT_END, 4, "|"},
        {"so", " the", TLR_NET_AT_END, 4, " the|"},
        {"so", " the", TLR_NET_AT_END, 1, " the"},
        /* the end spelled out, by servers that do not skip it */
        {"so", " the<|im_end|>\n", TLR_NET_AT_END, 4, " the|"},
        {"so", "<|im_end|>", TLR_NET_AT_END, 4, "|"},
        /* ... which is text where nobody says that the text ends */
        {"so", "<|", TLR_NET_AT_LIMIT, 8, "<|"},
        /* characters of several bytes, whole and torn */
        {"na", "\xC3\xAFve", TLR_NET_AT_LIMIT, 64, "\xC3\xAFve"},
        {"so", " a\xEF\xBF\xBD", TLR_NET_AT_LIMIT, 64, " a"},
        {"<|im_end|>\n", "the", TLR_NET_AT_LIMIT, 64, "the"},
    };
    struct rig r = rig_open();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_ids p = encode(&r, rows[i].prefix, strlen(rows[i].prefix));
        struct tlr_seam_want w = behind(&p, rows[i].n_tok);
        struct tlr_net_answer a = words(rows[i].reply, rows[i].finish);
        struct tlr_err err = TLR_ERR_INIT;
        int32_t out[TLR_EXPERT_TOK_MAX];
        int n;
        int rc = tlr_seam_answer(&r.s, &a, &w, out, &n, &err);
        ck_assert_msg(rc == 0, "%zu: %d %s", i, rc, err.text);
        ck_assert_int_ge(n, 1);
        ck_assert_int_le(n, rows[i].n_tok);
        ck_assert_msg(strcmp(spell(&r, out, n), rows[i].want) == 0,
                      "%zu: '%s', expected '%s'", i, spell(&r, out, n),
                      rows[i].want);
        tlr_net_answer_clear(&a);
        tlr_ids_clear(&p);
    }
    tlr_model_close(r.m);
}
END_TEST

/* What must not become a token, least of all an end. */
START_TEST(no_words)
{
    static const struct {
        const char *reply;
        enum tlr_net_finish finish;
    } rows[] = {{"", TLR_NET_AT_LIMIT}, {"", TLR_NET_GOES_ON},
                {"\xEF\xBF\xBD", TLR_NET_AT_LIMIT},
                {"\xEF\xBF\xBD\xEF\xBF\xBD", TLR_NET_GOES_ON}};
    struct rig r = rig_open();
    struct tlr_ids p = encode(&r, "so", 2);
    for (size_t i = 0; i < 4; i++) {
        struct tlr_seam_want w = behind(&p, 1);
        struct tlr_net_answer a = words(rows[i].reply, rows[i].finish);
        int32_t out[1];
        int n;
        ck_assert_int_eq(tlr_seam_answer(&r.s, &a, &w, out, &n, NULL),
                         TLR_EPENDING);
        tlr_net_answer_clear(&a);
    }
    tlr_ids_clear(&p);
    tlr_model_close(r.m);
}
END_TEST

/* Any cut of a text into prefix and reply: what comes out spells its beginning. */
START_TEST(every_seam)
{
    static const char text[] = "The river wa\xC3\xAFs \xF0\x9F\x99\x82 there, in "
                               "1907;\n\n\tand  \xE6\x9D\xB1\xE4\xBA\xAC rose.";
    struct rig r = rig_open();
    for (size_t cut = 1; cut < sizeof text - 2; cut++) {
        if (((uint8_t)text[cut] & 0xC0) == 0x80)
            continue;
        struct tlr_ids p = encode(&r, text, cut);
        for (int n_tok = 1; n_tok <= 64; n_tok += 63) {
            struct tlr_seam_want w = behind(&p, n_tok);
            struct tlr_net_answer a = words(text + cut, TLR_NET_AT_LIMIT);
            int32_t out[TLR_EXPERT_TOK_MAX];
            int n;
            ck_assert_int_eq(tlr_seam_answer(&r.s, &a, &w, out, &n, NULL), 0);
            const char *got = spell(&r, out, n);
            size_t len = strlen(got);
            ck_assert_uint_gt(len, 0);
            ck_assert_msg(strncmp(got, text + cut, len) == 0, "%zu: '%s'", cut,
                          got);
            if (n < n_tok)
                ck_assert_uint_eq(len, sizeof text - 1 - cut);
            tlr_net_answer_clear(&a);
        }
        tlr_ids_clear(&p);
    }
    tlr_model_close(r.m);
}
END_TEST

/* The prefix ends in the middle of a character, and the reply goes on with it. */
START_TEST(inside_a_character)
{
    static const char smile[] = "\xF0\x9F\x99\x82";
    struct rig r = rig_open();
    for (int have = 1; have <= 3; have++) {
        char text[8] = "a ";
        memcpy(text + 2, smile, (size_t)have);
        struct tlr_ids p = encode(&r, text, 2 + (size_t)have);
        struct tlr_seam_want w = behind(&p, 8);
        struct tlr_buf prompt = {0};
        tlr_seam_prompt(&r.s, p.ids, p.n, false, &prompt, w.begun, &w.n_begun);
        ck_assert_uint_eq(prompt.n, 2);
        ck_assert_int_eq(w.n_begun, have);
        struct tlr_net_answer a = words("\xF0\x9F\x99\x82!", TLR_NET_AT_LIMIT);
        struct tlr_net_answer other = words("\xC3\xA9!", TLR_NET_AT_LIMIT);
        int32_t out[8];
        int n;
        ck_assert_int_eq(tlr_seam_answer(&r.s, &a, &w, out, &n, NULL), 0);
        ck_assert_int_eq(n, 4 - have + 1);
        ck_assert_str_eq(spell(&r, out, n) + 4 - have, "!");
        ck_assert_mem_eq(spell(&r, out, n), smile + have, (size_t)(4 - have));
        ck_assert_int_eq(tlr_seam_answer(&r.s, &other, &w, out, &n, NULL),
                         TLR_EMISMATCH);
        tlr_net_answer_clear(&a);
        tlr_net_answer_clear(&other);
        tlr_buf_clear(&prompt);
        tlr_ids_clear(&p);
    }
    tlr_model_close(r.m);
}
END_TEST

START_TEST(ids_to_ids)
{
    static const struct {
        int n_ids;
        int32_t ids[3];
        enum tlr_net_finish finish;
        int32_t end_id;
        int n_tok, rc, n;
        int32_t want[3];
    } rows[] = {
        {1, {5}, TLR_NET_AT_LIMIT, -1, 1, 0, 1, {5}},
        {3, {5, 6, 7}, TLR_NET_AT_LIMIT, -1, 3, 0, 3, {5, 6, 7}},
        /* a little more than asked for; too much */
        {3, {5, 6, 7}, TLR_NET_AT_LIMIT, -1, 2, 0, 2, {5, 6}},
        {3, {5, 6, 7}, TLR_NET_AT_LIMIT, -1, 1, TLR_EMISMATCH, 0, {0}},
        /* outside the vocabulary */
        {2, {5, 303}, TLR_NET_AT_LIMIT, -1, 2, TLR_EMISMATCH, 0, {0}},
        /* the end: in the ids, left out, another one than ours */
        {2, {5, END}, TLR_NET_AT_END, END, 4, 0, 2, {5, END}},
        {1, {5}, TLR_NET_AT_END, END, 4, 0, 2, {5, END}},
        {1, {5}, TLR_NET_AT_END, -1, 1, 0, 1, {5}},
        {0, {0}, TLR_NET_AT_END, -1, 1, 0, 1, {END}},
        {0, {0}, TLR_NET_AT_END, 99999, 1, 0, 1, {END}},
        {2, {5, OTHER_END}, TLR_NET_AT_END, OTHER_END, 4, 0, 2, {5, END}},
        {1, {OTHER_END}, TLR_NET_AT_END, -1, 1, 0, 1, {END}},
        /* behind an end nothing counts; no token is no end */
        {3, {5, END, 7}, TLR_NET_AT_LIMIT, -1, 3, 0, 2, {5, END}},
        {0, {0}, TLR_NET_AT_LIMIT, -1, 1, TLR_EFORMAT, 0, {0}},
        {0, {0}, TLR_NET_GOES_ON, -1, 1, TLR_EFORMAT, 0, {0}},
        /* a special token that ends nothing is a token */
        {1, {BEGIN}, TLR_NET_AT_LIMIT, -1, 1, 0, 1, {BEGIN}},
    };
    struct rig r = rig_open();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_net_answer a = {0};
        struct tlr_seam_want w = {.n_tok = rows[i].n_tok, .n_slack = 1};
        int32_t out[8];
        int n;
        tlr_net_answer_begin(&a);
        a.n_ids = rows[i].n_ids;
        memcpy(a.ids, rows[i].ids, sizeof rows[i].ids);
        a.finish = rows[i].finish;
        a.end_id = rows[i].end_id;
        int rc = tlr_seam_answer(&r.s, &a, &w, out, &n, NULL);
        ck_assert_msg(rc == rows[i].rc, "%zu: %d", i, rc);
        ck_assert_msg(rc || n == rows[i].n, "%zu: %d ids", i, n);
        for (int k = 0; k < n && !rc; k++)
            ck_assert_msg(out[k] == rows[i].want[k], "%zu: %d", i, (int)out[k]);
    }
    /* A vocabulary without an end cannot say that one came. */
    struct tlr_seam endless = r.s;
    endless.gen = NULL;
    struct tlr_net_answer a = words("", TLR_NET_AT_END);
    struct tlr_seam_want w = {.n_tok = 1};
    int32_t out[1];
    int n;
    ck_assert_int_eq(tlr_seam_answer(&endless, &a, &w, out, &n, NULL),
                     TLR_EUNSUPPORTED);
    tlr_net_answer_clear(&a);
    tlr_model_close(r.m);
}
END_TEST

START_TEST(prompts)
{
    static const char text[] = "<|im_start|>user\nThe r\xC3\xAFver<|im_end|>\n";
    struct rig r = rig_open();
    struct tlr_ids ids = encode(&r, text, sizeof text - 1);
    struct tlr_buf out = {0};
    uint8_t begun[4];
    int n_begun;
    tlr_seam_prompt(&r.s, ids.ids, ids.n, false, &out, begun, &n_begun);
    ck_assert_str_eq(out.ptr, text);
    ck_assert_int_eq(n_begun, 0);
    tlr_buf_clear(&out);
    tlr_ids_clear(&ids);
    tlr_model_close(r.m);
}
END_TEST

START_TEST(messages)
{
    static const struct {
        const char *text, *want; /* NULL: refused */
    } rows[] = {
        {"<|im_start|>user\nHi \"you\"<|im_end|>\n<|im_start|>assistant\nWell",
         "[{\"role\":\"user\",\"content\":\"Hi \\\"you\\\"\"},"
         "{\"role\":\"assistant\",\"content\":\"Well\"}]"},
        {"<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
         "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
         "<|im_start|>assistant\n",
         "[{\"role\":\"system\",\"content\":\"Be.\"},"
         "{\"role\":\"user\",\"content\":\"a\"},"
         "{\"role\":\"assistant\",\"content\":\"b\"},"
         "{\"role\":\"user\",\"content\":\"c\"},"
         "{\"role\":\"assistant\",\"content\":\"\"}]"},
        {"The capital of France is", NULL},
        {"<|im_start|>user\nHi<|im_end|>\n", NULL},
        {"", NULL},
    };
    struct rig r = rig_open();
    struct tlr_buf out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        int rc = tlr_seam_messages(&r.s, rows[i].text, strlen(rows[i].text),
                                   &out, &err);
        ck_assert_msg(rc == (rows[i].want ? 0 : TLR_EUNSUPPORTED), "%zu", i);
        if (rows[i].want)
            ck_assert_str_eq(out.ptr, rows[i].want);
    }
    tlr_buf_clear(&out);
    tlr_model_close(r.m);
}
END_TEST

Suite *suite_seam(void);
Suite *suite_seam(void)
{
    Suite *s = suite_create("seam");
    TCase *t = tcase_create("seam");
    tcase_add_test(t, words_to_ids);
    tcase_add_test(t, no_words);
    tcase_add_test(t, every_seam);
    tcase_add_test(t, inside_a_character);
    tcase_add_test(t, ids_to_ids);
    tcase_add_test(t, prompts);
    tcase_add_test(t, messages);
    suite_add_tcase(s, t);
    return s;
}
