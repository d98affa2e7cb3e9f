/* reader_check.c - believes nothing of a model file.
 *
 * The checks run from the outside in, each standing on those before it: magic,
 * versions, header checksum, size of the file, counts, checksum of the tables,
 * sections, configuration, tensors.  What a message names was therefore covered
 * by a checksum when it was read.  Work and memory are bounded by the header
 * area (513 KiB) and the limits of the sections; tensor data is not touched.
 */
#include <inttypes.h>

#include "base/hash.h"
#include "base/mem.h"
#include "weights/reader_internal.h"

static int check_magic(const struct tlr_file *f, struct tlr_err *err)
{
    const uint8_t *p = f->bytes;
    if (f->len >= 8 && memcmp(p, TLR_FILE_MAGIC, 8) == 0) {
        return 0;
    }
    if (f->len >= 4 && memcmp(p, "GGUF", 4) == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: magic: expected a tlr model, found GGUF; run "
                           "`tlr convert` on it first",
                           f->label);
    }
    /* Bytes 1..3 survive a stripped eighth bit and changed line ends. */
    if (f->len >= 4 && memcmp(p + 1, "TLR", 3) == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: magic: expected 89 54 4c 52 0d 0a 1a 0a, found "
                           "it altered or cut, as by a text-mode transfer; "
                           "fetch or convert the model again",
                           f->label);
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: magic: expected a tlr model, found something else; "
                       "run `tlr convert` on a GGUF file or a model folder",
                       f->label);
}

/* The first 24 bytes keep their meaning in all versions to come. */
static int check_versions(struct tlr_file *f, struct tlr_err *err)
{
    uint32_t version = tlr_get_u32(f->bytes + TLR_HEAD_VERSION);
    uint32_t min_reader = tlr_get_u32(f->bytes + TLR_HEAD_MIN_READER);
    uint32_t endian = tlr_get_u32(f->bytes + TLR_HEAD_ENDIAN);
    uint32_t flags = tlr_get_u32(f->bytes + TLR_HEAD_FLAGS);
    if (endian != TLR_FILE_ENDIAN) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: endianness: expected 0x01020304, found "
                           "0x%08" PRIx32 "%s; convert the model again",
                           f->label, endian,
                           endian == TLR_FILE_ENDIAN_SWAPPED
                               ? " (a big-endian file)"
                               : "");
    }
    if (min_reader == 0 || min_reader > version) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: version: expected 1 <= minimum reader <= "
                           "version, found minimum reader %" PRIu32
                           ", version %" PRIu32 "; convert the model again",
                           f->label, min_reader, version);
    }
    if (min_reader > TLR_FILE_VERSION) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: version: expected a minimum reader up to %d, "
                           "found %" PRIu32 "; use a newer tlr",
                           f->label, TLR_FILE_VERSION, min_reader);
    }
    if (flags != 0) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: flags: expected 0, found 0x%" PRIx32
                           "; use a newer tlr",
                           f->label, flags);
    }
    f->version = version;
    return 0;
}

int tlr_file_check_crc(const struct tlr_file *f, const char *kind,
                       const char *name, const void *data, uint64_t len,
                       uint32_t expected, struct tlr_err *err)
{
#ifdef TLR_FUZZ
    /* The fuzzer's inputs could not get past a checksum. */
    (void)f, (void)kind, (void)name, (void)data, (void)len, (void)expected;
    (void)err;
    return 0;
#else
    uint32_t found = tlr_crc32(0, data, (size_t)len);
    if (found == expected) {
        return 0;
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s%s: expected checksum %08" PRIx32
                       ", found %08" PRIx32
                       "; the file is damaged, fetch or convert it again",
                       f->label, kind, name, expected, found);
#endif
}

static bool is_zero(const uint8_t *p, uint64_t n)
{
    uint8_t any = 0;
    for (uint64_t i = 0; i < n; i++) {
        any |= p[i];
    }
    return any == 0;
}

static int check_size(const struct tlr_file *f, struct tlr_err *err)
{
    uint64_t declared = tlr_get_u64(f->bytes + TLR_HEAD_FILE_BYTES);
    if (declared == f->len) {
        return 0;
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: file: expected %" PRIu64 " bytes, found %zu: %s; "
                       "fetch or convert the model again",
                       f->label, declared, f->len,
                       f->len < declared ? "truncated" : "trailing bytes");
}

