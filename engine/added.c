/* added.c - see added.h.  Candidates at a position are a range of the sorted
 * list, narrowed byte by byte: no cost grows with the number of tokens. */
#include "engine/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/unicode.h"

struct sort_item {
    const struct tlr_vocab_token *token;
    uint32_t id;
};

static int by_bytes(const void *pa, const void *pb)
{
    const struct sort_item *a = pa, *b = pb;
    uint32_t n = a->token->len < b->token->len ? a->token->len : b->token->len;
    int order = memcmp(a->token->bytes, b->token->bytes, n);
    if (order == 0 && a->token->len != b->token->len) {
        order = a->token->len < b->token->len ? -1 : 1;
    }
    return order ? order : (a->id > b->id) - (a->id < b->id);
}

static bool belongs(const struct tlr_vocab_token *t, bool normalized)
{
    return (t->flags & TLR_TOKEN_ADDED) && !(t->flags & TLR_TOKEN_UNUSED) &&
           normalized == !!(t->flags & TLR_TOKEN_NORMALIZED);
}

int tlr_added_build(struct tlr_added *a, const struct tlr_vocab *v,
                    bool normalized, const char *where, struct tlr_err *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        n += belongs(&v->tokens[i], normalized);
    }
    struct sort_item *items = tlr_calloc(n, sizeof *items);
    a->ids = tlr_calloc(n, sizeof *a->ids);
    if (!items || !a->ids) {
        tlr_free(items);
        return tlr_err_nomem(err, where, n * sizeof *items);
    }
    a->vocab = v;
    a->n = n;
    n = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        if (belongs(&v->tokens[i], normalized)) {
            items[n++] = (struct sort_item){&v->tokens[i], i};
        }
    }
    if (n > 0) {
        qsort(items, n, sizeof *items, by_bytes);
    }
    for (uint32_t i = 0; i < n; i++) {
        a->ids[i] = items[i].id;
        a->first[items[i].token->bytes[0] + 1]++;
    }
    for (int b = 0; b < 256; b++) {
        a->first[b + 1] += a->first[b];
    }
    tlr_free(items);
    return 0;
}

void tlr_added_clear(struct tlr_added *a)
{
    tlr_free(a->ids);
    memset(a, 0, sizeof *a);
}

/* First of ids[low, high), which agree in their first k bytes, whose byte k is
 * at least `byte`; tokens of k bytes come before all. */
static uint32_t lower(const struct tlr_added *a, uint32_t low, uint32_t high,
                      uint32_t k, unsigned byte)
{
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct tlr_vocab_token *t = &a->vocab->tokens[a->ids[mid]];
        if (t->len <= k || t->bytes[k] < byte) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Id of the longest token at text, -1 if none. */
static int32_t longest_at(const struct tlr_added *a, const uint8_t *text,
                          size_t left)
{
    uint32_t low = a->first[text[0]], high = a->first[text[0] + 1];
    int32_t found = -1;
    for (uint32_t k = 1; low < high; k++) {
        /* All of [low, high) match k bytes; the shortest stands first. */
        if (a->vocab->tokens[a->ids[low]].len == k) {
            found = (int32_t)a->ids[low];
        }
        if (k >= left) {
            break;
        }
        uint32_t start = lower(a, low, high, k, text[k]);
        high = lower(a, start, high, k, text[k] + 1u);
        low = start;
    }
    return found;
}

static bool stands_alone(const uint8_t *text, size_t len, size_t start,
                         size_t end)
{
    if (start > 0) {
        size_t before = tlr_utf8_prev(text, start);
        if (tlr_char_is_word(tlr_utf8_next(text, &before))) {
            return false;
        }
    }
    return end == len || !tlr_char_is_word(tlr_utf8_next(text, &end));
}

static size_t strip_left(const uint8_t *text, size_t start, size_t floor)
{
    while (start > floor) {
        size_t before = tlr_utf8_prev(text, start), pos = before;
        if (tlr_char_class(tlr_utf8_next(text, &pos)) != TLR_CHAR_SPACE) {
            break;
        }
        start = before;
    }
    return start;
}

static size_t strip_right(const uint8_t *text, size_t len, size_t end)
{
    while (end < len) {
        size_t next = end;
        if (tlr_char_class(tlr_utf8_next(text, &next)) != TLR_CHAR_SPACE) {
            break;
        }
        end = next;
    }
    return end;
}

bool tlr_added_next(const struct tlr_added *a, const uint8_t *text, size_t len,
                    bool with_special, struct tlr_added_cursor *cursor,
                    struct tlr_added_match *out)
{
    while (a->n > 0 && cursor->search < len) {
        size_t start = cursor->search;
        if (a->first[text[start]] == a->first[text[start] + 1]) {
            cursor->search++;
            continue;
        }
        int32_t id = longest_at(a, text + start, len - start);
        if (id < 0) {
            cursor->search++;
            continue;
        }
        const struct tlr_vocab_token *t = &a->vocab->tokens[id];
        size_t end = start + t->len;
        cursor->search = end;
        if (((t->flags & TLR_TOKEN_SPECIAL) && !with_special) ||
            ((t->flags & TLR_TOKEN_SINGLE_WORD) &&
             !stands_alone(text, len, start, end)) ||
            start < cursor->taken) {
            continue;
        }
        if (t->flags & TLR_TOKEN_LSTRIP) {
            start = strip_left(text, start, cursor->taken);
        }
        if (t->flags & TLR_TOKEN_RSTRIP) {
            end = strip_right(text, len, end);
        }
        cursor->taken = end;
        *out = (struct tlr_added_match){start, end, id};
        return true;
    }
    return false;
}
