/* foreign.c - rows and bands of mapped foreign tensors in our order.
 *
 * Rows are read straight from the map, so several threads may read different
 * rows.  Pages that were read are given back in drop_rows: a source may be far
 * larger than the memory that a conversion may take.
 */
#include "convert/foreign.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { COMPARE_BYTES = 16 << 20 };

void tlr_foreign_of_safetensor(struct tlr_foreign_tensor *out,
                               const struct tlr_safetensor *t,
                               const char *where)
{
    *out = (struct tlr_foreign_tensor){
        .name = t->name,
        .where = where,
        .type_name = t->dtype,
        .n_dims = t->n_dims,
        .n_rows = 1,
        .n_cols = t->n_dims ? t->shape[t->n_dims - 1] : 1,
        .data = t->data,
        .n_bytes = t->n_bytes,
        .is_mapped = true,
    };
    /* Only the element types; a safetensors dtype is never a block type. */
    out->type = tlr_block_type_by_name(t->dtype);
    for (uint32_t d = 0; d + 1 < t->n_dims; d++) {
        out->n_rows *= t->shape[d]; /* checked with the size; 0 stays 0 */
    }
}

static int compare_names(const void *a, const void *b)
{
    const struct tlr_foreign_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int tlr_foreign_sort(struct tlr_foreign *f, struct tlr_err *err)
{
    if (f->n_tensors < 2) {
        return 0;
    }
    qsort(f->tensors, f->n_tensors, sizeof *f->tensors, compare_names);
    for (size_t i = 1; i < f->n_tensors; i++) {
        const struct tlr_foreign_tensor *t = &f->tensors[i];
        if (compare_names(t - 1, t) == 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s appears twice (also in %s); "
                               "download the model again",
                               t->where, t->name, (t - 1)->where);
        }
    }
    return 0;
}

struct tlr_foreign_tensor *tlr_foreign_find(const struct tlr_foreign *f,
                                            const char *name)
{
    struct tlr_foreign_tensor key = {.name = name};
    return f->n_tensors == 0 ? NULL
                             : bsearch(&key, f->tensors, f->n_tensors,
                                       sizeof *f->tensors, compare_names);
}

int tlr_foreign_begin(struct tlr_foreign *f, struct tlr_err *err)
{
    f->n_bound = tlr_config_n_tensors(&f->source.config);
    f->bound = tlr_calloc(f->n_bound, sizeof *f->bound);
    if (!f->bound) {
        return tlr_err_nomem(err, "list of tensors",
                             f->n_bound * sizeof *f->bound);
    }
    return 0;
}

int tlr_foreign_bind(struct tlr_foreign *f, uint32_t i, const char *name,
                     uint32_t pair_rows, const char *where,
                     struct tlr_err *err)
{
    struct tlr_tensor_want want;
    tlr_config_tensor(&f->source.config, i, &want);
    struct tlr_foreign_tensor *t = tlr_foreign_find(f, name);
    if (!t) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s [%u,%u] is missing; the download is "
                           "incomplete or the configuration is of another "
                           "model",
                           where, name, want.n_rows, want.n_cols);
    }
    if (!t->type) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: tensor %s: expected type F32, F16 or BF16, "
                           "found %s; take an unquantised copy of this model",
                           t->where, name, t->type_name);
    }
    uint32_t n_dims = want.is_matrix ? 2 : 1;
    if (t->n_dims != n_dims || t->n_rows != want.n_rows ||
        t->n_cols != want.n_cols) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected [%u,%u] in %u dimension%s, "
                           "found [%llu,%llu] in %u; the configuration is of "
                           "another model",
                           t->where, name, want.n_rows, want.n_cols, n_dims,
                           n_dims == 1 ? "" : "s",
                           (unsigned long long)t->n_rows,
                           (unsigned long long)t->n_cols, t->n_dims);
    }
    t->is_used = true;
    f->bound[i].tensor = t;
    f->bound[i].pair_rows = pair_rows;
    return 0;
}

int tlr_foreign_check_unused(const struct tlr_foreign *f, struct tlr_err *err)
{
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tlr_foreign_tensor *t = &f->tensors[i];
        if (!t->is_used) {
            return tlr_err_set(err, TLR_EUNSUPPORTED,
                               "%s: tensor %s: this architecture has no such "
                               "tensor; leaving it out would change the model, "
                               "which tlr does not do",
                               t->where, t->name);
        }
    }
    return 0;
}

