/* rewrite.c - a model file again, with one section changed.
 *
 * Sections lie before the tensors, so a change moves everything behind it: the
 * whole file is streamed.  The copy gets new checksums; comparing fingerprints
 * before it takes its name keeps damage from being sealed in.
 */
#include <inttypes.h>

#include "base/mem.h"
#include "weights/reader_internal.h"

enum { PIECE_BYTES = 4 << 20 };

static int copy_sections(const struct tlr_file *f, struct tlr_writer *w,
                         enum tlr_section section, struct tlr_bytes bytes,
                         struct tlr_err *err)
{
    bool is_there = false;
    for (uint32_t i = 0; i < f->n_sections; i++) {
        const struct tlr_file_section *s = &f->sections[i];
        bool is_it = s->id == (uint32_t)section;
        struct tlr_bytes b = is_it ? bytes : s->bytes;
        is_there = is_there || is_it;
        if (s->id == TLR_SECTION_CONFIG || b.len == 0) {
            continue;
        }
        if (!tlr_section_kind(s->id)) {
            return tlr_err_set(err, TLR_EUNSUPPORTED,
                               "%s: section %s: this tlr does not know it and "
                               "would lose it; use a newer tlr",
                               f->label, s->name);
        }
        int rc = tlr_writer_section(w, (enum tlr_section)s->id, b.ptr, b.len,
                                    err);
        if (rc) {
            return rc;
        }
    }
    if (is_there || bytes.len == 0) {
        return 0;
    }
    return tlr_writer_section(w, section, bytes.ptr, bytes.len, err);
}

static int copy_tensors(const struct tlr_file *f, struct tlr_writer *w,
                        tlr_progress_fn progress, void *ctx,
                        struct tlr_err *err)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct tlr_tensor *t = &f->tensors[i];
        for (uint64_t at = 0; at < t->n_bytes;) {
            uint64_t n = t->n_bytes - at;
            n = n < PIECE_BYTES ? n : PIECE_BYTES;
            int rc = tlr_writer_data(w, (const uint8_t *)t->data + at,
                                     (size_t)n, err);
            if (rc) {
                return rc;
            }
            at += n;
            done += n;
            if (progress && progress(ctx, done, f->len)) {
                return tlr_err_set(err, TLR_ECANCELLED, "%s: not changed",
                                   f->label);
            }
        }
    }
    return 0;
}

/* The copy is the same function of ids as f. */
static int compare(const struct tlr_file *f, struct tlr_writer *w,
                   struct tlr_err *err)
{
    struct tlr_file_options lazy = {.populate = false};
    struct tlr_file *copy = NULL;
    int fd;
    int rc = tlr_writer_finish(w, &fd, err);
    if (!rc) {
        rc = tlr_file_open_fd(&copy, fd, f->label, &lazy, err);
    }
    if (!rc && copy->fingerprint != f->fingerprint) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: a tensor does not match its checksum (tlr "
                         "inspect --verify says which); fetch or convert the "
                         "model again",
                         f->label);
    }
    tlr_file_close(copy);
    return rc;
}

int tlr_file_rewrite(const struct tlr_file *f, const char *path,
                     enum tlr_section section, struct tlr_bytes bytes,
                     tlr_progress_fn progress, void *ctx, struct tlr_err *err)
{
    struct tlr_writer *w = NULL;
    enum tlr_type *types = tlr_calloc(f->n_tensors, sizeof *types);
    if (!types) {
        return tlr_err_nomem(err, path, f->n_tensors * sizeof *types);
    }
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        types[i] = f->tensors[i].type;
    }
    int rc = tlr_writer_begin(&w, path, &f->config, types, err);
    tlr_free(types);
    if (rc) {
        return rc;
    }
    rc = copy_sections(f, w, section, bytes, err);
    rc = rc ? rc : copy_tensors(f, w, progress, ctx, err);
    rc = rc ? rc : compare(f, w, err);
    if (rc) {
        tlr_writer_abort(w);
        return rc;
    }
    return tlr_writer_commit(w, err);
}
