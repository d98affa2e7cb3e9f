/* router_file.c - a router as bytes; README.md draws them.
 *
 * One layout for given contents: parts in a fixed order, each at the next
 * multiple of 64, zeros between, a checksum over everything.  A router is small
 * (1.7 MB at width 896), so it is built in memory at once and copied when read.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/json.h"
#include "router/router_internal.h"

#define MAGIC "\x89RTR\r\n\x1a\n"

enum {
    VERSION = 1,
    ALIGN = 64,
    HEAD_BYTES = 128,
    AT_VERSION = 8,
    AT_KIND = 12,
    AT_DIM = 16,
    AT_FEATURES = 20,
    AT_HIDDEN = 24,
    AT_CALIBRATED = 28, /* policies */
    AT_FINGERPRINT = 32,
    AT_POSITIONS = 40,
    AT_B2 = 48,
    AT_TEMPERATURE = 52,
    AT_INFO_BYTES = 56,
    AT_RESERVED = 60,
    AT_CRC = 124,
    MAX_INFO_BYTES = 1 << 20,
    CAL_ROW_BYTES = 4 + 4 * TLR_N_SHARES,
};
#define MAX_FILE_BYTES ((size_t)256 << 20)

/* Where the parts lie. */
struct layout {
    uint64_t tiles, b1, w2, scale, shares, rows, info, end;
    uint64_t tiles_bytes;
};

static uint64_t place(uint64_t *pos, uint64_t n_bytes)
{
    uint64_t at = (*pos + ALIGN - 1) / ALIGN * ALIGN;
    *pos = at + n_bytes;
    return at;
}

/* All counts are within the limits of tlr_router_check_shape, so no sum
 * overflows. */
static struct layout layout_of(const struct tlr_router_weights *w,
                               uint32_t n_cols, uint32_t n_calibrated,
                               uint32_t info_bytes)
{
    struct layout l;
    uint64_t pos = HEAD_BYTES;
    l.tiles_bytes = tlr_matrix_bytes(TLR_Q8, w->n_hidden, n_cols);
    l.tiles = place(&pos, l.tiles_bytes);
    l.b1 = place(&pos, 4 * (uint64_t)w->n_hidden);
    l.w2 = place(&pos, 4 * (uint64_t)tlr_router_n_w2(w));
    l.scale = place(&pos, 4 * (uint64_t)w->n_features);
    l.shares = place(&pos, n_calibrated > 0 ? 4 * TLR_N_SHARES : 0);
    l.rows = place(&pos, (uint64_t)n_calibrated * CAL_ROW_BYTES);
    l.info = place(&pos, info_bytes);
    l.end = pos;
    return l;
}

/* Everything but the checksum's own bytes. */
static uint32_t checksum(const uint8_t *bytes, size_t len)
{
    uint32_t crc = tlr_crc32(0, bytes, AT_CRC);
    return tlr_crc32(crc, bytes + HEAD_BYTES, len - HEAD_BYTES);
}

/* ---- numbers ---- */

static int check_finite(const float *x, size_t n, const char *what,
                        const char *label, struct tlr_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: router: %s %zu: expected a finite number, "
                               "found %g; train it again",
                               label, what, i, (double)x[i]);
    return 0;
}

static int check_tiles(const struct tlr_router *r, struct tlr_err *err)
{
    size_t tile = tlr_tile_bytes(TLR_Q8);
    size_t n = (size_t)tlr_matrix_bytes(TLR_Q8, r->w.n_hidden, r->n_cols);
    for (size_t at = 0; at < n; at += tile) {
        for (size_t i = 0; i < TLR_TILE_ROWS; i++) {
            uint16_t d;
            memcpy(&d, r->tiles + at + 2 * i, sizeof d);
            if (!isfinite(tlr_f16_to_f32(d)))
                return tlr_err_set(err, TLR_EFORMAT,
                                   "%s: router: W1: a scale is not finite; "
                                   "train it again",
                                   r->label);
        }
    }
    return 0;
}

