/* gguf_get.c - metadata by key, with the type and the range that the caller
 * expects.  A key of another type is an error and never a default: an INT8
 * array read as f32 is how other readers were exploited.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert/gguf.h"

const struct tlr_gguf_kv *tlr_gguf_find(const struct tlr_gguf *g,
                                        const char *key)
{
    size_t len = strlen(key);
    size_t low = 0, high = (size_t)g->n_kv;
    while (low < high) { /* sorted by bytes, the shorter first */
        size_t mid = low + (high - low) / 2;
        const struct tlr_gguf_kv *kv = &g->kv[mid];
        size_t common = kv->key.len < len ? kv->key.len : len;
        int order = memcmp(kv->key.ptr, key, common);
        if (order == 0 && kv->key.len == len) {
            return kv;
        }
        if (order < 0 || (order == 0 && kv->key.len < len)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

static int wrong_type(const struct tlr_gguf *g, const char *key,
                      const char *expected, const struct tlr_gguf_kv *kv,
                      struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: key %s: expected %s, found type %s%s%s; the file "
                       "is damaged or made by an unknown tool",
                       g->where, key, expected, tlr_gguf_type_name(kv->type),
                       kv->type == TLR_GGUF_ARRAY ? " of " : "",
                       kv->type == TLR_GGUF_ARRAY
                           ? tlr_gguf_type_name(kv->elem_type)
                           : "");
}

/* The pair in *kv, or NULL: an error when required. */
static int find(const struct tlr_gguf *g, const char *key, bool required,
                const struct tlr_gguf_kv **kv, struct tlr_err *err)
{
    *kv = tlr_gguf_find(g, key);
    if (!*kv && required) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %s is missing; take another file of this "
                           "model",
                           g->where, key);
    }
    return 0;
}

int tlr_gguf_get_u64(const struct tlr_gguf *g, const char *key, bool required,
                     uint64_t max, uint64_t *out, struct tlr_err *err)
{
    const struct tlr_gguf_kv *kv;
    int rc = find(g, key, required, &kv, err);
    if (rc || !kv) {
        return rc;
    }
    struct tlr_span s = tlr_span_of(kv->data.ptr, kv->data.len);
    uint64_t value;
    bool is_negative = false;
    switch (kv->type) {
    case TLR_GGUF_U8: value = tlr_span_u8(&s); break;
    case TLR_GGUF_U16: value = tlr_span_u16(&s); break;
    case TLR_GGUF_U32: value = tlr_span_u32(&s); break;
    case TLR_GGUF_U64: value = tlr_span_u64(&s); break;
    case TLR_GGUF_I8:
        value = tlr_span_u8(&s);
        is_negative = value >> 7;
        break;
    case TLR_GGUF_I16:
        value = tlr_span_u16(&s);
        is_negative = value >> 15;
        break;
    case TLR_GGUF_I32:
        value = tlr_span_u32(&s);
        is_negative = value >> 31;
        break;
    case TLR_GGUF_I64:
        value = tlr_span_u64(&s);
        is_negative = value >> 63;
        break;
    default: return wrong_type(g, key, "an integer", kv, err);
    }
    if (is_negative) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %s: expected 0..%llu, found a negative "
                           "number; the file is damaged",
                           g->where, key, (unsigned long long)max);
    }
    if (value > max) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %s: expected 0..%llu, found %llu; the file "
                           "is damaged",
                           g->where, key, (unsigned long long)max,
                           (unsigned long long)value);
    }
    *out = value;
    return 0;
}

int tlr_gguf_get_f64(const struct tlr_gguf *g, const char *key, bool required,
                     double *out, struct tlr_err *err)
{
    const struct tlr_gguf_kv *kv;
    int rc = find(g, key, required, &kv, err);
    if (rc || !kv) {
        return rc;
    }
    struct tlr_span s = tlr_span_of(kv->data.ptr, kv->data.len);
    double value;
    if (kv->type == TLR_GGUF_F32) {
        value = (double)tlr_span_f32(&s);
    } else if (kv->type == TLR_GGUF_F64) {
        value = tlr_span_f64(&s);
    } else {
        return wrong_type(g, key, "f32 or f64", kv, err);
    }
    if (!isfinite(value)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %s: expected a finite number, found %g; "
                           "the file is damaged",
                           g->where, key, value);
    }
    *out = value;
    return 0;
}

int tlr_gguf_get_bool(const struct tlr_gguf *g, const char *key, bool required,
                      bool *out, struct tlr_err *err)
{
    const struct tlr_gguf_kv *kv;
    int rc = find(g, key, required, &kv, err);
    if (rc || !kv) {
        return rc;
    }
    if (kv->type != TLR_GGUF_BOOL) {
        return wrong_type(g, key, "a bool", kv, err);
    }
    *out = kv->data.ptr[0] != 0;
    return 0;
}

int tlr_gguf_get_string(const struct tlr_gguf *g, const char *key,
                        bool required, struct tlr_bytes *out,
                        struct tlr_err *err)
{
    const struct tlr_gguf_kv *kv;
    int rc = find(g, key, required, &kv, err);
    if (rc || !kv) {
        return rc;
    }
    if (kv->type != TLR_GGUF_STRING) {
        return wrong_type(g, key, "a string", kv, err);
    }
    struct tlr_span s = tlr_span_of(kv->data.ptr, kv->data.len);
    *out = tlr_gguf_next_string(&s);
    return 0;
}

int tlr_gguf_get_array(const struct tlr_gguf *g, const char *key, bool required,
                       unsigned elem_type, struct tlr_gguf_kv *out,
                       struct tlr_err *err)
{
    const struct tlr_gguf_kv *kv;
    int rc = find(g, key, required, &kv, err);
    if (rc) {
        return rc;
    }
    if (!kv) {
        out->n = 0;
        return 0;
    }
    if (kv->type != TLR_GGUF_ARRAY || kv->elem_type != elem_type) {
        char expected[32] = "an array of ";
        strncat(expected, tlr_gguf_type_name(elem_type), 8);
        return wrong_type(g, key, expected, kv, err);
    }
    *out = *kv;
    return 0;
}

struct tlr_bytes tlr_gguf_next_string(struct tlr_span *s)
{
    struct tlr_bytes out;
    uint64_t len = tlr_span_u64(s);
    out.ptr = tlr_span_take(s, len);
    out.len = out.ptr ? (size_t)len : 0;
    return out;
}
