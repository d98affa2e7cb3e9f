/* tiny.h - the smallest model files that have every kind of tensor, and what
 * it takes to damage them on purpose. */
#ifndef TLR_TESTS_WEIGHTS_TINY_H
#define TLR_TESTS_WEIGHTS_TINY_H

#include <stddef.h>
#include <stdint.h>

#include "weights/layout.h"

enum { TINY_MAX_TENSORS = 64 };

struct tiny {
    struct tlr_config config;
    enum tlr_type matrix; /* of all matrices */
    uint64_t seed;        /* of the tensor bytes */
};

/* dim 32, ffn 64, two layers, n_vocab 20: every flag of the family set. */
struct tiny tiny_model(enum tlr_family family, enum tlr_type matrix);

/* Bytes of tensor i, allocated; finite scales and values. */
uint8_t *tiny_tensor(const struct tiny *t, uint32_t i, size_t *len);

/* Text of the sections that tiny files carry; NULL for the others. */
const char *tiny_section(enum tlr_section section);

/* Writes the model through the writer, data in pieces of `piece` bytes. */
int tiny_write(const struct tiny *t, struct tlr_writer *w, size_t piece,
               struct tlr_err *err);
int tiny_write_path(const struct tiny *t, const char *path,
                    struct tlr_err *err);

/* The whole file in 64-byte aligned memory (tlr_free). */
uint8_t *tiny_image(const struct tiny *t, size_t *len);

/* Copies len bytes to fresh memory of exactly that size, 64-byte aligned, so
 * that a sanitizer sees the first byte past the end. */
uint8_t *tiny_copy(const uint8_t *bytes, size_t len);

/* Makes the checksums of header, tables and sections right again (tensors
 * keep theirs), as far as offsets lie in the file. */
void tiny_repair(uint8_t *image, size_t len);

/* Where slot and entry of a name lie in the image. */
uint8_t *tiny_slot(uint8_t *image, enum tlr_section section);
uint8_t *tiny_entry(uint8_t *image, const char *tensor);

#endif
