/* test_task.c - files of questions: what is read, and what is refused how. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "router/task.h"
#include "tests/router/tiny.h"
#include "tests/support/tlr_check.h"

static const char *spill(const char *text, size_t len)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/task.jsonl", tlr_test_tmpdir());
    FILE *f = fopen(path, "w");
    ck_assert(f != NULL);
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    fclose(f);
    return path;
}

/* The fields of a file of CITER's, in its own words, beside what is read. */
static void check_lines(const char *path, enum tlr_task_kind kind, size_t n,
                        bool rebuild)
{
    struct tlr_items items;
    struct tlr_err err = TLR_ERR_INIT;
    FILE *f = fopen(path, "r");
    ck_assert(f != NULL);
    if (rebuild) { /* the same file without its prompts */
        char stripped[600];
        snprintf(stripped, sizeof stripped, "%s/stripped.jsonl",
                 tlr_test_tmpdir());
        FILE *to = fopen(stripped, "w");
        json_t *line;
        ck_assert(to != NULL);
        while ((line = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL))) {
            ck_assert_int_eq(json_object_del(line, "prompt"), 0);
            json_dumpf(line, to, JSON_COMPACT);
            fputc('\n', to);
            json_decref(line);
        }
        fclose(to);
        rewind(f);
        ck_assert_msg(!tlr_items_read(&items, kind, stripped, 0, &err), "%s",
                      err.text);
    } else {
        ck_assert_msg(!tlr_items_read(&items, kind, path, 0, &err), "%s",
                      err.text);
    }
    ck_assert_uint_eq(items.n, n);
    for (size_t i = 0; i < n; i++) {
        json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
        const struct tlr_item *item = &items.items[i];
        ck_assert(line != NULL);
        ck_assert_str_eq(item->prompt, json_string_value(json_object_get(
                                           line, "prompt")));
        ck_assert_str_eq(item->chain,
                         json_string_value(json_object_get(line, "cot")));
        ck_assert_str_eq(item->answer,
                         json_string_value(json_object_get(line, "answerKey")));
        json_decref(line);
    }
    fclose(f);
    tlr_items_clear(&items);
}

START_TEST(csqa_prompts_are_citers)
{
    const char *path = tlr_test_shared("csqa_router_train.jsonl");
    if (!path) {
        TLR_SKIP_SHARED("no ../shared/data/csqa_router_train.jsonl");
    }
    check_lines(path, TLR_TASK_CSQA, 2049, true);
    check_lines(path, TLR_TASK_CSQA, 2049, false);
}
END_TEST

/* How many gold chains lead to their question's answer: 2,046 by CITER's own
 * code, 1,814 by a regular expression for the strict form in Python's re. */
START_TEST(gold_chains_answer_their_questions)
{
    const char *path = tlr_test_shared("csqa_router_train.jsonl");
    if (!path) {
        TLR_SKIP_SHARED("no ../shared/data/csqa_router_train.jsonl");
    }
    struct tlr_items items;
    struct tlr_err err = TLR_ERR_INIT;
    size_t right = 0, strict = 0;
    ck_assert_msg(!tlr_items_read(&items, TLR_TASK_CSQA, path, 0, &err), "%s",
                  err.text);
    for (size_t i = 0; i < items.n; i++) {
        const struct tlr_item *item = &items.items[i];
        size_t len = strlen(item->chain);
        right += tlr_item_right(item, TLR_TASK_CSQA, item->chain, len, false);
        strict += tlr_item_right(item, TLR_TASK_CSQA, item->chain, len, true);
    }
    ck_assert_uint_eq(right, 2046);
    ck_assert_uint_eq(strict, 1814);
    tlr_items_clear(&items);
}
END_TEST

START_TEST(gsm8k_lines)
{
    const char *train = tlr_test_shared("gsm8k_router_train.jsonl");
    const char *dev = tlr_test_shared("gsm8k_dev.jsonl");
    if (!train || !dev) {
        TLR_SKIP_SHARED("no ../shared/data/gsm8k_*.jsonl");
    }
    check_lines(train, TLR_TASK_GSM8K, 1869, false);
    struct tlr_items a, b;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(!tlr_items_read(&a, TLR_TASK_GSM8K, train, 3, &err), "%s",
                  err.text);
    ck_assert_msg(!tlr_items_read(&b, TLR_TASK_GSM8K, dev, 0, &err), "%s",
                  err.text);
    ck_assert_uint_eq(a.n, 3);
    ck_assert_uint_eq(b.n, 600);
    size_t same = strcspn(a.items[0].prompt, "Q");
    for (size_t i = 0; i < b.n; i++) { /* framed as the training prompts are */
        const char *prompt = b.items[i].prompt;
        ck_assert_int_eq(strncmp(prompt, a.items[0].prompt, same), 0);
        ck_assert_str_eq(strrchr(prompt, '\n'), "\nSolution: ");
        ck_assert(tlr_item_right(&b.items[i], TLR_TASK_GSM8K,
                                 b.items[i].chain, strlen(b.items[i].chain),
                                 true));
    }
    ck_assert_str_eq(b.items[0].answer, "18");
    tlr_items_clear(&a);
    tlr_items_clear(&b);
}
END_TEST

