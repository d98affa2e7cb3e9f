/* model.h - inside of a model handle: the tensors of each layer by role. */
#ifndef TLR_ENGINE_MODEL_H
#define TLR_ENGINE_MODEL_H

#include "engine/tlr.h"

/* Tensors of one block; what the configuration does not flag is NULL. */
struct tlr_layer {
    const struct tlr_tensor *q, *k, *v, *o, *gate, *up, *down;
    const float *attn_norm, *ffn_norm;       /* [dim] */
    const float *q_bias, *k_bias, *v_bias;   /* [rows of q, k, v] */
    const float *q_norm, *k_norm;            /* [head_dim] */
};

struct tlr_model {
    struct tlr_file *file;
    const struct tlr_config *config;
    struct tlr_tokenizer *tokenizer; /* NULL: none */
    struct tlr_chat chat;
    bool has_chat;
    struct tlr_generation generation;
    const struct tlr_tensor *embed, *head; /* head == embed when tied */
    const float *final_norm;               /* [dim] */
    const float *rope_factors;             /* [head_dim/2] or NULL */
    struct tlr_layer *layers;              /* [n_layers] */
    uint32_t n_ids;
    uint64_t bytes_per_token;
    uint64_t fingerprint; /* of configuration and tensor checksums */
    bool is_f32;          /* every tensor is f32 */
    /* Of the matrices that are multiplied: */
    bool has_tiled, has_plain; /* plain: f32 or bf16 */
    uint32_t widest_bf16;      /* n_cols; 0: none */
};

#endif
