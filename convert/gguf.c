/* gguf.c - the directory of a .gguf file, read through a span.
 *
 * Nothing is allocated from a count before the count is held against the bytes
 * that are left; sums and products are checked; keys and names are unique;
 * tensors follow each other without holes, as ggml itself demands.  Both tables
 * are sorted afterwards, so look-ups and duplicate checks take n log n.
 */
#include "convert/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    MAX_ENTRIES = 1 << 16,     /* keys, and tensors: 512 layers need 6,500 */
    MAX_NAME_BYTES = 255,
    MAX_ARRAY_DEPTH = 4,
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
};

static const struct {
    const char *name;
    unsigned bytes; /* 0: not of fixed size */
} value_types[TLR_N_GGUF_TYPES] = {
    [TLR_GGUF_U8] = {"u8", 1},     [TLR_GGUF_I8] = {"i8", 1},
    [TLR_GGUF_U16] = {"u16", 2},   [TLR_GGUF_I16] = {"i16", 2},
    [TLR_GGUF_U32] = {"u32", 4},   [TLR_GGUF_I32] = {"i32", 4},
    [TLR_GGUF_F32] = {"f32", 4},   [TLR_GGUF_BOOL] = {"bool", 1},
    [TLR_GGUF_STRING] = {"string", 0}, [TLR_GGUF_ARRAY] = {"array", 0},
    [TLR_GGUF_U64] = {"u64", 8},   [TLR_GGUF_I64] = {"i64", 8},
    [TLR_GGUF_F64] = {"f64", 8},
};

const char *tlr_gguf_type_name(unsigned type)
{
    return type < TLR_N_GGUF_TYPES ? value_types[type].name : "?";
}

static int truncated(const struct tlr_gguf *g, const char *what,
                     const struct tlr_span *s, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s runs past the end of the file (%zu bytes); "
                       "download the file again",
                       g->where, what, s->len);
}

/* ---- metadata ---- */

static int skip_strings(struct tlr_span *s, uint64_t n)
{
    if (n > tlr_span_left(s) / 8) {
        return -1;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len = tlr_span_u64(s);
        if (!tlr_span_take(s, len)) {
            return -1;
        }
    }
    return 0;
}

/* Moves over n values of a type; *depth_left guards the recursion. */
static int skip_values(struct tlr_span *s, uint32_t type, uint64_t n,
                       int depth_left)
{
    if (type >= TLR_N_GGUF_TYPES || depth_left < 0) {
        return -1;
    }
    if (type == TLR_GGUF_STRING) {
        return skip_strings(s, n);
    }
    if (type != TLR_GGUF_ARRAY) {
        uint64_t bytes;
        if (!tlr_mul_u64(n, value_types[type].bytes, &bytes)) {
            return -1;
        }
        const uint8_t *data = tlr_span_take(s, bytes);
        for (uint64_t i = 0; data && type == TLR_GGUF_BOOL && i < n; i++) {
            if (data[i] > 1) {
                return -1;
            }
        }
        return data ? 0 : -1;
    }
    if (n > tlr_span_left(s) / 12) {
        return -1;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint32_t elem = tlr_span_u32(s);
        uint64_t count = tlr_span_u64(s);
        if (s->bad || skip_values(s, elem, count, depth_left - 1) != 0) {
            return -1;
        }
    }
    return 0;
}

/* A key or a tensor name: 1..255 bytes of UTF-8 without NUL. */
static int read_name(const struct tlr_gguf *g, struct tlr_span *s,
                     const char *what, uint64_t index, struct tlr_bytes *out,
                     struct tlr_err *err)
{
    uint64_t len = tlr_span_u64(s);
    if (s->bad) {
        return truncated(g, what, s, err);
    }
    if (len == 0 || len > MAX_NAME_BYTES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s %llu: expected a name of 1..%d bytes, found "
                           "%llu; the file is damaged",
                           g->where, what, (unsigned long long)index,
                           MAX_NAME_BYTES, (unsigned long long)len);
    }
    out->ptr = tlr_span_take(s, len);
    out->len = (size_t)len;
    if (!out->ptr) {
        return truncated(g, what, s, err);
    }
    if (memchr(out->ptr, 0, out->len) || !tlr_utf8_valid(out->ptr, out->len)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s %llu: its name is not UTF-8 text; the file "
                           "is damaged",
                           g->where, what, (unsigned long long)index);
    }
    return 0;
}

