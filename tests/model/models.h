/* models.h - seeded random models for the tests of the engine's decoder. */
#ifndef TLR_TESTS_MODEL_MODELS_H
#define TLR_TESTS_MODEL_MODELS_H

#include <math.h>
#include <string.h>

#include "engine/head.h"
#include "engine/tlr.h"
#include "kernels/kernels.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

enum { GOLDEN_SEED = 7, GOLDEN_TOK = 4096 };

/* Fails the test with the message when rc is not 0. */
void must(int rc, const struct tlr_err *err);

/* The model "tiny-llama", ... with all matrices of one type, in an unlinked
 * file; the caller closes it. */
struct tlr_model *random_model(const char *name, enum tlr_type type);

/* The same as a file at path. */
void random_model_write(const char *name, enum tlr_type type,
                        const char *path);

/* The same with the rows of one tensor changed before they are rounded: rows
 * f32 [n, n_cols], the first of which is row `first`. */
typedef void edit_rows_fn(float *rows, uint32_t first, uint32_t n,
                          uint32_t n_cols);
struct tlr_model *edited_model(const char *name, enum tlr_type type,
                               const char *tensor, edit_rows_fn *edit);

/* The same with more changed. */
enum { MODEL_EDITS = 2 };
struct model_recipe {
    enum tlr_type type; /* of the matrices in the file */
    /* Matrices have the values that this type gives them, whatever they are
     * stored as; TLR_F32: their own. */
    enum tlr_type values;
    void (*shape)(struct tlr_config *config); /* may be NULL */
    struct {
        const char *tensor; /* NULL: none */
        edit_rows_fn *fn;
    } edits[MODEL_EDITS];
};
struct tlr_model *recipe_model(const char *name, const struct model_recipe *r);

/* A session with these options at the level of TLR_CPU. */
struct tlr_session *new_session(const struct tlr_model *m,
                                struct tlr_session_options o);

/* ids[t] = hash(7, t) % n_vocab, as tests/golden/hf/make.py has them. */
void golden_ids(const struct tlr_model *m, int32_t *ids, size_t n);

/* Largest |a - b| over the largest |b|. */
double relative_error(const float *a, const float *b, uint32_t n);

#define MUST(call)                                                             \
    do {                                                                       \
        struct tlr_err must_err = TLR_ERR_INIT;                                \
        must(call, &must_err);                                                 \
    } while (0)

#endif
