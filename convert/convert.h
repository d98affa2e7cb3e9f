/* convert.h - foreign model in, model.bin out. */
#ifndef TLR_CONVERT_CONVERT_H
#define TLR_CONVERT_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "convert/source.h"

/* What the matrices become.  An enum tlr_type is for all of them alike; a recipe
 * gives each the type that suits it: the LM head (the embedding table, if tied)
 * is q8p, which can be searched at 4-bit traffic. */
enum tlr_recipe {
    TLR_RECIPE_KEEP = -1,            /* what carries over without loss, else as
                                        TLR_RECIPE_Q8 */
    TLR_RECIPE_Q8 = TLR_N_TYPES,     /* q8, head q8p */
    TLR_RECIPE_Q4 = TLR_N_TYPES + 1, /* q4n, head q8p; q4 where the source has
                                        such blocks */
    TLR_RECIPES_END
};

/* "q8" and "q4" are the recipes, "q8-plain" and "q4-plain" the types, all other
 * names types.  false when there is none of that name. */
bool tlr_convert_type_parse(const char *name, int *out);
#define TLR_CONVERT_TYPES "f32|bf16|q8|q4|q4m|q4n|q8-plain|q4-plain"
/* NULL for TLR_RECIPE_KEEP and what is neither. */
const char *tlr_convert_type_name(int type);

struct tlr_convert_options {
    int type; /* enum tlr_type or enum tlr_recipe */
    /* A text that the model reads first (NULL: none): the matrices of its layers
     * that become q4n are then rounded so that their errors cancel on it.
     * TLR_EUSAGE where none does. */
    const char *calibration_text;
    size_t calibration_bytes;
    uint32_t calibration_tok; /* that are read, at most */
    /* Bytes of what is gathered on it at a time, 0: 640 MiB.  Less means that it
     * is read more often, one layer's worth is the least; the model is the same. */
    uint64_t calibration_memory;
    bool verify; /* compare as tlr_convert_verify does before the model takes
                    its name; progress then counts both passes */
    int (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes,
                    const char *tensor); /* may be NULL; non-zero cancels */
    void *progress_ctx;
};

/* What happened, for the report. */
struct tlr_convert_report {
    uint32_t n_tensors, n_exact, n_rounded;
    uint32_t n_by_type[TLR_N_TYPES];
    uint32_t n_fallback; /* matrices whose width does not divide into tiles:
                            kept as bf16 */
    uint64_t out_bytes;
    double max_rel_rms; /* worst tensor: rms(error) / rms(weights) */
    char worst[64];
};

/* Converts an open source into out_path (temp + fsync + rename): on failure,
 * that of options->verify included, what was there before stays. */
int tlr_convert(struct tlr_source *src, const char *out_path,
                const struct tlr_convert_options *options,
                struct tlr_convert_report *report, struct tlr_err *err);
/* The same into a descriptor (tlr bench --random), which verify reads. */
int tlr_convert_fd(struct tlr_source *src, int fd, const char *label,
                   const struct tlr_convert_options *options,
                   struct tlr_convert_report *report, struct tlr_err *err);

/* Re-reads both and compares every element: exact tensors to the bit, rounded
 * ones within half a step of their block. */
int tlr_convert_verify(struct tlr_source *src, const char *model_path,
                       const struct tlr_convert_options *options,
                       struct tlr_err *err);
/* The same for an open descriptor, which stays the caller's; label is the name
 * that messages use. */
int tlr_convert_verify_fd(struct tlr_source *src, int fd, const char *label,
                          const struct tlr_convert_options *options,
                          struct tlr_err *err);

#endif
