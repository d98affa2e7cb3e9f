/* task.h - questions with known answers: read, put as a prompt, marked.
 *
 * csqa and gsm8k are JSON lines as CITER ships them; lm is plain text, for
 * agreement and perplexity.  Label and eval share this file, so that a router is
 * measured on the very prompt it was trained on.
 */
#ifndef TLR_ROUTER_TASK_H
#define TLR_ROUTER_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum tlr_task_kind { TLR_TASK_CSQA, TLR_TASK_GSM8K, TLR_TASK_LM };
enum { TLR_CHOICES_MAX = 16 };

struct tlr_item {
    char *prompt; /* what the user would type (without a chat template) */
    char *chain;  /* gold chain of thought, NULL where the line has none */
    char *answer; /* "C" (csqa), "18" (gsm8k); NULL for lm */
    int n_choices;
    char *labels[TLR_CHOICES_MAX]; /* "A".. */
    char *choices[TLR_CHOICES_MAX];
    size_t line; /* of the file, from 1 */
};

struct tlr_items {
    struct tlr_item *items;
    size_t n;
    uint64_t hash; /* FNV-1a of the whole file's bytes */
    void *arena;
};

/* "csqa", "gsm8k", "lm"; and back, -1 when there is none of that name. */
const char *tlr_task_name(enum tlr_task_kind kind);
int tlr_task_find(const char *name);

/* Whole file; messages name file and line, and the field that is missing or of
 * another type.  max_items 0: all.  Empty lines do not count.
 *
 * csqa needs question, choices.label, choices.text and answerKey; a prompt of
 * the line's own is sent as it is and stands for the question.  cot is optional.
 * gsm8k needs problem and solution (with the answer in its last \boxed{}), or
 * prompt and answerKey, and cot where it has one.  lm cuts plain text at empty lines into
 * items of at least 2,000 bytes, of at most 8,000 where it has lines; prompt is
 * the text. */
int tlr_items_read(struct tlr_items *out, enum tlr_task_kind kind,
                   const char *path, size_t max_items, struct tlr_err *err);
void tlr_items_clear(struct tlr_items *items);

/* Whether a text answers the item (false for lm).  The cascade restates CITER's
 * extraction (answer.h lists its steps); strict wants the closing sentence the
 * prompt asks for, or exactly one \boxed{}. */
bool tlr_item_right(const struct tlr_item *item, enum tlr_task_kind kind,
                    const char *text, size_t len, bool strict);
/* Index of the chosen answer by the cascade, -1 when the text names none
 * (csqa only). */
int tlr_item_choice(const struct tlr_item *item, const char *text, size_t len,
                    bool strict);

/* ---- task_prompt.c: what stands before an answer ---- */

struct tlr_model;
struct tlr_ids;

/* Worked examples: a question and its answer, as a user and a model would have
 * written them. */
struct tlr_shot {
    const char *prompt, *reply;
};
enum { TLR_SHOTS_MAX = 5 };
/* Those of a task, and how many there are (0 for gsm8k and lm). */
const struct tlr_shot *tlr_task_shots(enum tlr_task_kind kind, int *n);

/* Appends the ids that an answer follows: the first n_shots worked examples (at
 * most as many as there are) as turns of the same conversation, then the item's
 * prompt; raw: one text, without the chat template, in which special tokens of the
 * prompt count as they do for `tlr run --raw` (not for lm).  *n_shared: how many of the
 * ids every item of the task begins with; NULL is allowed.  TLR_EUNSUPPORTED
 * where the model has no tokenizer or no chat template. */
int tlr_task_encode(const struct tlr_model *m, enum tlr_task_kind kind,
                    int n_shots, bool raw, const struct tlr_item *item,
                    struct tlr_ids *out, size_t *n_shared, struct tlr_err *err);

#endif
