/* safetensors.h - the directory of a .safetensors file, from bytes that nobody
 * vouches for.
 *
 * What parses has unique names, shapes whose sizes match, and data that fills
 * the file from the header to the last byte without hole or overlap.
 */
#ifndef TLR_CONVERT_SAFETENSORS_H
#define TLR_CONVERT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { TLR_SAFETENSORS_MAX_DIMS = 8 };

struct tlr_safetensor {
    char *name;
    const char *dtype; /* "BF16", ...: a static string */
    uint32_t n_dims;
    uint64_t shape[TLR_SAFETENSORS_MAX_DIMS]; /* outermost first */
    const uint8_t *data; /* in the bytes that were parsed */
    uint64_t n_bytes;
};

struct tlr_safetensors {
    size_t n;
    struct tlr_safetensor *tensors; /* in the order of their data */
};

/* `bytes` must outlive out; tlr_safetensors_clear also after failure. */
int tlr_safetensors_parse(struct tlr_safetensors *out, const void *bytes,
                          size_t len, const char *where, struct tlr_err *err);
void tlr_safetensors_clear(struct tlr_safetensors *s);

#endif
