/* task_csqa.c - a line of multiple choice (CommonsenseQA as CITER ships it).
 *
 * The prompt is CITER's, which its gold chains answer; a test rebuilds every
 * prompt that the training file carries.
 */
#include <string.h>

#include "engine/json.h"
#include "router/task_line.h"

static const char instructions[] = TLR_CSQA_INSTRUCTIONS;

/* choices.KEY: a list of texts, copied. */
static int read_list(const struct tlr_task_line *line, const json_t *choices,
                     const char *key, const char *path, char **out, int *n)
{
    const json_t *list = json_object_get(choices, key);
    if (!json_is_array(list)) {
        return tlr_json_wrong(list, path, "a list of texts", line->where,
                              line->err);
    }
    size_t size = json_array_size(list);
    if (size < 2 || size > TLR_CHOICES_MAX) {
        return tlr_err_set(line->err, TLR_EFORMAT,
                           "%s: %s: expected 2 to %d texts, found %zu; get the "
                           "file again",
                           line->where, path, TLR_CHOICES_MAX, size);
    }
    for (size_t i = 0; i < size; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_string(value) || json_string_length(value) == 0) {
            return tlr_json_wrong(value, path,
                                  "a list of texts that are not empty",
                                  line->where, line->err);
        }
        out[i] = tlr_task_copy(line, json_string_value(value),
                               json_string_length(value));
        if (!out[i]) {
            return TLR_ENOMEM;
        }
    }
    *n = (int)size;
    return 0;
}

static int read_choices(const struct tlr_task_line *line, struct tlr_item *out)
{
    const json_t *choices = json_object_get(line->root, "choices");
    if (!json_is_object(choices)) {
        return tlr_json_wrong(choices, "choices",
                              "an object with label and text", line->where,
                              line->err);
    }
    int n_texts;
    int rc = read_list(line, choices, "label", "choices.label", out->labels,
                       &out->n_choices);
    if (!rc) {
        rc = read_list(line, choices, "text", "choices.text", out->choices,
                       &n_texts);
    }
    if (!rc && n_texts != out->n_choices) {
        rc = tlr_err_set(line->err, TLR_EFORMAT,
                         "%s: choices.text: expected as many texts as "
                         "choices.label has (%d), found %d; get the file again",
                         line->where, out->n_choices, n_texts);
    }
    return rc;
}

static int check_answer(const struct tlr_task_line *line,
                        const struct tlr_item *item)
{
    for (int i = 0; i < item->n_choices; i++) {
        if (strcmp(item->answer, item->labels[i]) == 0) {
            return 0;
        }
    }
    return tlr_err_set(line->err, TLR_EFORMAT,
                       "%s: answerKey: expected one of choices.label, found "
                       "\"%.32s\"; get the file again",
                       line->where, item->answer);
}

static char *make_prompt(const struct tlr_task_line *line,
                         const struct tlr_item *item, const char *question)
{
    const char *pieces[3 + 4 * TLR_CHOICES_MAX + 1];
    size_t n = 0;
    pieces[n++] = "Question: ";
    pieces[n++] = question;
    pieces[n++] = "\nChoices:\n";
    for (int i = 0; i < item->n_choices; i++) {
        pieces[n++] = item->labels[i];
        pieces[n++] = ". ";
        pieces[n++] = item->choices[i];
        pieces[n++] = "\n";
    }
    pieces[n++] = instructions;
    return tlr_task_join(line, pieces, n);
}

int tlr_csqa_read(const struct tlr_task_line *line, struct tlr_item *out)
{
    const char *question = NULL;
    int rc = tlr_task_text(line, "prompt", false, &out->prompt);
    if (!rc && !out->prompt) {
        rc = tlr_task_peek(line, "question", true, &question);
    }
    if (!rc) {
        rc = read_choices(line, out);
    }
    if (!rc) {
        rc = tlr_task_text(line, "answerKey", true, &out->answer);
    }
    if (!rc) {
        rc = tlr_task_text(line, "cot", false, &out->chain);
    }
    if (!rc) {
        rc = check_answer(line, out);
    }
    if (!rc && !out->prompt) {
        out->prompt = make_prompt(line, out, question);
        rc = out->prompt ? 0 : TLR_ENOMEM;
    }
    return rc;
}
