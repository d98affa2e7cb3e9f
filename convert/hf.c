/* hf.c - a Hugging Face folder as a source: which files it has, and how their
 * tensors become ours.
 *
 * Names that come out of the shard index are plain file names or refused.
 * PyTorch pickles are never opened.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "convert/folder.h"
#include "convert/foreign.h"
#include "convert/hf_config.h"
#include "convert/hf_tokenizer.h"
#include "convert/json_file.h"
#include "convert/names.h"
#include "convert/provenance.h"
#include "convert/safetensors.h"

enum {
    MAX_TEMPLATE_BYTES = 16 << 20,
    MAX_TOKENIZER_BYTES = 256 << 20,
    MAX_SHARDS = 256
};

struct shard {
    char *path;
    struct tlr_map map;
    struct tlr_safetensors directory;
};

struct hf_source {
    struct tlr_foreign base;
    struct tlr_folder folder; /* dir: the caller's, while opening */
    struct tlr_hf_config config;
    struct tlr_hf_tokenizer tokenizer;
    char *tokenizer_path;
    struct shard *shards;
    size_t n_shards;
    json_t *index;   /* weight_map, borrowed from index_root; NULL: one file */
    json_t *index_root;
};

/* ---- weights ---- */

static int add_shard(struct hf_source *s, const char *name, struct tlr_err *err)
{
    if (s->n_shards == MAX_SHARDS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: more than %d weight files; is it one model?",
                           s->folder.dir, MAX_SHARDS);
    }
    struct shard *shard = &s->shards[s->n_shards++];
    struct tlr_err local = TLR_ERR_INIT;
    int rc = tlr_folder_open(&s->folder, name, SIZE_MAX, &shard->path, &shard->map, &local);
    if (rc && s->index) {
        return tlr_err_set(err, rc,
                           "%s (named in model.safetensors.index.json; "
                           "download it too)",
                           local.text);
    }
    if (rc) {
        return tlr_err_set(err, rc, "%s", local.text);
    }
    return tlr_safetensors_parse(&shard->directory, shard->map.ptr,
                                 shard->map.len, shard->path, err);
}

/* A plain file name: nothing that could leave the folder or hide in it. */
static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strlen(name) <= 255 &&
           !strpbrk(name, "/\\:") && !strstr(name, "..");
}

static bool has_shard(const struct hf_source *s, const char *name)
{
    for (size_t i = 0; i < s->n_shards; i++) {
        const char *slash = strrchr(s->shards[i].path, '/');
        if (strcmp(slash + 1, name) == 0) {
            return true;
        }
    }
    return false;
}

static int read_index(struct hf_source *s, struct tlr_err *err)
{
    char *where = NULL;
    int rc = tlr_folder_json(&s->folder, "model.safetensors.index.json", &s->index_root,
                       &where, err);
    if (rc) {
        goto fail;
    }
    s->index = json_object_get(s->index_root, "weight_map");
    if (!json_is_object(s->index) || json_object_size(s->index) == 0) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: weight_map: expected an object from tensors to "
                         "files, found %s; download the file again",
                         where,
                         json_is_object(s->index)
                             ? "an empty one"
                             : tlr_json_type_name(s->index));
        goto fail;
    }
    const char *tensor;
    json_t *value;
    json_object_foreach(s->index, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name)) {
            rc = tlr_err_set(err, TLR_EFORMAT,
                             "%s: weight_map: tensor %s: expected the name of "
                             "a file in this folder, found %.64s; the index "
                             "is damaged or hostile",
                             where, tensor,
                             name ? name : tlr_json_type_name(value));
            goto fail;
        }
        if (!has_shard(s, name) && (rc = add_shard(s, name, err))) {
            goto fail;
        }
    }
fail:
    tlr_free(where);
    return rc;
}

