/* serve_fields.h - typed fields of a JSON object, and what is wrong with one.
 *
 * null counts as absent, as OpenAI has it.  Each function leaves *out alone
 * where the field is absent and returns TLR_EFORMAT, with the fault filled,
 * where it is not what it should be.
 */
#ifndef TLR_NET_SERVE_FIELDS_H
#define TLR_NET_SERVE_FIELDS_H

#include <jansson.h>

#include "net/serve_request.h"

/* Fills *f; always returns TLR_EFORMAT. */
int tlr_fault_set(struct tlr_fault *f, int status, const char *code,
                  const char *param, const char *fmt, ...) TLR_PRINTF(5, 6);

/* The field unless it is absent or null. */
json_t *tlr_field(const json_t *object, const char *name);

int tlr_field_int(const json_t *object, const char *name, int64_t min,
                  int64_t max, int64_t *out, struct tlr_fault *f);
int tlr_field_real(const json_t *object, const char *name, double min,
                   double max, double *out, struct tlr_fault *f);
int tlr_field_bool(const json_t *object, const char *name, bool *out,
                   struct tlr_fault *f);
/* Borrowed from the object. */
int tlr_field_text(const json_t *object, const char *name,
                   struct tlr_bytes *out, struct tlr_fault *f);
int tlr_field_object(const json_t *object, const char *name,
                     const json_t **out, struct tlr_fault *f);

/* Appends an array of ids that all exist (0 <= id < n_ids). */
int tlr_field_ids(const json_t *array, const char *name, uint32_t n_ids,
                  struct tlr_ids *out, struct tlr_fault *f,
                  struct tlr_err *err);

/* The body as an object; json_decref it. */
int tlr_body_parse(json_t **out, struct tlr_bytes body, struct tlr_fault *f);

/* What the formats share: stop strings (a string or up to TLR_JOB_STOPS_MAX of
 * them), and the numbers of sampling under these names (NULL: has none). */
int tlr_field_stops(const json_t *object, const char *name,
                    struct tlr_job_ask *ask, struct tlr_fault *f,
                    struct tlr_err *err);
int tlr_field_sampling(const json_t *object, struct tlr_job_ask *ask,
                       const char *penalty_name, struct tlr_fault *f);

/* Our own fields, under "tlr": mode, policy, tau, target, records,
 * explain. */
int tlr_field_routing(const json_t *object,
                      const struct tlr_request_limits *limits,
                      struct tlr_job_ask *ask, struct tlr_fault *f);

#endif
