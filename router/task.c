/* task.c - see task.h: files of questions, line by line, and plain text. */
#include "router/task.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/span.h"
#include "engine/json.h"
#include "router/answer.h"
#include "router/task_line.h"

enum {
    MAX_FILE_BYTES = 1 << 30,
    MAX_LINE_BYTES = 1 << 20,
    ARENA_BYTES = 1 << 16,
    LM_MIN_BYTES = 2000,
    LM_MAX_BYTES = 8000
};

static const char *const names[] = {"csqa", "gsm8k", "lm"};

const char *tlr_task_name(enum tlr_task_kind kind)
{
    return names[kind];
}

int tlr_task_find(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* ---- memory of the texts ---- */

struct block {
    struct block *next;
    size_t used, cap;
    char bytes[];
};

struct tlr_task_arena {
    struct block *first;
};

static char *take(const struct tlr_task_line *line, size_t n)
{
    struct block *b = line->arena->first;
    if (!b || b->cap - b->used < n) {
        size_t cap = n > ARENA_BYTES ? n : ARENA_BYTES;
        b = tlr_calloc(1, sizeof *b + cap);
        if (!b) {
            tlr_err_nomem(line->err, line->where, cap);
            return NULL;
        }
        b->cap = cap;
        b->next = line->arena->first;
        line->arena->first = b;
    }
    b->used += n;
    return b->bytes + b->used - n;
}

char *tlr_task_copy(const struct tlr_task_line *line, const char *text,
                    size_t len)
{
    char *out = take(line, len + 1);
    if (out) {
        memcpy(out, text, len);
        out[len] = '\0';
    }
    return out;
}

char *tlr_task_join(const struct tlr_task_line *line,
                    const char *const *pieces, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        len += strlen(pieces[i]);
    }
    char *out = take(line, len + 1), *to = out;
    for (size_t i = 0; out && i < n; i++) {
        size_t k = strlen(pieces[i]);
        memcpy(to, pieces[i], k + 1);
        to += k;
    }
    return out;
}

/* ---- fields ---- */

int tlr_task_peek(const struct tlr_task_line *line, const char *key,
                  bool required, const char **out)
{
    const json_t *value = json_object_get(line->root, key);
    *out = NULL;
    if (!value && !required) {
        return 0;
    }
    if (!json_is_string(value)) {
        return tlr_json_wrong(value, key, "a string", line->where, line->err);
    }
    if (json_string_length(value) == 0) {
        return tlr_err_set(line->err, TLR_EFORMAT,
                           "%s: %s: expected a text, found an empty one; get "
                           "the file again",
                           line->where, key);
    }
    *out = json_string_value(value);
    return 0;
}

int tlr_task_text(const struct tlr_task_line *line, const char *key,
                  bool required, char **out)
{
    const char *text;
    int rc = tlr_task_peek(line, key, required, &text);
    *out = NULL;
    if (rc || !text) {
        return rc;
    }
    *out = tlr_task_copy(line, text, strlen(text));
    return *out ? 0 : TLR_ENOMEM;
}

/* ---- the list of items ---- */

struct growing {
    struct tlr_items *items;
    size_t cap;
};

static struct tlr_item *push(struct growing *g, const char *path,
                             struct tlr_err *err)
{
    struct tlr_items *list = g->items;
    if (list->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 256;
        struct tlr_item *more =
            tlr_realloc(list->items, cap, sizeof *list->items);
        if (!more) {
            tlr_err_nomem(err, path, cap * sizeof *list->items);
            return NULL;
        }
        list->items = more;
        g->cap = cap;
    }
    struct tlr_item *item = &list->items[list->n++];
    memset(item, 0, sizeof *item);
    return item;
}

static int read_line(struct growing *g, enum tlr_task_kind kind,
                     const char *path, size_t number, const char *bytes,
                     size_t len, struct tlr_err *err)
{
    char where[TLR_ERR_TEXT_BYTES];
    snprintf(where, sizeof where, "%.900s: line %zu", path, number);
    json_t *root = NULL;
    if (len > MAX_LINE_BYTES) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: expected at most %d bytes, found %zu; is it a "
                           "file of JSON lines?",
                           where, MAX_LINE_BYTES, len);
    }
    int rc = tlr_json_parse(&root, bytes, len, where, err);
    if (rc) {
        return rc;
    }
    struct tlr_task_line line = {root, where, g->items->arena, err};
    struct tlr_item *item = push(g, path, err);
    if (!item) {
        rc = TLR_ENOMEM;
    } else {
        item->line = number;
        rc = kind == TLR_TASK_CSQA ? tlr_csqa_read(&line, item)
                                   : tlr_gsm8k_read(&line, item);
    }
    json_decref(root);
    return rc;
}

