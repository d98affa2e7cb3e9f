/* reader_internal.h - an open model file, as the files of the reader see it. */
#ifndef TLR_WEIGHTS_READER_INTERNAL_H
#define TLR_WEIGHTS_READER_INTERNAL_H

#include <stdio.h>

#include "base/file.h"
#include "weights/layout.h"

struct tlr_file_section {
    uint32_t id, crc32;
    struct tlr_bytes bytes;
    char name[16]; /* "config"; the number of an unknown one */
};

struct tlr_file {
    struct tlr_map map; /* zeroed when the bytes are the caller's */
    const uint8_t *bytes;
    size_t len;
    char *label;
    uint32_t version;
    uint64_t head_bytes;
    uint64_t fingerprint;
    uint32_t n_sections;
    struct tlr_file_section sections[TLR_FILE_MAX_SECTIONS];
    struct tlr_config config;
    uint32_t n_tensors;
    struct tlr_tensor *tensors; /* [n_tensors] */
    uint32_t *index;            /* 1 + number of the tensor, by hash of name */
    uint32_t index_mask;
};

/* Fills everything but map, label, index and fingerprint from bytes and len, or
 * says why they are no model. */
int tlr_file_check(struct tlr_file *f, struct tlr_err *err);

/* "LABEL: KINDNAME: expected checksum ..." unless the bytes have it. */
int tlr_file_check_crc(const struct tlr_file *f, const char *kind,
                       const char *name, const void *data, uint64_t len,
                       uint32_t expected, struct tlr_err *err);

#endif
