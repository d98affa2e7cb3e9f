/* writer.c - a model file, written front to back in one pass.
 *
 * The types of all tensors are known at begin, so header, section table and
 * directory have a known size: their place is left zero, sections and tensors
 * stream past with their checksums computed on the way, and the front is
 * written last.  A file whose writer died therefore has no magic.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "weights/layout.h"

struct tlr_writer {
    struct tlr_out *out; /* the file, or NULL: then fd */
    int fd;
    uint64_t fd_pos;
    char *label;
    struct tlr_config config;
    enum tlr_type *types;
    uint32_t n_tensors;
    uint8_t *head; /* header area as it will be written */
    uint64_t head_bytes;
    uint32_t n_sections;
    uint32_t sections_seen; /* bit per id */
    uint32_t tensor;        /* in turn; n_tensors when all are there */
    struct tlr_tensor_want want; /* the tensor in turn */
    uint64_t size, done;         /* its bytes, and those written */
    uint32_t crc;
    bool in_data;  /* no more sections */
    bool failed;   /* nothing but abort makes sense */
    bool finished; /* the header is there, too */
};

static uint64_t writer_pos(const struct tlr_writer *w)
{
    return w->out ? tlr_out_pos(w->out) : w->fd_pos;
}

static int fd_pwrite(int fd, const void *data, size_t len, uint64_t offset,
                     const char *label, struct tlr_err *err)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return tlr_err_set_errno(err, TLR_EIO, n < 0 ? errno : EIO,
                                     "%s: cannot write %zu bytes at %" PRIu64,
                                     label, len, offset);
        }
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int append(struct tlr_writer *w, const void *data, size_t len,
                  struct tlr_err *err)
{
    int rc;
    if (w->out) {
        rc = tlr_out_write(w->out, data, len, err);
    } else {
        rc = fd_pwrite(w->fd, data, len, w->fd_pos, w->label, err);
        w->fd_pos += len;
    }
    w->failed |= rc != 0;
    return rc;
}

/* Zeros up to the next multiple of 64. */
static int append_padding(struct tlr_writer *w, struct tlr_err *err)
{
    static const uint8_t zeros[TLR_FILE_ALIGN];
    uint64_t over = writer_pos(w) % TLR_FILE_ALIGN;
    return over ? append(w, zeros, (size_t)(TLR_FILE_ALIGN - over), err) : 0;
}

static void config_put(uint8_t out[TLR_CONFIG_BYTES],
                       const struct tlr_config *c)
{
    const uint32_t words[] = {c->family,   c->flags,      c->dim,
                              c->ffn_dim,  c->n_layers,   c->n_heads,
                              c->n_kv_heads, c->head_dim, c->n_vocab,
                              c->max_ctx};
    memset(out, 0, TLR_CONFIG_BYTES);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        tlr_put_u32(out + 4 * i, words[i]);
    }
    memcpy(out + 40, &c->rms_eps, 4);
    memcpy(out + 44, &c->rope_theta, 4);
}

static int write_section(struct tlr_writer *w, uint32_t id, const void *data,
                         size_t len, struct tlr_err *err)
{
    int rc = append_padding(w, err);
    if (rc) {
        return rc;
    }
    uint8_t *slot =
        w->head + TLR_HEAD_BYTES + w->n_sections * TLR_SECT_BYTES;
    tlr_put_u32(slot + TLR_SECT_ID, id);
    tlr_put_u32(slot + TLR_SECT_FLAGS, tlr_section_kind(id)->flags);
    tlr_put_u64(slot + TLR_SECT_OFFSET, writer_pos(w));
    tlr_put_u64(slot + TLR_SECT_SIZE, len);
    tlr_put_u32(slot + TLR_SECT_CRC, tlr_crc32(0, data, len));
    w->n_sections++;
    w->sections_seen |= 1u << id;
    return append(w, data, len, err);
}

/* Refuses types that do not fit before a byte is written. */
static int check_types(const struct tlr_writer *w, struct tlr_err *err)
{
    uint64_t total = w->head_bytes;
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        struct tlr_tensor_want want;
        uint64_t size = 0;
        tlr_config_tensor(&w->config, i, &want);
        int rc = tlr_tensor_size(&want, w->types[i], w->label, &size, err);
        if (rc) {
            return rc;
        }
        if (!tlr_add_u64(total, size, &total) || total > INT64_MAX) {
            return tlr_err_set(err, TLR_ELIMIT,
                               "%s: tensor %s: the file would pass 2^63 bytes",
                               w->label, want.name);
        }
    }
    return 0;
}

