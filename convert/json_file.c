/* json_file.c - strict JSON for files that came from elsewhere. */
#include "convert/json_file.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

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
        return tlr_json_wrong(value, key, "an integer", where, err);
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
        return tlr_json_wrong(value, key, "a number", where, err);
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
        return tlr_json_wrong(value, key, "true or false", where, err);
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
        return tlr_json_wrong(value, key, "a string", where, err);
    }
    *out = json_string_value(value);
    return 0;
}