static int open_weights(struct hf_source *s, struct tlr_err *err)
{
    s->shards = tlr_calloc(MAX_SHARDS, sizeof *s->shards);
    if (!s->shards) {
        return tlr_err_nomem(err, s->folder.dir, MAX_SHARDS * sizeof *s->shards);
    }
    if (tlr_folder_has(&s->folder, "model.safetensors")) {
        return add_shard(s, "model.safetensors", err);
    }
    if (tlr_folder_has(&s->folder, "model.safetensors.index.json")) {
        return read_index(s, err);
    }
    if (tlr_folder_has(&s->folder, "pytorch_model.bin") ||
        tlr_folder_has(&s->folder, "pytorch_model.bin.index.json")) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: expected model.safetensors, found PyTorch "
                           "pickles, which can run code when read; save the "
                           "model with safe_serialization=True or take its "
                           "safetensors files",
                           s->folder.dir);
    }
    return tlr_err_set(err, TLR_ENOTFOUND,
                       "%s: expected model.safetensors or "
                       "model.safetensors.index.json, found neither; the "
                       "download is incomplete or this is no model folder",
                       s->folder.dir);
}

static void list_rope_factors(struct hf_source *s)
{
    struct tlr_foreign *f = &s->base;
    uint32_t n = s->config.config.head_dim / 2;
    f->tensors[f->n_tensors++] = (struct tlr_foreign_tensor){
        .name = "rope_factors",
        .where = "config.json",
        .type_name = "F32",
        .type = tlr_block_type_by_name("F32"),
        .n_dims = 1,
        .n_rows = 1,
        .n_cols = n,
        .data = (const uint8_t *)s->config.rope_factors,
        .n_bytes = n * sizeof(float),
    };
}

static int list_tensors(struct hf_source *s, struct tlr_err *err)
{
    struct tlr_foreign *f = &s->base;
    size_t n = 1; /* rope_factors */
    for (size_t i = 0; i < s->n_shards; i++) {
        n += s->shards[i].directory.n;
    }
    f->tensors = tlr_calloc(n, sizeof *f->tensors);
    if (!f->tensors) {
        return tlr_err_nomem(err, s->folder.dir, n * sizeof *f->tensors);
    }
    for (size_t i = 0; i < s->n_shards; i++) {
        const struct tlr_safetensors *d = &s->shards[i].directory;
        for (size_t k = 0; k < d->n; k++) {
            tlr_foreign_of_safetensor(&f->tensors[f->n_tensors++],
                                      &d->tensors[k], s->shards[i].path);
        }
    }
    if (s->config.config.flags & TLR_CONFIG_ROPE_FACTORS) {
        list_rope_factors(s);
    }
    return tlr_foreign_sort(f, err);
}

/* Every tensor of the index lies in the file that the index says. */
static int check_index(const struct hf_source *s, struct tlr_err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(s->index, name, value)
    {
        const struct tlr_foreign_tensor *t = tlr_foreign_find(&s->base, name);
        const char *slash = t ? strrchr(t->where, '/') : NULL;
        if (!slash || strcmp(slash + 1, json_string_value(value)) != 0) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s/model.safetensors.index.json: tensor %s: "
                               "expected it in %s, found it in %s; the files "
                               "are of different downloads",
                               s->folder.dir, name, json_string_value(value),
                               slash ? slash + 1 : "no file");
        }
    }
    return 0;
}

/* A tied model may carry its head a second time, if it is the same; rotary
 * buffers of old checkpoints follow from the configuration. */
static int tolerate(struct hf_source *s, struct tlr_err *err)
{
    struct tlr_foreign *f = &s->base;
    static const char rotary[] = ".rotary_emb.inv_freq";
    for (size_t i = 0; i < f->n_tensors; i++) {
        size_t len = strlen(f->tensors[i].name);
        if (len >= sizeof rotary &&
            strcmp(f->tensors[i].name + len - (sizeof rotary - 1), rotary) ==
                0) {
            f->tensors[i].is_used = true;
        }
    }
    struct tlr_foreign_tensor *head = tlr_foreign_find(f, "lm_head.weight");
    if (!head || !(f->source.config.flags & TLR_CONFIG_TIED_HEAD)) {
        return 0;
    }
    const struct tlr_foreign_tensor *embed =
        tlr_foreign_find(f, "model.embed_tokens.weight");
    if (!embed || !tlr_foreign_is_equal(head, embed)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor lm_head.weight: config.json ties it to "
                           "the embedding table, but its values differ; set "
                           "tie_word_embeddings to false if the head is meant",
                           head->where);
    }
    head->is_used = true;
    return 0;
}

