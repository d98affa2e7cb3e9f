/* test_api.c - the wire formats without a server: bodies by jansson, replies in the
 * variations that the servers' documents and older versions show. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/api.h"
#include "tests/support/tlr_check.h"

static struct tlr_bytes bytes_of(const char *text)
{
    return (struct tlr_bytes){(const uint8_t *)text, strlen(text)};
}

/* ---- requests ---- */

static json_t *body(enum tlr_net_api_kind kind, const struct tlr_net_ask *ask)
{
    struct tlr_buf b = {0};
    json_error_t at;
    tlr_net_api(kind)->build(&b, ask);
    ck_assert(!b.failed);
    json_t *root = json_loadb(b.ptr, b.n, JSON_REJECT_DUPLICATES, &at);
    ck_assert_msg(root != NULL, "%s: %s", at.text, b.ptr);
    tlr_buf_clear(&b);
    return root;
}

static double number(const json_t *root, const char *key)
{
    const json_t *v = json_object_get(root, key);
    ck_assert_msg(json_is_number(v), "%s", key);
    return json_number_value(v);
}

static const int32_t ids[] = {0, 7, 151645, INT32_MAX};
static const struct tlr_net_ask by_ids = {
    .ids = ids, .n_ids = 4, .n_tok = 3, .model = "qwen \"32b\""};
static const char tricky[] = "a\"\\\n\x01\xC3\xA9\xFF";
static const struct tlr_net_ask by_text = {
    .text = tricky, .n_text = sizeof tricky - 1, .n_tok = 3, .model = "m"};

static void check_ids(const json_t *list)
{
    ck_assert_uint_eq(json_array_size(list), 4);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(json_integer_value(json_array_get(list, i)), ids[i]);
}

/* Greedy must not depend on a server's defaults. */
static void check_greedy(const json_t *root)
{
    ck_assert_double_eq(number(root, "temperature"), 0);
    ck_assert_double_eq(number(root, "top_p"), 1);
    ck_assert_double_eq(number(root, "frequency_penalty"), 0);
    ck_assert_double_eq(number(root, "presence_penalty"), 0);
}

START_TEST(bodies_by_ids)
{
    json_t *root = body(TLR_NET_SGLANG, &by_ids);
    const json_t *p = json_object_get(root, "sampling_params");
    check_ids(json_object_get(root, "input_ids"));
    check_greedy(p);
    ck_assert_double_eq(number(p, "top_k"), 1);
    ck_assert_double_eq(number(p, "repetition_penalty"), 1);
    ck_assert_double_eq(number(p, "max_new_tokens"), 3);
    ck_assert_double_eq(number(root, "logprob_start_len"), -1);
    json_decref(root);
    struct tlr_net_ask draft = by_ids;
    draft.n_checked = by_ids.n_ids - 2;
    root = body(TLR_NET_SGLANG, &draft);
    ck_assert_double_eq(number(root, "logprob_start_len"), 1);
    ck_assert_double_eq(number(root, "top_logprobs_num"), 1);
    json_decref(root);
    root = body(TLR_NET_VLLM, &by_ids);
    check_ids(json_object_get(root, "prompt"));
    check_greedy(root);
    ck_assert_double_eq(number(root, "max_tokens"), 3);
    ck_assert_double_eq(number(root, "repetition_penalty"), 1);
    ck_assert(json_is_true(json_object_get(root, "return_token_ids")));
    ck_assert_str_eq(json_string_value(json_object_get(root, "model")),
                     "qwen \"32b\"");
    json_decref(root);
    root = body(TLR_NET_LLAMACPP, &by_ids);
    check_ids(json_object_get(root, "prompt"));
    check_greedy(root);
    ck_assert_double_eq(number(root, "n_predict"), 3);
    ck_assert_double_eq(number(root, "min_p"), 0);
    ck_assert(json_is_true(json_object_get(root, "return_tokens")));
    ck_assert(json_object_get(root, "n_probs") == NULL);
    json_decref(root);
    struct tlr_net_ask sure = by_ids;
    sure.wants_p = true;
    root = body(TLR_NET_LLAMACPP, &sure);
    ck_assert_double_eq(number(root, "n_probs"), 1);
    struct tlr_net_ask warm = by_ids;
    warm.is_warm = true;
    json_decref(root);
    root = body(TLR_NET_LLAMACPP, &warm);
    ck_assert_double_eq(number(root, "n_predict"), 0);
    json_decref(root);
}
END_TEST