void tlr_foreign_drop(const struct tlr_foreign_tensor *t, uint64_t n_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)t->data;
    uintptr_t end = (start + (uintptr_t)n_bytes) / page * page;
    start = (start + page - 1) / page * page;
    if (t->is_mapped && end > start) {
        /* Advice: a refusal costs memory and nothing else. */
        (void)madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

bool tlr_foreign_is_equal(const struct tlr_foreign_tensor *a,
                          const struct tlr_foreign_tensor *b)
{
    if (a->type != b->type || a->n_rows != b->n_rows ||
        a->n_cols != b->n_cols || a->n_bytes != b->n_bytes) {
        return false;
    }
    bool is_equal = true;
    for (uint64_t at = 0; is_equal && at < a->n_bytes; at += COMPARE_BYTES) {
        uint64_t n = a->n_bytes - at;
        n = n < COMPARE_BYTES ? n : COMPARE_BYTES;
        is_equal = memcmp(a->data + at, b->data + at, (size_t)n) == 0;
        tlr_foreign_drop(a, at + n);
        tlr_foreign_drop(b, at + n);
    }
    return is_equal;
}

void tlr_foreign_clear(struct tlr_foreign *f)
{
    tlr_free(f->tensors);
    tlr_free(f->bound);
    tlr_free(f->source.provenance_json);
    tlr_chat_clear(&f->source.chat);
}

int tlr_foreign_describe(struct tlr_source *s, uint32_t i,
                         struct tlr_source_tensor *out, struct tlr_err *err)
{
    (void)err;
    const struct tlr_foreign *f = (const struct tlr_foreign *)s;
    const struct tlr_foreign_tensor *t = f->bound[i].tensor;
    out->src_name = t->name;
    out->src_type = t->type_name;
    out->exact = f->carries ? t->type->exact : -1;
    out->src_bytes = t->n_bytes;
    return 0;
}

/* Where our row lies: row h*hd + i (i < hd/2) of a head is the even partner
 * 2*i of the source, row h*hd + hd/2 + i the odd one. */
static uint64_t source_row(const struct tlr_bound *b, uint64_t row)
{
    uint64_t hd = b->pair_rows;
    if (hd == 0) {
        return row;
    }
    uint64_t i = row % hd, half = hd / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

static uint64_t row_bytes(const struct tlr_foreign_tensor *t)
{
    return t->n_cols / t->type->n_elems * t->type->n_bytes;
}

/* The source's row that our `row` comes from.  For a biased vector the rows
 * that interleave are its elements, which no supported family has. */
static const uint8_t *row_data(const struct tlr_bound *b, uint64_t row)
{
    return b->tensor->data + source_row(b, row) * row_bytes(b->tensor);
}

static int refuse_value(const struct tlr_foreign_tensor *t, uint64_t row,
                        const char *what, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: tensor %s: row %llu: expected finite numbers, "
                       "found %s; the weights are damaged: download them again",
                       t->where, t->name, (unsigned long long)row, what);
}

int tlr_foreign_read_rows(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, float *dst, struct tlr_err *err)
{
    const struct tlr_bound *b = &((const struct tlr_foreign *)s)->bound[i];
    const struct tlr_foreign_tensor *t = b->tensor;
    uint32_t n_cols = (uint32_t)t->n_cols;
    for (uint32_t r = 0; r < n; r++, dst += n_cols) {
        tlr_block_row_decode(t->type, dst, row_data(b, row + r), n_cols);
        for (uint32_t c = 0; c < n_cols; c++) {
            if (!isfinite(dst[c])) {
                return refuse_value(t, source_row(b, row + r),
                                    isnan(dst[c]) ? "NaN" : "infinity", err);
            }
        }
    }
    return 0;
}

int tlr_foreign_read_band(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, void *dst, struct tlr_err *err)
{
    const struct tlr_bound *b = &((const struct tlr_foreign *)s)->bound[i];
    const struct tlr_foreign_tensor *t = b->tensor;
    uint32_t n_cols = (uint32_t)t->n_cols;
    memset(dst, 0, (size_t)tlr_band_bytes((enum tlr_type)t->type->exact, n_cols));
    for (uint32_t r = 0; r < n; r++) {
        if (tlr_block_row_carry(t->type, dst, (int)r, row_data(b, row + r),
                                n_cols) != 0) {
            return refuse_value(t, source_row(b, row + r),
                                "a scale that is not", err);
        }
    }
    return 0;
}

void tlr_foreign_drop_rows(struct tlr_source *s, uint32_t i, uint32_t row_end)
{
    const struct tlr_foreign_tensor *t =
        ((const struct tlr_foreign *)s)->bound[i].tensor;
    tlr_foreign_drop(t, row_bytes(t) * row_end);
}