static int bind_tensors(struct hf_source *s, struct tlr_err *err)
{
    struct tlr_foreign *f = &s->base;
    int rc = tlr_foreign_begin(f, err);
    for (uint32_t i = 0; rc == 0 && i < f->n_bound; i++) {
        struct tlr_tensor_want want;
        tlr_config_tensor(&f->source.config, i, &want);
        char name[TLR_FOREIGN_NAME_BYTES];
        tlr_foreign_name(name, want.name, TLR_DIALECT_HF);
        rc = tlr_foreign_bind(f, i, name, 0, s->folder.dir, err);
    }
    if (rc || (rc = tolerate(s, err))) {
        return rc;
    }
    return tlr_foreign_check_unused(f, err);
}

/* ---- tokenizer, chat, generation ---- */

static int read_tokenizer(struct hf_source *s, struct tlr_err *err)
{
    struct tlr_map tokenizer = {0}, config = {0};
    char *config_path = NULL;
    int rc;
    if (!tlr_folder_has(&s->folder, "tokenizer.json")) {
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "%s: tokenizer.json is missing; download it, or "
                           "write it with AutoTokenizer's save_pretrained",
                           s->folder.dir);
    }
    if ((rc = tlr_folder_open(&s->folder, "tokenizer.json", MAX_TOKENIZER_BYTES,
                        &s->tokenizer_path, &tokenizer, err))) {
        goto fail;
    }
    if (tlr_folder_has(&s->folder, "tokenizer_config.json") &&
        (rc = tlr_folder_open(&s->folder, "tokenizer_config.json", MAX_TEMPLATE_BYTES,
                        &config_path, &config, err))) {
        goto fail;
    }
    rc = tlr_hf_tokenizer_read(
        &s->tokenizer, (struct tlr_bytes){tokenizer.ptr, tokenizer.len},
        s->tokenizer_path, (struct tlr_bytes){config.ptr, config.len},
        config_path, err);
    s->base.source.vocab = s->tokenizer.owned.vocab;
    s->base.source.vocab_where = s->tokenizer_path;
    if (rc == 0) {
        rc = tlr_foreign_check_vocab(&s->base.source, err);
    }
fail:
    tlr_map_close(&tokenizer);
    tlr_map_close(&config);
    tlr_free(config_path);
    return rc;
}

/* chat_template.jinja (transformers 5) before tokenizer_config.json's. */
static int read_chat(struct hf_source *s, struct tlr_err *err)
{
    if (!tlr_folder_has(&s->folder, "chat_template.jinja")) {
        return s->tokenizer.chat_template
                   ? tlr_foreign_recognise_chat(
                         &s->base.source, s->tokenizer.chat_template, err)
                   : 0;
    }
    struct tlr_map map = {0};
    char *path = NULL, *text = NULL;
    int rc = tlr_folder_open(&s->folder, "chat_template.jinja", MAX_TEMPLATE_BYTES, &path, &map,
                       err);
    if (rc == 0) {
        text = tlr_calloc(map.len + 1, 1);
        if (text) {
            memcpy(text, map.ptr, map.len);
            rc = tlr_foreign_recognise_chat(&s->base.source, text, err);
        } else {
            rc = tlr_err_nomem(err, path, map.len + 1);
        }
    }
    tlr_free(text);
    tlr_map_close(&map);
    tlr_free(path);
    return rc;
}

