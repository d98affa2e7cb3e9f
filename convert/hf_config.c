/* hf_config.c - hyper-parameters as transformers writes them.
 *
 * Two spellings of rope settings are read: rope_theta + rope_scaling (up to
 * transformers 4) and rope_parameters (from 5).  Llama-3 scaling follows
 * "_compute_llama3_parameters" of transformers' modeling_rope_utils: each
 * inverse frequency is divided by a factor between 1 and `factor`.
 */
#include "convert/hf_config.h"

#include <math.h>
#include <string.h>

#include "convert/json_file.h"

static const struct {
    const char *architecture, *model_type;
    uint32_t family, flags;
} families[] = {
    {"Qwen2ForCausalLM", "qwen2", TLR_FAMILY_QWEN2, TLR_CONFIG_QKV_BIAS},
    {"Qwen3ForCausalLM", "qwen3", TLR_FAMILY_QWEN3, TLR_CONFIG_QK_NORM},
    {"LlamaForCausalLM", "llama", TLR_FAMILY_LLAMA, 0},
};

static int unsupported(const char *where, const char *key,
                       const char *expected, const char *found,
                       struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: %s: expected %s, found %.64s; tlr does not compute "
                       "this variant: take another model",
                       where, key, expected, found);
}

static int read_family(struct tlr_config *c, const json_t *root,
                       const char *where, struct tlr_err *err)
{
    const json_t *list = json_object_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(json_object_get(root, "model_type"));
    for (size_t i = 0; name && i < sizeof families / sizeof *families; i++) {
        if (strcmp(name, families[i].architecture) == 0) {
            if (type && strcmp(type, families[i].model_type) != 0) {
                return unsupported(where, "model_type",
                                   families[i].model_type, type, err);
            }
            c->family = families[i].family;
            c->flags = families[i].flags;
            return 0;
        }
    }
    return tlr_err_set(err, name ? TLR_EUNSUPPORTED : TLR_EFORMAT,
                       "%s: architectures: expected Qwen2ForCausalLM, "
                       "Qwen3ForCausalLM or LlamaForCausalLM, found %.64s; "
                       "take a model of one of these",
                       where, name ? name : "none");
}

/* ---- variants that are not computed ---- */

static int check_flag(const json_t *root, const char *key, const char *where,
                      struct tlr_err *err)
{
    bool value = false;
    int rc = tlr_json_get_bool(root, key, &value, where, err);
    if (rc == 0 && value) {
        rc = unsupported(where, key, "false", "true", err);
    }
    return rc;
}

static int check_layers(const json_t *root, const char *where,
                        struct tlr_err *err)
{
    const json_t *list = json_object_get(root, "layer_types");
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        const char *type = json_string_value(value);
        if (!type || strcmp(type, "full_attention") != 0) {
            return unsupported(where, "layer_types", "full_attention only",
                               type ? type : "another value", err);
        }
    }
    return 0;
}

static int check_variants(const struct tlr_config *c, const json_t *root,
                          const char *where, struct tlr_err *err)
{
    const char *act = "silu";
    double rotary = 1.0;
    int rc;
    if ((rc = tlr_json_get_string(root, "hidden_act", false, &act, where,
                                  err)) ||
        (rc = tlr_json_get_f64(root, "partial_rotary_factor", false, &rotary,
                               where, err)) ||
        (rc = check_flag(root, "use_sliding_window", where, err)) ||
        (rc = check_flag(root, "mlp_bias", where, err)) ||
        (rc = check_layers(root, where, err))) {
        return rc;
    }
    if (c->family != TLR_FAMILY_QWEN2 &&
        (rc = check_flag(root, "attention_bias", where, err))) {
        return rc;
    }
    if (strcmp(act, "silu") != 0) {
        return unsupported(where, "hidden_act", "silu", act, err);
    }
    if (rotary != 1.0) {
        return unsupported(where, "partial_rotary_factor", "1", "another value",
                           err);
    }
    const json_t *quant = json_object_get(root, "quantization_config");
    if (quant && !json_is_null(quant)) {
        return unsupported(where, "quantization_config", "none (unquantised "
                           "weights)", "one", err);
    }
    return 0;
}

/* ---- rope ---- */

struct llama3_scaling {
    double factor, low, high, original_ctx;
};