static int read_kv(const struct tlr_gguf *g, struct tlr_span *s, uint64_t index,
                   struct tlr_gguf_kv *kv, struct tlr_err *err)
{
    int rc = read_name(g, s, "key", index, &kv->key, err);
    if (rc) {
        return rc;
    }
    int key_len = (int)kv->key.len;
    const char *key = (const char *)kv->key.ptr;
    kv->type = tlr_span_u32(s);
    kv->elem_type = kv->type;
    kv->n = 1;
    if (kv->type == TLR_GGUF_ARRAY) {
        kv->elem_type = tlr_span_u32(s);
        kv->n = tlr_span_u64(s);
    }
    if (s->bad) {
        return truncated(g, "a key's value", s, err);
    }
    if (kv->elem_type >= TLR_N_GGUF_TYPES || kv->type >= TLR_N_GGUF_TYPES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %.*s: expected a value type of 0..%d, "
                           "found %u; the file is damaged",
                           g->where, key_len, key, TLR_N_GGUF_TYPES - 1,
                           kv->elem_type);
    }
    size_t start = s->pos;
    if (skip_values(s, kv->elem_type, kv->n, MAX_ARRAY_DEPTH) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %.*s: %llu values of type %s do not fit "
                           "the file, nest too deep or are malformed; download "
                           "the file again",
                           g->where, key_len, key, (unsigned long long)kv->n,
                           tlr_gguf_type_name(kv->elem_type));
    }
    kv->data.ptr = s->ptr + start;
    kv->data.len = s->pos - start;
    return 0;
}

static int compare_bytes(struct tlr_bytes a, struct tlr_bytes b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_kv(const void *a, const void *b)
{
    const struct tlr_gguf_kv *x = a, *y = b;
    return compare_bytes(x->key, y->key);
}

static int read_kvs(struct tlr_gguf *g, struct tlr_span *s, uint64_t n,
                    struct tlr_err *err)
{
    g->kv = tlr_calloc((size_t)n, sizeof *g->kv);
    if (!g->kv) {
        return tlr_err_nomem(err, g->where, n * sizeof *g->kv);
    }
    for (; g->n_kv < n; g->n_kv++) {
        int rc = read_kv(g, s, g->n_kv, &g->kv[g->n_kv], err);
        if (rc) {
            return rc;
        }
    }
    qsort(g->kv, (size_t)n, sizeof *g->kv, compare_kv);
    for (uint64_t i = 1; i < n; i++) {
        if (compare_kv(&g->kv[i - 1], &g->kv[i]) == 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: key %.*s appears twice; the file is "
                               "damaged",
                               g->where, (int)g->kv[i].key.len,
                               (const char *)g->kv[i].key.ptr);
        }
    }
    return 0;
}

/* ---- tensor infos ---- */

static int read_shape(const struct tlr_gguf *g, struct tlr_span *s,
                      struct tlr_gguf_tensor *t, struct tlr_err *err)
{
    t->n_dims = tlr_span_u32(s);
    if (s->bad) {
        return truncated(g, "the tensor list", s, err);
    }
    if (t->n_dims < 1 || t->n_dims > 4) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected 1..4 dimensions, found %u; "
                           "the file is damaged",
                           g->where, t->name, t->n_dims);
    }
    uint64_t n_elems = 1;
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = d < t->n_dims ? tlr_span_u64(s) : 1;
        if (s->bad) {
            return truncated(g, "the tensor list", s, err);
        }
        if (t->ne[d] == 0 || t->ne[d] > INT64_MAX ||
            !tlr_mul_u64(n_elems, t->ne[d], &n_elems) || n_elems > INT64_MAX) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: dimension %u of %llu makes the "
                               "shape impossible; the file is damaged",
                               g->where, t->name, d,
                               (unsigned long long)t->ne[d]);
        }
    }
    return 0;
}

