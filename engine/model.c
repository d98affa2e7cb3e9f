/* model.c - an open model file with its tensors resolved by role.
 *
 * Owns the file, the tokenizer, the chat pieces and the generation defaults;
 * read-only once open, so any number of sessions share it.  The file reader has
 * already checked shapes and types; what is checked here is how the parts fit
 * together (a vocabulary larger than the embedding table).
 */
#include "engine/model.h"

#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"

/* Tensor "blk.N.<role>", or NULL. */
static const struct tlr_tensor *block_tensor(const struct tlr_file *f,
                                             uint32_t layer, const char *role)
{
    char name[48];
    snprintf(name, sizeof name, "blk.%u.%s", (unsigned)layer, role);
    return tlr_file_tensor(f, name);
}

static const float *block_vector(const struct tlr_file *f, uint32_t layer,
                                 const char *role)
{
    const struct tlr_tensor *t = block_tensor(f, layer, role);
    return t ? t->data : NULL;
}

static void resolve_layer(struct tlr_layer *l, const struct tlr_file *f,
                          uint32_t i)
{
    l->q = block_tensor(f, i, "q");
    l->k = block_tensor(f, i, "k");
    l->v = block_tensor(f, i, "v");
    l->o = block_tensor(f, i, "o");
    l->gate = block_tensor(f, i, "gate");
    l->up = block_tensor(f, i, "up");
    l->down = block_tensor(f, i, "down");
    l->attn_norm = block_vector(f, i, "attn_norm");
    l->ffn_norm = block_vector(f, i, "ffn_norm");
    l->q_bias = block_vector(f, i, "q_bias");
    l->k_bias = block_vector(f, i, "k_bias");
    l->v_bias = block_vector(f, i, "v_bias");
    l->q_norm = block_vector(f, i, "q_norm");
    l->k_norm = block_vector(f, i, "k_norm");
}

/* What kinds of matrices a step multiplies. */
static void note_matrix(struct tlr_model *m, const struct tlr_tensor *t)
{
    bool is_tiled = tlr_type_is_tiled(t->type);
    m->has_tiled = m->has_tiled || is_tiled;
    m->has_plain = m->has_plain || !is_tiled;
    if (t->type == TLR_BF16 && t->n_cols > m->widest_bf16) {
        m->widest_bf16 = t->n_cols;
    }
}

static void note_layer(struct tlr_model *m, const struct tlr_layer *l)
{
    const struct tlr_tensor *const all[] = {l->q,    l->k,  l->v,   l->o,
                                            l->gate, l->up, l->down};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        note_matrix(m, all[i]);
    }
}

/* Configuration and tensor checksums in one number: tells a snapshot of this
 * model from one of another. */
static uint64_t fingerprint(const struct tlr_file *f)
{
    const struct tlr_config *c = tlr_file_config(f);
    uint64_t h = tlr_hash_u64(c->family, c->flags);
    const uint32_t fields[] = {c->dim,        c->ffn_dim,  c->n_layers,
                               c->n_heads,    c->n_kv_heads, c->head_dim,
                               c->n_vocab};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        h = tlr_hash_u64(h, fields[i]);
    }
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        h = tlr_hash_u64(h, ((uint64_t)t->type << 32) | t->crc32);
    }
    return h;
}

static int resolve(struct tlr_model *m, struct tlr_err *err)
{
    const struct tlr_file *f = m->file;
    const struct tlr_config *c = m->config;
    m->layers = tlr_calloc(c->n_layers, sizeof *m->layers);
    if (!m->layers) {
        return tlr_err_nomem(err, tlr_file_label(f),
                             c->n_layers * sizeof *m->layers);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        resolve_layer(&m->layers[i], f, i);
        note_layer(m, &m->layers[i]);
    }
    m->embed = tlr_file_tensor(f, "embed");
    bool tied = c->flags & TLR_CONFIG_TIED_HEAD;
    m->head = tied ? m->embed : tlr_file_tensor(f, "head");
    note_matrix(m, m->head);
    m->final_norm = tlr_file_tensor(f, "final_norm")->data;
    if (c->flags & TLR_CONFIG_ROPE_FACTORS) {
        m->rope_factors = tlr_file_tensor(f, "rope_factors")->data;
    }
    m->is_f32 = true;
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        m->is_f32 = m->is_f32 && t->type == TLR_F32;
        m->bytes_per_token += t == m->embed && !tied ? 0 : t->n_bytes;
    }
    m->fingerprint = fingerprint(f);
    return 0;
}

