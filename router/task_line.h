/* task_line.h - what the tasks' readers share: one line's JSON, and the memory
 * that the texts of all items live in.
 */
#ifndef TLR_ROUTER_TASK_LINE_H
#define TLR_ROUTER_TASK_LINE_H

#include <jansson.h>

#include "base/err.h"
#include "router/task.h"

/* Texts of one file, freed together. */
struct tlr_task_arena;

struct tlr_task_line {
    const json_t *root;
    const char *where; /* "FILE: line N" */
    struct tlr_task_arena *arena;
    struct tlr_err *err;
};

/* A copy of text [len], NUL-terminated, in the arena; NULL (and err) when memory
 * is out. */
char *tlr_task_copy(const struct tlr_task_line *line, const char *text,
                    size_t len);
/* The same of pieces one behind the other. */
char *tlr_task_join(const struct tlr_task_line *line,
                    const char *const *pieces, size_t n);

/* The text of a field, copied; one that is missing leaves NULL unless it is
 * required.  An empty one is refused. */
int tlr_task_text(const struct tlr_task_line *line, const char *key,
                  bool required, char **out);
/* The same without a copy, borrowed from the line. */
int tlr_task_peek(const struct tlr_task_line *line, const char *key,
                  bool required, const char **out);

/* How CITER's prompt for a multiple-choice question ends. */
#define TLR_CSQA_INSTRUCTIONS                                                  \
    "\nPlease format your response in the following way:\n"                    \
    "[Explanation]. Therefore, the answer is answer (label).\n"                \
    "Ensure the final sentence includes the answer followed by the label in "  \
    "parentheses.\n\nAnswer and Reasoning:"

/* Fills one item. */
int tlr_csqa_read(const struct tlr_task_line *line, struct tlr_item *out);
int tlr_gsm8k_read(const struct tlr_task_line *line, struct tlr_item *out);

#endif
