/* json_file.c - strict JSON for files that came from elsewhere. */
#include "convert/json_file.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_DEPTH = 64 };

/* Deepest nesting of brackets outside strings: jansson's own limit is 2048. */
static int depth_of(const char *bytes, size_t len)
{
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
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

int tlr_json_parse(json_t **out, const char *bytes, size_t len,
                   const char *where, struct tlr_err *err)
{
    *out = NULL;
    int depth = depth_of(bytes, len);
    if (depth > MAX_DEPTH) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: JSON nested %d levels deep, expected at most "
                           "%d; the file is damaged",
                           where, depth, MAX_DEPTH);
    }
    json_error_t e = {.line = -1}; /* its code too: jansson may not set it */
    json_t *root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &e);
    if (!root && json_error_code(&e) == json_error_numeric_overflow) {
        /* tokenizer_config.json's model_max_length is 1e30 as an integer. */
        root = json_loadb(bytes, len,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    }
    if (!root && e.text[0] == '\0') { /* jansson's word for no memory */
        return tlr_err_nomem(err, where, len);
    }
    if (!root) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: line %d, column %d: not valid JSON: %s; "
                           "download the file again",
                           where, e.line, e.column, e.text);
    }
    if (!json_is_object(root)) {
        const char *found = tlr_json_type_name(root);
        json_decref(root);
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected a JSON object, found %s; download the "
                           "file again",
                           where, found);
    }
    *out = root;
    return 0;
}

int tlr_json_load(json_t **out, const char *path, size_t max_bytes,
                  struct tlr_err *err)
{
    char *text;
    size_t len;
    *out = NULL;
    int rc = tlr_read_file(&text, &len, path, max_bytes, err);
    if (rc) {
        return rc;
    }
    rc = tlr_json_parse(out, text, len, path, err);
    tlr_free(text);
    return rc;
}

const char *tlr_json_type_name(const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
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

static int wrong(const char *where, const char *key, const char *expected,
                 const json_t *found, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s: expected %s, found %s; download the file again",
                       where, key, expected, tlr_json_type_name(found));
}

/* The value, or NULL when absent or null: an error when required. */
static int find(const json_t *object, const char *key, bool required,
                json_t **out, const char *where, struct tlr_err *err)
{
    *out = json_object_get(object, key);
    if (json_is_null(*out)) {
        *out = NULL;
    }
    if (!*out && required) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s is missing; download the file again", where,
                           key);
    }
    return 0;
}

int tlr_json_get_u64(const json_t *object, const char *key, bool required,
                     uint64_t max, uint64_t *out, const char *where,
                     struct tlr_err *err)
{
    json_t *value;
    int rc = find(object, key, required, &value, where, err);
    if (rc || !value) {
        return rc;
    }
    if (!json_is_integer(value)) {
        return wrong(where, key, "an integer", value, err);
    }
    json_int_t n = json_integer_value(value);
    if (n < 0 || (uint64_t)n > max) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s: expected 0..%llu, found %lld; download the "
                           "file again",
                           where, key, (unsigned long long)max, (long long)n);
    }
    *out = (uint64_t)n;
    return 0;
}

int tlr_json_get_u32(const json_t *object, const char *key, bool required,
                     uint32_t *out, const char *where, struct tlr_err *err)
{
    uint64_t value = *out;
    int rc = tlr_json_get_u64(object, key, required, UINT32_MAX, &value, where,
                              err);
    *out = (uint32_t)value;
    return rc;
}

int tlr_json_get_f64(const json_t *object, const char *key, bool required,
                     double *out, const char *where, struct tlr_err *err)
{
    json_t *value;
    int rc = find(object, key, required, &value, where, err);
    if (rc || !value) {
        return rc;
    }
    if (!json_is_number(value)) {
        return wrong(where, key, "a number", value, err);
    }
    *out = json_number_value(value);
    return 0;
}

int tlr_json_get_bool(const json_t *object, const char *key, bool *out,
                      const char *where, struct tlr_err *err)
{
    json_t *value;
    int rc = find(object, key, false, &value, where, err);
    if (rc || !value) {
        return rc;
    }
    if (!json_is_boolean(value)) {
        return wrong(where, key, "true or false", value, err);
    }
    *out = json_is_true(value);
    return 0;
}

int tlr_json_get_string(const json_t *object, const char *key, bool required,
                        const char **out, const char *where,
                        struct tlr_err *err)
{
    json_t *value;
    int rc = find(object, key, required, &value, where, err);
    if (rc || !value) {
        return rc;
    }
    if (!json_is_string(value)) {
        return wrong(where, key, "a string", value, err);
    }
    *out = json_string_value(value);
    return 0;
}
