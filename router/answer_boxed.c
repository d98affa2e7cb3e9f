/* answer_boxed.c - see answer.h: the number in \boxed{}. */
#include <string.h>

#include "router/answer.h"

/* Each box that is never closed is searched to the end of the text. */
enum { MAX_OPEN = 64 };

bool tlr_answer_find_boxed(const char *text, size_t len, size_t *start,
                           size_t *inside_len, size_t *n_boxed)
{
    static const char mark[] = "\\boxed{";
    bool found = false;
    size_t pos = 0;
    *n_boxed = 0;
    for (int n_open = 0; pos < len && n_open < MAX_OPEN;) {
        const char *at = memmem(text + pos, len - pos, mark, sizeof mark - 1);
        if (!at) {
            break;
        }
        size_t begin = (size_t)(at - text) + sizeof mark - 1, end = begin;
        int depth = 1;
        while (end < len && depth > 0) {
            depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
            end++;
        }
        if (depth > 0) {
            pos = begin; /* never closed: no answer, but one may follow */
            n_open++;
            continue;
        }
        pos = end;
        *start = begin;
        *inside_len = end - 1 - begin;
        *n_boxed += 1;
        found = true;
    }
    return found;
}

/* A decimal number taken apart; digits without the zeros that say nothing. */
struct number {
    bool is_number, is_negative;
    char digits[64]; /* of the whole part, then of the fraction */
    int n_whole, n_fraction;
};

/* What may stand in a box beside the number: how many bytes at text are such. */
static size_t decoration(const char *text, size_t len)
{
    static const char *const marks[] = {",", "$", " ", "\\$", "\\,", "\\!",
                                        "\\ ", "%", "\\%", "{", "}", "+",
                                        "\n", "\t"};
    static const char words[] = "\\text{";
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t n = strlen(marks[i]);
        if (n <= len && memcmp(text, marks[i], n) == 0) {
            return n;
        }
    }
    if (len < sizeof words || memcmp(text, words, sizeof words - 1) != 0) {
        return 0;
    }
    const char *end = memchr(text, '}', len);
    return end ? (size_t)(end - text) + 1 : 0;
}

static void drop_zeros(struct number *n)
{
    while (n->n_fraction > 0 &&
           n->digits[n->n_whole + n->n_fraction - 1] == '0') {
        n->n_fraction--;
    }
    int zeros = 0;
    while (zeros < n->n_whole && n->digits[zeros] == '0') {
        zeros++;
    }
    n->n_whole -= zeros;
    memmove(n->digits, n->digits + zeros,
            (size_t)(n->n_whole + n->n_fraction));
    if (n->n_whole + n->n_fraction == 0) {
        n->is_negative = false;
    }
}

static struct number read_number(const char *text, size_t len)
{
    struct number n = {0};
    bool has_point = false;
    int n_digits = 0;
    for (size_t i = 0; i < len;) {
        size_t skip = decoration(text + i, len - i);
        char c = text[i];
        if (skip > 0) {
            i += skip;
            continue;
        }
        i++;
        if (c == '-' && n_digits == 0 && !has_point && !n.is_negative) {
            n.is_negative = true;
        } else if (c == '.' && !has_point) {
            has_point = true;
        } else if (c >= '0' && c <= '9' && n_digits < (int)sizeof n.digits) {
            n.digits[n_digits++] = c;
            *(has_point ? &n.n_fraction : &n.n_whole) += 1;
        } else {
            return (struct number){0};
        }
    }
    n.is_number = n_digits > 0;
    drop_zeros(&n);
    return n;
}

static bool same_number(const struct number *a, const struct number *b)
{
    return a->is_number && b->is_number && a->is_negative == b->is_negative &&
           a->n_whole == b->n_whole && a->n_fraction == b->n_fraction &&
           memcmp(a->digits, b->digits,
                  (size_t)(a->n_whole + a->n_fraction)) == 0;
}

bool tlr_answer_boxed(const char *expected, const char *text, size_t len,
                      bool strict)
{
    size_t start, n, n_boxed;
    if (!tlr_answer_find_boxed(text, len, &start, &n, &n_boxed) ||
        (strict && n_boxed != 1)) {
        return false;
    }
    size_t n_expected = strlen(expected);
    struct number a = read_number(expected, n_expected);
    struct number b = read_number(text + start, n);
    if (a.is_number) {
        return same_number(&a, &b);
    }
    return n == n_expected && memcmp(expected, text + start, n) == 0;
}