static int writer_new(struct tlr_writer **out, const char *label,
                      const struct tlr_config *config,
                      const enum tlr_type *types, struct tlr_err *err)
{
    *out = NULL;
    int rc = tlr_config_check(config, label, err);
    if (rc) {
        return rc;
    }
    struct tlr_writer *w = tlr_calloc(1, sizeof *w);
    if (!w) {
        return tlr_err_nomem(err, label, sizeof *w);
    }
    w->fd = -1;
    w->config = *config;
    w->n_tensors = tlr_config_n_tensors(config);
    w->head_bytes = tlr_head_area_bytes(w->n_tensors);
    w->label = tlr_strdup(label);
    w->types = tlr_calloc(w->n_tensors, sizeof *w->types);
    w->head = tlr_calloc((size_t)w->head_bytes, 1);
    if (!w->label || !w->types || !w->head) {
        rc = tlr_err_nomem(err, label, w->head_bytes);
        goto fail;
    }
    memcpy(w->types, types, w->n_tensors * sizeof *w->types);
    rc = check_types(w, err);
    if (rc) {
        goto fail;
    }
    *out = w;
    return 0;
fail:
    tlr_writer_abort(w);
    return rc;
}

/* Leaves room for the header area and writes the config behind it. */
static int writer_start(struct tlr_writer **out, struct tlr_writer *w,
                        struct tlr_err *err)
{
    uint8_t config[TLR_CONFIG_BYTES];
    int rc = append(w, w->head, (size_t)w->head_bytes, err);
    if (!rc) {
        config_put(config, &w->config);
        rc = write_section(w, TLR_SECTION_CONFIG, config, sizeof config, err);
    }
    if (rc) {
        tlr_writer_abort(w);
        return rc;
    }
    *out = w;
    return 0;
}

int tlr_writer_begin(struct tlr_writer **out, const char *path,
                     const struct tlr_config *config,
                     const enum tlr_type *types, struct tlr_err *err)
{
    struct tlr_writer *w;
    *out = NULL;
    int rc = writer_new(&w, path, config, types, err);
    if (rc) {
        return rc;
    }
    rc = tlr_out_begin(&w->out, path, err);
    if (rc) {
        w->out = NULL;
        tlr_writer_abort(w);
        return rc;
    }
    return writer_start(out, w, err);
}

int tlr_writer_begin_fd(struct tlr_writer **out, int fd, const char *label,
                        const struct tlr_config *config,
                        const enum tlr_type *types, struct tlr_err *err)
{
    struct tlr_writer *w;
    *out = NULL;
    int rc = writer_new(&w, label, config, types, err);
    if (rc) {
        return rc;
    }
    /* An older, longer model under the same descriptor must not leave a tail. */
    if (ftruncate(fd, 0) != 0) {
        rc = tlr_err_set_errno(err, TLR_EIO, errno, "%s: cannot be emptied",
                               label);
        tlr_writer_abort(w);
        return rc;
    }
    w->fd = fd;
    return writer_start(out, w, err);
}

int tlr_writer_section(struct tlr_writer *w, enum tlr_section section,
                       const void *data, size_t len, struct tlr_err *err)
{
    const struct tlr_section_kind *kind = tlr_section_kind(section);
    if (!kind || w->in_data || w->failed ||
        (w->sections_seen >> section & 1)) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: section %s: expected once, before the first "
                           "tensor",
                           w->label, kind ? kind->name : "of unknown id");
    }
    int rc = tlr_section_check(section, data, len, w->label, err);
    return rc ? rc : write_section(w, section, data, len, err);
}

/* Makes the tensor w->tensor the one in turn. */
static int tensor_begin(struct tlr_writer *w, struct tlr_err *err)
{
    int rc = append_padding(w, err);
    if (rc) {
        return rc;
    }
    enum tlr_type type = w->types[w->tensor];
    tlr_config_tensor(&w->config, w->tensor, &w->want);
    rc = tlr_tensor_size(&w->want, type, w->label, &w->size, err);
    if (rc) {
        return rc;
    }
    w->done = 0;
    w->crc = 0;
    uint8_t *entry = w->head + TLR_FILE_DIR_AT + w->tensor * TLR_DIR_BYTES;
    memcpy(entry + TLR_DIR_NAME, w->want.name, strlen(w->want.name));
    tlr_put_u32(entry + TLR_DIR_TYPE, type);
    tlr_put_u32(entry + TLR_DIR_ROWS, w->want.n_rows);
    tlr_put_u32(entry + TLR_DIR_COLS, w->want.n_cols);
    tlr_put_u64(entry + TLR_DIR_OFFSET, writer_pos(w));
    tlr_put_u64(entry + TLR_DIR_SIZE, w->size);
    return 0;
}

