/* hf_tokenizer.c - see hf_tokenizer.h.
 *
 * Every part that changes ids (normalizer, pre-tokenizer, model options, post
 * processor) is either known or refused by name: a vocabulary that is almost
 * right still seems to work.  Keys without such an effect are passed over.
 * Layout: the serialisation of Hugging Face's tokenizers.
 */
#include "convert/hf_tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/json_file.h"
#include "engine/pretokenize.h"

struct reader {
    struct tlr_vocab_owned *v;
    const char *where;
    json_t *root;         /* tokenizer.json */
    const json_t *config; /* tokenizer_config.json, or NULL */
    const char *config_where;
    struct tlr_err *err;
};

static int unsupported(struct reader *r, const char *what, const char *expected,
                       const char *found)
{
    return tlr_err_set(r->err, TLR_EUNSUPPORTED,
                       "%s: %s: expected %s, found %.200s; choose another model",
                       r->where, what, expected, found ? found : "nothing");
}

static int wrong(struct reader *r, const char *what, const char *expected,
                 const json_t *found)
{
    return tlr_err_set(r->err, TLR_EFORMAT,
                       "%s: %s: expected %s, found %s; get the file again",
                       r->where, what, expected, tlr_json_type_name(found));
}

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* The string `key` of o is `text`. */
static bool is_text(const json_t *o, const char *key, const char *text)
{
    const char *value = text_of(o, key);
    return value && strcmp(value, text) == 0;
}

/* A boolean that may be missing. */
static bool flag_of(const json_t *o, const char *key, bool when_absent)
{
    const json_t *value = json_object_get(o, key);
    return json_is_boolean(value) ? json_is_true(value) : when_absent;
}

static bool is_absent(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    return !value || json_is_null(value);
}

static struct tlr_bytes bytes_of(const char *text)
{
    return (struct tlr_bytes){(const uint8_t *)text, strlen(text)};
}

/* ---- the parts around the model ---- */

static int read_normalizer(struct reader *r, const json_t *n)
{
    if (!n || json_is_null(n)) {
        return 0;
    }
    if (is_text(n, "type", "Sequence")) {
        const json_t *list = json_object_get(n, "normalizers");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *part = json_array_get(list, i);
            if (!is_text(part, "type", "NFC")) {
                return unsupported(r, "normalizer", "NFC or none",
                                   text_of(part, "type"));
            }
            r->v->vocab.flags |= TLR_VOCAB_NFC;
        }
        return json_is_array(list) ? 0
                                   : wrong(r, "normalizers", "an array", list);
    }
    if (!is_text(n, "type", "NFC")) {
        return unsupported(r, "normalizer", "NFC or none", text_of(n, "type"));
    }
    r->v->vocab.flags |= TLR_VOCAB_NFC;
    return 0;
}

static bool is_byte_level(const json_t *p, bool use_regex)
{
    return is_text(p, "type", "ByteLevel") &&
           !flag_of(p, "add_prefix_space", true) &&
           flag_of(p, "use_regex", true) == use_regex;
}

/* Split by one of the known patterns, 0 for anything else. */
static uint32_t split_pattern(const json_t *p)
{
    const char *regex = text_of(json_object_get(p, "pattern"), "Regex");
    if (!is_text(p, "type", "Split") || !is_text(p, "behavior", "Isolated") ||
        flag_of(p, "invert", false) || !regex) {
        return 0;
    }
    static const uint32_t kinds[] = {TLR_PRE_QWEN2, TLR_PRE_LLAMA3,
                                     TLR_PRE_GPT2};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(regex, tlr_pretokenize_pattern(kinds[i])) == 0) {
            return kinds[i];
        }
    }
    return 0;
}

static int read_pretokenizer(struct reader *r, const json_t *p)
{
    uint32_t pre = 0;
    const json_t *list = json_object_get(p, "pretokenizers");
    const json_t *first = json_array_get(list, 0);
    const json_t *second = json_array_get(list, 1);
    if (is_byte_level(p, true)) {
        pre = TLR_PRE_GPT2;
    } else if (is_text(p, "type", "Sequence") && json_array_size(list) == 1 &&
               is_byte_level(first, true)) {
        pre = TLR_PRE_GPT2;
    } else if (is_text(p, "type", "Sequence") && json_array_size(list) == 2) {
        if (is_byte_level(second, false)) {
            pre = split_pattern(first);
        } else if (is_byte_level(second, true) &&
                   is_text(first, "type", "Digits") &&
                   flag_of(first, "individual_digits", false)) {
            pre = TLR_PRE_SMOLLM;
        }
    }
    if (pre == 0) {
        const char *regex = text_of(json_object_get(first, "pattern"), "Regex");
        return unsupported(r, "pre_tokenizer",
                           "that of GPT-2, Qwen2, Llama 3 or SmolLM",
                           regex ? regex : text_of(p, "type"));
    }
    r->v->vocab.pre = pre;
    return 0;
}

