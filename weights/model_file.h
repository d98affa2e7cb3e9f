/* model_file.h - the model file: one mmap, checked once, trusted afterwards.
 *
 * FORMAT.md has every byte.  The reader believes nothing: a file that passes
 * tlr_file_open has in-bounds, aligned, non-overlapping sections and tensors,
 * a configuration within limits, and exactly the tensors, types and shapes that
 * this configuration needs.  Tensor *data* is covered by checksums that
 * tlr_file_verify (tlr inspect --verify) reads; opening does not.
 */
#ifndef TLR_WEIGHTS_MODEL_FILE_H
#define TLR_WEIGHTS_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "kernels/quant.h"

enum tlr_family {
    TLR_FAMILY_LLAMA = 1, /* Llama 2/3, SmolLM2, TinyLlama */
    TLR_FAMILY_QWEN2 = 2, /* Qwen2, Qwen2.5: bias on q, k, v */
    TLR_FAMILY_QWEN3 = 3  /* RMSNorm on each head of q and k */
};

enum tlr_config_flags {
    TLR_CONFIG_QKV_BIAS = 1u << 0,
    TLR_CONFIG_QK_NORM = 1u << 1,
    TLR_CONFIG_TIED_HEAD = 1u << 2,  /* LM head = embedding table */
    TLR_CONFIG_ROPE_FACTORS = 1u << 3 /* tensor rope_factors present */
};

struct tlr_config {
    uint32_t family;     /* enum tlr_family */
    uint32_t flags;      /* enum tlr_config_flags */
    uint32_t dim;        /* width of the hidden state */
    uint32_t ffn_dim;
    uint32_t n_layers;
    uint32_t n_heads;    /* query heads */
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t n_vocab;    /* rows of the embedding table (may exceed the ids) */
    uint32_t max_ctx;    /* positions the model was trained for */
    float rms_eps;
    float rope_theta;
};

/* Limits that every configuration is held to, wherever it comes from:
 * layers 1..512, heads 1..512, n_kv_heads divides n_heads, head_dim even,
 * multiple of 8 and <= 512, dim and ffn_dim 1..65536, n_vocab 1..2^20,
 * max_ctx 1..2^20, eps in (0, 1), theta in (1, 1e9), family known, no unknown
 * flags.  `where` opens the message ("config.json", "model.bin: config"). */
int tlr_config_check(const struct tlr_config *c, const char *where,
                     struct tlr_err *err);

/* Tensors of a model, in file order, as functions of the configuration:
 *   embed [n_vocab, dim]   head [n_vocab, dim] unless tied   final_norm [1, dim]
 *   rope_factors [1, head_dim/2] f32, if flagged (inverse frequencies are
 *       divided by them: llama3 scaling, GGUF rope_freqs)
 *   blk.N.attn_norm [1, dim]
 *   blk.N.q [n_heads*head_dim, dim]  blk.N.k, blk.N.v [n_kv_heads*head_dim, dim]
 *   blk.N.q_bias [1, n_heads*head_dim], k_bias, v_bias likewise, if flagged
 *   blk.N.q_norm, blk.N.k_norm [1, head_dim], if flagged
 *   blk.N.o [dim, n_heads*head_dim]
 *   blk.N.ffn_norm [1, dim]  blk.N.gate, blk.N.up [ffn_dim, dim]
 *   blk.N.down [dim, ffn_dim]
 * Vectors ([1, n]) are always f32; matrices any type of quant.h. */
struct tlr_tensor_want {
    char name[48];
    uint32_t n_rows, n_cols;
    bool is_matrix;
};

/* Number of tensors, and the i-th one (i < count). */
uint32_t tlr_config_n_tensors(const struct tlr_config *c);
void tlr_config_tensor(const struct tlr_config *c, uint32_t i,
                       struct tlr_tensor_want *out);

enum tlr_section {
    TLR_SECTION_CONFIG = 1,     /* struct above, fixed layout (FORMAT.md) */
    TLR_SECTION_TOKENIZER = 2,  /* binary, engine/vocab.h */
    TLR_SECTION_CHAT = 3,       /* JSON, engine/chat.h */
    TLR_SECTION_GENERATION = 4, /* JSON, engine/generation.h */
    TLR_SECTION_PROVENANCE = 5, /* JSON: sources, sha256, options, version */
    TLR_SECTION_ROUTER = 6      /* optional; the router's own format */
};

struct tlr_tensor {
    const char *name;     /* NUL-terminated, owned by the file */
    enum tlr_type type;
    uint32_t n_rows, n_cols;
    const void *data;     /* 64-byte aligned, in the map */
    uint64_t n_bytes;     /* == tlr_matrix_bytes(type, n_rows, n_cols) */
    uint32_t crc32;       /* of the data */
};

