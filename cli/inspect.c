/* inspect.c - `tlr inspect`: what a model file holds, and whether it is whole. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

struct inspect_args {
    const char *model;
    bool verify, json, tensors;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE,
      .at = offsetof(struct inspect_args, model),
      .help = "a file that tlr convert made" },
};

static const struct cli_option options[] = {
    { .name = "verify", .kind = CLI_FLAG,
      .at = offsetof(struct inspect_args, verify),
      .help = "read all data, and check every checksum and number" },
    { .name = "tensors", .kind = CLI_FLAG,
      .at = offsetof(struct inspect_args, tensors),
      .help = "list the tensors" },
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct inspect_args, json),
      .help = "print one JSON object" },
};

static const char *const examples[] = {
    "tlr inspect model.bin --verify", "Make sure that a copy is whole.",
    "tlr inspect model.bin --json --tensors", "The same for programs.",
    NULL
};

static const char *family_name(uint32_t family)
{
    switch (family) {
    case TLR_FAMILY_LLAMA:
        return "llama";
    case TLR_FAMILY_QWEN2:
        return "qwen2";
    case TLR_FAMILY_QWEN3:
        return "qwen3";
    }
    return "unknown";
}

static const char *pre_name(uint32_t pre)
{
    switch (pre) {
    case TLR_PRE_GPT2:
        return "gpt2";
    case TLR_PRE_QWEN2:
        return "qwen2";
    case TLR_PRE_LLAMA3:
        return "llama3";
    case TLR_PRE_SMOLLM:
        return "smollm";
    }
    return "unknown";
}

/* Configuration rows: JSON key, name for people, member. */
#define CONFIG_ROWS(X)                                                         \
    X(dim) X(ffn_dim) X(n_layers) X(n_heads) X(n_kv_heads) X(head_dim)         \
    X(n_vocab) X(max_ctx)

static const struct {
    uint32_t bit;
    const char *name;
} flag_names[] = {
    { TLR_CONFIG_QKV_BIAS, "qkv_bias" },
    { TLR_CONFIG_QK_NORM, "qk_norm" },
    { TLR_CONFIG_TIED_HEAD, "tied_head" },
    { TLR_CONFIG_ROPE_FACTORS, "rope_factors" },
};

static json_t *config_json(const struct tlr_config *c)
{
    json_t *j = json_object();
    cli_json_put(j, "family", json_string(family_name(c->family)));
#define ROW(member) cli_json_put(j, #member, json_integer(c->member));
    CONFIG_ROWS(ROW)
#undef ROW
    for (size_t i = 0; i < CLI_COUNT(flag_names); i++)
        cli_json_put(j, flag_names[i].name,
                     json_boolean(c->flags & flag_names[i].bit));
    cli_json_put(j, "rms_eps", cli_json_real((double)c->rms_eps));
    cli_json_put(j, "rope_theta", cli_json_real((double)c->rope_theta));
    return j;
}

static json_t *text_json(const char *text)
{
    return text ? cli_json_text(text, strlen(text)) : json_null();
}

static json_t *tokenizer_json(const struct tlr_model *m)
{
    if (!tlr_model_tokenizer(m))
        return json_null();
    const struct tlr_vocab *v = tlr_tokenizer_vocab(tlr_model_tokenizer(m));
    json_t *j = json_object();
    cli_json_put(j, "tokens", json_integer(v->n_tokens));
    cli_json_put(j, "merges", json_integer(v->n_merges));
    cli_json_put(j, "pretokenizer", json_string(pre_name(v->pre)));
    cli_json_put(j, "nfc", json_boolean(v->flags & TLR_VOCAB_NFC));
    cli_json_put(j, "add_bos", json_boolean(v->flags & TLR_VOCAB_ADD_BOS));
    cli_json_put(j, "bos", v->bos_id >= 0 ? json_integer(v->bos_id)
                                          : json_null());
    return j;
}

static json_t *chat_json(const struct tlr_chat *c)
{
    static const char *const roles[] = { "system", "user", "assistant" };
    if (!c)
        return json_null();
    json_t *j = json_object();
    cli_json_put(j, "name", text_json(c->name));
    cli_json_put(j, "begin", text_json(c->begin));
    for (int i = 0; i < TLR_N_ROLES; i++) {
        json_t *pieces = json_array();
        cli_json_push(pieces, text_json(c->prefix[i]));
        cli_json_push(pieces, text_json(c->suffix[i]));
        cli_json_put(j, roles[i], pieces);
    }
    cli_json_put(j, "default_system", text_json(c->default_system));
    cli_json_put(j, "trims", json_boolean(c->trims));
    return j;
}

/* A section that holds JSON, as it stands in the file; null when it is absent
 * or no JSON. */
static json_t *section_json(const struct tlr_file *f, enum tlr_section which)
{
    struct tlr_bytes b = tlr_file_section(f, which);
    json_t *j = b.ptr ? json_loadb((const char *)b.ptr, b.len,
                                   JSON_REJECT_DUPLICATES, NULL) : NULL;
    return j ? j : json_null();
}