/* The added token with that text; -1 if none. */
static int64_t added_id(struct reader *r, const char *text)
{
    const json_t *list = json_object_get(r->root, "added_tokens");
    for (size_t i = 0; text && i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        if (is_text(t, "content", text)) {
            return json_integer_value(json_object_get(t, "id"));
        }
    }
    return -1;
}

/* "single" is [A] or [first token, A]. */
static int read_template(struct reader *r, const json_t *p)
{
    const json_t *single = json_object_get(p, "single");
    size_t n = json_array_size(single);
    const json_t *head = json_array_get(single, 0);
    const json_t *tail = n ? json_array_get(single, n - 1) : NULL;
    if (n < 1 || n > 2 || !json_object_get(tail, "Sequence")) {
        return unsupported(r, "post_processor",
                           "at most one token before the text",
                           "another template");
    }
    if (n == 1) {
        return 0;
    }
    const char *name = text_of(json_object_get(head, "SpecialToken"), "id");
    int64_t id = added_id(r, name);
    if (id < 0 || id >= r->v->vocab.n_tokens) {
        return unsupported(r, "post_processor",
                           "one of the added tokens before the text", name);
    }
    r->v->vocab.bos_id = (int32_t)id;
    r->v->vocab.flags |= TLR_VOCAB_ADD_BOS;
    return 0;
}

static int read_one_processor(struct reader *r, const json_t *p)
{
    if (!p || json_is_null(p) || is_text(p, "type", "ByteLevel")) {
        return 0; /* moves offsets only */
    }
    if (is_text(p, "type", "TemplateProcessing")) {
        return read_template(r, p);
    }
    return unsupported(r, "post_processor", "ByteLevel or TemplateProcessing",
                       text_of(p, "type"));
}

static int read_processor(struct reader *r, const json_t *p)
{
    if (!is_text(p, "type", "Sequence")) {
        return read_one_processor(r, p);
    }
    const json_t *list = json_object_get(p, "processors");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        rc = read_one_processor(r, json_array_get(list, i));
    }
    return rc;
}

static int read_surroundings(struct reader *r)
{
    const json_t *decoder = json_object_get(r->root, "decoder");
    int rc;
    if ((rc = read_normalizer(r, json_object_get(r->root, "normalizer"))) ||
        (rc = read_pretokenizer(r, json_object_get(r->root,
                                                   "pre_tokenizer"))) ||
        (rc = read_processor(r, json_object_get(r->root, "post_processor")))) {
        return rc;
    }
    if (decoder && !json_is_null(decoder) &&
        !is_text(decoder, "type", "ByteLevel")) {
        return unsupported(r, "decoder", "ByteLevel", text_of(decoder, "type"));
    }
    return 0;
}

/* ---- tokens ---- */

static unsigned added_flags(const json_t *t)
{
    static const struct {
        const char *key;
        unsigned flag;
    } names[] = {{"special", TLR_TOKEN_SPECIAL},
                 {"lstrip", TLR_TOKEN_LSTRIP},
                 {"rstrip", TLR_TOKEN_RSTRIP},
                 {"single_word", TLR_TOKEN_SINGLE_WORD},
                 {"normalized", TLR_TOKEN_NORMALIZED}};
    unsigned flags = TLR_TOKEN_ADDED;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        flags |= flag_of(t, names[i].key, false) ? names[i].flag : 0;
    }
    return flags;
}

