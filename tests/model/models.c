/* models.c - writes random models through the writer, band by band. */
#include "tests/model/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "convert/source.h"

void must(int rc, const struct tlr_err *err)
{
    ck_assert_msg(rc == 0, "%s: %s", tlr_err_name(rc), err->text);
}

/* Rows of a tensor as the recipe has them; band is scratch. */
static void read_rows(struct tlr_source *src, const struct model_recipe *r,
                      uint32_t i, uint32_t row, uint32_t n, float *rows,
                      uint8_t *band)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_tensor_want t;
    tlr_config_tensor(&src->config, i, &t);
    must(src->ops->read_rows(src, i, row, n, rows, &err), &err);
    for (int k = 0; k < MODEL_EDITS; k++) {
        const char *tensor = r->edits[k].tensor;
        if (tensor && strcmp(t.name, tensor) == 0) {
            r->edits[k].fn(rows, row, n, t.n_cols);
        }
    }
    if (r->values == TLR_F32 || !t.is_matrix) {
        return;
    }
    enum tlr_type as = r->values == TLR_Q8P ? TLR_Q8 : r->values;
    tlr_band_encode(as, band, rows, (int)n, (int)t.n_cols);
    for (uint32_t k = 0; k < n; k++) {
        tlr_row_decode(as, rows + (size_t)k * t.n_cols, band, k, (int)t.n_cols);
    }
}

/* q8p: a group of rows at a time, from the numbers of q8. */
static void write_planes(struct tlr_writer *w, struct tlr_source *src,
                         const struct model_recipe *recipe, uint32_t i,
                         const struct tlr_tensor_want *t, float *rows,
                         uint8_t *band)
{
    struct tlr_err err = TLR_ERR_INIT;
    size_t n_bytes =
        (size_t)tlr_matrix_bytes(TLR_Q8P, TLR_PLANES_ROWS, t->n_cols);
    for (uint32_t first = 0; first < t->n_rows; first += TLR_PLANES_ROWS) {
        uint8_t *group = tlr_calloc(1, n_bytes);
        ck_assert(group != NULL);
        for (uint32_t r = 0; r < TLR_PLANES_ROWS && first + r < t->n_rows;
             r += TLR_TILE_ROWS) {
            uint32_t n = t->n_rows - first - r;
            n = n < TLR_TILE_ROWS ? n : TLR_TILE_ROWS;
            read_rows(src, recipe, i, first + r, n, rows, band);
            tlr_band_encode(TLR_Q8, band, rows, (int)n, (int)t->n_cols);
            tlr_planes_put_band(group, (int)r, band, (int)n, (int)t->n_cols);
        }
        must(tlr_writer_data(w, group, n_bytes, &err), &err);
        tlr_free(group);
    }
}

static void write_tensor(struct tlr_writer *w, struct tlr_source *src,
                         const struct model_recipe *recipe, uint32_t i,
                         enum tlr_type type, float *rows, uint8_t *band)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_tensor_want t;
    tlr_config_tensor(&src->config, i, &t);
    if (type == TLR_Q8P) {
        write_planes(w, src, recipe, i, &t, rows, band);
        return;
    }
    for (uint32_t row = 0; row < t.n_rows; row += TLR_TILE_ROWS) {
        uint32_t n = t.n_rows - row;
        n = n < TLR_TILE_ROWS ? n : TLR_TILE_ROWS;
        read_rows(src, recipe, i, row, n, rows, band);
        tlr_band_encode(type, band, rows, (int)n, (int)t.n_cols);
        uint64_t n_bytes = tlr_matrix_bytes(type, n, t.n_cols);
        must(tlr_writer_data(w, band, (size_t)n_bytes, &err), &err);
    }
}