static int check_numbers(const struct tlr_router *r, struct tlr_err *err)
{
    const struct tlr_router_weights *w = &r->w;
    const float scalars[] = {w->b2, w->temperature};
    int rc = check_tiles(r, err);
    rc = rc ? rc : check_finite(w->b1, w->n_hidden, "b1", r->label, err);
    rc = rc ? rc
            : check_finite(w->w2, tlr_router_n_w2(w), "w2", r->label, err);
    rc = rc ? rc
            : check_finite(r->feature_scale, w->n_features, "feature scale",
                           r->label, err);
    rc = rc ? rc
            : check_finite(scalars, 2, "b2 (0) or temperature (1)", r->label,
                           err);
    if (!rc && !(w->temperature > 0))
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: router: temperature: expected above 0, found %g; "
                         "train it again",
                         r->label, (double)w->temperature);
    return rc ? rc : tlr_calibration_check(&r->calibration, r->label, err);
}

/* info: a JSON object. */
static int set_info(struct tlr_router *r, const char *info,
                    struct tlr_err *err)
{
    json_t *o = NULL;
    struct tlr_bytes bytes = {(const uint8_t *)info, strlen(info)};
    int rc = tlr_json_object(&o, bytes, MAX_INFO_BYTES, r->label, err);
    json_decref(o);
    if (rc)
        return rc;
    char *copy = tlr_strdup(info);
    if (!copy)
        return tlr_err_nomem(err, r->label, bytes.len + 1);
    tlr_free(r->info);
    r->info = copy;
    return 0;
}

/* ---- rounding W1 ---- */

/* Finite, and within what an f16 scale times 127 reaches. */
static int check_w1(const float *x, size_t n, const char *label,
                    struct tlr_err *err)
{
    const float most = 127 * 65504.0f;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= most))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: router: W1 %zu: expected a number within "
                               "%g, found %g; train it again",
                               label, i, (double)most, (double)x[i]);
    return 0;
}

/* What a feature is multiplied by, so that its column of W1 has the range of a
 * sum's share: features differ in size by a factor of ten, and a block of 32
 * columns shares one step. */
static void scale_features(struct tlr_router *r,
                           const struct tlr_router_weights *w)
{
    size_t n_in = (size_t)w->dim + w->n_features;
    for (uint32_t i = 0; i < w->n_features; i++) {
        float most = 0;
        for (uint32_t row = 0; row < w->n_hidden; row++)
            most = fmaxf(most, fabsf(w->w1[row * n_in + w->dim + i]));
        r->feature_scale[i] = most > 0 ? most : 1;
    }
}

static int round_w1(struct tlr_router *r, const struct tlr_router_weights *w,
                    struct tlr_err *err)
{
    size_t n_in = (size_t)w->dim + w->n_features, n_cols = r->n_cols;
    size_t band_bytes = (size_t)tlr_band_bytes(TLR_Q8, n_cols);
    size_t at = tlr_router_pad(w->dim);
    float *rows = tlr_calloc(TLR_TILE_ROWS * n_cols, sizeof *rows);
    if (!rows)
        return tlr_err_nomem(err, r->label, TLR_TILE_ROWS * n_cols * 4);
    for (uint32_t row = 0; row < w->n_hidden; row += TLR_TILE_ROWS) {
        uint32_t n = w->n_hidden - row;
        n = n < TLR_TILE_ROWS ? n : TLR_TILE_ROWS;
        for (uint32_t k = 0; k < n; k++) {
            const float *from = w->w1 + (row + k) * n_in;
            float *to = rows + k * n_cols;
            memcpy(to, from, w->dim * sizeof *to);
            for (uint32_t i = 0; i < w->n_features; i++)
                to[at + i] = from[w->dim + i] / r->feature_scale[i];
        }
        tlr_band_encode(TLR_Q8, r->tiles + row / TLR_TILE_ROWS * band_bytes,
                        rows, (int)n, (int)n_cols);
    }
    tlr_free(rows);
    return 0;
}

