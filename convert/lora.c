/* lora.c - merges a PEFT LoRA adapter while the base streams through.
 *
 * A source in front of another: what reads it (conversion, verification,
 * calibration) does not know that there is an adapter.  Rows come from the base
 * in Hugging Face's order, also those of GGUF's q and k, so the rows of B fit.
 * Merged matrices offer no exact type: what their base held is gone.
 *
 * Memory: A and B of one matrix in f32.
 */
#include "convert/lora.h"

#include <cblas.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/pool.h"
#include "convert/folder.h"
#include "convert/foreign.h"
#include "convert/json_file.h"
#include "convert/lora_config.h"
#include "convert/names.h"
#include "convert/safetensors.h"
#include "engine/linear.h"

/* What is added to our i-th tensor; a NULL: nothing. */
struct delta {
    const struct tlr_foreign_tensor *a, *b; /* [rank, n_cols], [n_rows, rank] */
    const struct tlr_foreign_tensor *w; /* W itself: PEFT keeps a copy of an
                                           adapted head and loads it over the
                                           base's; NULL: the base's */
    float scale;
};

struct lora_source {
    struct tlr_source source; /* first; the base's fields, our operations */
    struct tlr_source *base;
    char *path; /* adapter_model.safetensors */
    struct tlr_map map;
    struct tlr_safetensors directory;
    struct tlr_foreign adapter; /* its list of tensors alone is used */
    struct delta *deltas;       /* [n], i as in tlr_config_tensor */
    uint32_t n;
    /* A and B of tensor `loaded` as f32.  The lock is for loading: threads read
     * rows of one tensor at a time (source.h). */
    pthread_mutex_t lock;
    uint32_t loaded; /* n: none */
    float *a, *b;
};

/* ---- rows ---- */

/* Rows [row, row + n) of t as f32 [n, t->n_cols]. */
static int decode(float *dst, const struct tlr_foreign_tensor *t, uint64_t row,
                  uint64_t n, struct tlr_err *err)
{
    uint64_t row_bytes = t->n_cols / t->type->n_elems * t->type->n_bytes;
    for (uint64_t r = row; r < row + n; r++, dst += t->n_cols) {
        tlr_block_row_decode(t->type, dst, t->data + r * row_bytes,
                             (uint32_t)t->n_cols);
        for (uint64_t c = 0; c < t->n_cols; c++) {
            if (!isfinite(dst[c])) {
                return tlr_err_set(err, TLR_EFORMAT,
                                   "%s: tensor %s: row %llu: expected finite "
                                   "numbers, found %s; the adapter is damaged "
                                   "or its training diverged",
                                   t->where, t->name, (unsigned long long)r,
                                   isnan(dst[c]) ? "NaN" : "infinity");
            }
        }
    }
    return 0;
}

static int load(float *dst, const struct tlr_foreign_tensor *t,
                struct tlr_err *err)
{
    int rc = decode(dst, t, 0, t->n_rows, err);
    tlr_foreign_drop(t, t->n_bytes);
    return rc;
}

static int load_delta(struct lora_source *l, uint32_t i, struct tlr_err *err)
{
    int rc = 0;
    pthread_mutex_lock(&l->lock);
    if (l->loaded != i) {
        l->loaded = l->n;
        rc = load(l->a, l->deltas[i].a, err);
        rc = rc ? rc : load(l->b, l->deltas[i].b, err);
        l->loaded = rc ? l->n : i;
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static int lora_read_rows(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, float *dst, struct tlr_err *err)
{
    struct lora_source *l = (struct lora_source *)s;
    const struct delta *d = &l->deltas[i];
    int rc = d->w ? decode(dst, d->w, row, n, err)
                  : l->base->ops->read_rows(l->base, i, row, n, dst, err);
    if (rc || !d->a || (rc = load_delta(l, i, err))) {
        return rc;
    }
    int rank = (int)d->a->n_rows, n_cols = (int)d->a->n_cols;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, n_cols,
                rank, d->scale, l->b + (size_t)row * (size_t)rank, rank, l->a,
                n_cols, 1.0f, dst, n_cols);
    for (size_t c = 0; c < (size_t)n * (size_t)n_cols; c++) {
        if (!isfinite(dst[c])) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: row %zu: the merged weights "
                               "overflow; the adapter is damaged",
                               l->path, d->b->name,
                               row + c / (size_t)n_cols);
        }
    }
    return 0;
}

