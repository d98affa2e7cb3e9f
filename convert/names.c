/* names.c - what the two foreign worlds call our tensors: one table. */
#include "convert/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct name_row {
    const char *ours, *of[TLR_N_DIALECTS]; /* GGUF, Hugging Face */
};

static const struct name_row whole_model[] = {
    {"embed", {"token_embd.weight", "model.embed_tokens.weight"}},
    {"head", {"output.weight", "lm_head.weight"}},
    {"final_norm", {"output_norm.weight", "model.norm.weight"}},
    {"rope_factors", {"rope_freqs.weight", "rope_factors"}},
    {NULL, {NULL, NULL}},
};

static const struct name_row per_block[] = {
    {"attn_norm", {"attn_norm.weight", "input_layernorm.weight"}},
    {"q", {"attn_q.weight", "self_attn.q_proj.weight"}},
    {"k", {"attn_k.weight", "self_attn.k_proj.weight"}},
    {"v", {"attn_v.weight", "self_attn.v_proj.weight"}},
    {"q_bias", {"attn_q.bias", "self_attn.q_proj.bias"}},
    {"k_bias", {"attn_k.bias", "self_attn.k_proj.bias"}},
    {"v_bias", {"attn_v.bias", "self_attn.v_proj.bias"}},
    {"q_norm", {"attn_q_norm.weight", "self_attn.q_norm.weight"}},
    {"k_norm", {"attn_k_norm.weight", "self_attn.k_norm.weight"}},
    {"o", {"attn_output.weight", "self_attn.o_proj.weight"}},
    {"ffn_norm", {"ffn_norm.weight", "post_attention_layernorm.weight"}},
    {"gate", {"ffn_gate.weight", "mlp.gate_proj.weight"}},
    {"up", {"ffn_up.weight", "mlp.up_proj.weight"}},
    {"down", {"ffn_down.weight", "mlp.down_proj.weight"}},
    {NULL, {NULL, NULL}},
};

static const char *look_up(const struct name_row *rows, const char *ours,
                           enum tlr_dialect dialect)
{
    for (; rows->ours; rows++) {
        if (strcmp(rows->ours, ours) == 0) {
            return rows->of[dialect];
        }
    }
    return "?"; /* bound to nothing: the tensor is then reported missing */
}

void tlr_foreign_name(char out[TLR_FOREIGN_NAME_BYTES], const char *ours,
                      enum tlr_dialect dialect)
{
    static const char *const prefix[TLR_N_DIALECTS] = {"blk", "model.layers"};
    if (strncmp(ours, "blk.", 4) != 0) {
        snprintf(out, TLR_FOREIGN_NAME_BYTES, "%s",
                 look_up(whole_model, ours, dialect));
        return;
    }
    char *rest;
    unsigned long block = strtoul(ours + 4, &rest, 10);
    snprintf(out, TLR_FOREIGN_NAME_BYTES, "%s.%lu.%s", prefix[dialect], block,
             look_up(per_block, *rest ? rest + 1 : rest, dialect));
}
