/* answer.c - see answer.h: multiple choice.
 *
 * The stretches are counted in characters and not in bytes, and letters are
 * Unicode's, as in the Python that the cascade restates; the tests hold it to
 * that code's own answers.
 */
#include "router/answer.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/unicode.h"

enum { THEREFORE_CHARS = 50, START_CHARS = 15, START_TEXT_CHARS = 20 };
enum { REPLACEMENT = 0xfffd };

struct text {
    const uint8_t *at;
    size_t len;
};

static struct text text_of(const char *bytes, size_t len)
{
    return (struct text){(const uint8_t *)bytes, len};
}

/* The character at pos, which moves behind it; a stray byte is one of its own. */
static uint32_t next_char(struct text t, size_t *pos)
{
    if (tlr_utf8_char_len(t.at + *pos, t.len - *pos) == 0) {
        (*pos)++;
        return REPLACEMENT;
    }
    return tlr_utf8_next(t.at, pos);
}

static uint32_t lower(uint32_t c)
{
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* The first n characters, or those before the end of the line. */
static struct text beginning(struct text t, int n, bool stop_at_line)
{
    size_t pos = 0;
    while (n-- > 0 && pos < t.len && !(stop_at_line && t.at[pos] == '\n')) {
        next_char(t, &pos);
    }
    t.len = pos;
    return t;
}

static struct text rest(struct text t, size_t pos)
{
    return (struct text){t.at + pos, t.len - pos};
}

static struct text trimmed(struct text t)
{
    while (t.len > 0) {
        size_t pos = 0;
        if (tlr_char_class(next_char(t, &pos)) != TLR_CHAR_SPACE) {
            break;
        }
        t = rest(t, pos);
    }
    while (t.len > 0) {
        size_t last = tlr_utf8_prev(t.at, t.len), pos = last;
        if (tlr_char_class(next_char(t, &pos)) != TLR_CHAR_SPACE ||
            pos != t.len) {
            break;
        }
        t.len = last;
    }
    return t;
}

/* Characters of t, case apart, that begin with those of part: bytes of t that
 * they take, or 0. */
static size_t begins_with(struct text t, struct text part)
{
    size_t i = 0, k = 0;
    while (k < part.len) {
        if (i >= t.len || lower(next_char(t, &i)) != lower(next_char(part, &k))) {
            return 0;
        }
    }
    return i;
}

static bool contains(struct text t, struct text part)
{
    for (size_t pos = 0; pos < t.len; next_char(t, &pos)) {
        if (begins_with(rest(t, pos), part) > 0) {
            return true;
        }
    }
    return false;
}

static int first_choice_in(const struct tlr_answer_choices *c, struct text t)
{
    for (int i = 0; i < c->n; i++) {
        if (contains(t, text_of(c->texts[i], strlen(c->texts[i])))) {
            return i;
        }
    }
    return -1;
}

static int choice_of_letter(const struct tlr_answer_choices *c, uint32_t letter)
{
    for (int i = 0; i < c->n; i++) {
        const char *label = c->labels[i];
        if (lower((uint8_t)label[0]) == lower(letter) && label[1] == '\0') {
            return i;
        }
    }
    return -1;
}

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A capital at pos that nothing of a word follows; what precedes it is not
 * looked at. */
static bool is_loose_capital(struct text t, size_t pos)
{
    if (t.at[pos] < 'A' || t.at[pos] > 'Z') {
        return false;
    }
    pos++;
    return pos == t.len || !tlr_char_is_word(next_char(t, &pos));
}

/* ---- the steps ---- */

/* The stretch behind the next "Therefore" from *pos on, which moves behind it;
 * stretches do not overlap. */
static bool next_therefore(struct text t, size_t *pos, struct text *out)
{
    static const char word[] = "Therefore";
    const uint8_t *at = *pos < t.len ? memmem(t.at + *pos, t.len - *pos, word,
                                              sizeof word - 1)
                                     : NULL;
    if (!at) {
        return false;
    }
    size_t start = (size_t)(at - t.at) + sizeof word - 1;
    *out = beginning(rest(t, start), THEREFORE_CHARS, true);
    *pos = start + out->len;
    *out = trimmed(*out);
    return true;
}

static bool find_therefore_text(const struct tlr_answer_choices *c,
                                struct text t, int *found)
{
    struct text part;
    *found = -1;
    for (size_t pos = 0; *found < 0 && next_therefore(t, &pos, &part);) {
        *found = first_choice_in(c, part);
    }
    return *found >= 0;
}

static bool find_therefore_letter(const struct tlr_answer_choices *c,
                                  struct text t, int *found)
{
    struct text part;
    for (size_t pos = 0; next_therefore(t, &pos, &part);) {
        for (size_t i = 0; i < part.len; i++) {
            if (is_loose_capital(part, i)) {
                *found = choice_of_letter(c, part.at[i]);
                return true;
            }
        }
    }
    return false;
}

static bool find_parenthesised(const struct tlr_answer_choices *c,
                               struct text t, int *found)
{
    for (size_t i = 0; i + 2 < t.len; i++) {
        if (t.at[i] == '(' && is_letter(t.at[i + 1]) && t.at[i + 2] == ')') {
            *found = choice_of_letter(c, t.at[i + 1]);
            return true;
        }
    }
    return false;
}

static bool opens(uint32_t c)
{
    return c == '(' || c == '[' || c == '"' || c == '\'' || c == 0x201c ||
           c == 0x2018 || tlr_char_class(c) == TLR_CHAR_SPACE;
}

static bool find_leading_letter(const struct tlr_answer_choices *c,
                                struct text t, int *found)
{
    t = beginning(t, START_CHARS, false);
    size_t pos = 0, next = 0;
    while (pos < t.len && opens(next_char(t, &next))) {
        pos = next;
    }
    if (pos == t.len || !is_loose_capital(t, pos)) {
        return false;
    }
    *found = choice_of_letter(c, t.at[pos]);
    return true;
}

int tlr_answer_cascade(const struct tlr_answer_choices *c, const char *text,
                       size_t len)
{
    struct text t = text_of(text, len);
    int found;
    if (find_therefore_text(c, t, &found) ||
        find_therefore_letter(c, t, &found) ||
        find_parenthesised(c, t, &found) ||
        find_leading_letter(c, t, &found)) {
        return found;
    }
    return first_choice_in(c, beginning(t, START_TEXT_CHARS, false));
}

/* ---- the sentence that the prompt asks for ---- */

static struct text without_article(struct text t)
{
    static const char *const articles[] = {"a ", "an ", "the "};
    for (size_t i = 0; i < sizeof articles / sizeof *articles; i++) {
        size_t n = begins_with(t, text_of(articles[i], strlen(articles[i])));
        if (n > 0) {
            return trimmed(rest(t, n));
        }
    }
    return t;
}

static bool same_text(struct text a, struct text b)
{
    return a.len > 0 && b.len > 0 && begins_with(a, b) == a.len;
}

/* What stands behind the last "the answer is". */
static bool last_claim(struct text t, struct text *out)
{
    static const char words[] = "the answer is";
    bool found = false;
    for (size_t pos = 0; pos < t.len; next_char(t, &pos)) {
        size_t n = begins_with(rest(t, pos), text_of(words, sizeof words - 1));
        if (n > 0) {
            *out = trimmed(rest(t, pos + n));
            found = true;
        }
    }
    return found;
}

int tlr_answer_strict(const struct tlr_answer_choices *c, const char *text,
                      size_t len)
{
    struct text t;
    if (!last_claim(text_of(text, len), &t)) {
        return -1;
    }
    if (t.len > 0 && t.at[t.len - 1] == '.') {
        t.len--;
    }
    if (t.len < 3 || t.at[t.len - 3] != '(' || !is_letter(t.at[t.len - 2]) ||
        t.at[t.len - 1] != ')') {
        return -1;
    }
    int choice = choice_of_letter(c, t.at[t.len - 2]);
    t.len -= 3;
    t = trimmed(t);
    if (choice < 0 || t.len == 0) {
        return choice;
    }
    struct text want = text_of(c->texts[choice], strlen(c->texts[choice]));
    bool agrees = same_text(t, want) ||
                  same_text(without_article(t), without_article(want));
    return agrees ? choice : -1;
}