static int read_added(struct reader *r)
{
    const json_t *list = json_object_get(r->root, "added_tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i);
        const json_t *id = json_object_get(t, "id");
        const char *content = text_of(t, "content");
        if (!json_is_integer(id) || json_integer_value(id) < 0 || !content) {
            return wrong(r, "added_tokens", "an id and a content", t);
        }
        int rc = tlr_vocab_build_token(
            r->v, r->where, (uint64_t)json_integer_value(id),
            bytes_of(content), false, added_flags(t), r->err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* An added token may stand in the model's vocabulary too, under the same id. */
static int read_entry(struct reader *r, const char *text, const json_t *id)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= r->v->vocab.n_tokens) {
        return tlr_err_set(r->err, TLR_EFORMAT,
                           "%s: model.vocab: \"%.64s\": expected an id in "
                           "0..%u; get the file again",
                           r->where, text, r->v->vocab.n_tokens - 1);
    }
    uint64_t i = (uint64_t)json_integer_value(id);
    const struct tlr_vocab_token *t = &r->v->vocab.tokens[i];
    if ((t->flags & TLR_TOKEN_ADDED) && t->len == strlen(text) &&
        memcmp(t->bytes, text, t->len) == 0) {
        return 0;
    }
    return tlr_vocab_build_token(r->v, r->where, i, bytes_of(text), true, 0,
                                 r->err);
}

static int read_merge(struct reader *r, const json_t *merge)
{
    if (json_is_string(merge)) {
        return tlr_vocab_build_merge_line(
            r->v, r->where, bytes_of(json_string_value(merge)), r->err);
    }
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    if (json_array_size(merge) != 2 || !left || !right) {
        return wrong(r, "model.merges", "\"a b\" or [\"a\", \"b\"]", merge);
    }
    return tlr_vocab_build_merge(r->v, r->where, bytes_of(left),
                                 bytes_of(right), r->err);
}

static int check_model(struct reader *r, const json_t *m)
{
    const char *type = text_of(m, "type");
    if (!json_is_object(m)) {
        return wrong(r, "model", "an object", m);
    }
    if ((!type || strcmp(type, "BPE") != 0) && !is_absent(m, "type")) {
        return unsupported(r, "model.type", "BPE", type);
    }
    static const char *const empty[] = {"continuing_subword_prefix",
                                        "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        if (!is_absent(m, empty[i]) && !is_text(m, empty[i], "")) {
            return unsupported(r, empty[i], "none", text_of(m, empty[i]));
        }
    }
    if (flag_of(m, "byte_fallback", false)) {
        return unsupported(r, "model.byte_fallback", "false", "true");
    }
    if (json_number_value(json_object_get(m, "dropout")) > 0) {
        return unsupported(r, "model.dropout", "none", "a number");
    }
    if (!json_is_object(json_object_get(m, "vocab"))) {
        return wrong(r, "model.vocab", "an object",
                     json_object_get(m, "vocab"));
    }
    if (!json_is_array(json_object_get(m, "merges"))) {
        return wrong(r, "model.merges", "an array",
                     json_object_get(m, "merges"));
    }
    if (!is_absent(r->root, "added_tokens") &&
        !json_is_array(json_object_get(r->root, "added_tokens"))) {
        return wrong(r, "added_tokens", "an array",
                     json_object_get(r->root, "added_tokens"));
    }
    return 0;
}

/* One more than the largest id, and a bound for the bytes of all tokens. */
static void measure(const struct reader *r, json_t *vocab, uint64_t *n_tokens,
                    uint64_t *n_bytes)
{
    const json_t *added = json_object_get(r->root, "added_tokens");
    *n_tokens = *n_bytes = 0;
    for (void *it = json_object_iter(vocab); it;
         it = json_object_iter_next(vocab, it)) {
        json_int_t id = json_integer_value(json_object_iter_value(it));
        *n_tokens = id >= 0 && (uint64_t)id >= *n_tokens ? (uint64_t)id + 1
                                                         : *n_tokens;
        *n_bytes += strlen(json_object_iter_key(it));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i);
        const char *content = text_of(t, "content");
        json_int_t id = json_integer_value(json_object_get(t, "id"));
        *n_tokens = id >= 0 && (uint64_t)id >= *n_tokens ? (uint64_t)id + 1
                                                         : *n_tokens;
        *n_bytes += content ? strlen(content) : 0;
    }
}

/* Without a token for some byte, an "unknown" token would stand for it. */
static int check_unknown(struct reader *r, const json_t *m)
{
    for (int i = 0; i < 256 && !is_absent(m, "unk_token"); i++) {
        uint8_t byte = (uint8_t)i;
        if (tlr_vocab_build_find(r->v, (struct tlr_bytes){&byte, 1}) < 0) {
            return unsupported(r, "model.unk_token",
                               "none, as some byte has no token",
                               text_of(m, "unk_token"));
        }
    }
    return 0;
}

