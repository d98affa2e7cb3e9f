/* dataset_read.c - a labelled dataset, mapped and checked.
 *
 * Opening looks at every byte once (checksums, numbers), so that training never
 * meets a surprise.  Rows are found through a table of groups.
 */
#include <math.h>
#include <stdbool.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/span.h"
#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "router/dataset.h"
#include "router/dataset_layout.h"

struct group {
    uint64_t first_row;
    const uint8_t *rows, *hidden;
};

struct tlr_dataset {
    struct tlr_map map;
    struct tlr_dataset_info info;
    struct tlr_kernels kernels; /* from_f16 of this machine: exact on all */
    struct group *groups;       /* [info.n_groups] */
    uint32_t *group_of;         /* [info.n_rows] */
    uint32_t digest;
};

/* ---- pieces ---------------------------------------------------------------- */

int ds_header_read(struct tlr_dataset_info *out, const uint8_t *bytes,
                   size_t len, const char *label, struct tlr_err *err)
{
    if (len < DS_HEADER_BYTES)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: dataset: expected at least %d bytes, found "
                           "%zu; label again",
                           label, DS_HEADER_BYTES, len);
    if (memcmp(bytes, TLR_DATASET_MAGIC, 8) != 0)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: is no dataset that tlr label wrote", label);
    struct tlr_span s = tlr_span_of(bytes + 8, DS_HEADER_BYTES - 8);
    uint32_t version = tlr_span_u32(&s);
    if (version != TLR_DATASET_VERSION)
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: dataset: expected version %d, found %u; use "
                           "the tlr that wrote it, or label again",
                           label, TLR_DATASET_VERSION, version);
    memset(out, 0, sizeof *out);
    out->dim = tlr_span_u32(&s);
    out->fingerprint = tlr_span_u64(&s);
    out->source = tlr_span_u64(&s);
    bool zero = true;
    for (int i = 32; i < DS_HEADER_BYTES - 4; i++)
        zero = zero && bytes[i] == 0;
    s.pos = DS_HEADER_BYTES - 12;
    uint32_t crc = tlr_span_u32(&s);
    if (crc != tlr_crc32(0, bytes, DS_HEADER_BYTES - 4) || !zero)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: dataset: header is damaged (checksum); label "
                           "again", label);
    if (out->dim < 1 || out->dim > TLR_DATASET_DIM_MAX)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: dataset: expected a width of 1 to %d, found "
                           "%u", label, TLR_DATASET_DIM_MAX, out->dim);
    return 0;
}

bool ds_block_read(struct ds_block *out, const uint8_t *bytes)
{
    struct tlr_span s = tlr_span_of(bytes, DS_BLOCK_BYTES);
    out->mark = tlr_span_u32(&s);
    out->group = tlr_span_u32(&s);
    out->n_rows = tlr_span_u32(&s);
    out->crc = tlr_span_u32(&s);
    out->n_total = tlr_span_u64(&s);
    uint32_t reserved = tlr_span_u32(&s);
    uint32_t crc = tlr_span_u32(&s);
    return crc == tlr_crc32(0, bytes, DS_BLOCK_BYTES - 4) && reserved == 0 &&
           (out->mark == DS_GROUP_MARK ||
            (out->mark == DS_END_MARK && out->n_rows == 0)) &&
           out->n_rows <= TLR_GROUP_ROWS_MAX;
}

uint64_t ds_payload_bytes(uint32_t n_rows, uint32_t dim)
{
    return (uint64_t)n_rows * (DS_ROW_BYTES + 2 * (uint64_t)dim);
}

