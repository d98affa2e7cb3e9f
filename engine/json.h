/* json.h - strict reading of a JSON object from bytes that nobody vouches for:
 * bounded size and depth, no duplicate keys, no unknown keys. */
#ifndef TLR_ENGINE_JSON_H
#define TLR_ENGINE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

/* The object in bytes; json_decref it.  `where` opens the message. */
int tlr_json_object(json_t **out, struct tlr_bytes bytes, size_t max_bytes,
                    const char *where, struct tlr_err *err);
/* The same for the files of foreign models, whose size the caller has bounded:
 * if an integer does not fit 64 bits, all numbers come as reals. */
int tlr_json_parse(json_t **out, const char *bytes, size_t len,
                   const char *where, struct tlr_err *err);
/* Deepest nesting of brackets outside of strings, of any bytes: jansson recurses,
 * and its own limit is 2048. */
int tlr_json_depth(const char *bytes, size_t len);
/* "a string", "an object", ... for messages; NULL is "nothing". */
const char *tlr_json_type_name(const json_t *value);
/* Every key of object is in the NULL-terminated list. */
int tlr_json_check_keys(const json_t *object, const char *const *known,
                        const char *where, struct tlr_err *err);
/* "<where>: <key>: expected <expected>, found <type>". */
int tlr_json_wrong(const json_t *value, const char *key, const char *expected,
                   const char *where, struct tlr_err *err);

/* Text of value, which may be NULL, as tlr_free-able bytes. */
int tlr_json_dump(const json_t *value, char **out, size_t *out_len,
                  struct tlr_err *err);

#endif
