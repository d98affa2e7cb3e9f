/* safetensors.c - the rules of the format, one by one.
 *
 * u64 header length, header JSON, data.  Rules as in the reference reader
 * (safetensors/src/tensor.rs) and its specification: header at most 100 MB and
 * inside the file, first byte '{', no duplicate keys, data in order without
 * holes and up to the last byte of the file, sizes that follow from shape and
 * dtype.  Metadata: strings only.
 */
#include "convert/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/span.h"
#include "convert/json_file.h"

enum { MAX_HEADER_BYTES = 100000000, MAX_NAME_BYTES = 255 };

static const struct {
    const char *name;
    unsigned bits;
} dtypes[] = {
    {"F32", 32},     {"F16", 16},      {"BF16", 16},    {"F64", 64},
    {"I64", 64},     {"I32", 32},      {"I16", 16},     {"I8", 8},
    {"U64", 64},     {"U32", 32},      {"U16", 16},     {"U8", 8},
    {"BOOL", 8},     {"C64", 64},      {"F8_E4M3", 8},  {"F8_E5M2", 8},
    {"F8_E8M0", 8},  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"F6_E2M3", 6},  {"F6_E3M2", 6},   {"F4", 4},
};

struct reader {
    const char *where;
    const uint8_t *data; /* behind the header */
    uint64_t data_len;
    struct tlr_err *err;
};

/* ---- one entry ---- */

static int read_dtype(const struct reader *r, struct tlr_safetensor *t,
                      const json_t *entry, unsigned *bits)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].name;
            *bits = dtypes[i].bits;
            return 0;
        }
    }
    return tlr_err_set(r->err, TLR_EFORMAT,
                       "%s: tensor %s: dtype %.32s is none of safetensors'; "
                       "the header is damaged: download the file again",
                       r->where, t->name, name ? name : "(missing)");
}

/* A list of non-negative integers; its length, or -1. */
static int read_numbers(const json_t *list, uint64_t *out, size_t cap)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > cap) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return -1;
        }
        out[i] = (uint64_t)json_integer_value(value);
    }
    return (int)n;
}

/* Shape, and the bytes that it and the dtype make. */
static int read_shape(const struct reader *r, struct tlr_safetensor *t,
                      const json_t *entry, unsigned bits, uint64_t *n_bytes)
{
    int n = read_numbers(json_object_get(entry, "shape"), t->shape,
                         TLR_SAFETENSORS_MAX_DIMS);
    if (n < 0) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: shape: expected a list of up to %d "
                           "non-negative integers; the header is damaged",
                           r->where, t->name, TLR_SAFETENSORS_MAX_DIMS);
    }
    t->n_dims = (uint32_t)n;
    uint64_t n_bits = bits;
    for (int d = 0; d < n; d++) {
        if (!tlr_mul_u64(n_bits, t->shape[d], &n_bits)) {
            return tlr_err_set(r->err, TLR_EFORMAT,
                               "%s: tensor %s: shape: the product of the "
                               "dimensions overflows; the header is damaged",
                               r->where, t->name);
        }
    }
    if (n_bits % 8 != 0) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: %s elements do not fill whole "
                           "bytes; the header is damaged",
                           r->where, t->name, t->dtype);
    }
    *n_bytes = n_bits / 8;
    return 0;
}

static int read_entry(const struct reader *r, struct tlr_safetensor *t,
                      const char *name, const json_t *entry)
{
    size_t len = strlen(name);
    if (len == 0 || len > MAX_NAME_BYTES) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: expected tensor names of 1..%d bytes, found "
                           "one of %zu; the header is damaged",
                           r->where, MAX_NAME_BYTES, len);
    }
    t->name = tlr_strdup(name);
    if (!t->name) {
        return tlr_err_nomem(r->err, r->where, len + 1);
    }
    if (!json_is_object(entry)) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: expected an object with dtype, "
                           "shape and data_offsets, found %s; the header is "
                           "damaged",
                           r->where, name, tlr_json_type_name(entry));
    }
    unsigned bits = 0;
    uint64_t n_bytes = 0, at[2];
    int rc = read_dtype(r, t, entry, &bits);
    if (rc || (rc = read_shape(r, t, entry, bits, &n_bytes))) {
        return rc;
    }
    if (read_numbers(json_object_get(entry, "data_offsets"), at, 2) != 2) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: data_offsets: expected a list of "
                           "two non-negative integers; the header is damaged",
                           r->where, name);
    }
    if (at[0] > at[1] || at[1] > r->data_len) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: data_offsets: expected [begin, end] "
                           "with begin <= end <= %llu, found [%llu, %llu]; the "
                           "header or the download is damaged",
                           r->where, name, (unsigned long long)r->data_len,
                           (unsigned long long)at[0],
                           (unsigned long long)at[1]);
    }
    if (at[1] - at[0] != n_bytes) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: tensor %s: expected %llu bytes from shape and "
                           "dtype, found data_offsets of %llu; the header is "
                           "damaged",
                           r->where, name, (unsigned long long)n_bytes,
                           (unsigned long long)(at[1] - at[0]));
    }
    t->data = r->data + at[0];
    t->n_bytes = n_bytes;
    return 0;
}

