/* foreign.h - what the two mapped kinds of source share: tensors that lie in a
 * file as rows of blocks, found by name and served as ours.
 *
 * A source starts with struct tlr_foreign; its opener fills `tensors`, binds
 * each of our tensors to one of them and hands the operations below out.
 */
#ifndef TLR_CONVERT_FOREIGN_H
#define TLR_CONVERT_FOREIGN_H

#include <stdbool.h>

#include "convert/gguf_blocks.h"
#include "convert/safetensors.h"
#include "convert/source.h"

struct tlr_foreign_tensor {
    const char *name;
    const char *where;     /* the file it lies in */
    const char *type_name; /* as the file says it */
    const struct tlr_block_type *type; /* NULL: no weight may have it */
    uint32_t n_dims;
    uint64_t n_rows, n_cols; /* a vector is one row; more than two dimensions:
                                n_rows is the product of the outer ones */
    const uint8_t *data;
    uint64_t n_bytes;
    bool is_mapped; /* its pages can be given back and read again */
    bool is_used;
};

struct tlr_foreign {
    struct tlr_source source; /* first: a tlr_source * is a tlr_foreign * */
    bool carries; /* types that fit ours are offered as `exact` */
    struct tlr_foreign_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    struct tlr_bound {
        const struct tlr_foreign_tensor *tensor;
        uint32_t pair_rows; /* head_dim: rows are interleaved pairs per head
                               and are put back into halves; 0: as they are */
    } *bound; /* [n_bound], i as in tlr_config_tensor */
    uint32_t n_bound;
};

/* A tensor of a mapped .safetensors file, which `where` names. */
void tlr_foreign_of_safetensor(struct tlr_foreign_tensor *out,
                               const struct tlr_safetensor *t,
                               const char *where);
/* Sorts tensors by name; a name that appears twice is TLR_EFORMAT. */
int tlr_foreign_sort(struct tlr_foreign *f, struct tlr_err *err);
/* NULL when there is none. */
struct tlr_foreign_tensor *tlr_foreign_find(const struct tlr_foreign *f,
                                            const char *name);
/* Makes room for the bindings of source.config. */
int tlr_foreign_begin(struct tlr_foreign *f, struct tlr_err *err);
/* Our i-th tensor is `name`: it must exist, have a type that tlr reads and the
 * shape that the configuration asks for. */
int tlr_foreign_bind(struct tlr_foreign *f, uint32_t i, const char *name,
                     uint32_t pair_rows, const char *where,
                     struct tlr_err *err);
/* The first tensor that nobody bound, as TLR_EUNSUPPORTED. */
int tlr_foreign_check_unused(const struct tlr_foreign *f, struct tlr_err *err);

/* Gives the pages of its first n_bytes back, if it is mapped. */
void tlr_foreign_drop(const struct tlr_foreign_tensor *t, uint64_t n_bytes);

/* Same type, shape and bytes. */
bool tlr_foreign_is_equal(const struct tlr_foreign_tensor *a,
                          const struct tlr_foreign_tensor *b);

/* Frees what this header owns and the common parts of the source. */
void tlr_foreign_clear(struct tlr_foreign *f);

/* ---- finish.c ---- */

/* Id of the added token spelled so, -1 if none. */
int32_t tlr_foreign_token_id(const struct tlr_vocab *v, const char *text);
/* Adds an end token, once. */
int tlr_foreign_add_eos(struct tlr_source *s, int64_t id, const char *where,
                        struct tlr_err *err);
/* Fills source.chat if the template is a known one. */
int tlr_foreign_recognise_chat(struct tlr_source *s, const char *jinja,
                               struct tlr_err *err);
/* The vocabulary has no more tokens than the embedding table has rows. */
int tlr_foreign_check_vocab(const struct tlr_source *s, struct tlr_err *err);
/* End tokens of the chat template; ranges of the sampling defaults. */
int tlr_foreign_finish(struct tlr_source *s, const char *generation_where,
                       struct tlr_err *err);

/* Operations of struct tlr_source_ops. */
int tlr_foreign_describe(struct tlr_source *s, uint32_t i,
                         struct tlr_source_tensor *out, struct tlr_err *err);
int tlr_foreign_read_rows(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, float *dst, struct tlr_err *err);
int tlr_foreign_read_band(struct tlr_source *s, uint32_t i, uint32_t row,
                          uint32_t n, void *dst, struct tlr_err *err);
void tlr_foreign_drop_rows(struct tlr_source *s, uint32_t i, uint32_t row_end);

#endif