static int read_type(const struct tlr_gguf *g, struct tlr_span *s,
                     struct tlr_gguf_tensor *t, struct tlr_err *err)
{
    uint32_t id = tlr_span_u32(s);
    if (s->bad) {
        return truncated(g, "the tensor list", s, err);
    }
    t->type = tlr_block_type_by_id(id);
    if (!t->type) {
        const char *name = tlr_block_type_any_name(id);
        return tlr_err_set(err, name ? TLR_EUNSUPPORTED : TLR_EFORMAT,
                           "%s: tensor %s: type %s (%u) is not supported; "
                           "expected F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 "
                           "Q4_K Q5_K or Q6_K: take another file of this model",
                           g->where, t->name, name ? name : "unknown", id);
    }
    if (t->ne[0] % t->type->n_elems != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: rows of %llu elements do not divide "
                           "into %s blocks of %u; the file is damaged",
                           g->where, t->name, (unsigned long long)t->ne[0],
                           t->type->name, t->type->n_elems);
    }
    uint64_t n_blocks = t->ne[0] / t->type->n_elems * t->ne[1] * t->ne[2] *
                        t->ne[3]; /* <= INT64_MAX: read_shape */
    if (!tlr_mul_u64(n_blocks, t->type->n_bytes, &t->n_bytes)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: its size overflows; the file is "
                           "damaged",
                           g->where, t->name);
    }
    return 0;
}

/* offset is where the tensors before this one end, padded. */
static int read_tensor(const struct tlr_gguf *g, struct tlr_span *s,
                       uint64_t index, struct tlr_gguf_tensor *t,
                       uint64_t *offset, uint64_t alignment,
                       struct tlr_err *err)
{
    struct tlr_bytes name;
    int rc = read_name(g, s, "tensor", index, &name, err);
    if (rc) {
        return rc;
    }
    t->name = tlr_calloc(name.len + 1, 1);
    if (!t->name) {
        return tlr_err_nomem(err, g->where, name.len + 1);
    }
    memcpy(t->name, name.ptr, name.len);
    if ((rc = read_shape(g, s, t, err)) || (rc = read_type(g, s, t, err))) {
        return rc;
    }
    uint64_t found = tlr_span_u64(s);
    if (s->bad) {
        return truncated(g, "the tensor list", s, err);
    }
    if (found != *offset) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected offset %llu (no holes, no "
                           "overlap), found %llu; the file is damaged",
                           g->where, t->name, (unsigned long long)*offset,
                           (unsigned long long)found);
    }
    uint64_t end;
    if (!tlr_add_u64(*offset, t->n_bytes, &end) ||
        !tlr_add_u64(end, alignment - 1, &end)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: its end overflows; the file is "
                           "damaged",
                           g->where, t->name);
    }
    *offset = end & ~(alignment - 1);
    return 0;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct tlr_gguf_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Points every tensor at its data, which starts at the next aligned byte. */
static int place_data(struct tlr_gguf *g, struct tlr_span *s,
                      uint64_t alignment, struct tlr_err *err)
{
    uint64_t at = ((uint64_t)s->pos + alignment - 1) & ~(alignment - 1);
    uint64_t end = s->pos;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct tlr_gguf_tensor *t = &g->tensors[i];
        if (!tlr_add_u64(at, t->n_bytes, &end) || end > s->len) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: expected its data in bytes "
                               "%llu..%llu, found a file of %zu bytes; "
                               "download the file again",
                               g->where, t->name, (unsigned long long)at,
                               (unsigned long long)at + t->n_bytes, s->len);
        }
        t->data = s->ptr + at;
        at = (end + alignment - 1) & ~(alignment - 1);
    }
    if (s->len - end >= alignment && s->len > at) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected the file to end at byte %llu with the "
                           "last tensor, found %zu bytes; the file is damaged",
                           g->where, (unsigned long long)at, s->len);
    }
    return 0;
}