static int from_weights(struct tlr_router **out,
                        const struct tlr_router_weights *w,
                        struct tlr_err *err)
{
    static const char label[] = "router";
    struct tlr_router *r;
    int rc = tlr_router_new(&r, w, label, err);
    if (rc)
        return rc;
    if (w->n_hidden > 0) {
        size_t n_w1 = (size_t)w->n_hidden * (w->dim + w->n_features);
        rc = check_w1(w->w1, n_w1, label, err);
        if (!rc) {
            memcpy(r->w.b1, w->b1, w->n_hidden * sizeof(float));
            scale_features(r, w);
            rc = round_w1(r, w, err);
        }
    }
    memcpy(r->w.w2, w->w2, tlr_router_n_w2(w) * sizeof(float));
    if (rc) {
        tlr_router_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

int tlr_router_pack(uint8_t **out, size_t *out_len,
                    const struct tlr_router_weights *w,
                    const struct tlr_calibration *calibration,
                    uint64_t fingerprint, const char *info,
                    struct tlr_err *err)
{
    struct tlr_router *r;
    int rc = from_weights(&r, w, err);
    if (rc)
        return rc;
    r->fingerprint = fingerprint;
    if (calibration)
        r->calibration = *calibration;
    rc = set_info(r, info, err);
    rc = rc ? rc : tlr_router_repack(out, out_len, r, err);
    tlr_router_free(r);
    return rc;
}

/* ---- writing ---- */

static uint32_t n_calibrated(const struct tlr_calibration *c)
{
    uint32_t n = 0;
    for (int p = 0; p < TLR_N_POLICIES; p++)
        n += tlr_calibration_has(c, p);
    return n;
}

static void put_head(uint8_t *h, const struct tlr_router *r,
                     uint32_t calibrated)
{
    memcpy(h, MAGIC, 8);
    tlr_put_u32(h + AT_VERSION, VERSION);
    tlr_put_u32(h + AT_KIND, (uint32_t)r->w.kind);
    tlr_put_u32(h + AT_DIM, r->w.dim);
    tlr_put_u32(h + AT_FEATURES, r->w.n_features);
    tlr_put_u32(h + AT_HIDDEN, r->w.n_hidden);
    tlr_put_u32(h + AT_CALIBRATED, calibrated);
    tlr_put_u64(h + AT_FINGERPRINT, r->fingerprint);
    tlr_put_u64(h + AT_POSITIONS, calibrated ? r->calibration.n_positions : 0);
    memcpy(h + AT_B2, &r->w.b2, 4);
    memcpy(h + AT_TEMPERATURE, &r->w.temperature, 4);
    tlr_put_u32(h + AT_INFO_BYTES, (uint32_t)strlen(r->info));
}

static void put_calibration(uint8_t *bytes, const struct layout *l,
                            const struct tlr_calibration *c)
{
    uint8_t *row = bytes + l->rows;
    memcpy(bytes + l->shares, c->share, sizeof c->share);
    for (uint32_t p = 0; p < TLR_N_POLICIES; p++) {
        if (!tlr_calibration_has(c, p))
            continue;
        tlr_put_u32(row, p);
        memcpy(row + 4, c->tau[p], sizeof c->tau[p]);
        row += CAL_ROW_BYTES;
    }
}

int tlr_router_repack(uint8_t **out, size_t *out_len,
                      const struct tlr_router *r, struct tlr_err *err)
{
    const struct tlr_router_weights *w = &r->w;
    int rc = check_numbers(r, err);
    if (rc)
        return rc;
    uint32_t calibrated = n_calibrated(&r->calibration);
    struct layout l =
        layout_of(w, r->n_cols, calibrated, (uint32_t)strlen(r->info));
    if (l.end > MAX_FILE_BYTES)
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: router: %" PRIu64 " bytes, expected at most "
                           "%zu; use fewer hidden units",
                           r->label, l.end, MAX_FILE_BYTES);
    uint8_t *bytes = tlr_calloc((size_t)l.end, 1);
    if (!bytes)
        return tlr_err_nomem(err, r->label, l.end);
    put_head(bytes, r, calibrated);
    memcpy(bytes + l.tiles, r->tiles, (size_t)l.tiles_bytes);
    memcpy(bytes + l.b1, w->b1, w->n_hidden * sizeof(float));
    memcpy(bytes + l.w2, w->w2, tlr_router_n_w2(w) * sizeof(float));
    memcpy(bytes + l.scale, r->feature_scale, w->n_features * sizeof(float));
    if (calibrated > 0)
        put_calibration(bytes, &l, &r->calibration);
    memcpy(bytes + l.info, r->info, strlen(r->info));
    tlr_put_u32(bytes + AT_CRC, checksum(bytes, (size_t)l.end));
    *out = bytes;
    *out_len = (size_t)l.end;
    return 0;
}

/* ---- reading ---- */

static int is_damaged(const char *label, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: router: the bytes do not match their checksum: "
                       "damaged or cut; copy or train it again",
                       label);
}