struct tlr_file; /* an open model file, read-only, shareable by threads */

struct tlr_file_options {
    bool populate; /* read all pages in now, sequentially */
};

/* options may be NULL (populate).  Messages start with the path. */
int tlr_file_open(struct tlr_file **out, const char *path,
                  const struct tlr_file_options *options, struct tlr_err *err);
/* Same for an open descriptor, which stays the caller's. */
int tlr_file_open_fd(struct tlr_file **out, int fd, const char *label,
                     const struct tlr_file_options *options,
                     struct tlr_err *err);
/* Same for bytes in memory, 64-byte aligned, which must outlive the file: the
 * entry of the fuzz target. */
int tlr_file_open_bytes(struct tlr_file **out, const void *bytes, size_t len,
                        const char *label, struct tlr_err *err);
void tlr_file_close(struct tlr_file *f); /* NULL is allowed */

const struct tlr_config *tlr_file_config(const struct tlr_file *f);
uint32_t tlr_file_n_tensors(const struct tlr_file *f);
const struct tlr_tensor *tlr_file_tensor_at(const struct tlr_file *f,
                                            uint32_t i);
/* NULL when there is none of that name. */
const struct tlr_tensor *tlr_file_tensor(const struct tlr_file *f,
                                         const char *name);
/* ptr NULL and len 0 when the section is absent. */
struct tlr_bytes tlr_file_section(const struct tlr_file *f,
                                  enum tlr_section section);
uint64_t tlr_file_bytes(const struct tlr_file *f);
const char *tlr_file_label(const struct tlr_file *f);
uint32_t tlr_file_version(const struct tlr_file *f);
/* Equal for two files that compute the same function of token ids: made of the
 * configuration and of name, type and checksum of every tensor (FORMAT.md), not
 * of tokenizer or defaults.  Guards snapshots against mistakes, not attacks. */
uint64_t tlr_file_fingerprint(const struct tlr_file *f);

/* Called between tensors; non-zero cancels (TLR_ECANCELLED). */
typedef int (*tlr_progress_fn)(void *ctx, uint64_t done_bytes,
                               uint64_t total_bytes);

/* Reads all data: checksums of sections and tensors, scales and f32/bf16 values
 * finite.  The first bad tensor is named. */
int tlr_file_verify(const struct tlr_file *f, tlr_progress_fn progress,
                    void *ctx, struct tlr_err *err);

/* ---- writing: begin, sections and tensors in any number, commit ---- */

struct tlr_writer;

/* types[i] is the type of the i-th tensor of tlr_config_tensor; the layout of
 * the file follows from it.  Writes to a temporary (base/file.h). */
int tlr_writer_begin(struct tlr_writer **out, const char *path,
                     const struct tlr_config *config,
                     const enum tlr_type *types, struct tlr_err *err);
/* Same into an open descriptor (a memfd, an unlinked file), which stays the
 * caller's. */
int tlr_writer_begin_fd(struct tlr_writer **out, int fd, const char *label,
                        const struct tlr_config *config,
                        const enum tlr_type *types, struct tlr_err *err);
/* All sections before the first tensor, each once; CONFIG is written by begin. */
int tlr_writer_section(struct tlr_writer *w, enum tlr_section section,
                       const void *data, size_t len, struct tlr_err *err);
/* Appends data of the tensor in turn (file order); pieces of any size.  Moves
 * to the next tensor when its last byte is there. */
int tlr_writer_data(struct tlr_writer *w, const void *data, size_t len,
                    struct tlr_err *err);
/* All data must be there.  Writes checksums and header last: *fd, which stays
 * w's, is then the whole model, but not under its name yet (tlr_file_open_fd
 * reads it).  Only commit and abort may follow. */
int tlr_writer_finish(struct tlr_writer *w, int *fd, struct tlr_err *err);
/* Finishes, where that was not done, and gives the file its name.  Frees w, also
 * on failure. */
int tlr_writer_commit(struct tlr_writer *w, struct tlr_err *err);
void tlr_writer_abort(struct tlr_writer *w); /* NULL is allowed */

/* Writes f to path, which may be where f was opened (f stays usable), with the
 * bytes of one section in the place of what it has; no bytes: without it.  Not
 * for CONFIG.  A tensor that does not match its checksum is TLR_EFORMAT, and path
 * stays as it was. */
int tlr_file_rewrite(const struct tlr_file *f, const char *path,
                     enum tlr_section section, struct tlr_bytes bytes,
                     tlr_progress_fn progress, void *ctx, struct tlr_err *err);

#endif