void ds_row_read(struct tlr_row *out, const uint8_t *bytes, uint32_t group)
{
    struct tlr_span s = tlr_span_of(bytes, DS_ROW_BYTES);
    out->group = group;
    out->pos = tlr_span_u32(&s);
    out->gold = (int32_t)tlr_span_u32(&s);
    out->slm = (int32_t)tlr_span_u32(&s);
    out->llm = (int32_t)tlr_span_u32(&s);
    out->label = tlr_span_u8(&s);
    out->what = tlr_span_u8(&s);
    out->round = tlr_span_u16(&s);
    out->weight = tlr_span_f32(&s);
    out->p_slm = tlr_span_f32(&s);
    out->p_llm = tlr_span_f32(&s);
    out->signals.entropy = tlr_span_f32(&s);
    out->signals.max_prob = tlr_span_f32(&s);
    out->signals.margin = tlr_span_f32(&s);
    out->signals.max_logit = tlr_span_f32(&s);
    out->signals.best = (int32_t)tlr_span_u32(&s);
    tlr_span_u32(&s);
    for (int i = 0; i < TLR_N_FEATURES; i++)
        out->features[i] = tlr_span_f32(&s);
}

static bool is_probability(float p)
{
    return p >= 0 && p <= 1;
}

/* Name of the first number that no labelling writes, or NULL. */
static const char *bad_number(const struct tlr_row *r)
{
    if (r->label > 1)
        return "label";
    if (r->what < TLR_CASE_SLM_RIGHT || r->what > TLR_CASE_TIE)
        return "case";
    if (!(r->weight >= 0) || !isfinite(r->weight))
        return "weight";
    if (!is_probability(r->p_slm))
        return "p_slm";
    if (!isnan(r->p_llm) && !is_probability(r->p_llm))
        return "p_llm";
    if (!isfinite(r->signals.entropy) || !isfinite(r->signals.max_prob) ||
        !isfinite(r->signals.margin) || !isfinite(r->signals.max_logit))
        return "signals";
    for (int i = 0; i < TLR_N_FEATURES; i++)
        if (!isfinite(r->features[i]))
            return "features";
    return NULL;
}

int ds_row_check(const struct tlr_row *row, const char *label, uint64_t i,
                 struct tlr_err *err)
{
    const char *bad = bad_number(row);
    if (!bad)
        return 0;
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: row %llu (group %u, position %u): %s is NaN, "
                       "infinite or out of range", label,
                       (unsigned long long)i, row->group, row->pos, bad);
}

/* ---- opening ---------------------------------------------------------------- */

static int cut_short(const struct tlr_dataset *d, const char *label,
                     uint64_t at, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: dataset is cut short or damaged at byte %llu, "
                       "behind group %u; the tlr label command that made it "
                       "goes on there",
                       label, (unsigned long long)at, d->info.n_groups);
}

/* Walks over the blocks; with groups NULL it only counts. */
static int walk(struct tlr_dataset *d, const char *label, struct group *groups,
                struct tlr_err *err)
{
    const uint8_t *p = d->map.ptr;
    uint64_t at = DS_HEADER_BYTES, len = d->map.len;
    d->info.n_groups = 0;
    d->info.n_rows = 0;
    for (;;) {
        struct ds_block b;
        if (len - at < DS_BLOCK_BYTES || !ds_block_read(&b, p + at) ||
            b.group != d->info.n_groups || b.n_total != d->info.n_rows)
            return cut_short(d, label, at, err);
        at += DS_BLOCK_BYTES;
        if (b.mark == DS_END_MARK)
            break;
        uint64_t n_bytes = ds_payload_bytes(b.n_rows, d->info.dim);
        if (len - at < n_bytes)
            return cut_short(d, label, at, err);
        if (groups) {
            groups[b.group] = (struct group){
                b.n_total, p + at, p + at + (uint64_t)b.n_rows * DS_ROW_BYTES };
            if (tlr_crc32(0, p + at, n_bytes) != b.crc)
                return cut_short(d, label, at, err);
            d->digest = tlr_crc32(d->digest, &b.crc, sizeof b.crc);
        }
        at += n_bytes;
        d->info.n_groups++;
        d->info.n_rows += b.n_rows;
    }
    return at == len ? 0
                     : tlr_err_set(err, TLR_EFORMAT,
                                   "%s: dataset: %llu bytes behind its end; "
                                   "label again", label,
                                   (unsigned long long)(len - at));
}