/* Magic, version and length: what says that this is a router at all. */
static int check_head(struct tlr_bytes b, const char *label,
                      struct tlr_err *err)
{
    if (b.len < HEAD_BYTES || memcmp(b.ptr, MAGIC, 8) != 0)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected a router file (tlr train), found "
                           "something else",
                           label);
    uint32_t version = tlr_get_u32(b.ptr + AT_VERSION);
    if (version != VERSION)
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: router: version %" PRIu32 ", expected %d; use "
                           "a newer tlr",
                           label, version, VERSION);
    for (int i = AT_RESERVED; i < AT_CRC; i++)
        if (b.ptr[i] != 0)
            return is_damaged(label, err);
    return 0;
}

static int check_size(const struct layout *l, struct tlr_bytes b,
                      const char *label, struct tlr_err *err)
{
    if (l->end != b.len)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: router: expected %" PRIu64 " bytes, found "
                           "%zu: damaged or cut; copy or train it again",
                           label, l->end, b.len);
#ifndef TLR_FUZZ
    if (checksum(b.ptr, b.len) != tlr_get_u32(b.ptr + AT_CRC))
        return is_damaged(label, err);
#endif
    return 0;
}

/* The rows of calibration: known policies in ascending order. */
static int read_calibration(struct tlr_router *r, const struct layout *l,
                            struct tlr_bytes b, uint32_t n,
                            struct tlr_err *err)
{
    struct tlr_calibration *c = &r->calibration;
    if (n == 0)
        return 0;
    c->n_positions = tlr_get_u64(b.ptr + AT_POSITIONS);
    memcpy(c->share, b.ptr + l->shares, sizeof c->share);
    for (uint32_t i = 0, least = 0; i < n; i++) {
        const uint8_t *row = b.ptr + l->rows + (size_t)i * CAL_ROW_BYTES;
        uint32_t p = tlr_get_u32(row);
        if (p < least || p >= TLR_N_POLICIES)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: router: calibration row %" PRIu32
                               ": policy %" PRIu32 " is unknown or out of "
                               "order; use a newer tlr or calibrate again",
                               r->label, i, p);
        memcpy(c->tau[p], row + 4, sizeof c->tau[p]);
        if (!tlr_calibration_has(c, p))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: router: calibration of %s: expected "
                               "numbers, found NaN; calibrate again",
                               r->label, tlr_policy_name(p));
        least = p + 1;
    }
    return 0;
}

static int read_info(struct tlr_router *r, struct tlr_bytes info,
                     struct tlr_err *err)
{
    json_t *o = NULL;
    int rc = tlr_json_object(&o, info, MAX_INFO_BYTES, r->label, err);
    json_decref(o);
    if (rc)
        return rc;
    r->info = tlr_calloc(info.len + 1, 1);
    if (!r->info)
        return tlr_err_nomem(err, r->label, info.len + 1);
    memcpy(r->info, info.ptr, info.len);
    return 0;
}