static bool is_blank(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != ' ' && bytes[i] != '\t' && bytes[i] != '\r') {
            return false;
        }
    }
    return true;
}

static int read_lines(struct growing *g, enum tlr_task_kind kind,
                      const char *bytes, size_t len, const char *path,
                      size_t max_items, struct tlr_err *err)
{
    int rc = 0;
    size_t line = 0;
    for (size_t pos = 0;
         pos < len && !rc && (max_items == 0 || g->items->n < max_items);) {
        const char *end = memchr(bytes + pos, '\n', len - pos);
        size_t n = end ? (size_t)(end - bytes) - pos : len - pos;
        line++;
        if (!is_blank(bytes + pos, n)) {
            rc = read_line(g, kind, path, line, bytes + pos, n, err);
        }
        pos += n + 1;
    }
    return rc;
}

/* Bytes of the piece that begins a text: up to an empty line behind the least
 * size, else up to the last line end before the largest. */
static size_t piece_len(const char *text, size_t len)
{
    size_t last_line = 0;
    for (size_t i = 0; i < len; i++) {
        if (i >= LM_MAX_BYTES && last_line > 0) {
            return last_line;
        }
        if (text[i] == '\n') {
            last_line = i + 1;
            if (i >= LM_MIN_BYTES && i > 0 && text[i - 1] == '\n') {
                return i + 1;
            }
        }
    }
    return len;
}

static int read_text(struct growing *g, const char *bytes, size_t len,
                     const char *path, size_t max_items, struct tlr_err *err)
{
    struct tlr_task_line line = {NULL, path, g->items->arena, err};
    size_t counted = 0, number = 1;
    if (memchr(bytes, '\0', len) || !tlr_utf8_valid(bytes, len)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected UTF-8 text, found other bytes; is it "
                           "a text file?",
                           path);
    }
    for (size_t pos = 0;
         pos < len && (max_items == 0 || g->items->n < max_items);) {
        size_t n = piece_len(bytes + pos, len - pos);
        struct tlr_item *item = push(g, path, err);
        if (!item) {
            return TLR_ENOMEM;
        }
        for (; counted < pos; counted++) {
            number += bytes[counted] == '\n';
        }
        item->line = number;
        item->prompt = tlr_task_copy(&line, bytes + pos, n);
        if (!item->prompt) {
            return TLR_ENOMEM;
        }
        pos += n;
    }
    return 0;
}

static uint64_t fnv(const char *bytes, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    }
    return h;
}

int tlr_items_read(struct tlr_items *out, enum tlr_task_kind kind,
                   const char *path, size_t max_items, struct tlr_err *err)
{
    struct growing g = {.items = out};
    char *bytes = NULL;
    size_t len = 0;
    memset(out, 0, sizeof *out);
    int rc = tlr_read_file(&bytes, &len, path, MAX_FILE_BYTES, err);
    if (!rc) {
        out->arena = tlr_calloc(1, sizeof(struct tlr_task_arena));
        rc = out->arena ? 0 : tlr_err_nomem(err, path, ARENA_BYTES);
    }
    if (!rc) {
        out->hash = fnv(bytes, len);
        rc = kind == TLR_TASK_LM
                 ? read_text(&g, bytes, len, path, max_items, err)
                 : read_lines(&g, kind, bytes, len, path, max_items, err);
    }
    if (!rc && out->n == 0) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: expected %s, found nothing; is it the right file?",
                         path, kind == TLR_TASK_LM ? "text" : "JSON lines");
    }
    tlr_free(bytes);
    if (rc) {
        tlr_items_clear(out);
    }
    return rc;
}

void tlr_items_clear(struct tlr_items *items)
{
    struct tlr_task_arena *arena = items->arena;
    while (arena && arena->first) {
        struct block *next = arena->first->next;
        tlr_free(arena->first);
        arena->first = next;
    }
    tlr_free(arena);
    tlr_free(items->items);
    memset(items, 0, sizeof *items);
}

/* ---- marking ---- */

int tlr_item_choice(const struct tlr_item *item, const char *text, size_t len,
                    bool strict)
{
    struct tlr_answer_choices c = {item->n_choices, item->labels,
                                   item->choices};
    return strict ? tlr_answer_strict(&c, text, len)
                  : tlr_answer_cascade(&c, text, len);
}

bool tlr_item_right(const struct tlr_item *item, enum tlr_task_kind kind,
                    const char *text, size_t len, bool strict)
{
    if (kind == TLR_TASK_GSM8K) {
        return tlr_answer_boxed(item->answer, text, len, strict);
    }
    if (kind != TLR_TASK_CSQA) {
        return false;
    }
    int choice = tlr_item_choice(item, text, len, strict);
    return choice >= 0 && strcmp(item->labels[choice], item->answer) == 0;
}