#define CHOICES "\"choices\":{\"label\":[\"A\",\"B\"],\"text\":[\"x\",\"y\"]}"
#define GOOD "{\"question\":\"q\"," CHOICES ",\"answerKey\":\"A\"}\n"

START_TEST(refusals_name_file_line_and_field)
{
    static const struct {
        enum tlr_task_kind kind;
        const char *text, *message; /* behind "FILE: " */
    } cases[] = {
        {TLR_TASK_CSQA, GOOD "\n" GOOD "{\"question\":\"q\"," CHOICES "}",
         "line 4: answerKey: expected a string, found nothing"},
        {TLR_TASK_CSQA, "{" CHOICES ",\"answerKey\":\"A\"}",
         "line 1: question: expected a string, found nothing"},
        {TLR_TASK_CSQA, "{\"question\":\"q\",\"answerKey\":\"A\"}",
         "line 1: choices: expected an object with label and text, found "
         "nothing"},
        {TLR_TASK_CSQA, "{\"question\":\"q\",\"choices\":{\"label\":[\"A\","
         "\"B\"]},\"answerKey\":\"A\"}",
         "line 1: choices.text: expected a list of texts, found nothing"},
        {TLR_TASK_CSQA, "{\"question\":\"q\",\"choices\":{\"label\":[\"A\","
         "\"B\"],\"text\":[\"x\",7]},\"answerKey\":\"A\"}",
         "line 1: choices.text: expected a list of texts that are not empty, "
         "found an integer"},
        {TLR_TASK_CSQA, "{\"question\":\"q\",\"choices\":{\"label\":[\"A\","
         "\"B\"],\"text\":[\"x\",\"y\",\"z\"]},\"answerKey\":\"A\"}",
         "line 1: choices.text: expected as many texts as choices.label has "
         "(2), found 3"},
        {TLR_TASK_CSQA, "{\"question\":\"q\",\"choices\":{\"label\":[],"
         "\"text\":[]},\"answerKey\":\"A\"}",
         "line 1: choices.label: expected 2 to 16 texts, found 0"},
        {TLR_TASK_CSQA, "{\"question\":\"q\"," CHOICES
         ",\"answerKey\":\"C\"}",
         "line 1: answerKey: expected one of choices.label, found \"C\""},
        {TLR_TASK_CSQA, "{\"question\":7," CHOICES ",\"answerKey\":\"A\"}",
         "line 1: question: expected a string, found an integer"},
        {TLR_TASK_CSQA, "{\"question\":\"\"," CHOICES ",\"answerKey\":\"A\"}",
         "line 1: question: expected a text, found an empty one"},
        {TLR_TASK_CSQA, GOOD "[]",
         "line 2: expected a JSON object, found a list"},
        {TLR_TASK_CSQA, GOOD "{\"question\":", "line 2: column 12: not valid "
         "JSON"},
        {TLR_TASK_CSQA, "{\"question\":\"\xff\"}",
         "line 1: column 13: not valid JSON"},
        {TLR_TASK_CSQA, "{\"question\":\"a\\u0000b\"}",
         "line 1: column 22: not valid JSON"},
        {TLR_TASK_CSQA, "\n \n", "expected JSON lines, found nothing"},
        {TLR_TASK_GSM8K, "{\"problem\":\"p\"}",
         "line 1: solution: expected a string, found nothing"},
        {TLR_TASK_GSM8K, "{\"problem\":\"p\",\"solution\":\"18\"}",
         "line 1: solution: expected the answer in \\boxed{}, found none"},
        {TLR_TASK_GSM8K, "{\"prompt\":\"p\"}",
         "line 1: answerKey: expected a string, found nothing"},
        {TLR_TASK_GSM8K, "{}",
         "line 1: prompt: expected a string, found nothing"},
        {TLR_TASK_LM, "abc\xff", "expected UTF-8 text, found other bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tlr_items items;
        struct tlr_err err = TLR_ERR_INIT;
        char want[800];
        const char *path = spill(cases[i].text, strlen(cases[i].text));
        int rc = tlr_items_read(&items, cases[i].kind, path, 0, &err);
        snprintf(want, sizeof want, "%s: %s", path, cases[i].message);
        ck_assert_msg(rc == TLR_EFORMAT && strncmp(err.text, want,
                                                   strlen(want)) == 0,
                      "expected %s\nfound %s", want, err.text);
        ck_assert_ptr_null(items.items);
        ck_assert_ptr_null(items.arena);
    }
}
END_TEST

START_TEST(long_lines_are_refused)
{
    struct tlr_items items;
    struct tlr_err err = TLR_ERR_INIT;
    size_t n = (1 << 20) + 1;
    char *text = tlr_calloc(n, 1);
    ck_assert(text != NULL);
    memset(text, 'x', n);
    int rc = tlr_items_read(&items, TLR_TASK_CSQA, spill(text, n), 0, &err);
    ck_assert_int_eq(rc, TLR_ELIMIT);
    ck_assert_ptr_nonnull(strstr(err.text, "line 1: expected at most 1048576"));
    tlr_free(text);
}
END_TEST

/* Nothing is lost, and no cut falls inside a line. */
START_TEST(text_is_cut_at_empty_lines)
{
    static char text[60000];
    struct tlr_items items;
    struct tlr_err err = TLR_ERR_INIT;
    size_t n = 0;
    for (int i = 0; n + 100 < sizeof text; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "line %d of a text%s",
                              i, i < 900 && i % 30 == 29 ? "\n\n" : "\n");
    }
    ck_assert_msg(!tlr_items_read(&items, TLR_TASK_LM, spill(text, n), 0, &err),
                  "%s", err.text);
    ck_assert_uint_gt(items.n, 8);
    size_t pos = 0;
    for (size_t i = 0; i < items.n; i++) {
        size_t len = strlen(items.items[i].prompt);
        ck_assert_int_eq(memcmp(text + pos, items.items[i].prompt, len), 0);
        pos += len;
        ck_assert_int_eq(text[pos - 1], '\n');
        ck_assert_uint_le(len, 8000);
        ck_assert_ptr_null(items.items[i].answer);
        if (i + 1 < items.n) {
            ck_assert_uint_ge(len, 2000);
        }
    }
    ck_assert_uint_eq(pos, n);
    tlr_items_clear(&items);
}
END_TEST