static int lora_describe(struct tlr_source *s, uint32_t i,
                         struct tlr_source_tensor *out, struct tlr_err *err)
{
    struct lora_source *l = (struct lora_source *)s;
    int rc = l->base->ops->describe(l->base, i, out, err);
    if (l->deltas[i].a) {
        out->exact = -1;
    }
    return rc;
}

static int lora_read_band_exact(struct tlr_source *s, uint32_t i, uint32_t row,
                                uint32_t n, void *dst, struct tlr_err *err)
{
    struct tlr_source *base = ((struct lora_source *)s)->base;
    return base->ops->read_band_exact(base, i, row, n, dst, err);
}

static void lora_drop_rows(struct tlr_source *s, uint32_t i, uint32_t row_end)
{
    const struct lora_source *l = (const struct lora_source *)s;
    const struct tlr_foreign_tensor *w = l->deltas[i].w;
    if (w) {
        tlr_foreign_drop(w, w->n_bytes / w->n_rows * row_end);
    } else if (l->base->ops->drop_rows) {
        l->base->ops->drop_rows(l->base, i, row_end);
    }
}

/* ---- opening: tensors ---- */

static int list_tensors(struct lora_source *l, struct tlr_err *err)
{
    struct tlr_foreign *f = &l->adapter;
    size_t n = l->directory.n;
    f->tensors = tlr_calloc(n, sizeof *f->tensors);
    if (!f->tensors) {
        return tlr_err_nomem(err, l->path, n * sizeof *f->tensors);
    }
    for (; f->n_tensors < n; f->n_tensors++) {
        tlr_foreign_of_safetensor(&f->tensors[f->n_tensors],
                                  &l->directory.tensors[f->n_tensors], l->path);
    }
    return tlr_foreign_sort(f, err);
}

/* The adapter's tensor of a module, which must have this shape; absent: *out
 * stays NULL. */
static int find_part(const struct lora_source *l, const char *module,
                     const char *part, uint32_t n_rows, uint32_t n_cols,
                     const struct tlr_foreign_tensor **out,
                     struct tlr_err *err)
{
    char name[TLR_FOREIGN_NAME_BYTES + 40];
    snprintf(name, sizeof name, "base_model.model.%s.%s.weight", module, part);
    struct tlr_foreign_tensor *t = tlr_foreign_find(&l->adapter, name);
    if (!t) {
        return 0;
    }
    if (!t->type) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: tensor %s: expected type F32, F16 or BF16, "
                           "found %s; save the adapter in one of these",
                           l->path, name, t->type_name);
    }
    if (t->n_dims != 2 || t->n_rows != n_rows || t->n_cols != n_cols) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected [%u,%u] from the base and "
                           "adapter_config.json, found [%llu,%llu] in %u "
                           "dimension%s; the adapter is of another model",
                           l->path, name, n_rows, n_cols,
                           (unsigned long long)t->n_rows,
                           (unsigned long long)t->n_cols, t->n_dims,
                           t->n_dims == 1 ? "" : "s");
    }
    t->is_used = true;
    *out = t;
    return 0;
}

static int bind_delta(struct lora_source *l, uint32_t i,
                      const struct tlr_lora_config *config,
                      struct tlr_err *err)
{
    struct tlr_tensor_want want;
    tlr_config_tensor(&l->source.config, i, &want);
    if (!want.is_matrix || strcmp(want.name, "embed") == 0) {
        return 0;
    }
    static const char suffix[] = ".weight";
    char module[TLR_FOREIGN_NAME_BYTES];
    tlr_foreign_name(module, want.name, TLR_DIALECT_HF);
    size_t len = strlen(module);
    if (len < sizeof suffix) {
        return 0;
    }
    module[len - (sizeof suffix - 1)] = '\0';
    struct delta *d = &l->deltas[i];
    uint32_t rank;
    tlr_lora_config_module(config, module, &rank, &d->scale);
    int rc;
    if ((rc = find_part(l, module, "lora_A", rank, want.n_cols, &d->a, err)) ||
        (rc = find_part(l, module, "lora_B", want.n_rows, rank, &d->b, err))) {
        return rc;
    }
    if (!d->a != !d->b) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor base_model.model.%s.lora_%c.weight is "
                           "missing, its partner lora_%c is there; the adapter "
                           "is incomplete",
                           l->path, module, d->a ? 'B' : 'A', d->a ? 'A' : 'B');
    }
    if (d->a && (rc = find_part(l, module, "base_layer", want.n_rows,
                                want.n_cols, &d->w, err))) {
        return rc;
    }
    return isfinite(d->scale)
               ? 0
               : tlr_err_set(err, TLR_EFORMAT,
                             "%s: lora_alpha of %s: expected a number that "
                             "fits f32, found a larger one; the adapter is "
                             "damaged",
                             l->path, module);
}