/* f16 with all exponent bits set is infinite or NaN. */
static bool is_finite_f16(const uint8_t *p, uint32_t n)
{
    uint16_t h;
    int bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&h, p + 2 * i, sizeof h);
        bad |= (h & 0x7c00) == 0x7c00;
    }
    return !bad;
}

static int check_group(struct tlr_dataset *d, const char *label, uint32_t g,
                       struct tlr_err *err)
{
    uint64_t first = d->groups[g].first_row;
    uint64_t end = g + 1 < d->info.n_groups ? d->groups[g + 1].first_row
                                            : d->info.n_rows;
    for (uint64_t i = first; i < end; i++) {
        struct tlr_row row;
        d->group_of[i] = g;
        tlr_dataset_row(d, i, &row);
        int rc = ds_row_check(&row, label, i, err);
        if (rc)
            return rc;
        const uint8_t *h = d->groups[g].hidden + 2 * (i - first) * d->info.dim;
        if (!is_finite_f16(h, d->info.dim))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: row %llu (group %u, position %u): the "
                               "hidden state holds NaN or infinity; label "
                               "again", label, (unsigned long long)i, g,
                               row.pos);
    }
    return 0;
}

static int index_rows(struct tlr_dataset *d, const char *label,
                      struct tlr_err *err)
{
    int rc = walk(d, label, NULL, err);
    if (rc)
        return rc;
    if (d->info.n_rows == 0)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: dataset is empty: %u groups, no labelled "
                           "position; label more questions", label,
                           d->info.n_groups);
    d->groups = tlr_calloc(d->info.n_groups, sizeof *d->groups);
    d->group_of = tlr_calloc(d->info.n_rows, sizeof *d->group_of);
    if (!d->groups || !d->group_of)
        return tlr_err_nomem(err, "dataset index", d->info.n_rows * 4);
    rc = walk(d, label, d->groups, err);
    for (uint32_t g = 0; !rc && g < d->info.n_groups; g++)
        rc = check_group(d, label, g, err);
    return rc;
}

int tlr_dataset_open(struct tlr_dataset **out, const char *path,
                     struct tlr_err *err)
{
    *out = NULL;
    struct tlr_dataset *d = tlr_calloc(1, sizeof *d);
    if (!d)
        return tlr_err_nomem(err, "dataset", sizeof *d);
    int rc = tlr_map_open(&d->map, path, true, err);
    if (rc)
        goto fail;
    tlr_kernels_init(&d->kernels, tlr_cpu_detect());
    rc = ds_header_read(&d->info, d->map.ptr, d->map.len, path, err);
    if (!rc)
        rc = index_rows(d, path, err);
    if (rc)
        goto fail;
    *out = d;
    return 0;
fail:
    tlr_dataset_free(d);
    return rc;
}

void tlr_dataset_free(struct tlr_dataset *d)
{
    if (!d)
        return;
    tlr_free(d->groups);
    tlr_free(d->group_of);
    tlr_map_close(&d->map);
    tlr_free(d);
}

/* ---- looking ---------------------------------------------------------------- */

const struct tlr_dataset_info *tlr_dataset_info(const struct tlr_dataset *d)
{
    return &d->info;
}

uint32_t tlr_dataset_digest(const struct tlr_dataset *d)
{
    return d->digest;
}

void tlr_dataset_row(const struct tlr_dataset *d, uint64_t i,
                     struct tlr_row *out)
{
    uint32_t g = d->group_of[i];
    ds_row_read(out,
                d->groups[g].rows + (i - d->groups[g].first_row) * DS_ROW_BYTES,
                g);
}

void tlr_dataset_hidden(const struct tlr_dataset *d, uint64_t i, float *out)
{
    const struct group *g = &d->groups[d->group_of[i]];
    /* Even offsets in a page-aligned map: halves lie aligned. */
    const void *h = g->hidden + 2 * (i - g->first_row) * d->info.dim;
    d->kernels.from_f16(out, h, (int)d->info.dim);
}
