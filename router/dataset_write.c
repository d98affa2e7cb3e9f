/* dataset_write.c - appends labelled groups to a dataset file.
 *
 * A group goes out in one write behind the last whole one, so a kill leaves at
 * most one unfinished group at the end; the next append finds it by its checksum
 * and cuts it off.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "kernels/quant.h"
#include "router/dataset.h"
#include "router/dataset_layout.h"

struct tlr_dataset_writer {
    int fd;
    bool is_failed;
    char *path;
    struct tlr_dataset_info info;
    uint64_t at; /* bytes written and whole */
    uint8_t *buf;
    size_t cap;
};

static int write_at(struct tlr_dataset_writer *w, const uint8_t *bytes,
                    uint64_t n, struct tlr_err *err)
{
    uint64_t done = 0;
    while (done < n) {
        ssize_t k = pwrite(w->fd, bytes + done, n - done, (off_t)(w->at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            w->is_failed = true;
            return tlr_err_set_errno(err, TLR_EIO, k < 0 ? errno : EIO,
                                     "%s: writing group %u", w->path,
                                     w->info.n_groups);
        }
        done += (uint64_t)k;
    }
    w->at += n;
    return 0;
}

static void block_write(uint8_t *p, uint32_t mark,
                        const struct tlr_dataset_info *info, uint32_t n_rows,
                        uint32_t crc)
{
    uint8_t *q = ds_put32(p, mark);
    q = ds_put32(q, info->n_groups);
    q = ds_put32(q, n_rows);
    q = ds_put32(q, crc);
    q = ds_put64(q, info->n_rows);
    q = ds_put32(q, 0);
    ds_put32(q, tlr_crc32(0, p, DS_BLOCK_BYTES - 4));
}

/* ---- opening ---------------------------------------------------------------- */

static int write_header(struct tlr_dataset_writer *w, struct tlr_err *err)
{
    uint8_t h[DS_HEADER_BYTES] = { 0 };
    memcpy(h, TLR_DATASET_MAGIC, 8);
    uint8_t *p = ds_put32(h + 8, TLR_DATASET_VERSION);
    p = ds_put32(p, w->info.dim);
    p = ds_put64(p, w->info.fingerprint);
    ds_put64(p, w->info.source);
    ds_put32(h + DS_HEADER_BYTES - 4, tlr_crc32(0, h, DS_HEADER_BYTES - 4));
    return write_at(w, h, sizeof h, err);
}

static int check_same(const struct tlr_dataset_writer *w,
                      const struct tlr_dataset_info *found,
                      struct tlr_err *err)
{
    const struct tlr_dataset_info *want = &w->info;
    if (found->dim != want->dim)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: begun with a model of width %u, found one of "
                           "width %u; give another output name", w->path,
                           found->dim, want->dim);
    if (found->fingerprint != want->fingerprint)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: begun with another model file (fingerprint "
                           "%016llx, found %016llx); give another output name",
                           w->path, (unsigned long long)found->fingerprint,
                           (unsigned long long)want->fingerprint);
    if (found->source != want->source)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: begun with another input or other options "
                           "(%016llx, found %016llx); give the same ones, or "
                           "another output name", w->path,
                           (unsigned long long)found->source,
                           (unsigned long long)want->source);
    return 0;
}

/* Finds the last whole group of the mapped bytes and puts w behind it. */
static void find_end(struct tlr_dataset_writer *w, const uint8_t *p,
                     uint64_t len)
{
    struct ds_block b;
    w->at = DS_HEADER_BYTES;
    while (len - w->at >= DS_BLOCK_BYTES && ds_block_read(&b, p + w->at) &&
           b.mark == DS_GROUP_MARK && b.group == w->info.n_groups &&
           b.n_total == w->info.n_rows) {
        uint64_t n = ds_payload_bytes(b.n_rows, w->info.dim);
        const uint8_t *payload = p + w->at + DS_BLOCK_BYTES;
        if (len - w->at - DS_BLOCK_BYTES < n ||
            tlr_crc32(0, payload, n) != b.crc)
            break;
        w->at += DS_BLOCK_BYTES + n;
        w->info.n_groups++;
        w->info.n_rows += b.n_rows;
    }
}