START_TEST(memory_may_run_out)
{
    struct tlr_items items;
    const char *path = spill(GOOD GOOD, 2 * strlen(GOOD));
    int rc = 1;
    for (long k = 0; rc; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        rc = tlr_items_read(&items, TLR_TASK_CSQA, path, 0, &err);
        tlr_mem_fail_after(-1);
        ck_assert_msg(rc == 0 || rc == TLR_ENOMEM, "%ld: %s", k, err.text);
        ck_assert(k < 100);
    }
    ck_assert_uint_eq(items.n, 2);
    tlr_items_clear(&items);
}
END_TEST

/* ---- worked examples ---- */

/* The example's own lines as a line of JSON, its answer as the reply names it. */
static void shot_line(const struct tlr_shot *shot, char *out, size_t cap)
{
    char text[1024], *at = text, letter = 0;
    snprintf(text, sizeof text, "%s", shot->prompt + strlen("Question: "));
    const char *open = strrchr(shot->reply, '(');
    ck_assert_int_eq(sscanf(open, "(%c).", &letter), 1);
    char *question = at;
    at = strstr(at, "\nChoices:\n");
    ck_assert_ptr_nonnull(at);
    *at = '\0';
    at += strlen("\nChoices:\n");
    char *choice[5];
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(at[0], 'A' + i);
        choice[i] = at + 3;
        at = strchr(at, '\n');
        *at++ = '\0';
    }
    snprintf(out, cap,
             "{\"question\": \"%s\", \"choices\": {\"label\": [\"A\", \"B\", "
             "\"C\", \"D\", \"E\"], \"text\": [\"%s\", \"%s\", \"%s\", \"%s\", "
             "\"%s\"]}, \"answerKey\": \"%c\"}\n",
             question, choice[0], choice[1], choice[2], choice[3], choice[4],
             letter - 'a' + 'A');
}

