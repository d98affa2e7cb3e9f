/* lora_config.h - adapter_config.json of a PEFT LoRA folder, from parsed JSON. */
#ifndef TLR_CONVERT_LORA_CONFIG_H
#define TLR_CONVERT_LORA_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { TLR_LORA_MAX_RANK = 65536 };

struct tlr_lora_config {
    uint32_t rank;
    double alpha;
    bool is_rslora; /* scale alpha / sqrt(rank), not alpha / rank */
    /* Exceptions by module name; borrowed from the parsed file, may be NULL. */
    const json_t *rank_pattern, *alpha_pattern;
};

/* Everything that would make W + scale * B A another model than the adapter's
 * is refused by its key; root must outlive out. */
int tlr_lora_config_read(struct tlr_lora_config *out, const json_t *root,
                         const char *where, struct tlr_err *err);

/* Rank and scale of a module ("model.layers.0.self_attn.q_proj"). */
void tlr_lora_config_module(const struct tlr_lora_config *c,
                            const char *module, uint32_t *rank, float *scale);

#endif
