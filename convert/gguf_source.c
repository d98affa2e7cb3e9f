/* gguf_source.c - a .gguf file as a source: metadata to configuration, names to
 * tensors.
 *
 * What changes the function of the model and is not computed here (experts,
 * sliding windows, logit scales, other rope scalings) is refused by its key.
 * Llama files keep the rows of q and k as interleaved rope pairs; Qwen's do
 * not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/foreign.h"
#include "convert/gguf.h"
#include "convert/gguf_vocab.h"
#include "convert/names.h"
#include "convert/provenance.h"

struct gguf_source {
    struct tlr_foreign base;
    char *path;
    struct tlr_map map;
    struct tlr_gguf gguf;
    struct tlr_vocab_owned vocab;
};

/* "llama" + ".block_count"; arch is one of the table below. */
struct arch {
    const char *name;
    uint32_t family, flags;
    bool pairs; /* q and k rows are interleaved */
};

static const struct arch archs[] = {
    {"llama", TLR_FAMILY_LLAMA, 0, true},
    {"qwen2", TLR_FAMILY_QWEN2, TLR_CONFIG_QKV_BIAS, false},
    {"qwen3", TLR_FAMILY_QWEN3, TLR_CONFIG_QK_NORM, false},
};

static int find_arch(const struct tlr_gguf *g, const struct arch **out,
                     struct tlr_err *err)
{
    struct tlr_bytes name;
    int rc = tlr_gguf_get_string(g, "general.architecture", true, &name, err);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (name.len == strlen(archs[i].name) &&
            memcmp(name.ptr, archs[i].name, name.len) == 0) {
            *out = &archs[i];
            return 0;
        }
    }
    int len = name.len > 64 ? 64 : (int)name.len;
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: architecture %.*s is not supported; expected "
                       "llama, qwen2 or qwen3",
                       g->where, len, (const char *)name.ptr);
}

struct arch_key {
    char text[96];
};

static struct arch_key key_of(const struct arch *arch, const char *rest)
{
    struct arch_key key;
    snprintf(key.text, sizeof key.text, "%s.%s", arch->name, rest);
    return key;
}

static int get_u32(const struct tlr_gguf *g, const struct arch *arch,
                   const char *rest, bool required, uint32_t *out,
                   struct tlr_err *err)
{
    uint64_t value = *out;
    struct arch_key key = key_of(arch, rest);
    int rc = tlr_gguf_get_u64(g, key.text, required, UINT32_MAX, &value, err);
    *out = (uint32_t)value;
    return rc;
}

static int get_f32(const struct tlr_gguf *g, const struct arch *arch,
                   const char *rest, bool required, float *out,
                   struct tlr_err *err)
{
    double value = (double)*out;
    struct arch_key key = key_of(arch, rest);
    int rc = tlr_gguf_get_f64(g, key.text, required, &value, err);
    *out = (float)value;
    return rc;
}

/* ---- what must not be there ---- */

static int refuse_key(const struct tlr_gguf *g, const char *key,
                      const char *expected, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: key %s: expected %s, found another value; tlr does "
                       "not compute this variant: take another model",
                       g->where, key, expected);
}

static int check_rope_scaling(const struct tlr_gguf *g,
                              const struct arch *arch, struct tlr_err *err)
{
    struct arch_key type_key = key_of(arch, "rope.scaling.type");
    struct tlr_bytes type = {(const uint8_t *)"none", 4};
    int rc = tlr_gguf_get_string(g, type_key.text, false, &type, err);
    if (rc) {
        return rc;
    }
    if (type.len != 4 || memcmp(type.ptr, "none", 4) != 0) {
        return refuse_key(g, type_key.text, "\"none\"", err);
    }
    return 0;
}

static int check_variants(const struct tlr_gguf *g, const struct arch *arch,
                          struct tlr_err *err)
{
    static const char *const counts[] = {"expert_count",
                                         "attention.sliding_window",
                                         "nextn_predict_layers"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint32_t value = 0;
        int rc = get_u32(g, arch, counts[i], false, &value, err);
        if (rc) {
            return rc;
        }
        if (value != 0) {
            return refuse_key(g, key_of(arch, counts[i]).text, "0 or no key",
                              err);
        }
    }
    static const char *const factors[] = {
        "logit_scale",          "embedding_scale",
        "residual_scale",       "attention.scale",
        "rope.scaling.factor",  "rope.scaling.attn_factor",
        "rope.scale_linear"};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        float value = 1.0f;
        int rc = get_f32(g, arch, factors[i], false, &value, err);
        if (rc) {
            return rc;
        }
        if (value != 1.0f) {
            return refuse_key(g, key_of(arch, factors[i]).text, "1 or no key",
                              err);
        }
    }
    return check_rope_scaling(g, arch, err);
}