/* The kinds of tensor that PEFT writes besides A and B. */
static int check_unused(const struct lora_source *l, struct tlr_err *err)
{
    static const struct {
        const char *part, *what;
    } others[] = {
        {".lora_embedding_", "an adapted embedding table"},
        {".lora_magnitude_vector", "DoRA's magnitudes"},
        {".modules_to_save.", "a replaced module"},
        {".lora_B.bias", "an adapted bias"},
        {".trainable_tokens_", "retrained tokens"},
        {".lm_head.", "part of an adapted head, which the base ties to its "
                      "embedding table"},
        {".lora_", "a module that the base does not have"},
    };
    for (size_t i = 0; i < l->adapter.n_tensors; i++) {
        const struct tlr_foreign_tensor *t = &l->adapter.tensors[i];
        if (t->is_used) {
            continue;
        }
        const char *what = "no factor of PEFT's LoRA";
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
            if (strstr(t->name, others[k].part)) {
                what = others[k].what;
                break;
            }
        }
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: tensor %s is %s; leaving it out would change "
                           "the model: take the base that the adapter was "
                           "trained on, or merge with PEFT (merge_and_unload) "
                           "and convert the result",
                           l->path, t->name, what);
    }
    return 0;
}

static int bind_deltas(struct lora_source *l,
                       const struct tlr_lora_config *config,
                       struct tlr_err *err)
{
    size_t n_a = 0, n_b = 0;
    l->n = l->loaded = tlr_config_n_tensors(&l->source.config);
    l->deltas = tlr_calloc(l->n, sizeof *l->deltas);
    if (!l->deltas) {
        return tlr_err_nomem(err, l->path, l->n * sizeof *l->deltas);
    }
    for (uint32_t i = 0; i < l->n; i++) {
        const struct delta *d = &l->deltas[i];
        int rc = bind_delta(l, i, config, err);
        if (rc) {
            return rc;
        }
        size_t a = d->a ? (size_t)(d->a->n_rows * d->a->n_cols) : 0;
        size_t b = d->b ? (size_t)(d->b->n_rows * d->b->n_cols) : 0;
        n_a = a > n_a ? a : n_a;
        n_b = b > n_b ? b : n_b;
    }
    int rc = check_unused(l, err);
    if (rc) {
        return rc;
    }
    if (n_a == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected pairs of lora_A and lora_B, found no "
                           "tensor; the adapter is empty",
                           l->path);
    }
    l->a = tlr_alloc_aligned(n_a * sizeof(float));
    l->b = tlr_alloc_aligned(n_b * sizeof(float));
    return l->a && l->b ? 0
                        : tlr_err_nomem(err, l->path,
                                        (n_a + n_b) * sizeof(float));
}

/* ---- opening: files ---- */

static int check_folder(const char *folder, struct tlr_err *err)
{
    struct stat st;
    if (stat(folder, &st) != 0) {
        return tlr_err_set_errno(err,
                                 errno == ENOENT ? TLR_ENOTFOUND : TLR_EIO,
                                 errno, "%s: expected a PEFT LoRA folder",
                                 folder);
    }
    if (!S_ISDIR(st.st_mode)) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a PEFT LoRA folder, found a file; "
                           "give the folder that holds adapter_config.json and "
                           "adapter_model.safetensors",
                           folder);
    }
    return 0;
}

