/* source.h - a foreign model, whatever it came in.
 *
 * Three kinds implement it: a Hugging Face folder (hf.c on safetensors.c), a
 * .gguf file (gguf.c) and seeded random weights (random.c); a fourth stands in
 * front of another and merges an adapter (lora.c).  convert.c reads through it
 * and knows none of them.
 */
#ifndef TLR_CONVERT_SOURCE_H
#define TLR_CONVERT_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/chat.h"
#include "engine/generation.h"
#include "engine/vocab.h"
#include "weights/model_file.h"

/* Where one of our tensors (name as in weights/model_file.h) comes from. */
struct tlr_source_tensor {
    const char *src_name;  /* the source's name, for messages */
    const char *src_type;  /* "BF16", "Q4_1", ... */
    int exact;             /* enum tlr_type that takes it over without loss
                              (F32 for f16/f32, Q4 for Q4_0 ...), -1: none */
    uint64_t src_bytes;    /* for progress */
};

struct tlr_source {
    const struct tlr_source_ops *ops;
    struct tlr_config config;
    const char *vocab_where;   /* file that names the vocabulary */
    struct tlr_vocab vocab;    /* n_tokens 0: none (random) */
    struct tlr_chat chat;      /* name NULL: none recognised */
    struct tlr_generation generation;
    char *provenance_json;     /* {"sources":[{"name","bytes","sha256"}...],...} */
};

struct tlr_source_ops {
    /* i as in tlr_config_tensor. */
    int (*describe)(struct tlr_source *s, uint32_t i,
                    struct tlr_source_tensor *out, struct tlr_err *err);
    /* Rows [row, row + n) as f32 [n, n_cols], in our row order.  Threads may
     * read rows of one tensor at the same time, not of two. */
    int (*read_rows)(struct tlr_source *s, uint32_t i, uint32_t row, uint32_t n,
                     float *dst, struct tlr_err *err);
    /* One band of 16 rows without rounding, in the layout of `exact`;
     * NULL when the source never has such types. row % 16 == 0. */
    int (*read_band_exact)(struct tlr_source *s, uint32_t i, uint32_t row,
                           uint32_t n, void *dst, struct tlr_err *err);
    /* Rows [0, row_end) of tensor i will not be read again soon: give their
     * pages back.  May be NULL; never changes what read_rows returns. */
    void (*drop_rows)(struct tlr_source *s, uint32_t i, uint32_t row_end);
    void (*close)(struct tlr_source *s); /* frees s */
};

/* path: a folder, a .gguf file, or "random:NAME" (qwen2.5-0.5b, ...). */
int tlr_source_open(struct tlr_source **out, const char *path,
                    struct tlr_err *err);
void tlr_source_close(struct tlr_source *s); /* NULL is allowed */

/* The three kinds. */
int tlr_source_open_hf(struct tlr_source **out, const char *dir,
                       struct tlr_err *err);
int tlr_source_open_gguf(struct tlr_source **out, const char *path,
                         struct tlr_err *err);
int tlr_source_open_random(struct tlr_source **out, const char *name,
                           struct tlr_err *err);

#endif