/* Afterwards the header area lies in the file and is covered by checksums. */
static int check_header(struct tlr_file *f, struct tlr_err *err)
{
    const uint8_t *h = f->bytes;
    int rc = check_magic(f, err);
    if (rc) {
        return rc;
    }
    if (f->len < TLR_HEAD_BYTES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: header: expected %d bytes, found %zu: "
                           "truncated; fetch or convert the model again",
                           f->label, TLR_HEAD_BYTES, f->len);
    }
    rc = check_versions(f, err);
    if (rc) {
        return rc;
    }
    rc = tlr_file_check_crc(f, "header", "", h, TLR_HEAD_CRC,
                            tlr_get_u32(h + TLR_HEAD_CRC), err);
    if (rc) {
        return rc;
    }
    if (!is_zero(h + TLR_HEAD_RESERVED, TLR_HEAD_CRC - TLR_HEAD_RESERVED)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: header: expected zeros in the reserved bytes "
                           "%d to %d, found others; use a newer tlr or convert "
                           "the model again",
                           f->label, TLR_HEAD_RESERVED, TLR_HEAD_CRC - 1);
    }
    rc = check_size(f, err);
    if (rc) {
        return rc;
    }
    f->n_sections = tlr_get_u32(h + TLR_HEAD_N_SECTIONS);
    f->n_tensors = tlr_get_u32(h + TLR_HEAD_N_TENSORS);
    if (f->n_sections < 1 || f->n_sections > TLR_FILE_MAX_SECTIONS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: header: expected 1 to %d sections, found "
                           "%" PRIu32 "; convert the model again",
                           f->label, TLR_FILE_MAX_SECTIONS, f->n_sections);
    }
    if (f->n_tensors < 1 || f->n_tensors > TLR_FILE_MAX_TENSORS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: header: expected 1 to %d tensors, found "
                           "%" PRIu32 "; convert the model again",
                           f->label, TLR_FILE_MAX_TENSORS, f->n_tensors);
    }
    f->head_bytes = tlr_head_area_bytes(f->n_tensors);
    if (f->head_bytes > f->len) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: header: %" PRIu32 " tensors need %" PRIu64
                           " bytes of directory, found a file of %zu; convert "
                           "the model again",
                           f->label, f->n_tensors, f->head_bytes, f->len);
    }
    return tlr_file_check_crc(f, "header tables", "", h + TLR_HEAD_BYTES,
                              f->head_bytes - TLR_HEAD_BYTES,
                              tlr_get_u32(h + TLR_HEAD_TABLE_CRC), err);
}

/* One step of the walk through the file: [offset, offset + size) must start at
 * the first multiple of 64 after *end, with zeros in between, and lie in the
 * file.  So nothing is misaligned, overlaps, is out of order or hides in a
 * gap. */
static int check_place(const struct tlr_file *f, const char *kind,
                       const char *name, uint64_t offset, uint64_t size,
                       uint64_t *end, struct tlr_err *err)
{
    uint64_t want, stop;
    if (!tlr_add_u64(*end, TLR_FILE_ALIGN - 1, &want)) {
        want = UINT64_MAX;
    }
    want -= want % TLR_FILE_ALIGN;
    if (offset != want) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s %s: expected offset %" PRIu64
                           ", found %" PRIu64 "; convert the model again",
                           f->label, kind, name, want, offset);
    }
    if (!tlr_add_u64(offset, size, &stop) || stop > f->len) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s %s: expected at most %" PRIu64
                           " bytes to the end of the file, found %" PRIu64
                           "; convert the model again",
                           f->label, kind, name,
                           f->len > offset ? f->len - offset : 0, size);
    }
    if (!is_zero(f->bytes + *end, offset - *end)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: %s %s: expected zeros in the padding before "
                           "it, found others; convert the model again",
                           f->label, kind, name);
    }
    *end = stop;
    return 0;
}

