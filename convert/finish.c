/* finish.c - what every foreign source is held to once its parts are read: a
 * vocabulary that fits the embedding table, sampling defaults within range, and
 * end tokens that the chat template implies.
 */
#include <string.h>

#include "base/mem.h"
#include "convert/foreign.h"

int32_t tlr_foreign_token_id(const struct tlr_vocab *v, const char *text)
{
    size_t len = strlen(text);
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        const struct tlr_vocab_token *t = &v->tokens[i];
        if (t->len == len && (t->flags & TLR_TOKEN_ADDED) &&
            memcmp(t->bytes, text, len) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

int tlr_foreign_add_eos(struct tlr_source *s, int64_t id, const char *where,
                        struct tlr_err *err)
{
    struct tlr_generation *g = &s->generation;
    if (id < 0 || (uint64_t)id >= s->config.n_vocab) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: end token %lld: expected 0..%u; the file is of "
                           "another model",
                           where, (long long)id, s->config.n_vocab - 1);
    }
    if (tlr_generation_is_eos(g, (int32_t)id)) {
        return 0;
    }
    if (g->n_eos == TLR_MAX_EOS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: more than %d end tokens; shorten the list",
                           where, TLR_MAX_EOS);
    }
    g->eos[g->n_eos++] = (int32_t)id;
    return 0;
}

/* Chat models end a turn with a token of their template, which the files often
 * forget to list. */
static int add_chat_endings(struct tlr_source *s, const char *where,
                            struct tlr_err *err)
{
    static const char *const endings[] = {"<|im_end|>", "<|eot_id|>",
                                          "<|endoftext|>"};
    for (size_t i = 0; s->chat.name && i < sizeof endings / sizeof *endings;
         i++) {
        int32_t id = tlr_foreign_token_id(&s->vocab, endings[i]);
        int rc = id < 0 ? 0 : tlr_foreign_add_eos(s, id, where, err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* The reader's own range checks, so that what is written can be read. */
static int check_generation(const struct tlr_source *s, const char *where,
                            struct tlr_err *err)
{
    char *text;
    size_t len;
    int rc = tlr_generation_to_json(&s->generation, &text, &len, err);
    if (rc) {
        return rc;
    }
    struct tlr_generation copy;
    struct tlr_bytes json = {(const uint8_t *)text, len};
    rc = tlr_generation_from_json(&copy, json, s->config.n_vocab, where, err);
    tlr_free(text);
    return rc;
}

int tlr_foreign_check_vocab(const struct tlr_source *s, struct tlr_err *err)
{
    if (s->vocab.n_tokens <= s->config.n_vocab) {
        return 0;
    }
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: vocabulary of %u tokens does not fit the embedding "
                       "table, which has %u rows; the tokenizer is of another "
                       "model",
                       s->vocab_where, s->vocab.n_tokens, s->config.n_vocab);
}

int tlr_foreign_finish(struct tlr_source *s, const char *generation_where,
                       struct tlr_err *err)
{
    int rc = add_chat_endings(s, generation_where, err);
    return rc ? rc : check_generation(s, generation_where, err);
}

/* An unknown chat template is no error: the model then runs with --raw. */
int tlr_foreign_recognise_chat(struct tlr_source *s, const char *jinja,
                               struct tlr_err *err)
{
    struct tlr_err local = TLR_ERR_INIT;
    int rc = tlr_chat_recognise(&s->chat, jinja, &local);
    if (rc == 0 || rc == TLR_ENOTFOUND) {
        return 0;
    }
    return tlr_err_set(err, rc, "%s", local.text);
}