static void tensor_end(struct tlr_writer *w)
{
    uint8_t *entry = w->head + TLR_FILE_DIR_AT + w->tensor * TLR_DIR_BYTES;
    tlr_put_u32(entry + TLR_DIR_CRC, w->crc);
    w->tensor++;
    w->size = 0;
}

int tlr_writer_data(struct tlr_writer *w, const void *data, size_t len,
                    struct tlr_err *err)
{
    const uint8_t *p = data;
    w->in_data = true;
    while (len > 0) {
        if (w->failed || w->tensor == w->n_tensors) {
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: %zu bytes more than the tensors of this "
                               "model take",
                               w->label, len);
        }
        int rc = w->size == 0 ? tensor_begin(w, err) : 0;
        if (rc) {
            return rc;
        }
        uint64_t left = w->size - w->done;
        size_t n = left < len ? (size_t)left : len;
        rc = append(w, p, n, err);
        if (rc) {
            return rc;
        }
        w->crc = tlr_crc32(w->crc, p, n);
        w->done += n;
        p += n;
        len -= n;
        if (w->done == w->size) {
            tensor_end(w);
        }
    }
    return 0;
}

static uint32_t version_of(const struct tlr_writer *w)
{
    uint32_t version = 1;
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        uint32_t v = tlr_type_version(w->types[i]);
        version = v > version ? v : version;
    }
    return version;
}

static void head_finish(struct tlr_writer *w)
{
    uint8_t *h = w->head;
    uint32_t version = version_of(w);
    memcpy(h + TLR_HEAD_MAGIC, TLR_FILE_MAGIC, 8);
    tlr_put_u32(h + TLR_HEAD_VERSION, version);
    tlr_put_u32(h + TLR_HEAD_MIN_READER, version);
    tlr_put_u32(h + TLR_HEAD_ENDIAN, TLR_FILE_ENDIAN);
    tlr_put_u64(h + TLR_HEAD_FILE_BYTES, writer_pos(w));
    tlr_put_u32(h + TLR_HEAD_N_SECTIONS, w->n_sections);
    tlr_put_u32(h + TLR_HEAD_N_TENSORS, w->n_tensors);
    tlr_put_u32(h + TLR_HEAD_TABLE_CRC,
                tlr_crc32(0, h + TLR_HEAD_BYTES,
                          (size_t)w->head_bytes - TLR_HEAD_BYTES));
    tlr_put_u32(h + TLR_HEAD_CRC, tlr_crc32(0, h, TLR_HEAD_CRC));
}

int tlr_writer_finish(struct tlr_writer *w, int *fd, struct tlr_err *err)
{
    int rc;
    if (w->failed || w->tensor != w->n_tensors) {
        struct tlr_tensor_want want = {{0}, 0, 0, false};
        if (w->tensor < w->n_tensors) {
            tlr_config_tensor(&w->config, w->tensor, &want);
        }
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: incomplete: %" PRIu32 " of %" PRIu32
                           " tensors written, next is %s",
                           w->label, w->tensor, w->n_tensors, want.name);
    }
    head_finish(w);
    if (w->out) {
        rc = tlr_out_pwrite(w->out, w->head, (size_t)w->head_bytes, 0, err);
        rc = rc ? rc : tlr_out_flush(w->out, fd, err);
    } else {
        rc = fd_pwrite(w->fd, w->head, (size_t)w->head_bytes, 0, w->label, err);
        *fd = w->fd;
    }
    w->failed = rc != 0;
    w->finished = rc == 0;
    return rc;
}

int tlr_writer_commit(struct tlr_writer *w, struct tlr_err *err)
{
    int fd;
    int rc = w->finished ? 0 : tlr_writer_finish(w, &fd, err);
    if (!rc && w->out) {
        rc = tlr_out_commit(w->out, err);
        w->out = NULL;
    }
    tlr_writer_abort(w);
    return rc;
}

void tlr_writer_abort(struct tlr_writer *w)
{
    if (!w) {
        return;
    }
    tlr_out_abort(w->out);
    tlr_free(w->label);
    tlr_free(w->types);
    tlr_free(w->head);
    tlr_free(w);
}