static int check_section(struct tlr_file *f, uint32_t i, uint64_t *end,
                         struct tlr_err *err)
{
    const uint8_t *slot = f->bytes + TLR_HEAD_BYTES + i * TLR_SECT_BYTES;
    struct tlr_file_section *s = &f->sections[i];
    s->id = tlr_get_u32(slot + TLR_SECT_ID);
    s->crc32 = tlr_get_u32(slot + TLR_SECT_CRC);
    uint32_t flags = tlr_get_u32(slot + TLR_SECT_FLAGS);
    uint64_t offset = tlr_get_u64(slot + TLR_SECT_OFFSET);
    uint64_t size = tlr_get_u64(slot + TLR_SECT_SIZE);
    const struct tlr_section_kind *kind = tlr_section_kind(s->id);
    snprintf(s->name, sizeof s->name, "%" PRIu32, s->id);
    if (kind) {
        snprintf(s->name, sizeof s->name, "%s", kind->name);
    } else if (s->id == 0 || (flags & TLR_SECT_REQUIRED)) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: section %s: expected a known one, found a "
                           "required section that this tlr does not know; use "
                           "a newer tlr",
                           f->label, s->name);
    }
    if (flags != (kind ? kind->flags : 0) ||
        tlr_get_u32(slot + TLR_SECT_RESERVED) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section %s: expected flags 0x%" PRIx32
                           " and reserved bytes 0, found 0x%" PRIx32
                           " and 0x%" PRIx32 "; convert the model again",
                           f->label, s->name, kind ? kind->flags : 0, flags,
                           tlr_get_u32(slot + TLR_SECT_RESERVED));
    }
    for (uint32_t j = 0; j < i; j++) {
        if (f->sections[j].id == s->id) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: section %s: expected once, found twice; "
                               "convert the model again",
                               f->label, s->name);
        }
    }
    int rc = check_place(f, "section", s->name, offset, size, end, err);
    if (rc) {
        return rc;
    }
    s->bytes.ptr = f->bytes + offset;
    s->bytes.len = (size_t)size;
    if (!kind) {
        return 0;
    }
    /* Limits before the checksum: they bound its work. */
    rc = tlr_section_check(s->id, s->bytes.ptr, size, f->label, err);
    return rc ? rc
              : tlr_file_check_crc(f, "section ", s->name, s->bytes.ptr, size,
                                   s->crc32, err);
}

static int read_sections(struct tlr_file *f, uint64_t *end,
                         struct tlr_err *err)
{
    for (uint32_t i = 0; i < f->n_sections; i++) {
        int rc = check_section(f, i, end, err);
        if (rc) {
            return rc;
        }
    }
    uint64_t used = (uint64_t)f->n_sections * TLR_SECT_BYTES;
    if (!is_zero(f->bytes + TLR_HEAD_BYTES + used,
                 TLR_FILE_TABLE_BYTES - used)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section table: expected zeros after %" PRIu32
                           " sections, found others; convert the model again",
                           f->label, f->n_sections);
    }
    return 0;
}

static int read_config(struct tlr_file *f, struct tlr_err *err)
{
    struct tlr_bytes b = tlr_file_section(f, TLR_SECTION_CONFIG);
    struct tlr_config *c = &f->config;
    if (!b.ptr) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section config: expected one, found none; "
                           "convert the model again",
                           f->label);
    }
    struct tlr_span s = tlr_span_of(b.ptr, b.len);
    c->family = tlr_span_u32(&s);
    c->flags = tlr_span_u32(&s);
    c->dim = tlr_span_u32(&s);
    c->ffn_dim = tlr_span_u32(&s);
    c->n_layers = tlr_span_u32(&s);
    c->n_heads = tlr_span_u32(&s);
    c->n_kv_heads = tlr_span_u32(&s);
    c->head_dim = tlr_span_u32(&s);
    c->n_vocab = tlr_span_u32(&s);
    c->max_ctx = tlr_span_u32(&s);
    c->rms_eps = tlr_span_f32(&s);
    c->rope_theta = tlr_span_f32(&s);
    if (!is_zero(b.ptr + s.pos, b.len - s.pos)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section config: expected zeros in the reserved "
                           "bytes from %zu, found others; use a newer tlr",
                           f->label, s.pos);
    }
    char where[512];
    snprintf(where, sizeof where, "%.480s: config", f->label);
    return tlr_config_check(c, where, err);
}

/* The name in entry i, or an error when it is not one. */
static int check_name(const struct tlr_file *f, uint32_t i, const char **out,
                      struct tlr_err *err)
{
    const uint8_t *name = f->bytes + TLR_FILE_DIR_AT +
                          (uint64_t)i * TLR_DIR_BYTES + TLR_DIR_NAME;
    const uint8_t *nul = memchr(name, 0, TLR_FILE_NAME_BYTES);
    bool ok = nul && nul != name &&
              is_zero(nul, (uint64_t)(name + TLR_FILE_NAME_BYTES - nul));
    for (const uint8_t *p = name; ok && p < nul; p++) {
        ok = *p > 0x20 && *p < 0x7f;
    }
    if (!ok) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor number %" PRIu32 ": expected a name of "
                           "1 to %d printable ASCII letters padded with NUL, "
                           "found something else; convert the model again",
                           f->label, i, TLR_FILE_NAME_BYTES - 1);
    }
    *out = (const char *)name;
    return 0;
}