static json_t *tensors_json(const struct tlr_file *f)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        json_t *j = json_object();
        cli_json_put(j, "name", text_json(t->name));
        cli_json_put(j, "type", json_string(tlr_type_name(t->type)));
        cli_json_put(j, "rows", json_integer(t->n_rows));
        cli_json_put(j, "cols", json_integer(t->n_cols));
        cli_json_put(j, "bytes", json_integer((json_int_t)t->n_bytes));
        cli_json_push(list, j);
    }
    return list;
}

static void count_types(const struct tlr_file *f, uint32_t n[TLR_N_TYPES],
                        uint64_t bytes[TLR_N_TYPES])
{
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        n[t->type]++;
        bytes[t->type] += t->n_bytes;
    }
}

static json_t *types_json(const struct tlr_file *f)
{
    uint32_t n[TLR_N_TYPES] = { 0 };
    uint64_t bytes[TLR_N_TYPES] = { 0 };
    count_types(f, n, bytes);
    json_t *j = json_object();
    for (unsigned t = 0; t < TLR_N_TYPES; t++) {
        if (n[t] == 0)
            continue;
        json_t *row = json_object();
        cli_json_put(row, "tensors", json_integer(n[t]));
        cli_json_put(row, "bytes", json_integer((json_int_t)bytes[t]));
        cli_json_put(j, tlr_type_name(t), row);
    }
    return j;
}

/* Context lengths that memory is shown for: a few, and the model's own. */
static size_t pick_contexts(uint32_t max_ctx, uint32_t out[3])
{
    size_t n = 0;
    if (max_ctx > 4096)
        out[n++] = 4096;
    if (max_ctx > 32768)
        out[n++] = 32768;
    out[n++] = max_ctx;
    return n;
}

static json_t *memory_json(const struct tlr_model *m)
{
    uint32_t ctx[3];
    size_t n = pick_contexts(tlr_model_config(m)->max_ctx, ctx);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        struct tlr_session_options o = { .n_ctx = ctx[i], .cpu_level = -1 };
        struct tlr_memory mem;
        if (tlr_session_estimate(m, &o, &mem, NULL))
            continue;
        json_t *j = json_object();
        cli_json_put(j, "ctx", json_integer(ctx[i]));
        cli_json_put(j, "kv_bytes", json_integer((json_int_t)mem.kv_bytes));
        cli_json_put(j, "total_bytes", json_integer((json_int_t)mem.total_bytes));
        cli_json_push(list, j);
    }
    return list;
}

static int print_json(const struct inspect_args *a, const struct tlr_model *m,
                      struct tlr_err *err)
{
    const struct tlr_file *f = tlr_model_file(m);
    json_t *j = json_object();
    cli_json_put(j, "path", text_json(a->model));
    cli_json_put(j, "bytes", json_integer((json_int_t)tlr_file_bytes(f)));
    cli_json_put(j, "format_version", json_integer(tlr_file_version(f)));
    cli_json_put(j, "config", config_json(tlr_model_config(m)));
    cli_json_put(j, "tokenizer", tokenizer_json(m));
    cli_json_put(j, "chat", chat_json(tlr_model_chat(m)));
    cli_json_put(j, "generation", section_json(f, TLR_SECTION_GENERATION));
    cli_json_put(j, "provenance", section_json(f, TLR_SECTION_PROVENANCE));
    cli_json_put(j, "router", json_boolean(
                     tlr_file_section(f, TLR_SECTION_ROUTER).ptr != NULL));
    cli_json_put(j, "types", types_json(f));
    cli_json_put(j, "weight_bytes_per_token",
                 json_integer((json_int_t)tlr_model_bytes_per_token(m)));
    cli_json_put(j, "memory", memory_json(m));
    if (a->tensors)
        cli_json_put(j, "tensors", tensors_json(f));
    cli_json_put(j, "verified", a->verify ? json_true() : json_null());
    return cli_json_print(j, err);
}

static void print_config(const struct tlr_config *c)
{
    cli_printf("family       %s", family_name(c->family));
    for (size_t i = 0; i < CLI_COUNT(flag_names); i++)
        if (c->flags & flag_names[i].bit)
            cli_printf(", %s", flag_names[i].name);
    cli_printf("\nshape        %u layers, dim %u, ffn %u, %u heads (%u kv) of "
               "%u, %u rows in the vocabulary\n", c->n_layers, c->dim,
               c->ffn_dim, c->n_heads, c->n_kv_heads, c->head_dim, c->n_vocab);
    cli_printf("context      %u positions, rope theta %g, eps %g\n", c->max_ctx,
               (double)c->rope_theta, (double)c->rms_eps);
}