/* A header cut short by a kill is written anew: nothing stands behind it. */
static int take_up(struct tlr_dataset_writer *w, uint64_t len,
                   struct tlr_err *err)
{
    if (len == 0)
        return write_header(w, err);
    struct tlr_map map;
    struct tlr_dataset_info found;
    int rc = tlr_map_open_fd(&map, w->fd, w->path, false, err);
    if (rc)
        return rc;
    if (len < DS_HEADER_BYTES &&
        memcmp(map.ptr, TLR_DATASET_MAGIC, len < 8 ? (size_t)len : 8) == 0) {
        tlr_map_close(&map);
        return write_header(w, err);
    }
    rc = ds_header_read(&found, map.ptr, map.len, w->path, err);
    if (!rc)
        rc = check_same(w, &found, err);
    if (!rc)
        find_end(w, map.ptr, map.len);
    tlr_map_close(&map);
    if (!rc && ftruncate(w->fd, (off_t)w->at) != 0)
        rc = tlr_err_set_errno(err, TLR_EIO, errno,
                               "%s: cutting off an unfinished group", w->path);
    return rc;
}

static int open_file(struct tlr_dataset_writer *w, uint64_t *len,
                     struct tlr_err *err)
{
    struct stat st;
    w->fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (w->fd < 0)
        return tlr_err_set_errno(err, TLR_EIO, errno, "%s: cannot be opened "
                                 "for writing", w->path);
    if (flock(w->fd, LOCK_EX | LOCK_NB) != 0)
        return tlr_err_set(err, TLR_EIO,
                           "%s: another tlr is writing it; wait for that one, "
                           "or give another output name", w->path);
    if (fstat(w->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return tlr_err_set(err, TLR_EIO, "%s: is not a regular file", w->path);
    *len = (uint64_t)st.st_size;
    return 0;
}

int tlr_dataset_append(struct tlr_dataset_writer **out, const char *path,
                       const struct tlr_dataset_info *info,
                       uint32_t *n_groups, struct tlr_err *err)
{
    *out = NULL;
    if (info->dim < 1 || info->dim > TLR_DATASET_DIM_MAX)
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a width of 1 to %d, found %u", path,
                           TLR_DATASET_DIM_MAX, info->dim);
    struct tlr_dataset_writer *w = tlr_calloc(1, sizeof *w);
    if (!w)
        return tlr_err_nomem(err, "dataset writer", sizeof *w);
    w->fd = -1;
    w->info = *info;
    w->info.n_groups = 0;
    w->info.n_rows = 0;
    w->is_failed = true; /* until it stands: no mark is written by the close */
    uint64_t len = 0;
    int rc = 0;
    w->path = tlr_strdup(path);
    if (!w->path)
        rc = tlr_err_nomem(err, "dataset path", strlen(path));
    if (!rc)
        rc = open_file(w, &len, err);
    if (!rc)
        rc = take_up(w, len, err);
    if (rc) {
        tlr_dataset_close(w, NULL);
        return rc;
    }
    w->is_failed = false;
    *n_groups = w->info.n_groups;
    *out = w;
    return 0;
}

/* ---- one group -------------------------------------------------------------- */

static void row_write(uint8_t *p, const struct tlr_row *r)
{
    p = ds_put32(p, r->pos);
    p = ds_put32(p, (uint32_t)r->gold);
    p = ds_put32(p, (uint32_t)r->slm);
    p = ds_put32(p, (uint32_t)r->llm);
    *p++ = r->label;
    *p++ = r->what;
    p = ds_put16(p, r->round);
    p = ds_put_f32(p, r->weight);
    p = ds_put_f32(p, r->p_slm);
    p = ds_put_f32(p, r->p_llm);
    p = ds_put_f32(p, r->signals.entropy);
    p = ds_put_f32(p, r->signals.max_prob);
    p = ds_put_f32(p, r->signals.margin);
    p = ds_put_f32(p, r->signals.max_logit);
    p = ds_put32(p, (uint32_t)r->signals.best);
    p = ds_put32(p, 0);
    for (int i = 0; i < TLR_N_FEATURES; i++)
        p = ds_put_f32(p, r->features[i]);
}

static int state_write(const struct tlr_dataset_writer *w, uint8_t *p,
                       const float *h, const struct tlr_row *row,
                       struct tlr_err *err)
{
    for (uint32_t i = 0; i < w->info.dim; i++) {
        uint16_t half = tlr_f32_to_f16(h[i]);
        if ((half & 0x7c00) == 0x7c00)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: group %u, position %u: element %u of the "
                               "hidden state is %g; expected a number within "
                               "f16", w->path, w->info.n_groups, row->pos, i,
                               (double)h[i]);
        p = ds_put16(p, half);
    }
    return 0;
}

