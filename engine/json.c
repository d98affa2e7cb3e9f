/* json.c - see json.h.  jansson parses; its own depth limit (2048) is a constant
 * of its build, so depth is counted here beforehand. */
#include "engine/json.h"

#include <string.h>

#include "base/mem.h"

/* Depth of brackets outside of strings. */
static bool is_too_deep(struct tlr_bytes b)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < b.len; i++) {
        uint8_t c = b.ptr[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > TLR_JSON_MAX_DEPTH) {
                return true;
            }
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return false;
}

static const char *type_name(const json_t *value)
{
    if (!value) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

int tlr_json_wrong(const json_t *value, const char *key, const char *expected,
                   const char *where, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s: expected %s, found %s; get the file again",
                       where, key, expected, type_name(value));
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
    if (is_too_deep(bytes)) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: expected JSON nested at most %d deep; get the "
                           "file again",
                           where, TLR_JSON_MAX_DEPTH);
    }
    json_error_t error;
    json_t *value = json_loadb((const char *)bytes.ptr, bytes.len,
                               JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        /* An empty text, which has no code, is jansson's word for no memory. */
        if (error.text[0] == '\0' ||
            json_error_code(&error) == json_error_out_of_memory) {
            return tlr_err_nomem(err, where, bytes.len);
        }
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: line %d, column %d: expected JSON: %s; get the "
                           "file again",
                           where, error.line, error.column, error.text);
    }
    if (!json_is_object(value)) {
        tlr_err_set(err, TLR_EFORMAT,
                    "%s: expected a JSON object, found %s; get the file again",
                    where, type_name(value));
        json_decref(value);
        return TLR_EFORMAT;
    }
    *out = value;
    return 0;
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
