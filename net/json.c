/* json.c - see json.h.  Depth is looked at before jansson sees the bytes. */
#include "net/json.h"

#include <math.h>

#include "engine/json.h"

json_t *tlr_net_json(struct tlr_bytes body, struct tlr_err *err)
{
    if (tlr_json_depth((const char *)body.ptr, body.len) > TLR_NET_DEPTH) {
        tlr_err_set(err, TLR_EFORMAT,
                    "reply: expected JSON of at most %d levels, found more",
                    TLR_NET_DEPTH);
        return NULL;
    }
    json_error_t at;
    json_t *root = body.len == 0 ? NULL
                                 : json_loadb((const char *)body.ptr, body.len,
                                              JSON_REJECT_DUPLICATES, &at);
    if (!root && body.len == 0)
        tlr_err_set(err, TLR_EFORMAT, "reply: expected JSON, found nothing");
    else if (!root)
        tlr_err_set(err, TLR_EFORMAT, "reply: byte %d: not JSON: %s",
                    at.position, at.text);
    return root;
}

long long tlr_net_int(const json_t *object, const char *key, long long missing)
{
    const json_t *v = json_object_get(object, key);
    return json_is_integer(v) && json_integer_value(v) >= 0
               ? json_integer_value(v)
               : missing;
}

double tlr_net_real(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *tlr_net_string(const json_t *object, const char *key, size_t *len)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_string(v))
        return NULL;
    if (len)
        *len = json_string_length(v);
    return json_string_value(v);
}

int tlr_net_ids(const json_t *list, const char *what, int32_t *out, int cap,
                struct tlr_err *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > (size_t)cap) {
        tlr_err_set(err, TLR_EFORMAT,
                    "reply: %s: expected a list of up to %d token ids, found "
                    "%s of %zu", what, cap, json_is_array(list) ? "one"
                                                                : "no list", n);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > INT32_MAX) {
            tlr_err_set(err, TLR_EFORMAT,
                        "reply: %s: element %zu: expected a token id", what, i);
            return -1;
        }
        out[i] = (int32_t)json_integer_value(v);
    }
    return (int)n;
}