START_TEST(bodies_by_text)
{
    static const char clean[] = "a\"\\\n\x01\xC3\xA9\xEF\xBF\xBD";
    static const struct {
        enum tlr_net_api_kind kind;
        const char *key;
    } rows[] = {{TLR_NET_SGLANG, "text"}, {TLR_NET_VLLM, "prompt"},
                {TLR_NET_LLAMACPP, "prompt"}, {TLR_NET_OPENAI, "prompt"}};
    for (size_t i = 0; i < 4; i++) {
        json_t *root = body(rows[i].kind, &by_text);
        ck_assert_str_eq(json_string_value(json_object_get(root, rows[i].key)),
                         clean);
        json_decref(root);
    }
    struct tlr_net_ask strict = by_text;
    strict.is_strict = true;
    json_t *root = body(TLR_NET_OPENAI, &strict);
    check_greedy(root);
    ck_assert(json_object_get(root, "top_k") == NULL);
    json_decref(root);
    strict.messages = "[{\"role\":\"user\",\"content\":\"x\"}]";
    strict.is_strict = false;
    root = body(TLR_NET_OPENAI_CHAT, &strict);
    check_greedy(root);
    ck_assert_uint_eq(json_array_size(json_object_get(root, "messages")), 1);
    ck_assert(json_is_true(json_object_get(root, "continue_final_message")));
    json_decref(root);
}
END_TEST

/* ---- replies ---- */

struct reply {
    const char *body;
    int n_ids; /* -1: none */
    int32_t first;
    const char *text; /* NULL: none */
    enum tlr_net_finish finish;
    int32_t end_id;
    long long n_cached;
};

static void check_reply(enum tlr_net_api_kind kind, const struct reply *r)
{
    struct tlr_net_answer a = {0};
    struct tlr_err err = TLR_ERR_INIT;
    tlr_net_answer_begin(&a);
    int rc = tlr_net_parse(tlr_net_api(kind), bytes_of(r->body), &a, &err);
    ck_assert_msg(rc == 0, "%s: %s", err.text, r->body);
    ck_assert_msg(a.n_ids == r->n_ids, "%d ids: %s", a.n_ids, r->body);
    if (r->n_ids > 0)
        ck_assert_int_eq(a.ids[0], r->first);
    ck_assert_int_eq(a.has_text, r->text != NULL);
    if (r->text && r->text[0])
        ck_assert_str_eq(a.text.ptr, r->text);
    ck_assert_msg(a.finish == r->finish, "finish %d: %s", (int)a.finish,
                  r->body);
    ck_assert_int_eq(a.end_id, r->end_id);
    ck_assert_int_eq(a.n_cached, r->n_cached);
    tlr_net_answer_clear(&a);
}