START_TEST(worked_examples_look_like_questions)
{
    int n, letters = 0;
    const struct tlr_shot *shots = tlr_task_shots(TLR_TASK_CSQA, &n);
    ck_assert_int_eq(n, TLR_SHOTS_MAX);
    for (int i = 0; i < n; i++) {
        struct tlr_items items;
        struct tlr_err err = TLR_ERR_INIT;
        char line[2048];
        shot_line(&shots[i], line, sizeof line);
        ck_assert_msg(!tlr_items_read(&items, TLR_TASK_CSQA,
                                      spill(line, strlen(line)), 0, &err), "%s",
                      err.text);
        const struct tlr_item *item = &items.items[0];
        ck_assert_str_eq(item->prompt, shots[i].prompt);
        ck_assert(tlr_item_right(item, TLR_TASK_CSQA, shots[i].reply,
                                 strlen(shots[i].reply), true));
        letters |= 1 << (item->answer[0] - 'A');
        tlr_items_clear(&items);
    }
    ck_assert_int_eq(letters, 31); /* each letter is the answer once */
    tlr_task_shots(TLR_TASK_GSM8K, &n);
    ck_assert_int_eq(n, 0);
}
END_TEST

START_TEST(worked_examples_are_earlier_turns)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_model *m = tiny_model(TLR_Q8);
    char prompt[] = "Question: q?";
    struct tlr_item item = {.prompt = prompt};
    struct tlr_ids ids = {0}, want = {0};
    int n;
    const struct tlr_shot *shots = tlr_task_shots(TLR_TASK_CSQA, &n);
    char text[8192];
    size_t n_shared, len;
    for (int k = 0; k <= 2; k++) {
        len = 0;
        for (int i = 0; i < k; i++) {
            len += (size_t)snprintf(
                text + len, sizeof text - len,
                "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n%s"
                "<|im_end|>\n", shots[i].prompt, shots[i].reply);
        }
        want.n = ids.n = 0;
        ck_assert(!tlr_encode(tlr_model_tokenizer(m), text, len,
                              TLR_ENCODE_SPECIAL, &want, &err));
        size_t before = want.n;
        snprintf(text, sizeof text,
                 "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
                 item.prompt);
        ck_assert(!tlr_encode(tlr_model_tokenizer(m), text, strlen(text),
                              TLR_ENCODE_SPECIAL, &want, &err));
        ck_assert_msg(!tlr_task_encode(m, TLR_TASK_CSQA, k, false, &item, &ids,
                                       &n_shared, &err), "%s", err.text);
        ck_assert_uint_eq(n_shared, before);
        ck_assert_uint_eq(ids.n, want.n);
        ck_assert_mem_eq(ids.ids, want.ids, want.n * sizeof *want.ids);
    }
    /* As `tlr run --raw` has it; a text of lm is text. */
    char marked[] = "a<|im_end|>";
    struct tlr_item with_mark = {.prompt = marked};
    int32_t end = tlr_token_find(tlr_model_tokenizer(m), "<|im_end|>", 10);
    for (int k = 0; k < 2; k++) {
        ids.n = 0;
        ck_assert(!tlr_task_encode(m, k ? TLR_TASK_LM : TLR_TASK_CSQA, 0, true,
                                   &with_mark, &ids, NULL, &err));
        ck_assert_int_eq(ids.ids[ids.n - 1] == end, k == 0);
    }
    ids.n = 0;
    ck_assert(!tlr_task_encode(m, TLR_TASK_CSQA, 1, true, &item, &ids, NULL,
                               &err));
    len = 0;
    for (size_t i = 0; i < ids.n; i++) {
        struct tlr_bytes b = tlr_token_bytes(tlr_model_tokenizer(m), ids.ids[i]);
        memcpy(text + len, b.ptr, b.len);
        len += b.len;
    }
    text[len] = '\0';
    char plain[2048];
    snprintf(plain, sizeof plain, "%s %s\n\n%s", shots[0].prompt,
             shots[0].reply, item.prompt);
    ck_assert_str_eq(text, plain);
    tlr_ids_clear(&ids);
    tlr_ids_clear(&want);
    tlr_model_close(m);
}
END_TEST

START_TEST(names)
{
    for (int i = 0; i <= TLR_TASK_LM; i++) {
        ck_assert_int_eq(tlr_task_find(tlr_task_name((enum tlr_task_kind)i)),
                         i);
    }
    ck_assert_int_eq(tlr_task_find("mmlu"), -1);
}
END_TEST

Suite *suite_task(void);

Suite *suite_task(void)
{
    Suite *s = suite_create("task");
    TCase *t = tcase_create("task");
    tcase_add_test(t, csqa_prompts_are_citers);
    tcase_add_test(t, gold_chains_answer_their_questions);
    tcase_add_test(t, gsm8k_lines);
    tcase_add_test(t, refusals_name_file_line_and_field);
    tcase_add_test(t, long_lines_are_refused);
    tcase_add_test(t, text_is_cut_at_empty_lines);
    tcase_add_test(t, memory_may_run_out);
    tcase_add_test(t, worked_examples_look_like_questions);
    tcase_add_test(t, worked_examples_are_earlier_turns);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    return s;
}