static int check_whole_model(const struct tlr_gguf *g, struct tlr_err *err)
{
    uint64_t n_parts = 1;
    struct tlr_bytes type = {(const uint8_t *)"model", 5};
    int rc = tlr_gguf_get_u64(g, "split.count", false, UINT16_MAX, &n_parts,
                              err);
    if (rc || (rc = tlr_gguf_get_string(g, "general.type", false, &type, err))) {
        return rc;
    }
    if (n_parts > 1) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: expected a whole model, found one of %llu "
                           "parts; join them with llama-gguf-split --merge",
                           g->where, (unsigned long long)n_parts);
    }
    if (type.len != 5 || memcmp(type.ptr, "model", 5) != 0) {
        return refuse_key(g, "general.type", "\"model\"", err);
    }
    return 0;
}

/* ---- configuration ---- */

static bool has_tensor(const struct gguf_source *s, const char *name)
{
    return tlr_foreign_find(&s->base, name) != NULL;
}

/* Heads and their width; the width of q, k, v and rope must be one number. */
static int read_heads(struct gguf_source *s, const struct arch *arch,
                      struct tlr_err *err)
{
    const struct tlr_gguf *g = &s->gguf;
    struct tlr_config *c = &s->base.source.config;
    int rc = get_u32(g, arch, "attention.head_count", true, &c->n_heads, err);
    if (rc) {
        return rc;
    }
    if (c->n_heads == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: key %s.attention.head_count: expected 1..512, "
                           "found 0; the file is damaged",
                           g->where, arch->name);
    }
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->dim / c->n_heads;
    if ((rc = get_u32(g, arch, "attention.head_count_kv", false,
                      &c->n_kv_heads, err)) ||
        (rc = get_u32(g, arch, "attention.key_length", false, &c->head_dim,
                      err))) {
        return rc;
    }
    static const char *const same[] = {"attention.value_length",
                                       "rope.dimension_count"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        uint32_t value = c->head_dim;
        if ((rc = get_u32(g, arch, same[i], false, &value, err))) {
            return rc;
        }
        if (value != c->head_dim) {
            return tlr_err_set(err, TLR_EUNSUPPORTED,
                               "%s: key %s.%s: expected %u, the width of a "
                               "head, found %u; tlr does not compute this "
                               "variant",
                               g->where, arch->name, same[i], c->head_dim,
                               value);
        }
    }
    return 0;
}

static int read_config(struct gguf_source *s, const struct arch *arch,
                       struct tlr_err *err)
{
    const struct tlr_gguf *g = &s->gguf;
    struct tlr_config *c = &s->base.source.config;
    c->family = arch->family;
    c->flags = arch->flags;
    c->rope_theta = 10000.0f; /* ggml's default */
    int rc;
    if ((rc = get_u32(g, arch, "embedding_length", true, &c->dim, err)) ||
        (rc = get_u32(g, arch, "feed_forward_length", true, &c->ffn_dim, err)) ||
        (rc = get_u32(g, arch, "block_count", true, &c->n_layers, err)) ||
        (rc = get_u32(g, arch, "context_length", true, &c->max_ctx, err)) ||
        (rc = get_f32(g, arch, "attention.layer_norm_rms_epsilon", true,
                      &c->rms_eps, err)) ||
        (rc = get_f32(g, arch, "rope.freq_base", false, &c->rope_theta, err)) ||
        (rc = read_heads(s, arch, err))) {
        return rc;
    }
    const struct tlr_foreign_tensor *embed =
        tlr_foreign_find(&s->base, "token_embd.weight");
    if (!embed) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor token_embd.weight is missing; expected "
                           "a language model",
                           g->where);
    }
    c->n_vocab = embed->n_rows > UINT32_MAX ? UINT32_MAX
                                            : (uint32_t)embed->n_rows;
    if (!has_tensor(s, "output.weight")) {
        c->flags |= TLR_CONFIG_TIED_HEAD;
    }
    if (has_tensor(s, "rope_freqs.weight")) {
        c->flags |= TLR_CONFIG_ROPE_FACTORS;
    }
    return tlr_config_check(c, g->where, err);
}

/* ---- tensors ---- */

static int list_tensors(struct gguf_source *s, struct tlr_err *err)
{
    const struct tlr_gguf *g = &s->gguf;
    struct tlr_foreign *f = &s->base;
    f->tensors = tlr_calloc((size_t)g->n_tensors, sizeof *f->tensors);
    if (!f->tensors) {
        return tlr_err_nomem(err, g->where, g->n_tensors * sizeof *f->tensors);
    }
    for (; f->n_tensors < g->n_tensors; f->n_tensors++) {
        const struct tlr_gguf_tensor *t = &g->tensors[f->n_tensors];
        f->tensors[f->n_tensors] = (struct tlr_foreign_tensor){
            .name = t->name,
            .where = g->where,
            .type_name = t->type->name,
            .type = t->type,
            .n_dims = t->n_dims,
            .n_rows = t->ne[1] * t->ne[2] * t->ne[3],
            .n_cols = t->ne[0],
            .data = t->data,
            .n_bytes = t->n_bytes,
            .is_mapped = true,
        };
    }
    return tlr_foreign_sort(f, err);
}