static int add_eos_of(struct hf_source *s, const json_t *root,
                      const char *where, struct tlr_err *err)
{
    int64_t ids[TLR_MAX_EOS];
    int n = tlr_hf_eos_read(ids, root, where, err);
    for (int i = 0; i < n; i++) {
        int rc = tlr_foreign_add_eos(&s->base.source, ids[i], where, err);
        if (rc) {
            return rc;
        }
    }
    return n < 0 ? n : 0;
}

/* config: the parsed config.json, which has the end token in old folders. */
static int read_generation(struct hf_source *s, const json_t *config,
                           const char *config_where, struct tlr_err *err)
{
    struct tlr_source *source = &s->base.source;
    json_t *root = NULL;
    char *where = NULL;
    int rc = 0;
    if (tlr_folder_has(&s->folder, "generation_config.json")) {
        rc = tlr_folder_json(&s->folder, "generation_config.json", &root, &where, err);
    }
    if (rc == 0) {
        rc = tlr_hf_generation_read(&source->generation, root, where, err);
    }
    if (rc == 0 && root) {
        rc = add_eos_of(s, root, where, err);
    }
    if (rc == 0 && source->generation.n_eos == 0) {
        rc = add_eos_of(s, config, config_where, err);
    }
    if (rc == 0 && s->tokenizer.eos_id >= 0) {
        rc = tlr_foreign_add_eos(source, s->tokenizer.eos_id,
                                 "tokenizer_config.json", err);
    }
    if (rc == 0) {
        rc = tlr_foreign_finish(source, where ? where : config_where, err);
    }
    json_decref(root);
    tlr_free(where);
    return rc;
}

/* ---- open and close ---- */

static void hf_close(struct tlr_source *source)
{
    struct hf_source *s = (struct hf_source *)source;
    for (size_t i = 0; i < s->n_shards; i++) {
        tlr_safetensors_clear(&s->shards[i].directory);
        tlr_map_close(&s->shards[i].map);
        tlr_free(s->shards[i].path);
    }
    tlr_free(s->shards);
    json_decref(s->index_root);
    json_decref(s->folder.sources);
    tlr_hf_tokenizer_clear(&s->tokenizer);
    tlr_free(s->tokenizer_path);
    tlr_foreign_clear(&s->base);
    tlr_free(s);
}

static const struct tlr_source_ops hf_ops = {
    .describe = tlr_foreign_describe,
    .read_rows = tlr_foreign_read_rows,
    .drop_rows = tlr_foreign_drop_rows,
    .close = hf_close,
};

static int read_all(struct hf_source *s, struct tlr_err *err)
{
    json_t *config = NULL;
    char *where = NULL;
    struct tlr_source *source = &s->base.source;
    int rc;
    if ((rc = tlr_folder_json(&s->folder, "config.json", &config, &where, err)) ||
        (rc = tlr_hf_config_read(&s->config, config, where, err))) {
        goto fail;
    }
    source->config = s->config.config;
    if ((rc = open_weights(s, err)) || (rc = list_tensors(s, err)) ||
        (rc = check_index(s, err)) || (rc = bind_tensors(s, err)) ||
        (rc = read_tokenizer(s, err)) || (rc = read_chat(s, err)) ||
        (rc = read_generation(s, config, where, err))) {
        goto fail;
    }
    rc = tlr_provenance_text(&source->provenance_json, "huggingface",
                             json_incref(s->folder.sources), err);
fail:
    json_decref(config);
    tlr_free(where);
    return rc;
}

int tlr_source_open_hf(struct tlr_source **out, const char *dir,
                       struct tlr_err *err)
{
    *out = NULL;
    struct hf_source *s = tlr_calloc(1, sizeof *s);
    if (!s) {
        return tlr_err_nomem(err, dir, sizeof *s);
    }
    s->base.source.ops = &hf_ops;
    s->folder.dir = dir;
    s->folder.sources = json_array();
    int rc = s->folder.sources ? read_all(s, err) : tlr_err_nomem(err, dir, 0);
    s->folder.dir = NULL;
    if (rc) {
        hf_close(&s->base.source);
        return rc;
    }
    *out = &s->base.source;
    return 0;
}