static int reserve(struct tlr_dataset_writer *w, uint64_t n,
                   struct tlr_err *err)
{
    if (n <= w->cap)
        return 0;
    uint8_t *grown = tlr_realloc(w->buf, n, 1);
    if (!grown)
        return tlr_err_nomem(err, "group of a dataset", n);
    w->buf = grown;
    w->cap = n;
    return 0;
}

int tlr_dataset_group(struct tlr_dataset_writer *w, uint32_t group,
                      const struct tlr_row *rows, const float *hidden,
                      uint32_t n, struct tlr_err *err)
{
    if (w->is_failed || group != w->info.n_groups || n > TLR_GROUP_ROWS_MAX) {
        w->is_failed = true;
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected group %u of at most %d rows, found "
                           "group %u of %u", w->path, w->info.n_groups,
                           TLR_GROUP_ROWS_MAX, group, n);
    }
    uint64_t payload = ds_payload_bytes(n, w->info.dim);
    int rc = reserve(w, DS_BLOCK_BYTES + payload, err);
    uint8_t *body = rc ? NULL : w->buf + DS_BLOCK_BYTES;
    uint8_t *states = rc ? NULL : body + (uint64_t)n * DS_ROW_BYTES;
    for (uint32_t i = 0; !rc && i < n; i++) {
        struct tlr_row row = rows[i];
        row.group = group;
        rc = ds_row_check(&row, w->path, w->info.n_rows + i, err);
        if (rc)
            break;
        row_write(body + (uint64_t)i * DS_ROW_BYTES, &row);
        rc = state_write(w, states + 2 * (uint64_t)i * w->info.dim,
                         hidden + (uint64_t)i * w->info.dim, &row, err);
    }
    if (rc) {
        w->is_failed = true;
        return rc;
    }
    block_write(w->buf, DS_GROUP_MARK, &w->info, n,
                tlr_crc32(0, body, payload));
    rc = write_at(w, w->buf, DS_BLOCK_BYTES + payload, err);
    if (!rc) {
        w->info.n_groups++;
        w->info.n_rows += n;
    }
    return rc;
}

int tlr_dataset_close(struct tlr_dataset_writer *w, struct tlr_err *err)
{
    if (!w)
        return 0;
    int rc = 0;
    if (!w->is_failed) {
        uint8_t end[DS_BLOCK_BYTES];
        block_write(end, DS_END_MARK, &w->info, 0, 0);
        rc = write_at(w, end, sizeof end, err);
        if (!rc && fsync(w->fd) != 0)
            rc = tlr_err_set_errno(err, TLR_EIO, errno, "%s: fsync", w->path);
    }
    if (w->fd >= 0)
        close(w->fd);
    tlr_free(w->buf);
    tlr_free(w->path);
    tlr_free(w);
    return rc;
}
