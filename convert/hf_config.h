/* hf_config.h - config.json and generation_config.json of a Hugging Face
 * folder, from parsed JSON.
 */
#ifndef TLR_CONVERT_HF_CONFIG_H
#define TLR_CONVERT_HF_CONFIG_H

#include <jansson.h>

#include "base/err.h"
#include "engine/generation.h"
#include "weights/model_file.h"

/* What config.json says beyond struct tlr_config. */
struct tlr_hf_config {
    struct tlr_config config;
    double rope_theta;
    /* rope_factors as they will be stored, if flagged: [head_dim / 2] */
    float rope_factors[256];
};

/* Everything that would change the computation and is not computed here is
 * refused by name. */
int tlr_hf_config_read(struct tlr_hf_config *out, const json_t *root,
                       const char *where, struct tlr_err *err);

/* Sampling settings; root NULL: there is no such file.  do_sample false or
 * absent is greedy. */
int tlr_hf_generation_read(struct tlr_generation *out, const json_t *root,
                           const char *where, struct tlr_err *err);

/* eos_token_id of either file: an id, a list of ids or null.  Returns the
 * count, or a negative code. */
int tlr_hf_eos_read(int64_t ids[TLR_MAX_EOS], const json_t *root,
                    const char *where, struct tlr_err *err);

#endif