static int read_tensors(struct tlr_gguf *g, struct tlr_span *s, uint64_t n,
                        struct tlr_err *err)
{
    uint64_t alignment = DEFAULT_ALIGNMENT, offset = 0;
    int rc = tlr_gguf_get_u64(g, "general.alignment", false, MAX_ALIGNMENT,
                              &alignment, err);
    if (rc) {
        return rc;
    }
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key general.alignment: expected a power of two "
                           "up to %d, found %llu; the file is damaged",
                           g->where, MAX_ALIGNMENT,
                           (unsigned long long)alignment);
    }
    g->tensors = tlr_calloc((size_t)n, sizeof *g->tensors);
    if (!g->tensors) {
        return tlr_err_nomem(err, g->where, n * sizeof *g->tensors);
    }
    while (g->n_tensors < n) {
        uint64_t i = g->n_tensors++; /* counted first: clear frees its name */
        rc = read_tensor(g, s, i, &g->tensors[i], &offset, alignment, err);
        if (rc) {
            return rc;
        }
    }
    if ((rc = place_data(g, s, alignment, err))) {
        return rc;
    }
    qsort(g->tensors, (size_t)n, sizeof *g->tensors, compare_tensors);
    for (uint64_t i = 1; i < n; i++) {
        if (compare_tensors(&g->tensors[i - 1], &g->tensors[i]) == 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s appears twice; the file is "
                               "damaged",
                               g->where, g->tensors[i].name);
        }
    }
    return 0;
}

/* ---- the whole ---- */

static int check_header(const struct tlr_gguf *g, struct tlr_span *s,
                        uint64_t *n_tensors, uint64_t *n_kv,
                        struct tlr_err *err)
{
    const uint8_t *magic = tlr_span_take(s, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected a GGUF file, found other data (the "
                           "first bytes are not \"GGUF\"); was the download "
                           "complete?",
                           g->where);
    }
    uint32_t version = tlr_span_u32(s);
    *n_tensors = tlr_span_u64(s);
    *n_kv = tlr_span_u64(s);
    if (s->bad) {
        return truncated(g, "the header", s, err);
    }
    if (version != 2 && version != 3) {
        bool swapped = version != 0 && (version & 0xffff) == 0;
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: expected GGUF version 2 or 3, found %u%s; take "
                           "a newer little-endian file of this model",
                           g->where, version,
                           swapped ? " (a big-endian file)" : "");
    }
    if (*n_kv > MAX_ENTRIES || *n_kv > tlr_span_left(s) / MIN_KV_BYTES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %llu metadata keys cannot be in a file of %zu "
                           "bytes (at most %d); the file is damaged",
                           g->where, (unsigned long long)*n_kv, s->len,
                           MAX_ENTRIES);
    }
    if (*n_tensors > MAX_ENTRIES ||
        *n_tensors > tlr_span_left(s) / MIN_TENSOR_BYTES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %llu tensors cannot be in a file of %zu bytes "
                           "(at most %d); the file is damaged",
                           g->where, (unsigned long long)*n_tensors, s->len,
                           MAX_ENTRIES);
    }
    return 0;
}

int tlr_gguf_parse(struct tlr_gguf *out, const void *bytes, size_t len,
                   const char *where, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    out->where = where;
    struct tlr_span s = tlr_span_of(bytes, len);
    uint64_t n_tensors = 0, n_kv = 0;
    int rc = check_header(out, &s, &n_tensors, &n_kv, err);
    if (rc) {
        return rc;
    }
    if ((rc = read_kvs(out, &s, n_kv, err))) {
        return rc;
    }
    return read_tensors(out, &s, n_tensors, err);
}

void tlr_gguf_clear(struct tlr_gguf *g)
{
    for (uint64_t i = 0; g->tensors && i < g->n_tensors; i++) {
        tlr_free(g->tensors[i].name);
    }
    tlr_free(g->tensors);
    tlr_free(g->kv);
    memset(g, 0, sizeof *g);
}
