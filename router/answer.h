/* answer.h - which answer a text gives.
 *
 * Pure functions on bytes: any bytes, nothing is allocated, nothing fails.  Text
 * that is not UTF-8 matches no letter and no choice there.
 */
#ifndef TLR_ROUTER_ANSWER_H
#define TLR_ROUTER_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

/* The options of a multiple-choice question; labels are single letters where the
 * steps that look for letters shall find them. */
struct tlr_answer_choices {
    int n;
    char *const *labels;
    char *const *texts;
};

/* Index of the chosen option by CITER's cascade (commit 465492e,
 * src/utils/io_format.py), or -1: the first step that finds something decides,
 * also when what it finds is the letter of no option.
 *
 *   1. behind a "Therefore", within 50 characters of its line: the first option
 *      of the list whose text stands there
 *   2. the same stretches: a capital letter that no letter, digit or underscore
 *      follows
 *   3. anywhere: a letter in parentheses, "(c)"
 *   4. at the start, behind blanks, quotes and opening brackets: a capital
 *      letter that stands as in 2, within 15 characters
 *   5. within the first 20 characters: the text of an option
 *
 * Case counts for "Therefore" and the letters of 2 and 4, not for texts. */
int tlr_answer_cascade(const struct tlr_answer_choices *c, const char *text,
                       size_t len);

/* The same by the sentence that the prompt asks for, which must end the text:
 * "the answer is ANSWER (label)" with ANSWER the text of that label (a leading
 * article left out), or "the answer is (label)"; a full stop may follow. */
int tlr_answer_strict(const struct tlr_answer_choices *c, const char *text,
                      size_t len);

/* Whether the number in a text's last \boxed{} is the expected one; strict: it
 * must be the only \boxed{}.  Numbers are compared by value as written in
 * decimal: thousands commas, $, %, \text{...}, blanks, leading zeros and the
 * zeros of a fraction do not count. */
bool tlr_answer_boxed(const char *expected, const char *text, size_t len,
                      bool strict);

/* The inside of the last \boxed{} with its braces balanced: true, *start and
 * *inside_len within text.  *n_boxed counts them all. */
bool tlr_answer_find_boxed(const char *text, size_t len, size_t *start,
                           size_t *inside_len, size_t *n_boxed);

#endif
