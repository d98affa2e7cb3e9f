/* hash.h - checksums: CRC-32 guards the model file, SHA-256 names sources. */
#ifndef TLR_BASE_HASH_H
#define TLR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* CRC-32 (IEEE 802.3, as zlib and PNG) of data, continuing from crc; start
 * with 0. */
uint32_t tlr_crc32(uint32_t crc, const void *data, size_t len);

/* SHA-256 of pieces in order, so that a large file need not be in memory at
 * once.  end writes 64 lower-case hex digits and a NUL, and frees s also on
 * failure; tlr_sha256_drop frees one that is given up (NULL is allowed). */
struct tlr_sha256;
int tlr_sha256_begin(struct tlr_sha256 **out, struct tlr_err *err);
int tlr_sha256_add(struct tlr_sha256 *s, const void *data, size_t len,
                   struct tlr_err *err);
int tlr_sha256_end(struct tlr_sha256 *s, char out[65], struct tlr_err *err);
void tlr_sha256_drop(struct tlr_sha256 *s);

/* splitmix64 of (seed, index): a random function of its counter, so any element
 * of a random tensor can be made alone, in C and in NumPy alike. */
uint64_t tlr_hash_u64(uint64_t seed, uint64_t index);

/* FNV-1a of a name: the seed of the tensor with that name. */
uint64_t tlr_hash_name(uint64_t seed, const char *name);

#endif
