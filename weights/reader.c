/* reader.c - opens and closes a model file and says what is in it.
 *
 * What makes the bytes trustworthy is in reader_check.c; here they are mapped,
 * indexed by name and handed out.
 */
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "weights/reader_internal.h"

/* Open addressing over the names, at most half full. */
static int index_names(struct tlr_file *f, struct tlr_err *err)
{
    uint32_t cap = 16;
    while (cap < 2 * f->n_tensors) {
        cap *= 2;
    }
    f->index = tlr_calloc(cap, sizeof *f->index);
    if (!f->index) {
        return tlr_err_nomem(err, f->label, cap * sizeof *f->index);
    }
    f->index_mask = cap - 1;
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        uint32_t at = (uint32_t)tlr_hash_name(0, f->tensors[i].name);
        while (f->index[at & f->index_mask]) {
            at++;
        }
        f->index[at & f->index_mask] = i + 1;
    }
    return 0;
}

static uint64_t fingerprint_of(const struct tlr_file *f)
{
    struct tlr_bytes c = tlr_file_section(f, TLR_SECTION_CONFIG);
    uint64_t h = tlr_hash_u64(0, tlr_crc32(0, c.ptr, c.len));
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct tlr_tensor *t = &f->tensors[i];
        h = tlr_hash_u64(h, tlr_hash_name(0, t->name));
        h = tlr_hash_u64(h, (uint64_t)t->type << 32 | t->crc32);
    }
    return h;
}

/* f holds bytes, len and the map (which it then owns, also on failure). */
static int file_read(struct tlr_file **out, struct tlr_file *f,
                     const char *label, struct tlr_err *err)
{
    int rc;
    f->label = tlr_strdup(label);
    if (!f->label) {
        rc = tlr_err_nomem(err, label, strlen(label) + 1);
        goto fail;
    }
    rc = tlr_file_check(f, err);
    if (!rc) {
        rc = index_names(f, err);
    }
    if (rc) {
        goto fail;
    }
    f->fingerprint = fingerprint_of(f);
    *out = f;
    return 0;
fail:
    tlr_file_close(f);
    return rc;
}

static struct tlr_file *file_new(struct tlr_file **out, const char *label,
                                 struct tlr_err *err)
{
    struct tlr_file *f = tlr_calloc(1, sizeof *f);
    *out = NULL;
    if (!f) {
        tlr_err_nomem(err, label, sizeof *f);
    }
    return f;
}

/* The map is open in f, or rc says why not. */
static int file_mapped(struct tlr_file **out, struct tlr_file *f, int rc,
                       const char *label, struct tlr_err *err)
{
    if (rc) {
        tlr_free(f);
        return rc;
    }
    f->bytes = f->map.ptr;
    f->len = f->map.len;
    return file_read(out, f, label, err);
}

int tlr_file_open(struct tlr_file **out, const char *path,
                  const struct tlr_file_options *options, struct tlr_err *err)
{
    struct tlr_file *f = file_new(out, path, err);
    if (!f) {
        return TLR_ENOMEM;
    }
    int rc = tlr_map_open(&f->map, path, !options || options->populate, err);
    return file_mapped(out, f, rc, path, err);
}

int tlr_file_open_fd(struct tlr_file **out, int fd, const char *label,
                     const struct tlr_file_options *options,
                     struct tlr_err *err)
{
    struct tlr_file *f = file_new(out, label, err);
    if (!f) {
        return TLR_ENOMEM;
    }
    int rc = tlr_map_open_fd(&f->map, fd, label,
                             !options || options->populate, err);
    return file_mapped(out, f, rc, label, err);
}

int tlr_file_open_bytes(struct tlr_file **out, const void *bytes, size_t len,
                        const char *label, struct tlr_err *err)
{
    struct tlr_file *f = file_new(out, label, err);
    if (!f) {
        return TLR_ENOMEM;
    }
    if ((uintptr_t)bytes % TLR_FILE_ALIGN != 0) {
        tlr_free(f);
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected memory aligned to %d bytes", label,
                           TLR_FILE_ALIGN);
    }
    f->bytes = bytes;
    f->len = len;
    return file_read(out, f, label, err);
}

void tlr_file_close(struct tlr_file *f)
{
    if (!f) {
        return;
    }
    tlr_map_close(&f->map);
    tlr_free(f->label);
    tlr_free(f->tensors);
    tlr_free(f->index);
    tlr_free(f);
}

const struct tlr_config *tlr_file_config(const struct tlr_file *f)
{
    return &f->config;
}

uint32_t tlr_file_n_tensors(const struct tlr_file *f)
{
    return f->n_tensors;
}

const struct tlr_tensor *tlr_file_tensor_at(const struct tlr_file *f,
                                            uint32_t i)
{
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

const struct tlr_tensor *tlr_file_tensor(const struct tlr_file *f,
                                         const char *name)
{
    uint32_t at = (uint32_t)tlr_hash_name(0, name), i;
    while ((i = f->index[at & f->index_mask]) != 0) {
        if (strcmp(f->tensors[i - 1].name, name) == 0) {
            return &f->tensors[i - 1];
        }
        at++;
    }
    return NULL;
}

struct tlr_bytes tlr_file_section(const struct tlr_file *f,
                                  enum tlr_section section)
{
    struct tlr_bytes none = {NULL, 0};
    for (uint32_t i = 0; i < f->n_sections; i++) {
        if (f->sections[i].id == (uint32_t)section) {
            return f->sections[i].bytes;
        }
    }
    return none;
}

uint64_t tlr_file_bytes(const struct tlr_file *f)
{
    return f->len;
}

const char *tlr_file_label(const struct tlr_file *f)
{
    return f->label;
}

uint32_t tlr_file_version(const struct tlr_file *f)
{
    return f->version;
}

uint64_t tlr_file_fingerprint(const struct tlr_file *f)
{
    return f->fingerprint;
}