static int open_tokenizer(struct tlr_model *m, struct tlr_err *err)
{
    const char *label = tlr_file_label(m->file);
    m->n_ids = m->config->n_vocab;
    struct tlr_bytes bytes = tlr_file_section(m->file, TLR_SECTION_TOKENIZER);
    if (!bytes.ptr) {
        return 0;
    }
    int rc = tlr_tokenizer_new(&m->tokenizer, bytes, label, err);
    if (rc) {
        return rc;
    }
    uint32_t n_tokens = tlr_tokenizer_n_tokens(m->tokenizer);
    if (n_tokens == 0 || n_tokens > m->config->n_vocab) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tokenizer: expected 1 to %u tokens (the rows of "
                           "tensor embed), found %u; convert the model again",
                           label, (unsigned)m->config->n_vocab,
                           (unsigned)n_tokens);
    }
    m->n_ids = n_tokens;
    return 0;
}

static int open_extras(struct tlr_model *m, struct tlr_err *err)
{
    const char *label = tlr_file_label(m->file);
    struct tlr_bytes chat = tlr_file_section(m->file, TLR_SECTION_CHAT);
    if (chat.ptr) {
        int rc = tlr_chat_from_json(&m->chat, chat, label, err);
        if (rc) {
            return rc;
        }
        m->has_chat = true;
    }
    tlr_generation_default(&m->generation);
    struct tlr_bytes gen = tlr_file_section(m->file, TLR_SECTION_GENERATION);
    if (!gen.ptr) {
        return 0;
    }
    return tlr_generation_from_json(&m->generation, gen, m->config->n_vocab,
                                    label, err);
}

int tlr_model_from_file(struct tlr_model **out, struct tlr_file *file,
                        struct tlr_err *err)
{
    *out = NULL;
    struct tlr_model *m = tlr_calloc(1, sizeof *m);
    if (!m) {
        tlr_file_close(file);
        return tlr_err_nomem(err, "model", sizeof *m);
    }
    m->file = file;
    m->config = tlr_file_config(file);
    int rc = resolve(m, err);
    if (!rc) {
        rc = open_tokenizer(m, err);
    }
    if (!rc) {
        rc = open_extras(m, err);
    }
    if (rc) {
        tlr_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

int tlr_model_open(struct tlr_model **out, const char *path,
                   struct tlr_err *err)
{
    *out = NULL;
    struct tlr_file *file = NULL;
    int rc = tlr_file_open(&file, path, NULL, err);
    return rc ? rc : tlr_model_from_file(out, file, err);
}

void tlr_model_close(struct tlr_model *m)
{
    if (!m) {
        return;
    }
    if (m->has_chat) {
        tlr_chat_clear(&m->chat);
    }
    tlr_tokenizer_free(m->tokenizer);
    tlr_free(m->layers);
    tlr_file_close(m->file);
    tlr_free(m);
}

const struct tlr_config *tlr_model_config(const struct tlr_model *m)
{
    return m->config;
}

const struct tlr_file *tlr_model_file(const struct tlr_model *m)
{
    return m->file;
}

const struct tlr_tokenizer *tlr_model_tokenizer(const struct tlr_model *m)
{
    return m->tokenizer;
}

const struct tlr_chat *tlr_model_chat(const struct tlr_model *m)
{
    return m->has_chat ? &m->chat : NULL;
}

const struct tlr_generation *tlr_model_generation(const struct tlr_model *m)
{
    return &m->generation;
}

uint32_t tlr_model_n_ids(const struct tlr_model *m)
{
    return m->n_ids;
}

uint64_t tlr_model_bytes_per_token(const struct tlr_model *m)
{
    return m->bytes_per_token;
}

uint64_t tlr_model_bytes_per_top(const struct tlr_model *m)
{
    if (m->head->type != TLR_Q8P) {
        return m->bytes_per_token;
    }
    return m->bytes_per_token - m->head->n_bytes /
                                    (TLR_HIGH_BYTES + TLR_LOW_BYTES) *
                                    TLR_LOW_BYTES;
}
