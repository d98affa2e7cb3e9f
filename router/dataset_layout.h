/* dataset_layout.h - numbers of the dataset file, for its reader and writer.
 *
 * README.md draws the same bytes; tests/router/test_dataset.c reads a file with
 * the numbers of that page only.  Inside the router room.
 */
#ifndef TLR_ROUTER_DATASET_LAYOUT_H
#define TLR_ROUTER_DATASET_LAYOUT_H

#include "base/bytes.h"
#include "router/dataset.h"

#define TLR_DATASET_MAGIC "\x89TLD\r\n\x1a\n"

enum {
    TLR_DATASET_VERSION = 1,
    TLR_DATASET_DIM_MAX = 65536,
    DS_HEADER_BYTES = 64,
    DS_BLOCK_BYTES = 32, /* header of a group, and the mark at the end */
    DS_ROW_BYTES = 128,
    DS_GROUP_MARK = 0x50524754, /* "TGRP" */
    DS_END_MARK = 0x444e4554    /* "TEND" */
};

/* A block's header, read. */
struct ds_block {
    uint32_t mark, group, n_rows, crc;
    uint64_t n_total; /* rows before this block */
};

/* Cursor for little-endian stores. */
static inline uint8_t *ds_put16(uint8_t *p, uint16_t v)
{
    tlr_put_u16(p, v);
    return p + 2;
}

static inline uint8_t *ds_put32(uint8_t *p, uint32_t v)
{
    tlr_put_u32(p, v);
    return p + 4;
}

static inline uint8_t *ds_put64(uint8_t *p, uint64_t v)
{
    tlr_put_u64(p, v);
    return p + 8;
}

static inline uint8_t *ds_put_f32(uint8_t *p, float f)
{
    tlr_put_f32(p, f);
    return p + 4;
}

/* dataset_read.c, for both. */
int ds_header_read(struct tlr_dataset_info *out, const uint8_t *bytes,
                   size_t len, const char *label, struct tlr_err *err);
/* False when the bytes [DS_BLOCK_BYTES] are no block header. */
bool ds_block_read(struct ds_block *out, const uint8_t *bytes);
void ds_row_read(struct tlr_row *out, const uint8_t *bytes, uint32_t group);
/* TLR_EFORMAT naming the row's place and the number that cannot be. */
int ds_row_check(const struct tlr_row *row, const char *label, uint64_t i,
                 struct tlr_err *err);
/* Bytes of a group's rows and states. */
uint64_t ds_payload_bytes(uint32_t n_rows, uint32_t dim);

#endif