/* Two ids' probabilities; 0: not told. */
START_TEST(probabilities)
{
    static const struct {
        enum tlr_net_api_kind kind;
        const char *body;
        double p[2];
    } rows[] = {
        {TLR_NET_SGLANG, "{\"text\":\"ab\",\"output_ids\":[64,65],\"meta_info\":{"
         "\"output_token_logprobs\":[[-0.5,64,null],[-2,65,\"b\"]]}}",
         {-0.5, -2}},
        {TLR_NET_VLLM, "{\"choices\":[{\"text\":\"ab\",\"token_ids\":[64,65],"
         "\"logprobs\":{\"token_logprobs\":[-0.5,null]}}]}", {-0.5, 0}},
        {TLR_NET_LLAMACPP, "{\"content\":\"ab\",\"tokens\":[64,65],"
         "\"completion_probabilities\":[{\"id\":64,\"logprob\":-0.5},{\"id\":65,"
         "\"logprob\":-2}]}", {-0.5, -2}},
        /* none, older ones, and nonsense */
        {TLR_NET_LLAMACPP, "{\"content\":\"ab\",\"tokens\":[64,65],"
         "\"completion_probabilities\":[{\"content\":\"a\",\"probs\":[]},7]}",
         {0, 0}},
        {TLR_NET_SGLANG, "{\"text\":\"ab\",\"output_ids\":[64,65],\"meta_info\":{"
         "\"output_token_logprobs\":[[0.5,64,null],[\"x\",65,\"b\"]]}}", {0, 0}},
        {TLR_NET_VLLM, "{\"choices\":[{\"text\":\"ab\",\"token_ids\":[64,65]}]}",
         {0, 0}}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tlr_net_answer a = {0};
        tlr_net_answer_begin(&a);
        ck_assert_int_eq(tlr_net_parse(tlr_net_api(rows[i].kind),
                                       bytes_of(rows[i].body), &a, NULL), 0);
        for (int k = 0; k < 2; k++)
            ck_assert_msg(rows[i].p[k] < 0
                              ? fabs(a.p[k] - exp(rows[i].p[k])) < 1e-12
                              : isnan(a.p[k]), "%zu: %g", i, a.p[k]);
        ck_assert(isnan(a.p[2]));
        tlr_net_answer_clear(&a);
    }
}
END_TEST

