/* test_answer.c - the answer that a text gives.
 *
 * The cascade is held to CITER's own code through tests/golden/answers
 * (make.py there); the strict form and boxes to tables written by hand.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "router/answer.h"
#include "router/task.h"
#include "tests/support/tlr_check.h"

static char label_a[] = "A", label_b[] = "B", label_c[] = "C", label_d[] = "D",
            label_e[] = "E";
static char *const labels[] = {label_a, label_b, label_c, label_d, label_e};

static int strings(const json_t *list, char **out)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        out[i] = tlr_strdup(json_string_value(json_array_get(list, i)));
        ck_assert(out[i] != NULL);
    }
    return (int)json_array_size(list);
}

START_TEST(cascade_equals_citer)
{
    FILE *f = fopen("tests/golden/answers/answers.jsonl", "r");
    ck_assert_msg(f != NULL, "tests/golden/answers/answers.jsonl is missing");
    int n = 0, n_by[6] = {0};
    json_error_t e;
    for (;;) {
        json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, &e);
        if (!line) {
            break;
        }
        char *choices[5];
        struct tlr_answer_choices c = {
            strings(json_object_get(line, "choices"), choices), labels,
            choices};
        const json_t *text = json_object_get(line, "text");
        const char *found =
            json_string_value(json_object_get(line, "found"));
        int expected = found ? found[0] - 'A' : -1;
        int got = tlr_answer_cascade(&c, json_string_value(text),
                                     json_string_length(text));
        ck_assert_msg(got == expected, "line %d: expected %d, found %d: %s",
                      n + 1, expected, got, json_string_value(text));
        for (int i = 0; i < c.n; i++) {
            tlr_free(choices[i]);
        }
        json_decref(line);
        n_by[expected + 1]++;
        n++;
    }
    fclose(f);
    ck_assert_int_eq(n, 1500);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_gt(n_by[i], 50);
    }
}
END_TEST

static char bank[] = "bank", hotel[] = "the hotel room", buy[] = "have fun",
            mall[] = "Mall", cafe[] = "caf\xc3\xa9";
static char *const texts[] = {bank, hotel, buy, mall, cafe};

static int choose(const char *text, bool strict)
{
    struct tlr_answer_choices c = {5, labels, texts};
    size_t len = strlen(text);
    char *exact = (char *)tlr_test_guarded(len ? len : 1);
    memcpy(exact, text, len);
    return strict ? tlr_answer_strict(&c, exact, len)
                  : tlr_answer_cascade(&c, exact, len);
}

START_TEST(strict_wants_the_closing_sentence)
{
    static const struct {
        const char *text;
        int choice;
    } cases[] = {
        {"Money is there. Therefore, the answer is bank (a).", 0},
        {"Therefore, the answer is BANK (A)", 0},
        {"the answer is bank (a). \n", 0},
        {"The answer is a bank (a).", 0},
        {"The answer is hotel room (b).", 1},
        {"The answer is (c).", 2},
        {"The answer is caf\xc3\x89 (e).", 4},
        {"The answer is bank (a). No, the answer is mall (d).", 3},
        {"The answer is bank (b).", -1},
        {"The answer is bank.", -1},
        {"The answer is bank (a) or mall (d).", -1},
        {"The answer is bank (a). And so on.", -1},
        {"Therefore, bank (a).", -1},
        {"The answer is either bank (a).", -1},
        {"The answer is (f).", -1},
        {"The answer is", -1},
        {"The answer is (", -1},
        {"The answer is a).", -1},
        {"", -1},
        {"\xff\xfe the answer is (a)", 0},
        {"the answer is \xc3 (a)", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int got = choose(cases[i].text, true);
        ck_assert_msg(got == cases[i].choice, "expected %d, found %d: %s",
                      cases[i].choice, got, cases[i].text);
    }
}
END_TEST

/* Bytes that end inside a character, inside a letter's brackets, and NULs. */
START_TEST(hostile_text_names_nothing)
{
    static const char *const cases[] = {
        "\xc3", "\xe6\x97", "\xf0\x9f\x98", "(", "(a", "Therefore", "Therefor",
        "Therefore\n", "\xff\xff\xff(\xff)", "Therefore \xc3\x28",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_int_eq(choose(cases[i], false), -1);
        ck_assert_int_eq(choose(cases[i], true), -1);
    }
    struct tlr_answer_choices c = {5, labels, texts};
    ck_assert_int_eq(tlr_answer_cascade(&c, "\0\0(b)\0", 6), 1);
    /* an unfinished character right behind a "Therefore" takes one place */
    ck_assert_int_eq(choose("Therefore \xc3 bank", false), 0);
}
END_TEST

START_TEST(boxed_numbers)
{
    static const struct {
        const char *expected, *text;
        bool loose, strict;
    } cases[] = {
        {"18", "so \\boxed{18}.", true, true},
        {"18", "\\boxed{17} no, \\boxed{18}", true, false},
        {"18", "\\boxed{18} no, \\boxed{17}", false, false},
        {"40,000", "\\boxed{40000}", true, true},
        {"40000", "\\boxed{\\$40,000.00}", true, true},
        {"18", "$$\\boxed{ 018 \\text{ dollars} }$$", true, true},
        {"0.5", "\\boxed{.50}", true, true},
        {"-3", "\\boxed{-3}", true, true},
        {"3", "\\boxed{-3}", false, false},
        {"0", "\\boxed{-0.0}", true, true},
        {"100", "\\boxed{1}", false, false},
        {"1", "\\boxed{100}", false, false},
        {"10", "\\boxed{1.0}", false, false},
        {"75", "\\boxed{75\\%}", true, true},
        {"18", "\\boxed{}", false, false},
        {"18", "\\boxed{18", false, false},
        {"18", "\\boxed{18} \\boxed{", true, true},
        {"18", "\\boxed{1.8.}", false, false},
        {"18", "\\boxed{x = 18}", false, false},
        {"18", "\\boxed{{18}}", true, true},
        {"18", "18", false, false},
        {"x+1", "\\boxed{x+1}", true, true},
        {"x+1", "\\boxed{x+2}", false, false},
        {"18", "", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        ck_assert_msg(tlr_answer_boxed(cases[i].expected, cases[i].text, len,
                                       false) == cases[i].loose,
                      "%s: %s", cases[i].expected, cases[i].text);
        ck_assert_msg(tlr_answer_boxed(cases[i].expected, cases[i].text, len,
                                       true) == cases[i].strict,
                      "%s, strict: %s", cases[i].expected, cases[i].text);
    }
}
END_TEST

/* More digits than a number may have, and boxes that are never closed. */
START_TEST(boxed_hostile)
{
    static char text[700000];
    memset(text, '7', sizeof text);
    memcpy(text, "\\boxed{", 7);
    text[sizeof text - 1] = '}';
    ck_assert(!tlr_answer_boxed("7", text, sizeof text, false));
    for (size_t i = 0; i + 7 <= sizeof text; i += 7) {
        memcpy(text + i, "\\boxed{", 7);
    }
    ck_assert(!tlr_answer_boxed("7", text, sizeof text, false));
}
END_TEST

Suite *suite_answer(void);

Suite *suite_answer(void)
{
    Suite *s = suite_create("answer");
    TCase *t = tcase_create("answer");
    tcase_add_test(t, cascade_equals_citer);
    tcase_add_test(t, strict_wants_the_closing_sentence);
    tcase_add_test(t, hostile_text_names_nothing);
    tcase_add_test(t, boxed_numbers);
    tcase_add_test(t, boxed_hostile);
    suite_add_tcase(s, t);
    return s;
}
