/* verify.c - reads every byte of an open model file.
 *
 * Opening checks structure; this checks data: checksums, and that no value or
 * scale is infinite or not a number.  The bit patterns are tested, not the
 * floats, so it costs little beside the checksum.
 */
#include <inttypes.h>

#include "weights/reader_internal.h"

/* Index of the first 16-bit word with all exponent bits set, or n. */
static uint64_t first_bad_u16(const uint8_t *p, uint64_t n, unsigned mask)
{
    for (uint64_t i = 0; i < n; i++) {
        unsigned v = (unsigned)p[2 * i] | (unsigned)p[2 * i + 1] << 8;
        if ((v & mask) == mask) {
            return i;
        }
    }
    return n;
}

static uint64_t first_bad_u32(const uint8_t *p, uint64_t n, uint32_t mask)
{
    for (uint64_t i = 0; i < n; i++) {
        if ((tlr_get_u32(p + 4 * i) & mask) == mask) {
            return i;
        }
    }
    return n;
}

/* Where the tile with the scales of 16 rows x 32 columns starts; in q8p those
 * are the high tiles, which come first in every group of rows. */
static uint64_t tile_offset(enum tlr_type type, uint64_t tile,
                            uint64_t per_band)
{
    if (type != TLR_Q8P) {
        return tile * tlr_tile_bytes(type);
    }
    uint64_t per_group = TLR_PLANES_ROWS / TLR_TILE_ROWS * per_band;
    return tile / per_group * per_group * tlr_tile_bytes(type) +
           tile % per_group * TLR_HIGH_BYTES;
}

/* Row and column of a value that is not finite; for the tiled types the column
 * is the first of the tile whose scale (or minimum) it is. */
static bool find_bad(const struct tlr_tensor *t, uint64_t *row, uint64_t *col)
{
    uint64_t n = (uint64_t)t->n_rows * t->n_cols, i;
    if (!tlr_type_is_tiled(t->type)) {
        i = t->type == TLR_F32 ? first_bad_u32(t->data, n, 0x7f800000u)
                               : first_bad_u16(t->data, n, 0x7f80u);
        *row = i / t->n_cols;
        *col = i % t->n_cols;
        return i < n;
    }
    uint64_t n_words = TLR_TILE_ROWS * (t->type == TLR_Q4M ? 2u : 1u);
    uint64_t per_band = t->n_cols / TLR_TILE_COLS;
    uint64_t n_tiles = t->n_bytes / tlr_tile_bytes(t->type);
    for (uint64_t tile = 0; tile < n_tiles; tile++) {
        const uint8_t *p = (const uint8_t *)t->data +
                           tile_offset(t->type, tile, per_band);
        i = first_bad_u16(p, n_words, 0x7c00u);
        if (i < n_words) {
            *row = tile / per_band * TLR_TILE_ROWS + i % TLR_TILE_ROWS;
            *col = tile % per_band * TLR_TILE_COLS;
            return true;
        }
    }
    return false;
}

static int verify_tensor(const struct tlr_file *f, const struct tlr_tensor *t,
                         struct tlr_err *err)
{
    uint64_t row, col;
    int rc = tlr_file_check_crc(f, "tensor ", t->name, t->data, t->n_bytes,
                                t->crc32, err);
    if (rc) {
        return rc;
    }
    if (find_bad(t, &row, &col)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected finite %s, found an "
                           "infinity or NaN at [%" PRIu64 ",%" PRIu64
                           "]; convert the model again",
                           f->label, t->name,
                           tlr_type_is_tiled(t->type) ? "scales" : "values",
                           row, col);
    }
    return 0;
}

int tlr_file_verify(const struct tlr_file *f, tlr_progress_fn progress,
                    void *ctx, struct tlr_err *err)
{
    uint64_t done = 0, total = 0;
    for (uint32_t i = 0; i < f->n_sections; i++) {
        total += f->sections[i].bytes.len;
    }
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        total += f->tensors[i].n_bytes;
    }
    for (uint32_t i = 0; i < f->n_sections; i++) {
        const struct tlr_file_section *s = &f->sections[i];
        int rc = tlr_file_check_crc(f, "section ", s->name, s->bytes.ptr,
                                    s->bytes.len, s->crc32, err);
        if (rc) {
            return rc;
        }
        done += s->bytes.len;
    }
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        if (progress && progress(ctx, done, total) != 0) {
            return tlr_err_set(err, TLR_ECANCELLED, "%s: cancelled", f->label);
        }
        int rc = verify_tensor(f, &f->tensors[i], err);
        if (rc) {
            return rc;
        }
        done += f->tensors[i].n_bytes;
    }
    return 0;
}
