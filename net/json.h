/* json.h - JSON that a server sent: hostile until checked.
 *
 * Refused: nesting over TLR_NET_DEPTH, keys that come twice, bytes behind the end,
 * NUL in a string, broken UTF-8, numbers that are not finite (the last four by
 * jansson).  Getters take a NULL object and yield "not there".
 */
#ifndef TLR_NET_JSON_H
#define TLR_NET_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "base/span.h"

enum { TLR_NET_DEPTH = 32 };

/* A new reference, or NULL with err: "reply: ...". */
json_t *tlr_net_json(struct tlr_bytes body, struct tlr_err *err);

/* The integer at key, or missing: also for another type or below 0. */
long long tlr_net_int(const json_t *object, const char *key, long long missing);
/* The number at key, or NAN. */
double tlr_net_real(const json_t *object, const char *key);
/* The string at key, or NULL. */
const char *tlr_net_string(const json_t *object, const char *key, size_t *len);
/* The list's ids, all in 0..INT32_MAX, at most cap of them; their number, -1 with
 * err otherwise.  what names the list in the message. */
int tlr_net_ids(const json_t *list, const char *what, int32_t *out, int cap,
                struct tlr_err *err);

#endif
