/* layout.h - numbers of the model file that reader and writer share.
 *
 * FORMAT.md is the specification; this is its constants.  Nothing outside
 * weights/ includes this file, except tests that damage files on purpose.
 */
#ifndef TLR_WEIGHTS_LAYOUT_H
#define TLR_WEIGHTS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "weights/model_file.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tensors of a model file are used in place: little-endian only"
#endif

/* 0x89 shows a stripped eighth bit, CR LF and LF a change of line ends, and
 * 0x1A stops a listing: the transfers that PNG's signature was made to catch. */
#define TLR_FILE_MAGIC "\x89TLR\r\n\x1a\n"

enum {
    TLR_FILE_VERSION = 2, /* newest that this tlr reads and writes */
    TLR_FILE_ALIGN = 64,
    TLR_FILE_MAX_SECTIONS = 16, /* slots of the section table, all present */
    TLR_FILE_MAX_TENSORS = 8192,
    TLR_FILE_NAME_BYTES = 32 /* with at least one NUL */
};

#define TLR_FILE_ENDIAN UINT32_C(0x01020304)
#define TLR_FILE_ENDIAN_SWAPPED UINT32_C(0x04030201)

/* Header: byte offset of each field. */
enum {
    TLR_HEAD_MAGIC = 0,
    TLR_HEAD_VERSION = 8,
    TLR_HEAD_MIN_READER = 12,
    TLR_HEAD_ENDIAN = 16,
    TLR_HEAD_FLAGS = 20,
    TLR_HEAD_FILE_BYTES = 24,
    TLR_HEAD_N_SECTIONS = 32,
    TLR_HEAD_N_TENSORS = 36,
    TLR_HEAD_TABLE_CRC = 40, /* of the section table and the directory */
    TLR_HEAD_RESERVED = 44,
    TLR_HEAD_CRC = 124, /* of the bytes before it */
    TLR_HEAD_BYTES = 128
};

/* One slot of the section table. */
enum {
    TLR_SECT_ID = 0,
    TLR_SECT_FLAGS = 4,
    TLR_SECT_OFFSET = 8,
    TLR_SECT_SIZE = 16,
    TLR_SECT_CRC = 24,
    TLR_SECT_RESERVED = 28,
    TLR_SECT_BYTES = 32
};
enum { TLR_SECT_REQUIRED = 1u << 0 };

/* One entry of the tensor directory. */
enum {
    TLR_DIR_NAME = 0,
    TLR_DIR_TYPE = 32,
    TLR_DIR_ROWS = 36,
    TLR_DIR_COLS = 40,
    TLR_DIR_CRC = 44,
    TLR_DIR_OFFSET = 48,
    TLR_DIR_SIZE = 56,
    TLR_DIR_BYTES = 64
};

/* The config section: twelve 32-bit words in the order of struct tlr_config. */
enum { TLR_CONFIG_WORDS = 12, TLR_CONFIG_BYTES = 64 };

enum {
    TLR_FILE_TABLE_BYTES = TLR_FILE_MAX_SECTIONS * TLR_SECT_BYTES,
    TLR_FILE_DIR_AT = TLR_HEAD_BYTES + TLR_FILE_TABLE_BYTES
};

/* Bytes of header, table and directory; a multiple of 64, at most 513 KiB. */
static inline uint64_t tlr_head_area_bytes(uint32_t n_tensors)
{
    return TLR_FILE_DIR_AT + (uint64_t)n_tensors * TLR_DIR_BYTES;
}

struct tlr_section_kind {
    const char *name;
    uint64_t max_bytes;
    uint32_t flags;
    bool is_json;
};

/* NULL when the id is unknown. */
const struct tlr_section_kind *tlr_section_kind(uint32_t id);

/* What holds for a section's bytes whatever its meaning: not empty, within its
 * limit, and text that could be a JSON object where it must be one. */
int tlr_section_check(uint32_t id, const void *data, uint64_t len,
                      const char *label, struct tlr_err *err);

/* First version of the format that has tensors of this type: the version and
 * the minimum reader of a file are the largest of its tensors'. */
uint32_t tlr_type_version(enum tlr_type type);

/* "tensor NAME: ..." unless this type can hold this shape; the size else. */
int tlr_tensor_size(const struct tlr_tensor_want *want, unsigned type,
                    const char *label, uint64_t *out, struct tlr_err *err);

#endif