static int read_weights(struct lora_source *l, const struct tlr_folder *folder,
                        struct tlr_err *err)
{
    static const char name[] = "adapter_model.safetensors";
    if (!tlr_folder_has(folder, name) &&
        tlr_folder_has(folder, "adapter_model.bin")) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: expected %s, found a PyTorch pickle, which can "
                           "run code when read; save the adapter with "
                           "safe_serialization=True",
                           folder->dir, name);
    }
    int rc = tlr_folder_open(folder, name, SIZE_MAX, &l->path, &l->map, err);
    if (!rc) {
        rc = tlr_safetensors_parse(&l->directory, l->map.ptr, l->map.len,
                                   l->path, err);
    }
    return rc ? rc : list_tensors(l, err);
}

/* The base's provenance with {"lora": {"sources": [...]}}. */
static int add_provenance(struct lora_source *l, json_t *sources,
                          struct tlr_err *err)
{
    const char *text = l->base->provenance_json;
    json_t *root = json_loads(text ? text : "{}", JSON_REJECT_DUPLICATES, NULL);
    json_t *lora = json_object();
    size_t len;
    int rc;
    if (!root || !lora || json_object_set(lora, "sources", sources) ||
        json_object_set(root, "lora", lora)) {
        rc = tlr_err_nomem(err, "provenance", 0);
    } else {
        rc = tlr_json_dump(root, &l->source.provenance_json, &len, err);
    }
    json_decref(lora);
    json_decref(root);
    return rc;
}

/* ---- open and close ---- */

/* Not the base: it is the caller's until all went well. */
static void clear(struct lora_source *l)
{
    tlr_safetensors_clear(&l->directory);
    tlr_map_close(&l->map);
    tlr_foreign_clear(&l->adapter);
    tlr_free(l->source.provenance_json);
    tlr_free(l->deltas);
    tlr_free(l->path);
    tlr_free(l->a);
    tlr_free(l->b);
    pthread_mutex_destroy(&l->lock);
    tlr_free(l);
}

static void lora_close(struct tlr_source *s)
{
    struct lora_source *l = (struct lora_source *)s;
    tlr_source_close(l->base);
    clear(l);
}

static const struct tlr_source_ops carrying_ops = {
    .describe = lora_describe,
    .read_rows = lora_read_rows,
    .read_band_exact = lora_read_band_exact,
    .drop_rows = lora_drop_rows,
    .close = lora_close,
};
static const struct tlr_source_ops plain_ops = {
    .describe = lora_describe,
    .read_rows = lora_read_rows,
    .drop_rows = lora_drop_rows,
    .close = lora_close,
};

static int read_all(struct lora_source *l, const char *dir,
                    struct tlr_err *err)
{
    struct tlr_folder folder = {dir, json_array()};
    struct tlr_lora_config config;
    json_t *root = NULL;
    char *where = NULL;
    int rc;
    if (!folder.sources) {
        return tlr_err_nomem(err, dir, 0);
    }
    if ((rc = check_folder(dir, err)) ||
        (rc = tlr_folder_json(&folder, "adapter_config.json", &root, &where,
                              err)) ||
        (rc = tlr_lora_config_read(&config, root, where, err)) ||
        (rc = read_weights(l, &folder, err)) ||
        (rc = bind_deltas(l, &config, err)) ||
        (rc = add_provenance(l, folder.sources, err))) {
        goto fail;
    }
    rc = tlr_linear_setup(tlr_default_threads(), err);
fail:
    json_decref(root);
    json_decref(folder.sources);
    tlr_free(where);
    return rc;
}

int tlr_source_add_lora(struct tlr_source **source, const char *folder,
                        struct tlr_err *err)
{
    struct tlr_source *base = *source;
    struct lora_source *l = tlr_calloc(1, sizeof *l);
    if (!l) {
        return tlr_err_nomem(err, folder, sizeof *l);
    }
    pthread_mutex_init(&l->lock, NULL);
    l->source = *base;
    l->source.ops = base->ops->read_band_exact ? &carrying_ops : &plain_ops;
    l->source.provenance_json = NULL;
    l->base = base;
    int rc = read_all(l, folder, err);
    if (rc) {
        clear(l);
        return rc;
    }
    *source = &l->source;
    return 0;
}