static int read_parts(struct tlr_router *r, const struct layout *l,
                      struct tlr_bytes b, struct tlr_err *err)
{
    const struct tlr_router_weights *w = &r->w;
    memcpy(r->tiles, b.ptr + l->tiles, (size_t)l->tiles_bytes);
    memcpy(w->b1, b.ptr + l->b1, w->n_hidden * sizeof(float));
    memcpy(w->w2, b.ptr + l->w2, tlr_router_n_w2(w) * sizeof(float));
    memcpy(r->feature_scale, b.ptr + l->scale, w->n_features * sizeof(float));
    r->fingerprint = tlr_get_u64(b.ptr + AT_FINGERPRINT);
    struct tlr_bytes info = {b.ptr + l->info, tlr_get_u32(b.ptr + AT_INFO_BYTES)};
    int rc = read_calibration(r, l, b, tlr_get_u32(b.ptr + AT_CALIBRATED), err);
    rc = rc ? rc : read_info(r, info, err);
    return rc ? rc : check_numbers(r, err);
}

int tlr_router_open(struct tlr_router **out, struct tlr_bytes bytes,
                    const char *label, struct tlr_err *err)
{
    *out = NULL;
    int rc = check_head(bytes, label, err);
    if (rc)
        return rc;
    const uint8_t *h = bytes.ptr;
    uint32_t kind = tlr_get_u32(h + AT_KIND), n_cal = tlr_get_u32(h + AT_CALIBRATED);
    uint32_t info_bytes = tlr_get_u32(h + AT_INFO_BYTES), n_cols = 0;
    struct tlr_router_weights w = {
        .kind = kind < TLR_N_POLICIES ? (enum tlr_policy_kind)kind
                                      : TLR_N_POLICIES,
        .dim = tlr_get_u32(h + AT_DIM),
        .n_features = tlr_get_u32(h + AT_FEATURES),
        .n_hidden = tlr_get_u32(h + AT_HIDDEN),
        .b2 = tlr_get_f32(h + AT_B2),
        .temperature = tlr_get_f32(h + AT_TEMPERATURE),
    };
    rc = tlr_router_check_shape(&w, label, err);
    if (!rc && n_cal > TLR_N_POLICIES)
        rc = is_damaged(label, err);
    if (rc)
        return rc;
    if (w.n_hidden > 0)
        n_cols = tlr_router_pad(w.dim) + tlr_router_pad(w.n_features);
    struct layout l = layout_of(&w, n_cols, n_cal, info_bytes);
    rc = check_size(&l, bytes, label, err);
    struct tlr_router *r = NULL;
    if (!rc)
        rc = tlr_router_new(&r, &w, label, err);
    if (!rc)
        rc = read_parts(r, &l, bytes, err);
    if (rc) {
        tlr_router_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

bool tlr_router_is_router(struct tlr_bytes bytes)
{
    return bytes.len >= 8 && memcmp(bytes.ptr, MAGIC, 8) == 0;
}

int tlr_router_read(struct tlr_router **out, const char *path,
                    struct tlr_err *err)
{
    char *bytes = NULL;
    size_t len = 0;
    *out = NULL;
    int rc = tlr_read_file(&bytes, &len, path, MAX_FILE_BYTES, err);
    if (!rc)
        rc = tlr_router_open(
            out, (struct tlr_bytes){(const uint8_t *)bytes, len}, path, err);
    tlr_free(bytes);
    return rc;
}

int tlr_router_of_model(struct tlr_router **out, const struct tlr_model *m,
                        struct tlr_err *err)
{
    const struct tlr_file *f = tlr_model_file(m);
    struct tlr_bytes bytes = tlr_file_section(f, TLR_SECTION_ROUTER);
    *out = NULL;
    if (!bytes.ptr)
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "%s: carries no router; attach one (tlr router "
                           "attach) or name its file (--router)",
                           tlr_file_label(f));
    return tlr_router_open(out, bytes, tlr_file_label(f), err);
}