static int read_model(struct reader *r)
{
    const json_t *m = json_object_get(r->root, "model");
    json_t *vocab = json_object_get(m, "vocab");
    const json_t *merges = json_object_get(m, "merges");
    uint64_t n_tokens, n_bytes;
    int rc = check_model(r, m);
    if (rc) {
        return rc;
    }
    measure(r, vocab, &n_tokens, &n_bytes);
    if ((rc = tlr_vocab_build_begin(r->v, r->where, n_tokens,
                                    json_array_size(merges), n_bytes,
                                    r->err)) ||
        (rc = read_added(r))) {
        return rc;
    }
    for (void *it = json_object_iter(vocab); rc == 0 && it;
         it = json_object_iter_next(vocab, it)) {
        rc = read_entry(r, json_object_iter_key(it),
                        json_object_iter_value(it));
    }
    if (rc || (rc = tlr_vocab_build_index(r->v, r->where, r->err)) ||
        (rc = check_unknown(r, m))) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < json_array_size(merges); i++) {
        rc = read_merge(r, json_array_get(merges, i));
    }
    if (flag_of(m, "ignore_merges", false)) {
        r->v->vocab.flags |= TLR_VOCAB_IGNORE_MERGES;
    }
    return rc;
}

/* ---- tokenizer_config.json ---- */

/* A token there is its text or an object with it. */
static const char *token_text(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return json_is_object(value) ? text_of(value, "content")
                                 : json_string_value(value);
}

/* The same ids must name the same added tokens in both files. */
static int check_decoder(struct reader *r)
{
    json_t *list = json_object_get(r->config, "added_tokens_decoder");
    for (void *it = json_is_object(list) ? json_object_iter(list) : NULL; it;
         it = json_object_iter_next(list, it)) {
        const char *key = json_object_iter_key(it);
        const char *content = text_of(json_object_iter_value(it), "content");
        char digits[24];
        int64_t id = content ? added_id(r, content) : -1;
        snprintf(digits, sizeof digits, "%lld", (long long)id);
        if (id < 0 || strcmp(digits, key) != 0) {
            return tlr_err_set(r->err, TLR_EFORMAT,
                               "%s: added_tokens_decoder: %.24s: expected the "
                               "added token of %s with that id, found "
                               "\"%.64s\"; the files are of different models",
                               r->config_where, key, r->where,
                               content ? content : "");
        }
    }
    return 0;
}

/* A string, or a list of named ones of which "default" counts. */
static const char *template_text(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *t = json_array_get(value, i);
        if (is_text(t, "name", "default")) {
            return text_of(t, "template");
        }
    }
    return json_string_value(value);
}

static int read_config(struct reader *r, struct tlr_hf_tokenizer *out)
{
    int rc = check_decoder(r);
    if (rc) {
        return rc;
    }
    int64_t bos = added_id(r, token_text(r->config, "bos_token"));
    struct tlr_vocab *v = &r->v->vocab;
    if (v->bos_id < 0 && bos >= 0 && bos < v->n_tokens) {
        v->bos_id = (int32_t)bos;
        if (flag_of(r->config, "add_bos_token", false)) {
            v->flags |= TLR_VOCAB_ADD_BOS;
        }
    }
    int64_t eos = added_id(r, token_text(r->config, "eos_token"));
    out->eos_id = eos >= 0 && eos < v->n_tokens ? (int32_t)eos : -1;
    const char *text = template_text(r->config);
    if (text) {
        out->chat_template = tlr_strdup(text);
        if (!out->chat_template) {
            return tlr_err_nomem(r->err, r->config_where, strlen(text) + 1);
        }
    }
    return 0;
}

int tlr_hf_tokenizer_read(struct tlr_hf_tokenizer *out,
                          struct tlr_bytes tokenizer_json,
                          const char *tokenizer_where,
                          struct tlr_bytes config_json,
                          const char *config_where, struct tlr_err *err)
{
    struct reader r = {.v = &out->owned,
                       .where = tokenizer_where,
                       .config_where = config_where,
                       .err = err};
    json_t *config = NULL;
    out->eos_id = -1;
    int rc = tlr_json_parse(&r.root, (const char *)tokenizer_json.ptr,
                            tokenizer_json.len, tokenizer_where, err);
    if (rc == 0 && config_json.ptr) {
        rc = tlr_json_parse(&config, (const char *)config_json.ptr,
                            config_json.len, config_where, err);
        r.config = config;
    }
    if (rc == 0) {
        rc = read_model(&r);
        rc = rc ? rc : read_surroundings(&r);
        rc = rc || !config ? rc : read_config(&r, out);
        rc = rc ? rc : tlr_vocab_build_end(r.v, tokenizer_where, err);
    }
    json_decref(config);
    json_decref(r.root);
    return rc;
}

void tlr_hf_tokenizer_clear(struct tlr_hf_tokenizer *t)
{
    tlr_vocab_owned_clear(&t->owned);
    tlr_free(t->chat_template);
    memset(t, 0, sizeof *t);
    t->eos_id = -1;
}