static int check_entry(const struct tlr_file *f, struct tlr_tensor *t,
                       const struct tlr_tensor_want *want,
                       const uint8_t *entry, uint64_t *end,
                       struct tlr_err *err)
{
    uint32_t type = tlr_get_u32(entry + TLR_DIR_TYPE);
    uint64_t offset = tlr_get_u64(entry + TLR_DIR_OFFSET);
    uint64_t size = 0;
    t->n_rows = tlr_get_u32(entry + TLR_DIR_ROWS);
    t->n_cols = tlr_get_u32(entry + TLR_DIR_COLS);
    t->n_bytes = tlr_get_u64(entry + TLR_DIR_SIZE);
    t->crc32 = tlr_get_u32(entry + TLR_DIR_CRC);
    if (t->n_rows != want->n_rows || t->n_cols != want->n_cols) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected [%" PRIu32 ",%" PRIu32
                           "], found [%" PRIu32 ",%" PRIu32
                           "]; convert the model again",
                           f->label, t->name, want->n_rows, want->n_cols,
                           t->n_rows, t->n_cols);
    }
    int rc = tlr_tensor_size(want, type, f->label, &size, err);
    if (rc) {
        return rc;
    }
    t->type = (enum tlr_type)type;
    uint32_t min_reader = tlr_get_u32(f->bytes + TLR_HEAD_MIN_READER);
    if (min_reader < tlr_type_version(t->type)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected a minimum reader of "
                           "%" PRIu32 " or more for type %s, found %" PRIu32
                           "; convert the model again",
                           f->label, t->name, tlr_type_version(t->type),
                           tlr_type_name(type), min_reader);
    }
    if (t->n_bytes != size) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected %" PRIu64
                           " bytes for %s [%" PRIu32 ",%" PRIu32
                           "], found %" PRIu64 "; convert the model again",
                           f->label, t->name, size, tlr_type_name(type),
                           t->n_rows, t->n_cols, t->n_bytes);
    }
    rc = check_place(f, "tensor", t->name, offset, size, end, err);
    t->data = rc ? NULL : f->bytes + offset;
    return rc;
}

/* The directory says a name where the plan says another: why? */
static int name_mismatch(const struct tlr_file *f, uint32_t i,
                         const char *found, const char *want,
                         struct tlr_err *err)
{
    for (uint32_t j = 0; j < i; j++) {
        if (strcmp(f->tensors[j].name, found) == 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: expected once, found twice; "
                               "convert the model again",
                               f->label, found);
        }
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: tensor number %" PRIu32 ": expected %s, found %s "
                       "(missing, unknown or out of order); convert the model "
                       "again",
                       f->label, i, want, found);
}

static int read_tensors(struct tlr_file *f, uint64_t *end, struct tlr_err *err)
{
    uint32_t n_want = tlr_config_n_tensors(&f->config);
    f->tensors = tlr_calloc(f->n_tensors, sizeof *f->tensors);
    if (!f->tensors) {
        return tlr_err_nomem(err, f->label, f->n_tensors * sizeof *f->tensors);
    }
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        struct tlr_tensor *t = &f->tensors[i];
        struct tlr_tensor_want want;
        int rc = check_name(f, i, &t->name, err);
        if (rc) {
            return rc;
        }
        if (i >= n_want) {
            return name_mismatch(f, i, t->name, "no more", err);
        }
        tlr_config_tensor(&f->config, i, &want);
        if (strcmp(t->name, want.name) != 0) {
            return name_mismatch(f, i, t->name, want.name, err);
        }
        rc = check_entry(f, t, &want,
                         f->bytes + TLR_FILE_DIR_AT +
                             (uint64_t)i * TLR_DIR_BYTES,
                         end, err);
        if (rc) {
            return rc;
        }
    }
    if (f->n_tensors < n_want) {
        struct tlr_tensor_want want;
        tlr_config_tensor(&f->config, f->n_tensors, &want);
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected %" PRIu32
                           " tensors for this configuration, found %" PRIu32
                           "; convert the model again",
                           f->label, want.name, n_want, f->n_tensors);
    }
    if (*end != f->len) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: file: expected its end at %" PRIu64
                           ", found %zu: trailing bytes; convert the model "
                           "again",
                           f->label, *end, f->len);
    }
    return 0;
}

int tlr_file_check(struct tlr_file *f, struct tlr_err *err)
{
    int rc = check_header(f, err);
    uint64_t end = f->head_bytes;
    if (!rc) {
        rc = read_sections(f, &end, err);
    }
    if (!rc) {
        rc = read_config(f, err);
    }
    if (!rc) {
        rc = read_tensors(f, &end, err);
    }
    return rc;
}
