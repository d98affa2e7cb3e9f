/* gguf_vocab.c - see gguf_vocab.h.
 *
 * The file does not say how added tokens match (strip, single word): they match
 * as they stand, as the supported models' do.  Nor does it say whether text is
 * normalised; that follows from the pre-tokenizer's name.
 */
#include "convert/gguf_vocab.h"

#include <string.h>


/* tokenizer.ggml.token_type */
enum {
    GGUF_NORMAL = 1,
    GGUF_UNKNOWN = 2,
    GGUF_CONTROL = 3,
    GGUF_USER_DEFINED = 4,
    GGUF_UNUSED = 5,
    GGUF_BYTE = 6
};

static const struct {
    const char *name;
    uint32_t pre, flags;
    bool adds_bos; /* unless the file says otherwise */
} pre_names[] = {
    {"smollm", TLR_PRE_SMOLLM, 0, false},
    {"qwen2", TLR_PRE_QWEN2, TLR_VOCAB_NFC, false},
    {"llama-bpe", TLR_PRE_LLAMA3, TLR_VOCAB_IGNORE_MERGES, true},
    {"llama3", TLR_PRE_LLAMA3, TLR_VOCAB_IGNORE_MERGES, true},
    {"llama-v3", TLR_PRE_LLAMA3, TLR_VOCAB_IGNORE_MERGES, true},
    {"gpt-2", TLR_PRE_GPT2, 0, false},
};

static bool equals(struct tlr_bytes b, const char *text)
{
    return b.len == strlen(text) && memcmp(b.ptr, text, b.len) == 0;
}

static int shown(struct tlr_bytes b)
{
    return b.len > 64 ? 64 : (int)b.len;
}

static int read_kind(struct tlr_vocab *v, bool *adds_bos,
                     const struct tlr_gguf *g, struct tlr_err *err)
{
    struct tlr_bytes model, pre;
    int rc;
    if ((rc = tlr_gguf_get_string(g, "tokenizer.ggml.model", true, &model,
                                  err)) ||
        (rc = tlr_gguf_get_string(g, "tokenizer.ggml.pre", true, &pre, err))) {
        return rc;
    }
    if (!equals(model, "gpt2")) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: tokenizer.ggml.model: expected \"gpt2\" "
                           "(byte-level BPE), found \"%.*s\"; choose another "
                           "model",
                           g->where, shown(model), (const char *)model.ptr);
    }
    for (size_t i = 0; i < sizeof pre_names / sizeof *pre_names; i++) {
        if (equals(pre, pre_names[i].name)) {
            v->pre = pre_names[i].pre;
            v->flags = pre_names[i].flags;
            *adds_bos = pre_names[i].adds_bos;
            return 0;
        }
    }
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: tokenizer.ggml.pre: expected smollm, qwen2, "
                       "llama-bpe or gpt-2, found \"%.*s\"; choose another "
                       "model",
                       g->where, shown(pre), (const char *)pre.ptr);
}

static int read_tokens(struct tlr_vocab_owned *out, const struct tlr_gguf *g,
                       const struct tlr_gguf_kv *tokens,
                       const struct tlr_gguf_kv *types, struct tlr_err *err)
{
    struct tlr_span text = tlr_span_of(tokens->data.ptr, tokens->data.len);
    struct tlr_span type = tlr_span_of(types->data.ptr, types->data.len);
    for (uint64_t id = 0; id < tokens->n; id++) {
        struct tlr_bytes t = tlr_gguf_next_string(&text);
        uint32_t kind = tlr_span_u32(&type);
        unsigned flags = kind == GGUF_CONTROL
                             ? TLR_TOKEN_ADDED | TLR_TOKEN_SPECIAL
                         : kind == GGUF_USER_DEFINED ? TLR_TOKEN_ADDED
                                                     : 0;
        if (kind == GGUF_UNUSED) {
            continue;
        }
        if (kind != GGUF_NORMAL && flags == 0) {
            return tlr_err_set(err, TLR_EUNSUPPORTED,
                               "%s: token %llu: expected type normal, control, "
                               "user defined or unused, found %u; choose "
                               "another model",
                               g->where, (unsigned long long)id, kind);
        }
        int rc = tlr_vocab_build_token(out, g->where, id, t,
                                       kind == GGUF_NORMAL, flags, err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int read_bos(struct tlr_vocab *v, bool adds_bos,
                    const struct tlr_gguf *g, struct tlr_err *err)
{
    uint64_t bos = UINT64_MAX;
    int rc;
    if ((rc = tlr_gguf_get_u64(g, "tokenizer.ggml.bos_token_id", false,
                               v->n_tokens - 1, &bos, err)) ||
        (rc = tlr_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false,
                                &adds_bos, err))) {
        return rc;
    }
    v->bos_id = bos == UINT64_MAX ? -1 : (int32_t)bos;
    v->flags |= adds_bos && v->bos_id >= 0 ? TLR_VOCAB_ADD_BOS : 0;
    return 0;
}

int tlr_gguf_vocab_read(struct tlr_vocab_owned *out, const struct tlr_gguf *g,
                        struct tlr_err *err)
{
    static const char tokens_key[] = "tokenizer.ggml.tokens";
    struct tlr_vocab kind = {0};
    struct tlr_gguf_kv tokens, types, merges;
    bool adds_bos = false;
    int rc;
    if ((rc = read_kind(&kind, &adds_bos, g, err)) ||
        (rc = tlr_gguf_get_array(g, tokens_key, true, TLR_GGUF_STRING, &tokens,
                                 err)) ||
        (rc = tlr_gguf_get_array(g, "tokenizer.ggml.token_type", true,
                                 TLR_GGUF_I32, &types, err)) ||
        (rc = tlr_gguf_get_array(g, "tokenizer.ggml.merges", true,
                                 TLR_GGUF_STRING, &merges, err))) {
        return rc;
    }
    if (types.n != tokens.n) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tokenizer.ggml.token_type: expected %llu "
                           "values, one for each token, found %llu; the file "
                           "is damaged",
                           g->where, (unsigned long long)tokens.n,
                           (unsigned long long)types.n);
    }
    if ((rc = tlr_vocab_build_begin(out, g->where, tokens.n, merges.n,
                                    tokens.data.len, err))) {
        return rc;
    }
    out->vocab.pre = kind.pre;
    out->vocab.flags = kind.flags;
    if ((rc = read_tokens(out, g, &tokens, &types, err)) ||
        (rc = read_bos(&out->vocab, adds_bos, g, err)) ||
        (rc = tlr_vocab_build_index(out, g->where, err))) {
        return rc;
    }
    struct tlr_span s = tlr_span_of(merges.data.ptr, merges.data.len);
    for (uint64_t i = 0; i < merges.n; i++) {
        rc = tlr_vocab_build_merge_line(out, g->where,
                                        tlr_gguf_next_string(&s), err);
        if (rc) {
            return rc;
        }
    }
    return tlr_vocab_build_end(out, g->where, err);
}