static void write_all(struct tlr_writer *w, struct tlr_source *src,
                      const struct model_recipe *recipe,
                      const enum tlr_type *types)
{
    size_t widest = 65536;
    float *rows = tlr_calloc(TLR_TILE_ROWS * widest, sizeof *rows);
    uint8_t *band = tlr_calloc(TLR_TILE_ROWS * widest, sizeof *rows);
    ck_assert(rows && band);
    for (uint32_t i = 0; i < tlr_config_n_tensors(&src->config); i++) {
        write_tensor(w, src, recipe, i, types[i], rows, band);
    }
    tlr_free(rows);
    tlr_free(band);
}

static struct tlr_source *open_source(const char *name,
                                      const struct model_recipe *recipe,
                                      enum tlr_type **types)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_source *src = NULL;
    must(tlr_source_open_random(&src, name, &err), &err);
    if (recipe->shape) {
        recipe->shape(&src->config);
    }
    uint32_t n = tlr_config_n_tensors(&src->config);
    *types = tlr_calloc(n, sizeof **types);
    ck_assert(*types != NULL);
    for (uint32_t i = 0; i < n; i++) {
        struct tlr_tensor_want t;
        tlr_config_tensor(&src->config, i, &t);
        (*types)[i] = t.is_matrix ? recipe->type : TLR_F32;
    }
    return src;
}

void random_model_write(const char *name, enum tlr_type type, const char *path)
{
    struct tlr_err err = TLR_ERR_INIT;
    enum tlr_type *types = NULL;
    struct model_recipe recipe = {.type = type};
    struct tlr_source *src = open_source(name, &recipe, &types);
    struct tlr_writer *w = NULL;
    must(tlr_writer_begin(&w, path, &src->config, types, &err), &err);
    write_all(w, src, &recipe, types);
    must(tlr_writer_commit(w, &err), &err);
    tlr_free(types);
    src->ops->close(src);
}

struct tlr_model *random_model(const char *name, enum tlr_type type)
{
    return recipe_model(name, &(struct model_recipe){.type = type});
}

struct tlr_model *recipe_model(const char *name, const struct model_recipe *r)
{
    struct tlr_err err = TLR_ERR_INIT;
    char path[600];
    snprintf(path, sizeof path, "%s/model-XXXXXX", tlr_test_tmpdir());
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    enum tlr_type *types = NULL;
    struct tlr_source *src = open_source(name, r, &types);
    struct tlr_writer *w = NULL;
    must(tlr_writer_begin_fd(&w, fd, name, &src->config, types, &err), &err);
    write_all(w, src, r, types);
    must(tlr_writer_commit(w, &err), &err);
    tlr_free(types);
    src->ops->close(src);
    struct tlr_file *file = NULL;
    must(tlr_file_open_fd(&file, fd, name, NULL, &err), &err);
    close(fd);
    struct tlr_model *m = NULL;
    must(tlr_model_from_file(&m, file, &err), &err);
    return m;
}

struct tlr_model *edited_model(const char *name, enum tlr_type type,
                               const char *tensor, edit_rows_fn *edit)
{
    return recipe_model(name, &(struct model_recipe){
                                  .type = type, .edits = {{tensor, edit}}});
}

struct tlr_session *new_session(const struct tlr_model *m,
                                struct tlr_session_options o)
{
    struct tlr_err err = TLR_ERR_INIT;
    o.cpu_level = (int)tlr_test_cpu_level();
    struct tlr_session *s = NULL;
    must(tlr_session_new(&s, m, &o, &err), &err);
    return s;
}

void golden_ids(const struct tlr_model *m, int32_t *ids, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        ids[t] = (int32_t)(tlr_hash_u64(GOLDEN_SEED, t) %
                           tlr_model_config(m)->n_vocab);
    }
}

double relative_error(const float *a, const float *b, uint32_t n)
{
    double error = 0.0, size = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        error = d > error || isnan(d) ? d : error;
        size = fmax(size, fabs((double)b[i]));
    }
    ck_assert_msg(size > 0.0, "compared with zeros");
    return error / size;
}