static void print_language(const struct tlr_model *m)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(m);
    if (tok) {
        const struct tlr_vocab *v = tlr_tokenizer_vocab(tok);
        cli_printf("tokenizer    %u tokens, %u merges, %s%s\n", v->n_tokens,
                   v->n_merges, pre_name(v->pre),
                   v->flags & TLR_VOCAB_NFC ? ", NFC" : "");
    } else {
        cli_printf("tokenizer    none\n");
    }
    const struct tlr_chat *chat = tlr_model_chat(m);
    cli_printf("chat         %s\n", chat ? chat->name : "none");
    const struct tlr_generation *g = tlr_model_generation(m);
    if (!g)
        return;
    cli_printf("generation   temp %g, top-k %d, top-p %g, min-p %g, "
               "repeat-penalty %g, ends with", (double)g->temperature, g->top_k,
               (double)g->top_p, (double)g->min_p, (double)g->repeat_penalty);
    for (int i = 0; i < g->n_eos; i++)
        cli_printf(" %d", g->eos[i]);
    cli_printf("%s\n", g->n_eos ? "" : " nothing");
}

/* One line per file; the first has the label. */
static void print_sources(const char *label, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(s, "name"));
        const char *sha = json_string_value(json_object_get(s, "sha256"));
        cli_printf("%-12s %s%s%s\n", i ? "" : label, name ? name : "?",
                   sha && sha[0] ? "  sha256 " : "", sha ? sha : "");
    }
}

/* What the model was made from. */
static void print_provenance(const struct tlr_file *f)
{
    json_t *j = section_json(f, TLR_SECTION_PROVENANCE);
    print_sources("made from", json_object_get(j, "sources"));
    print_sources("and adapter",
                  json_object_get(json_object_get(j, "lora"), "sources"));
    const json_t *c = json_object_get(json_object_get(j, "options"),
                                      "calibration");
    const char *sha = json_string_value(json_object_get(c, "text_sha256"));
    if (sha)
        cli_printf("calibrated   on %lld tokens of the text with sha256 %s\n",
                   (long long)json_integer_value(json_object_get(c, "tokens")),
                   sha);
    json_decref(j);
}

static void print_sizes(const struct tlr_model *m)
{
    const struct tlr_file *f = tlr_model_file(m);
    uint32_t n[TLR_N_TYPES] = { 0 }, ctx[3];
    uint64_t bytes[TLR_N_TYPES] = { 0 };
    char text[2][24];
    count_types(f, n, bytes);
    for (unsigned t = 0; t < TLR_N_TYPES; t++)
        if (n[t] > 0)
            cli_printf("%-12s %u tensors, %s\n", tlr_type_name(t), n[t],
                       cli_bytes(text[0], sizeof text[0], bytes[t]));
    cli_printf("per token    reads %s of weights\n",
               cli_bytes(text[0], sizeof text[0], tlr_model_bytes_per_token(m)));
    size_t n_ctx = pick_contexts(tlr_model_config(m)->max_ctx, ctx);
    for (size_t i = 0; i < n_ctx; i++) {
        struct tlr_session_options o = { .n_ctx = ctx[i], .cpu_level = -1 };
        struct tlr_memory mem;
        if (!tlr_session_estimate(m, &o, &mem, NULL))
            cli_printf("memory       %s with ctx %u (KV cache %s)\n",
                       cli_bytes(text[0], sizeof text[0], mem.total_bytes),
                       ctx[i], cli_bytes(text[1], sizeof text[1], mem.kv_bytes));
    }
}

static void print_human(const struct inspect_args *a, const struct tlr_model *m)
{
    const struct tlr_file *f = tlr_model_file(m);
    char text[24];
    cli_printf("%s: format %u, %s\n", a->model, tlr_file_version(f),
               cli_bytes(text, sizeof text, tlr_file_bytes(f)));
    print_config(tlr_model_config(m));
    print_language(m);
    print_sizes(m);
    print_provenance(f);
    for (uint32_t i = 0; a->tensors && i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        cli_printf("  %-20s %-4s [%u,%u]\n", t->name, tlr_type_name(t->type),
                   t->n_rows, t->n_cols);
    }
    if (a->verify)
        cli_printf("verified     all checksums and numbers are right\n");
}

static int on_progress(void *ctx, uint64_t done, uint64_t total)
{
    cli_progress_set(ctx, done, total, NULL);
    return cli_interrupted();
}

static int inspect(const void *args, struct tlr_err *err)
{
    const struct inspect_args *a = args;
    struct tlr_model *m = NULL;
    int rc = cli_model_open(&m, a->model, false, err);
    if (!rc && a->verify) {
        struct cli_progress p;
        cli_progress_begin(&p, "verify", true);
        cli_interrupt_hold();
        rc = tlr_file_verify(tlr_model_file(m), on_progress, &p, err);
        cli_interrupt_release();
        cli_progress_end(&p);
    }
    if (!rc && a->json)
        rc = print_json(a, m, err);
    else if (!rc)
        print_human(a, m);
    tlr_model_close(m);
    return rc;
}

const struct cli_verb cli_verb_inspect = {
    .name = "inspect",
    .summary = "show what a model file holds",
    .about = "Shows the configuration, the tokenizer, the chat template, the "
             "generation defaults, where the model came from, its tensors and "
             "the memory it takes. Opening checks the header and the "
             "directory; --verify reads everything.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct inspect_args),
    .main = inspect,
};
