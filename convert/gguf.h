/* gguf.h - the directory of a .gguf file, from bytes that nobody vouches for.
 *
 * Owns the frame: header, typed metadata, tensor infos, alignment.  Knows no
 * architecture (gguf_source.c) and no vocabulary (gguf_vocab.c).  What parses
 * has every string, array and tensor inside the bytes; arrays are not copied
 * but read in place.  Format: ggml's docs/gguf.md, versions 2 and 3, little
 * endian.
 */
#ifndef TLR_CONVERT_GGUF_H
#define TLR_CONVERT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "convert/gguf_blocks.h"

enum tlr_gguf_type {
    TLR_GGUF_U8 = 0,
    TLR_GGUF_I8 = 1,
    TLR_GGUF_U16 = 2,
    TLR_GGUF_I16 = 3,
    TLR_GGUF_U32 = 4,
    TLR_GGUF_I32 = 5,
    TLR_GGUF_F32 = 6,
    TLR_GGUF_BOOL = 7,
    TLR_GGUF_STRING = 8,
    TLR_GGUF_ARRAY = 9,
    TLR_GGUF_U64 = 10,
    TLR_GGUF_I64 = 11,
    TLR_GGUF_F64 = 12,
    TLR_N_GGUF_TYPES
};

/* "u8", "string", ...; "?" out of the enum. */
const char *tlr_gguf_type_name(unsigned type);

struct tlr_gguf_kv {
    struct tlr_bytes key;
    uint32_t type;      /* enum tlr_gguf_type */
    uint32_t elem_type; /* of an array; ARRAY for nested ones */
    uint64_t n;         /* elements of an array, 1 otherwise */
    struct tlr_bytes data; /* the value(s) as stored, without type and count;
                              strings with their u64 lengths */
};

struct tlr_gguf_tensor {
    char *name;
    const struct tlr_block_type *type;
    uint32_t n_dims;      /* 1..4 */
    uint64_t ne[4];       /* innermost first; 1 beyond n_dims */
    const uint8_t *data;  /* in the bytes that were parsed */
    uint64_t n_bytes;
};

struct tlr_gguf {
    const char *where; /* borrowed: opens every message */
    uint32_t version;
    uint64_t n_kv, n_tensors;
    struct tlr_gguf_kv *kv;
    struct tlr_gguf_tensor *tensors;
};

/* `bytes` and `where` must outlive out; tlr_gguf_clear also after failure. */
int tlr_gguf_parse(struct tlr_gguf *out, const void *bytes, size_t len,
                   const char *where, struct tlr_err *err);
void tlr_gguf_clear(struct tlr_gguf *g);

/* NULL when there is none. */
const struct tlr_gguf_kv *tlr_gguf_find(const struct tlr_gguf *g,
                                        const char *key);

/* Scalars by key.  Absent: *out stays as it is and the result is 0, unless
 * `required` (TLR_EFORMAT).  A value of another kind, negative or too large, is
 * TLR_EFORMAT.  Any integer type serves u64; f32 and f64 serve f64. */
int tlr_gguf_get_u64(const struct tlr_gguf *g, const char *key, bool required,
                     uint64_t max, uint64_t *out, struct tlr_err *err);
int tlr_gguf_get_f64(const struct tlr_gguf *g, const char *key, bool required,
                     double *out, struct tlr_err *err);
int tlr_gguf_get_bool(const struct tlr_gguf *g, const char *key, bool required,
                      bool *out, struct tlr_err *err);
int tlr_gguf_get_string(const struct tlr_gguf *g, const char *key,
                        bool required, struct tlr_bytes *out,
                        struct tlr_err *err);
/* The array of that key: data as in struct tlr_gguf_kv, for tlr_span_of.
 * Another element type is TLR_EFORMAT; absent: out->n = 0. */
int tlr_gguf_get_array(const struct tlr_gguf *g, const char *key, bool required,
                       unsigned elem_type, struct tlr_gguf_kv *out,
                       struct tlr_err *err);
/* The next string of a string array's span. */
struct tlr_bytes tlr_gguf_next_string(struct tlr_span *s);

#endif
