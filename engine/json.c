/* json.c - see json.h.  jansson parses; its own depth limit (2048) is a constant
 * of its build, so depth is counted here beforehand. */
#include "engine/json.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_DEPTH = 64 };

int tlr_json_depth(const char *bytes, size_t len)
{
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            deepest = ++depth > deepest ? depth : deepest;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

const char *tlr_json_type_name(const json_t *value)
{
    if (!value) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

int tlr_json_wrong(const json_t *value, const char *key, const char *expected,
                   const char *where, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s: expected %s, found %s; get the file again",
                       where, key, expected, tlr_json_type_name(value));
}

/* wide: if an integer does not fit 64 bits, all numbers come as reals. */
static int parse(json_t **out, const char *bytes, size_t len, bool wide,
                 const char *where, struct tlr_err *err)
{
    *out = NULL;
    int depth = tlr_json_depth(bytes, len);
    if (depth > MAX_DEPTH) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: JSON nested %d levels deep, expected at most "
                           "%d; get the file again",
                           where, depth, MAX_DEPTH);
    }
    json_error_t e = {.line = -1}; /* its code too: jansson may not set it */
    json_t *root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &e);
    if (!root && wide && json_error_code(&e) == json_error_numeric_overflow) {
        root = json_loadb(bytes, len,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    }
    if (!root) {
        /* An empty text, which has no code, is jansson's word for no memory. */
        if (e.text[0] == '\0' ||
            json_error_code(&e) == json_error_out_of_memory) {
            return tlr_err_nomem(err, where, len);
        }
        /* Of one line of many, `where` has named the line. */
        char line[32] = "";
        if (memchr(bytes, '\n', len)) {
            snprintf(line, sizeof line, "line %d, ", e.line);
        }
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %scolumn %d: not valid JSON: %s; get the file "
                           "again",
                           where, line, e.column, e.text);
    }
    if (!json_is_object(root)) {
        tlr_err_set(err, TLR_EFORMAT,
                    "%s: expected a JSON object, found %s; get the file again",
                    where, tlr_json_type_name(root));
        json_decref(root);
        return TLR_EFORMAT;
    }
    *out = root;
    return 0;
}

int tlr_json_object(json_t **out, struct tlr_bytes bytes, size_t max_bytes,
                    const char *where, struct tlr_err *err)
{
    *out = NULL;
    if (bytes.len > max_bytes) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: expected at most %zu bytes of JSON, found %zu; "
                           "get the file again",
                           where, max_bytes, bytes.len);
    }
    return parse(out, (const char *)bytes.ptr, bytes.len, false, where, err);
}

int tlr_json_parse(json_t **out, const char *bytes, size_t len,
                   const char *where, struct tlr_err *err)
{
    /* tokenizer_config.json's model_max_length is 1e30 as an integer. */
    return parse(out, bytes, len, true, where, err);
}

int tlr_json_check_keys(const json_t *object, const char *const *known,
                        const char *where, struct tlr_err *err)
{
    /* jansson iterates over a non-const object but does not change it. */
    json_t *o = (json_t *)(uintptr_t)object;
    for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
        const char *key = json_object_iter_key(it);
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0) {
            k++;
        }
        if (!*k) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: unknown key \"%s\"; a newer tlr wrote it, "
                               "or the file is damaged",
                               where, key);
        }
    }
    return 0;
}

int tlr_json_dump(const json_t *value, char **out, size_t *out_len,
                  struct tlr_err *err)
{
    *out = NULL;
    *out_len = 0;
    const size_t flags = JSON_COMPACT | JSON_SORT_KEYS;
    size_t n = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *text = n > 0 ? tlr_calloc(n + 1, 1) : NULL;
    if (!text || json_dumpb(value, text, n, flags) != n) {
        tlr_free(text);
        return tlr_err_nomem(err, "JSON", n);
    }
    *out = text;
    *out_len = n;
    return 0;
}