/* ---- the whole ---- */

static int check_metadata(const struct reader *r, json_t *metadata)
{
    const char *key;
    json_t *value;
    bool is_ok = json_is_object(metadata);
    json_object_foreach(metadata, key, value)
    {
        is_ok = is_ok && json_is_string(value);
    }
    return is_ok ? 0
                 : tlr_err_set(r->err, TLR_EFORMAT,
                               "%s: __metadata__: expected an object of "
                               "strings; the header is damaged",
                               r->where);
}

/* By begin; an empty tensor comes before the one that starts where it does. */
static int compare_data(const void *a, const void *b)
{
    const struct tlr_safetensor *x = a, *y = b;
    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int check_order(const struct reader *r, struct tlr_safetensors *s)
{
    if (s->n > 1) {
        qsort(s->tensors, s->n, sizeof *s->tensors, compare_data);
    }
    uint64_t end = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct tlr_safetensor *t = &s->tensors[i];
        uint64_t begin = (uint64_t)(t->data - r->data);
        if (begin != end) {
            return tlr_err_set(r->err, TLR_EFORMAT,
                               "%s: tensor %s: expected its data at byte %llu "
                               "(no hole, no overlap), found %llu; the header "
                               "is damaged",
                               r->where, t->name, (unsigned long long)end,
                               (unsigned long long)begin);
        }
        end = begin + t->n_bytes;
    }
    if (end != r->data_len) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: expected %llu bytes of data, found %llu; "
                           "download the file again",
                           r->where, (unsigned long long)end,
                           (unsigned long long)r->data_len);
    }
    return 0;
}

static int read_header(const struct reader *r, struct tlr_safetensors *out,
                       json_t *root)
{
    size_t cap = json_object_size(root);
    out->tensors = tlr_calloc(cap, sizeof *out->tensors);
    if (!out->tensors) {
        return tlr_err_nomem(r->err, r->where, cap * sizeof *out->tensors);
    }
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        int rc = strcmp(name, "__metadata__") == 0
                     ? check_metadata(r, entry)
                     : read_entry(r, &out->tensors[out->n++], name, entry);
        if (rc) {
            return rc;
        }
    }
    return check_order(r, out);
}

int tlr_safetensors_parse(struct tlr_safetensors *out, const void *bytes,
                          size_t len, const char *where, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    struct tlr_span s = tlr_span_of(bytes, len);
    uint64_t n = tlr_span_u64(&s);
    if (s.bad || n > MAX_HEADER_BYTES || n > tlr_span_left(&s)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: header length %llu: expected at most %d and "
                           "inside the file of %zu bytes; it is no safetensors "
                           "file or the download is incomplete",
                           where, (unsigned long long)n, MAX_HEADER_BYTES, len);
    }
    const char *header = (const char *)tlr_span_take(&s, n);
    if (n < 2 || header[0] != '{') {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected a header of JSON that begins with "
                           "'{'; it is no safetensors file",
                           where);
    }
    struct reader r = {.where = where,
                       .data = s.ptr + s.pos,
                       .data_len = tlr_span_left(&s),
                       .err = err};
    json_t *root;
    int rc = tlr_json_parse(&root, header, (size_t)n, where, err);
    if (rc) {
        return rc;
    }
    rc = read_header(&r, out, root);
    json_decref(root);
    return rc;
}

void tlr_safetensors_clear(struct tlr_safetensors *s)
{
    for (size_t i = 0; i < s->n; i++) {
        tlr_free(s->tensors[i].name);
    }
    tlr_free(s->tensors);
    memset(s, 0, sizeof *s);
}