START_TEST(sglang_replies)
{
    static const struct reply rows[] = {
        {"{\"text\":\" Paris\",\"output_ids\":[12095],\"meta_info\":{\"id\":"
         "\"x\",\"finish_reason\":{\"type\":\"length\",\"length\":1},"
         "\"prompt_tokens\":5,\"completion_tokens\":1,\"cached_tokens\":4}}",
         1, 12095, " Paris", TLR_NET_AT_LIMIT, -1, 4},
        /* the end of text, trimmed from the text and kept in the ids, or not */
        {"{\"text\":\"\",\"output_ids\":[151645],\"meta_info\":{\"finish_reason\""
         ":{\"type\":\"stop\",\"matched\":151645}}}",
         1, 151645, "", TLR_NET_AT_END, 151645, -1},
        {"{\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"finish_reason\":"
         "{\"type\":\"stop\",\"matched\":151645}}}",
         0, 0, "", TLR_NET_AT_END, 151645, -1},
        /* older: ids only beside the log-probabilities */
        {"{\"text\":\"a\",\"meta_info\":{\"finish_reason\":{\"type\":\"length\"},"
         "\"output_token_logprobs\":[[-0.1,64,null],[-0.2,65,\"b\"]]}}",
         2, 64, "a", TLR_NET_AT_LIMIT, -1, -1},
        /* older still: no ids at all, a word as the reason */
        {"{\"text\":\"a\",\"meta_info\":{\"finish_reason\":\"length\"}}", -1, 0,
         "a", TLR_NET_AT_LIMIT, -1, -1},
        /* a batch of one; a matched string; an abort */
        {"[{\"text\":\"a\",\"output_ids\":[64],\"meta_info\":{\"finish_reason\":"
         "{\"type\":\"stop\",\"matched\":\"x\"}}}]",
         1, 64, "a", TLR_NET_AT_END, -1, -1},
        {"{\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"finish_reason\":"
         "{\"type\":\"abort\",\"message\":\"x\"}}}",
         0, 0, "", TLR_NET_GOES_ON, -1, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_reply(TLR_NET_SGLANG, &rows[i]);
}
END_TEST

START_TEST(vllm_replies)
{
    static const struct reply rows[] = {
        {"{\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":"
         "\" Paris\",\"token_ids\":[12095],\"prompt_token_ids\":[1,2],"
         "\"finish_reason\":\"length\",\"stop_reason\":null}],\"usage\":"
         "{\"prompt_tokens_details\":{\"cached_tokens\":16}}}",
         1, 12095, " Paris", TLR_NET_AT_LIMIT, -1, 16},
        {"{\"choices\":[{\"text\":\"\",\"token_ids\":[151645],\"finish_reason\":"
         "\"stop\",\"stop_reason\":null}],\"usage\":{}}",
         1, 151645, "", TLR_NET_AT_END, -1, -1},
        {"{\"choices\":[{\"text\":\"\",\"token_ids\":[],\"finish_reason\":"
         "\"stop\",\"stop_reason\":151643}]}",
         0, 0, "", TLR_NET_AT_END, 151643, -1},
        /* older: ids as names of tokens; older still: words */
        {"{\"choices\":[{\"text\":\"a\",\"token_ids\":null,\"logprobs\":"
         "{\"tokens\":[\"token_id:64\"],\"token_logprobs\":[-1]},"
         "\"finish_reason\":\"length\"}]}",
         1, 64, "a", TLR_NET_AT_LIMIT, -1, -1},
        {"{\"choices\":[{\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\"]},"
         "\"finish_reason\":\"length\"}]}",
         -1, 0, "a", TLR_NET_AT_LIMIT, -1, -1},
        {"{\"choices\":[{\"text\":\"a\",\"logprobs\":{\"tokens\":"
         "[\"token_id:99999999999\"]},\"finish_reason\":\"length\"}]}",
         -1, 0, "a", TLR_NET_AT_LIMIT, -1, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_reply(TLR_NET_VLLM, &rows[i]);
}
END_TEST

START_TEST(llamacpp_replies)
{
    static const struct reply rows[] = {
        {"{\"content\":\" Paris\",\"tokens\":[12095],\"stop\":true,\"stop_type\":"
         "\"limit\",\"tokens_cached\":9,\"tokens_evaluated\":5,\"timings\":"
         "{\"cache_n\":4,\"prompt_ms\":1.5,\"predicted_ms\":2}}",
         1, 12095, " Paris", TLR_NET_AT_LIMIT, -1, 4},
        {"{\"content\":\"\",\"tokens\":[151645],\"stop_type\":\"eos\"}", 1,
         151645, "", TLR_NET_AT_END, -1, -1},
        {"{\"content\":\"\",\"tokens\":[],\"stop_type\":\"eos\"}", 0, 0, "",
         TLR_NET_AT_END, -1, -1},
        /* older: flags for the reason, no ids, the cache by subtraction */
        {"{\"content\":\"\",\"stopped_eos\":true,\"stopped_limit\":false}", -1,
         0, "", TLR_NET_AT_END, -1, -1},
        {"{\"content\":\"a\",\"tokens\":[],\"stopped_eos\":false,"
         "\"stopped_limit\":true,\"tokens_evaluated\":5,\"timings\":"
         "{\"prompt_n\":2}}",
         -1, 0, "a", TLR_NET_AT_LIMIT, -1, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_reply(TLR_NET_LLAMACPP, &rows[i]);
    struct tlr_net_answer a = {0};
    tlr_net_answer_begin(&a);
    ck_assert_int_eq(tlr_net_parse(tlr_net_api(TLR_NET_LLAMACPP),
                                   bytes_of(rows[0].body), &a, NULL), 0);
    ck_assert_double_eq(a.server_ms, 3.5);
    tlr_net_answer_clear(&a);
}
END_TEST

START_TEST(openai_replies)
{
    static const struct reply completion = {
        "{\"object\":\"text_completion\",\"model\":\"m\",\"choices\":[{\"text\":"
        "\" Paris\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":5}}",
        -1, 0, " Paris", TLR_NET_AT_END, -1, -1};
    static const struct reply chat[] = {
        {"{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"six\"},"
         "\"finish_reason\":\"length\"}]}",
         -1, 0, "six", TLR_NET_AT_LIMIT, -1, -1},
        {"{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":null},"
         "\"finish_reason\":\"content_filter\"}]}",
         -1, 0, "", TLR_NET_GOES_ON, -1, -1}};
    check_reply(TLR_NET_OPENAI, &completion);
    for (size_t i = 0; i < 2; i++)
        check_reply(TLR_NET_OPENAI_CHAT, &chat[i]);
}
END_TEST

/* ---- what is refused ---- */

static void check_refused(enum tlr_net_api_kind kind, const char *text,
                          size_t n, const char *why)
{
    struct tlr_net_answer a = {0};
    struct tlr_err err = TLR_ERR_INIT;
    tlr_net_answer_begin(&a);
    struct tlr_bytes b = {(const uint8_t *)text, n};
    int rc = tlr_net_parse(tlr_net_api(kind), b, &a, &err);
    ck_assert_msg(rc == TLR_EFORMAT || rc == TLR_ELIMIT, "%d: %.200s", rc, text);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s: %.200s", err.text, text);
    tlr_net_answer_clear(&a);
}

START_TEST(refused_everywhere)
{
    static const struct {
        const char *body, *why;
    } rows[] = {
        {"", "found nothing"},
        {"<html>504 Gateway Time-out</html>", "not JSON"},
        {"{\"text\":\"a\"", "not JSON"},
        {"{\"text\":\"a\"} {}", "not JSON"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "not JSON"},
        {"{\"text\":\"\\u0000\"}", "not JSON"},
        {"{\"text\":\"\xFF\"}", "not JSON"},
        {"{\"text\":1e999}", "not JSON"},
        {"{\"error\":{\"message\":\"no such model\"}}", "no such model"},
        {"{\"error\":\"overloaded\"}", "overloaded"},
        {"{}", "expected"},
        {"[]", "expected"},
        {"\"text\"", "expected"},
        {"null", "expected"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int k = 0; k < TLR_NET_N_APIS; k++) {
            const char *why = rows[i].why;
            /* jansson takes no bare value at the top: both words will do. */
            if (rows[i].body[0] == '"' || rows[i].body[0] == 'n')
                why = "reply: ";
            check_refused((enum tlr_net_api_kind)k, rows[i].body,
                          strlen(rows[i].body), why);
        }
}
END_TEST

START_TEST(refused_by_format)
{
    static const struct {
        enum tlr_net_api_kind kind;
        const char *body, *why;
    } rows[] = {
        {TLR_NET_SGLANG, "{\"output_ids\":[-1]}", "element 0"},
        {TLR_NET_SGLANG, "{\"output_ids\":[4294967296]}", "element 0"},
        {TLR_NET_SGLANG, "{\"output_ids\":[1.5]}", "element 0"},
        {TLR_NET_SGLANG, "{\"output_ids\":\"12\"}", "no list"},
        {TLR_NET_SGLANG,
         "{\"meta_info\":{\"output_token_logprobs\":[[-0.1,-7,null]]}}",
         "second"},
        {TLR_NET_SGLANG, "{\"meta_info\":{\"output_token_logprobs\":[5]}}",
         "second"},
        {TLR_NET_VLLM, "{\"choices\":[]}", "found 0"},
        {TLR_NET_VLLM, "{\"choices\":[{\"text\":\"a\"},{\"text\":\"b\"}]}",
         "found 2"},
        {TLR_NET_VLLM, "{\"choices\":[{\"token_ids\":{}}]}", "no list"},
        {TLR_NET_VLLM, "{\"choices\":{\"text\":\"a\"}}", "one choice"},
        {TLR_NET_LLAMACPP, "{\"tokens\":[\"1\"]}", "element 0"},
        {TLR_NET_OPENAI, "{\"choices\":[{\"text\":7}]}", "a string"},
        {TLR_NET_OPENAI_CHAT, "{\"choices\":[{\"message\":{\"content\":[]}}]}",
         "a string"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_refused(rows[i].kind, rows[i].body, strlen(rows[i].body),
                      rows[i].why);
}
END_TEST

START_TEST(refused_for_size)
{
    struct tlr_buf b = {0};
    for (int depth = TLR_NET_DEPTH; depth <= TLR_NET_DEPTH + 1; depth++) {
        tlr_buf_reset(&b);
        tlr_buf_text(&b, "{\"text\":\"a [[[ {\\\"\",\"x\":");
        for (int i = 1; i < depth; i++)
            tlr_buf_text(&b, "[");
        for (int i = 1; i < depth; i++)
            tlr_buf_text(&b, "]");
        tlr_buf_text(&b, "}");
        if (depth > TLR_NET_DEPTH) {
            check_refused(TLR_NET_SGLANG, b.ptr, b.n, "levels");
        } else {
            struct reply r = {b.ptr, -1, 0, "a [[[ {\"", TLR_NET_GOES_ON, -1,
                              -1};
            check_reply(TLR_NET_SGLANG, &r);
        }
    }
    tlr_buf_reset(&b);
    tlr_buf_text(&b, "{\"output_ids\":[1");
    for (int i = 1; i <= TLR_NET_IDS_MAX; i++)
        tlr_buf_text(&b, ",1");
    tlr_buf_text(&b, "]}");
    check_refused(TLR_NET_SGLANG, b.ptr, b.n, "one of 161");
    tlr_buf_reset(&b);
    tlr_buf_text(&b, "{\"text\":\"");
    for (int i = 0; i <= TLR_NET_TEXT_MAX; i++)
        tlr_buf_text(&b, "x");
    tlr_buf_text(&b, "\"}");
    check_refused(TLR_NET_SGLANG, b.ptr, b.n, "at most 65536");
    tlr_buf_clear(&b);
}
END_TEST

/* Every beginning of a good reply is refused or misses something, never read past
 * its end (the copy ends where its memory does). */
START_TEST(torn_replies)
{
    static const char whole[] =
        "{\"text\":\"\\u00e9 \\ud83d\\ude00\",\"output_ids\":[12,13],\"meta_info\":"
        "{\"finish_reason\":{\"type\":\"stop\",\"matched\":2}}}";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        uint8_t *copy = tlr_test_guarded(n);
        memcpy(copy, whole, n);
        check_refused(TLR_NET_SGLANG, (const char *)copy, n, "reply: ");
    }
}
END_TEST

START_TEST(memory_runs_out)
{
    int rc = TLR_ENOMEM;
    for (long k = 0; rc == TLR_ENOMEM; k++) {
        struct tlr_net_answer a = {0};
        struct tlr_buf b = {0};
        tlr_net_answer_begin(&a);
        tlr_mem_fail_after(k);
        tlr_net_api(TLR_NET_VLLM)->build(&b, &by_ids);
        rc = tlr_net_parse(tlr_net_api(TLR_NET_SGLANG),
                           bytes_of("{\"text\":\"abc\"}"), &a, NULL);
        tlr_mem_fail_after(-1);
        ck_assert(rc == TLR_ENOMEM || (!b.failed && a.text.n == 3));
        tlr_net_answer_clear(&a);
        tlr_buf_clear(&b);
        ck_assert_int_lt(k, 50);
    }
    ck_assert_int_eq(rc, 0);
}
END_TEST

Suite *suite_api(void);
Suite *suite_api(void)
{
    Suite *s = suite_create("api");
    TCase *t = tcase_create("api");
    tcase_add_test(t, bodies_by_ids);
    tcase_add_test(t, bodies_by_text);
    tcase_add_test(t, probabilities);
    tcase_add_test(t, sglang_replies);
    tcase_add_test(t, vllm_replies);
    tcase_add_test(t, llamacpp_replies);
    tcase_add_test(t, openai_replies);
    tcase_add_test(t, refused_everywhere);
    tcase_add_test(t, refused_by_format);
    tcase_add_test(t, refused_for_size);
    tcase_add_test(t, torn_replies);
    tcase_add_test(t, memory_runs_out);
    suite_add_tcase(s, t);
    return s;
}
