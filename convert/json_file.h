/* json_file.h - JSON files of a model folder, strictly read, and fields with
 * the type and range that the caller expects.
 */
#ifndef TLR_CONVERT_JSON_FILE_H
#define TLR_CONVERT_JSON_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/json.h"

/* A whole file through tlr_json_parse; free with json_decref. */
int tlr_json_load(json_t **out, const char *path, size_t max_bytes,
                  struct tlr_err *err);

/* Fields of an object.  Absent and null are the same: *out stays and the result
 * is 0, unless `required`.  Another type or range is TLR_EFORMAT. */
int tlr_json_get_u64(const json_t *object, const char *key, bool required,
                     uint64_t max, uint64_t *out, const char *where,
                     struct tlr_err *err);
int tlr_json_get_u32(const json_t *object, const char *key, bool required,
                     uint32_t *out, const char *where, struct tlr_err *err);
int tlr_json_get_f64(const json_t *object, const char *key, bool required,
                     double *out, const char *where, struct tlr_err *err);
int tlr_json_get_bool(const json_t *object, const char *key, bool *out,
                      const char *where, struct tlr_err *err);
/* Borrowed from the object. */
int tlr_json_get_string(const json_t *object, const char *key, bool required,
                        const char **out, const char *where,
                        struct tlr_err *err);

#endif