static int read_llama3(struct llama3_scaling *s, const json_t *rope,
                       const char *where, struct tlr_err *err)
{
    int rc;
    if ((rc = tlr_json_get_f64(rope, "factor", true, &s->factor, where, err)) ||
        (rc = tlr_json_get_f64(rope, "low_freq_factor", true, &s->low, where,
                               err)) ||
        (rc = tlr_json_get_f64(rope, "high_freq_factor", true, &s->high, where,
                               err)) ||
        (rc = tlr_json_get_f64(rope, "original_max_position_embeddings", true,
                               &s->original_ctx, where, err))) {
        return rc;
    }
    if (!(s->factor >= 1.0 && s->factor <= 1e6 && s->low > 0.0 &&
          s->high > s->low && s->high <= 1e6 && s->original_ctx >= 1.0 &&
          s->original_ctx <= 1e9)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: rope scaling llama3: expected factor >= 1, 0 < "
                           "low_freq_factor < high_freq_factor and a positive "
                           "original context; found %g, %g, %g, %g: the file "
                           "is damaged",
                           where, s->factor, s->low, s->high, s->original_ctx);
    }
    return 0;
}

/* Divisor of the i-th inverse frequency theta^(-2i/head_dim). */
static double llama3_factor(const struct llama3_scaling *s, double theta,
                            uint32_t i, uint32_t head_dim)
{
    const double two_pi = 6.283185307179586;
    double wavelength = two_pi * pow(theta, 2.0 * i / head_dim);
    if (wavelength < s->original_ctx / s->high) {
        return 1.0;
    }
    if (wavelength > s->original_ctx / s->low) {
        return s->factor;
    }
    double smooth = (s->original_ctx / wavelength - s->low) / (s->high - s->low);
    return 1.0 / ((1.0 - smooth) / s->factor + smooth);
}

/* rope: the object that holds the scaling, NULL for none. */
static int read_scaling(struct tlr_hf_config *out, const json_t *rope,
                        const char *key, const char *where,
                        struct tlr_err *err)
{
    const char *type = "default";
    struct llama3_scaling s;
    int rc;
    if ((rc = tlr_json_get_string(rope, "type", false, &type, where, err)) ||
        (rc = tlr_json_get_string(rope, "rope_type", false, &type, where,
                                  err))) {
        return rc;
    }
    if (strcmp(type, "default") == 0) {
        return 0;
    }
    if (strcmp(type, "llama3") != 0) {
        return unsupported(where, key, "type default or llama3", type, err);
    }
    if ((rc = read_llama3(&s, rope, where, err))) {
        return rc;
    }
    uint32_t head_dim = out->config.head_dim;
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        out->rope_factors[i] =
            (float)llama3_factor(&s, out->rope_theta, i, head_dim);
    }
    out->config.flags |= TLR_CONFIG_ROPE_FACTORS;
    return 0;
}

static int check_object(const json_t *value, const char *key,
                        const char *where, struct tlr_err *err)
{
    if (!value || json_is_null(value) || json_is_object(value)) {
        return 0;
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s: expected an object, found %s; download the "
                       "file again",
                       where, key, tlr_json_type_name(value));
}

static const json_t *rope_object(const json_t *root, const char **key)
{
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    const json_t *value = NULL;
    for (int i = 0; i < 2 && (!value || json_is_null(value)); i++) {
        *key = keys[i];
        value = json_object_get(root, keys[i]);
    }
    return value;
}

static int read_theta(struct tlr_hf_config *out, const json_t *root,
                      const char *where, struct tlr_err *err)
{
    const char *key = "";
    const json_t *rope = rope_object(root, &key);
    out->rope_theta = 10000.0; /* transformers' default */
    int rc;
    if ((rc = check_object(rope, key, where, err)) ||
        (rc = tlr_json_get_f64(root, "rope_theta", false, &out->rope_theta,
                               where, err)) ||
        (rc = tlr_json_get_f64(rope, "rope_theta", false, &out->rope_theta,
                               where, err))) {
        return rc;
    }
    out->config.rope_theta = (float)out->rope_theta;
    return 0;
}

/* ---- the whole ---- */

