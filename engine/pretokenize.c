/* pretokenize.c - the pre-tokenizers' regular expressions, written out by hand.
 *
 * Each alternative of a pattern is tried in its order at the current position;
 * every position is matched by one of them, so pieces tile the text.  The tests
 * hold this to PCRE2 on the patterns below.  A run of blanks is where
 * backtracking hides: \s+(?!\S) leaves the last blank to what follows, and
 * \s*[\r\n]+ ends behind the last line end of the run.
 */
#include "engine/pretokenize.h"

#include <stdbool.h>

#include "engine/unicode.h"
#include "engine/vocab.h"

#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
#define REST                                                                   \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const char *tlr_pretokenize_pattern(uint32_t pre)
{
    switch (pre) {
    case TLR_PRE_GPT2:
        return CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
                            "|\\s+(?!\\S)|\\s+";
    case TLR_PRE_QWEN2:
        return "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" REST;
    case TLR_PRE_LLAMA3:
        return "(?i:" CONTRACTIONS
               ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" REST;
    default:
        return NULL;
    }
}

struct scan {
    const uint8_t *text;
    size_t len;
};

static enum tlr_char_class class_at(const struct scan *s, size_t pos,
                                    size_t *next)
{
    *next = pos;
    return tlr_char_class(tlr_utf8_next(s->text, next));
}

/* End of the run of this class. */
static size_t run_of(const struct scan *s, size_t pos, enum tlr_char_class class)
{
    while (pos < s->len) {
        uint8_t byte = s->text[pos];
        if (byte < 0x80) {
            if (tlr_ascii_class[byte] != class) {
                break;
            }
            pos++;
            continue;
        }
        size_t next;
        if (class_at(s, pos, &next) != class) {
            break;
        }
        pos = next;
    }
    return pos;
}

/* Length of the contraction at pos, where an apostrophe stands; 0: none. */
static size_t contraction(const struct scan *s, size_t pos, bool any_case)
{
    uint8_t a = pos + 1 < s->len ? s->text[pos + 1] : 0;
    uint8_t b = pos + 2 < s->len ? s->text[pos + 2] : 0;
    if (any_case) {
        if (a == 0xc5 && b == 0xbf) {
            return 3; /* U+017F, the long s, is an s in another case */
        }
        a = a >= 'A' && a <= 'Z' ? a + 32 : a;
        b = b >= 'A' && b <= 'Z' ? b + 32 : b;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    bool is_two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') ||
                  (a == 'l' && b == 'l');
    return is_two ? 3 : 0;
}

/* \s+(?!\S)|\s+ on the run [pos, end): all of it at the end of the text, else
 * all but its last character, if that leaves one. */
static size_t blanks(const struct scan *s, size_t pos, size_t end)
{
    if (end == s->len) {
        return end;
    }
    size_t last = tlr_utf8_prev(s->text, end);
    return last > pos ? last : end;
}

/* GPT-2; with split_digits every number is a piece alone and the text around it
 * is matched as if it ended there (SmolLM). */
static size_t next_gpt2(struct scan s, size_t pos, bool split_digits)
{
    if (s.text[pos] == '\'') {
        size_t n = contraction(&s, pos, false);
        if (n > 0) {
            return pos + n;
        }
    }
    size_t next, start = pos;
    if (s.text[pos] == ' ' && pos + 1 < s.len) {
        start = pos + 1;
    }
    enum tlr_char_class class = class_at(&s, start, &next);
    if (class == TLR_CHAR_LETTER ||
        (class == TLR_CHAR_NUMBER && !split_digits)) {
        return run_of(&s, next, class);
    }
    if (class == TLR_CHAR_OTHER && !split_digits) {
        return run_of(&s, next, class);
    }
    size_t after = start;
    if (split_digits &&
        tlr_char_is_digit_split(tlr_utf8_next(s.text, &after))) {
        return start > pos ? start : after; /* the blank alone, the number */
    }
    if (class == TLR_CHAR_OTHER) {
        size_t end = run_of(&s, next, class);
        for (size_t i = next; i < end; i = after) {
            after = i;
            if (tlr_char_is_digit_split(tlr_utf8_next(s.text, &after))) {
                return i; /* a number of a later Unicode */
            }
        }
        return end;
    }
    size_t end = run_of(&s, pos, TLR_CHAR_SPACE);
    if (split_digits && end < s.len) {
        after = end;
        if (tlr_char_is_digit_split(tlr_utf8_next(s.text, &after))) {
            return end;
        }
    }
    return blanks(&s, pos, end);
}

/* Qwen2 and Llama 3, which differ in how many digits make a piece. */
static size_t next_qwen2(struct scan s, size_t pos, int most_digits)
{
    uint8_t byte = s.text[pos];
    if (byte == '\'') {
        size_t n = contraction(&s, pos, true);
        if (n > 0) {
            return pos + n;
        }
    }
    size_t next;
    enum tlr_char_class class = class_at(&s, pos, &next);
    if (class == TLR_CHAR_LETTER) {
        return run_of(&s, next, TLR_CHAR_LETTER);
    }
    if (class == TLR_CHAR_NUMBER) {
        for (int n = 1; n < most_digits && next < s.len; n++) {
            size_t after;
            if (class_at(&s, next, &after) != TLR_CHAR_NUMBER) {
                break;
            }
            next = after;
        }
        return next;
    }
    if (byte != '\r' && byte != '\n' && next < s.len) {
        size_t after;
        enum tlr_char_class follows = class_at(&s, next, &after);
        if (follows == TLR_CHAR_LETTER) {
            return run_of(&s, after, TLR_CHAR_LETTER);
        }
        if (byte == ' ' && follows == TLR_CHAR_OTHER) {
            class = TLR_CHAR_OTHER;
        }
    }
    if (class == TLR_CHAR_OTHER) {
        size_t end = run_of(&s, next, TLR_CHAR_OTHER);
        while (end < s.len && (s.text[end] == '\r' || s.text[end] == '\n')) {
            end++;
        }
        return end;
    }
    size_t end = run_of(&s, next, TLR_CHAR_SPACE);
    for (size_t i = end; i > pos; i--) {
        if (s.text[i - 1] == '\r' || s.text[i - 1] == '\n') {
            return i;
        }
    }
    return blanks(&s, pos, end);
}

size_t tlr_pretokenize_next(uint32_t pre, const uint8_t *text, size_t len,
                            size_t pos)
{
    struct scan s = {text, len};
    switch (pre) {
    case TLR_PRE_QWEN2:
        return next_qwen2(s, pos, 1);
    case TLR_PRE_LLAMA3:
        return next_qwen2(s, pos, 3);
    case TLR_PRE_SMOLLM:
        return next_gpt2(s, pos, true);
    default:
        return next_gpt2(s, pos, false);
    }
}