static bool is_q_or_k(const char *ours)
{
    size_t len = strlen(ours);
    return len > 2 && ours[len - 2] == '.' &&
           (ours[len - 1] == 'q' || ours[len - 1] == 'k');
}

static int bind_tensors(struct gguf_source *s, const struct arch *arch,
                        struct tlr_err *err)
{
    struct tlr_foreign *f = &s->base;
    int rc = tlr_foreign_begin(f, err);
    for (uint32_t i = 0; rc == 0 && i < f->n_bound; i++) {
        struct tlr_tensor_want want;
        tlr_config_tensor(&f->source.config, i, &want);
        char name[TLR_FOREIGN_NAME_BYTES];
        tlr_foreign_name(name, want.name, TLR_DIALECT_GGUF);
        uint32_t pair_rows = arch->pairs && is_q_or_k(want.name)
                                 ? f->source.config.head_dim
                                 : 0;
        rc = tlr_foreign_bind(f, i, name, pair_rows, s->path, err);
    }
    return rc ? rc : tlr_foreign_check_unused(f, err);
}

/* ---- chat and generation ---- */

static int read_chat(struct gguf_source *s, struct tlr_err *err)
{
    struct tlr_bytes jinja = {NULL, 0};
    int rc = tlr_gguf_get_string(&s->gguf, "tokenizer.chat_template", false,
                                 &jinja, err);
    if (rc || !jinja.ptr) {
        return rc;
    }
    char *text = tlr_calloc(jinja.len + 1, 1);
    if (!text) {
        return tlr_err_nomem(err, s->path, jinja.len + 1);
    }
    memcpy(text, jinja.ptr, jinja.len);
    rc = tlr_foreign_recognise_chat(&s->base.source, text, err);
    tlr_free(text);
    return rc;
}

/* GGUF has no sampling settings: greedy, and the end tokens. */
static int read_generation(struct gguf_source *s, struct tlr_err *err)
{
    tlr_generation_default(&s->base.source.generation);
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t id = UINT64_MAX;
        int rc = tlr_gguf_get_u64(&s->gguf, keys[i], false, INT32_MAX, &id,
                                  err);
        if (rc == 0 && id != UINT64_MAX) {
            rc = tlr_foreign_add_eos(&s->base.source, (int64_t)id, s->path,
                                     err);
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* ---- open and close ---- */

static void gguf_close(struct tlr_source *source)
{
    struct gguf_source *s = (struct gguf_source *)source;
    tlr_vocab_owned_clear(&s->vocab);
    tlr_gguf_clear(&s->gguf);
    tlr_map_close(&s->map);
    tlr_foreign_clear(&s->base);
    tlr_free(s->path);
    tlr_free(s);
}

static const struct tlr_source_ops gguf_ops = {
    .describe = tlr_foreign_describe,
    .read_rows = tlr_foreign_read_rows,
    .read_band_exact = tlr_foreign_read_band,
    .drop_rows = tlr_foreign_drop_rows,
    .close = gguf_close,
};

static int read_all(struct gguf_source *s, struct tlr_err *err)
{
    const struct tlr_gguf *g = &s->gguf;
    struct tlr_source *source = &s->base.source;
    const struct arch *arch = NULL;
    int rc;
    if ((rc = tlr_map_open(&s->map, s->path, false, err)) ||
        (rc = tlr_gguf_parse(&s->gguf, s->map.ptr, s->map.len, s->path, err)) ||
        (rc = check_whole_model(g, err)) || (rc = find_arch(g, &arch, err)) ||
        (rc = check_variants(g, arch, err)) || (rc = list_tensors(s, err)) ||
        (rc = read_config(s, arch, err)) ||
        (rc = bind_tensors(s, arch, err)) ||
        (rc = tlr_gguf_vocab_read(&s->vocab, g, err))) {
        return rc;
    }
    source->vocab = s->vocab.vocab;
    if ((rc = tlr_foreign_check_vocab(source, err)) ||
        (rc = read_chat(s, err)) || (rc = read_generation(s, err)) ||
        (rc = tlr_foreign_finish(source, s->path, err))) {
        return rc;
    }
    json_t *sources = json_array();
    if (!sources) {
        return tlr_err_nomem(err, s->path, 0);
    }
    rc = tlr_provenance_add(sources, s->path, s->map.ptr, s->map.len, err);
    if (rc) {
        json_decref(sources);
        return rc;
    }
    return tlr_provenance_text(&source->provenance_json, "gguf", sources, err);
}

int tlr_source_open_gguf(struct tlr_source **out, const char *path,
                         struct tlr_err *err)
{
    *out = NULL;
    struct gguf_source *s = tlr_calloc(1, sizeof *s);
    if (!s) {
        return tlr_err_nomem(err, path, sizeof *s);
    }
    s->base.source.ops = &gguf_ops;
    s->base.carries = true;
    s->path = tlr_strdup(path);
    s->base.source.vocab_where = s->path;
    int rc = s->path ? read_all(s, err) : tlr_err_nomem(err, path, 0);
    if (rc) {
        gguf_close(&s->base.source);
        return rc;
    }
    *out = &s->base.source;
    return 0;
}