static int read_numbers(struct tlr_config *c, const json_t *root,
                        const char *where, struct tlr_err *err)
{
    double eps = 1e-6; /* transformers' default */
    bool is_tied = false;
    int rc;
    if ((rc = tlr_json_get_u32(root, "hidden_size", true, &c->dim, where,
                               err)) ||
        (rc = tlr_json_get_u32(root, "intermediate_size", true, &c->ffn_dim,
                               where, err)) ||
        (rc = tlr_json_get_u32(root, "num_hidden_layers", true, &c->n_layers,
                               where, err)) ||
        (rc = tlr_json_get_u32(root, "num_attention_heads", true, &c->n_heads,
                               where, err)) ||
        (rc = tlr_json_get_u32(root, "vocab_size", true, &c->n_vocab, where,
                               err)) ||
        (rc = tlr_json_get_u32(root, "max_position_embeddings", true,
                               &c->max_ctx, where, err)) ||
        (rc = tlr_json_get_f64(root, "rms_norm_eps", false, &eps, where,
                               err)) ||
        (rc = tlr_json_get_bool(root, "tie_word_embeddings", &is_tied, where,
                                err))) {
        return rc;
    }
    c->rms_eps = (float)eps;
    c->flags |= is_tied ? TLR_CONFIG_TIED_HEAD : 0;
    c->n_kv_heads = c->n_heads;
    if ((rc = tlr_json_get_u32(root, "num_key_value_heads", false,
                               &c->n_kv_heads, where, err))) {
        return rc;
    }
    /* 0 heads: left to tlr_config_check. */
    c->head_dim = c->n_heads ? c->dim / c->n_heads : 0;
    return tlr_json_get_u32(root, "head_dim", false, &c->head_dim, where, err);
}

int tlr_hf_config_read(struct tlr_hf_config *out, const json_t *root,
                       const char *where, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    struct tlr_config *c = &out->config;
    int rc;
    if ((rc = read_family(c, root, where, err)) ||
        (rc = check_variants(c, root, where, err)) ||
        (rc = read_numbers(c, root, where, err)) ||
        (rc = read_theta(out, root, where, err)) ||
        (rc = tlr_config_check(c, where, err))) {
        return rc;
    }
    const char *key = "";
    const json_t *rope = rope_object(root, &key);
    return read_scaling(out, rope, key, where, err);
}

/* ---- generation_config.json ---- */

int tlr_hf_eos_read(int64_t ids[TLR_MAX_EOS], const json_t *root,
                    const char *where, struct tlr_err *err)
{
    const json_t *value = json_object_get(root, "eos_token_id");
    if (!value || json_is_null(value)) {
        return 0;
    }
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > TLR_MAX_EOS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: eos_token_id: expected at most %d ids, found "
                           "%zu; shorten the list",
                           where, TLR_MAX_EOS, n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i)
                                                : value;
        if (!json_is_integer(id)) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: eos_token_id: expected a token id or a "
                               "list of them, found %s; download the file "
                               "again",
                               where, tlr_json_type_name(id));
        }
        ids[i] = json_integer_value(id);
    }
    return (int)n;
}

int tlr_hf_generation_read(struct tlr_generation *out, const json_t *root,
                           const char *where, struct tlr_err *err)
{
    /* What transformers samples with where the file is silent. */
    double temperature = 1.0, top_p = 1.0, min_p = 0.0, penalty = 1.0;
    uint64_t top_k = 50;
    bool samples = false;
    tlr_generation_default(out);
    int rc;
    if ((rc = tlr_json_get_bool(root, "do_sample", &samples, where, err)) ||
        (rc = tlr_json_get_f64(root, "temperature", false, &temperature, where,
                               err)) ||
        (rc = tlr_json_get_f64(root, "top_p", false, &top_p, where, err)) ||
        (rc = tlr_json_get_f64(root, "min_p", false, &min_p, where, err)) ||
        (rc = tlr_json_get_f64(root, "repetition_penalty", false, &penalty,
                               where, err)) ||
        (rc = tlr_json_get_u64(root, "top_k", false, INT32_MAX, &top_k, where,
                               err))) {
        return rc;
    }
    out->temperature = samples ? (float)temperature : 0.0f;
    out->top_k = (int)top_k;
    out->top_p = (float)top_p;
    out->min_p = (float)min_p;
    out->repeat_penalty = (float)penalty;
    return 0;
}
