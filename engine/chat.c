/* chat.c - the chat formats that tlr knows, and messages to ids.
 *
 * One table row per format.  A Jinja template is not run but recognised by the
 * markers it must and must not contain; the default system message is cut out
 * of its text.  Formats of sentencepiece models (Llama 2, TinyLlama, Zephyr)
 * are left out, as their vocabularies cannot be read either.
 */
#include "engine/chat.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "engine/json.h"

enum { MAX_JSON_BYTES = 1 << 20, MAX_PIECE_BYTES = 64 * 1024 };

static const char *const role_names[TLR_N_ROLES] = {"system", "user",
                                                    "assistant"};

/* ---- recognising ---- */

struct format {
    const char *name;
    const char *must[3];     /* all of them stand in the template */
    const char *must_not[6]; /* none of them does */
    const char *prefix[TLR_N_ROLES], *suffix;
    const char *default_system; /* unless the template spells one out */
    bool trims;
};

#define LLAMA3_HEAD(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
/* Llama 3.1 and later put two dates before the system message; the second is
 * today's where the caller gives one, else this. */
#define LLAMA3_DATES                                                           \
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

static const struct format formats[] = {
    {.name = "chatml",
     .must = {"<|im_start|>", "<|im_end|>"},
     /* a dated system message; another separator; replies that open with a
      * thought whatever the caller says, in both spellings of a line end */
     .must_not = {"strftime_now", "<|im_sep|>",
                  "<|im_start|>assistant\\n<think>",
                  "<|im_start|>assistant\n<think>", "<|start_header_id|>"},
     .prefix = {"<|im_start|>system\n", "<|im_start|>user\n",
                "<|im_start|>assistant\n"},
     .suffix = "<|im_end|>\n"},
    {.name = "llama3.1",
     .must = {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date"},
     .must_not = {"<|im_start|>"},
     .prefix = {LLAMA3_HEAD("system") LLAMA3_DATES, LLAMA3_HEAD("user"),
                LLAMA3_HEAD("assistant")},
     .suffix = "<|eot_id|>",
     .default_system = "",
     .trims = true},
    {.name = "llama3",
     .must = {"<|start_header_id|>", "<|eot_id|>"},
     .must_not = {"<|im_start|>", "Cutting Knowledge Date"},
     .prefix = {LLAMA3_HEAD("system"), LLAMA3_HEAD("user"),
                LLAMA3_HEAD("assistant")},
     .suffix = "<|eot_id|>",
     .trims = true},
};

static bool fits(const struct format *f, const char *jinja)
{
    for (size_t i = 0; i < sizeof f->must / sizeof *f->must; i++) {
        if (f->must[i] && !strstr(jinja, f->must[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof f->must_not / sizeof *f->must_not; i++) {
        if (f->must_not[i] && strstr(jinja, f->must_not[i])) {
            return false;
        }
    }
    return true;
}

/* The text of a Jinja string literal from p up to `end_mark` inside it, its
 * escapes undone; NULL when the literal ends before. */
static char *literal_until(const char *p, char quote, const char *end_mark,
                           bool *no_memory)
{
    size_t n = 0;
    char *text = tlr_calloc(strlen(p) + 1, 1);
    if (!text) {
        *no_memory = true;
        return NULL;
    }
    while (*p && *p != quote) {
        if (strncmp(p, end_mark, strlen(end_mark)) == 0) {
            return text;
        }
        if (*p == '\\' && p[1]) {
            p++;
            text[n++] = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p;
            p++;
        } else {
            text[n++] = *p++;
        }
    }
    tlr_free(text);
    return NULL;
}

/* A system message that stands in the template as a whole:
 * '<|im_start|>system\nTEXT<|im_end|>'. */
static int find_default_system(const char *jinja, char **out,
                               struct tlr_err *err)
{
    static const char start[] = "<|im_start|>system";
    const char *p = jinja;
    while ((p = strstr(p, start))) {
        char quote = p > jinja ? p[-1] : 0;
        p += sizeof start - 1;
        size_t line_end = *p == '\n' ? 1 : strncmp(p, "\\n", 2) == 0 ? 2 : 0;
        if ((quote != '\'' && quote != '"') || line_end == 0) {
            continue;
        }
        bool no_memory = false;
        char *text =
            literal_until(p + line_end, quote, "<|im_end|>", &no_memory);
        if (no_memory) {
            return tlr_err_nomem(err, "chat template", strlen(p));
        }
        if (text && *text) {
            *out = text;
            return 0;
        }
        tlr_free(text);
    }
    return 0;
}

static char *copy(const char *text, bool *no_memory)
{
    char *out = tlr_strdup(text);
    *no_memory |= !out;
    return out;
}

int tlr_chat_recognise(struct tlr_chat *out, const char *jinja,
                       struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    const struct format *f = formats;
    const struct format *end = formats + sizeof formats / sizeof *formats;
    while (f < end && !fits(f, jinja)) {
        f++;
    }
    if (f == end) {
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "chat template: expected a ChatML or Llama 3 one, "
                           "found another; run the model with --raw");
    }
    int rc = find_default_system(jinja, &out->default_system, err);
    if (rc) {
        return rc;
    }
    bool no_memory = false;
    out->name = copy(f->name, &no_memory);
    out->begin = copy("", &no_memory);
    out->trims = f->trims;
    for (int r = 0; r < TLR_N_ROLES; r++) {
        out->prefix[r] = copy(f->prefix[r], &no_memory);
        out->suffix[r] = copy(f->suffix, &no_memory);
    }
    if (!out->default_system && f->default_system) {
        out->default_system = copy(f->default_system, &no_memory);
    }
    if (no_memory) {
        tlr_chat_clear(out);
        return tlr_err_nomem(err, "chat template", 0);
    }
    return 0;
}

void tlr_chat_clear(struct tlr_chat *c)
{
    tlr_free(c->name);
    tlr_free(c->begin);
    tlr_free(c->default_system);
    for (int r = 0; r < TLR_N_ROLES; r++) {
        tlr_free(c->prefix[r]);
        tlr_free(c->suffix[r]);
    }
    memset(c, 0, sizeof *c);
}

/* ---- JSON ---- */

int tlr_chat_to_json(const struct tlr_chat *c, char **out, size_t *out_len,
                     struct tlr_err *err)
{
    json_t *prefix = json_object(), *suffix = json_object();
    for (int r = 0; r < TLR_N_ROLES; r++) {
        json_object_set_new(prefix, role_names[r], json_string(c->prefix[r]));
        json_object_set_new(suffix, role_names[r], json_string(c->suffix[r]));
    }
    json_t *o = json_pack("{s:s, s:s, s:b, s:o, s:o}", "name", c->name, "begin",
                          c->begin, "trims", (int)c->trims, "prefix", prefix,
                          "suffix", suffix);
    if (o && c->default_system) {
        json_object_set_new(o, "default_system",
                            json_string(c->default_system));
    }
    int rc = tlr_json_dump(o, out, out_len, err);
    json_decref(o);
    return rc;
}

static int read_string(const json_t *o, const char *key, char **out,
                       const char *where, struct tlr_err *err)
{
    const json_t *value = json_object_get(o, key);
    if (!json_is_string(value)) {
        return tlr_json_wrong(value, key, "a string", where, err);
    }
    if (json_string_length(value) > MAX_PIECE_BYTES) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: %s: expected at most %d bytes, found %zu; "
                           "convert the model again",
                           where, key, MAX_PIECE_BYTES,
                           json_string_length(value));
    }
    *out = tlr_strdup(json_string_value(value));
    return *out ? 0 : tlr_err_nomem(err, where, json_string_length(value) + 1);
}

static int read_roles(const json_t *o, const char *key, char **out,
                      const char *where, struct tlr_err *err)
{
    static const char *const known[] = {"system", "user", "assistant", NULL};
    const json_t *roles = json_object_get(o, key);
    if (!json_is_object(roles)) {
        return tlr_json_wrong(roles, key, "an object", where, err);
    }
    int rc = tlr_json_check_keys(roles, known, where, err);
    for (int r = 0; rc == 0 && r < TLR_N_ROLES; r++) {
        rc = read_string(roles, role_names[r], &out[r], where, err);
    }
    return rc;
}

static int read_chat(struct tlr_chat *c, const json_t *o, const char *where,
                     struct tlr_err *err)
{
    static const char *const known[] = {"name",   "begin",  "trims",
                                        "prefix", "suffix", "default_system",
                                        NULL};
    const json_t *trims = json_object_get(o, "trims");
    int rc;
    if ((rc = tlr_json_check_keys(o, known, where, err)) ||
        (rc = read_string(o, "name", &c->name, where, err)) ||
        (rc = read_string(o, "begin", &c->begin, where, err)) ||
        (rc = read_roles(o, "prefix", c->prefix, where, err)) ||
        (rc = read_roles(o, "suffix", c->suffix, where, err))) {
        return rc;
    }
    if (!json_is_boolean(trims)) {
        return tlr_json_wrong(trims, "trims", "a boolean", where, err);
    }
    c->trims = json_is_true(trims);
    return json_object_get(o, "default_system")
               ? read_string(o, "default_system", &c->default_system, where,
                             err)
               : 0;
}

int tlr_chat_from_json(struct tlr_chat *out, struct tlr_bytes json,
                       const char *where, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    json_t *o;
    int rc = tlr_json_object(&o, json, MAX_JSON_BYTES, where, err);
    if (rc) {
        return rc;
    }
    rc = read_chat(out, o, where, err);
    json_decref(o);
    if (rc) {
        tlr_chat_clear(out);
    }
    return rc;
}

/* ---- messages ---- */

/* Text between two special tokens is encoded as one, whether it comes from a
 * piece or from a message: "user\n" and a message that starts with a line end
 * share a token. */
struct builder {
    const struct tlr_tokenizer *t;
    char *text;
    size_t n, cap;
    struct tlr_ids *out;
    struct tlr_err *err;
};

static int add_text(struct builder *b, const char *text, size_t len)
{
    if (len > b->cap - b->n) {
        uint64_t cap;
        if (!tlr_add_u64(b->n, len, &cap) || !tlr_mul_u64(cap, 2, &cap) ||
            cap > SIZE_MAX) {
            return tlr_err_nomem(b->err, "message", len);
        }
        char *grown = tlr_realloc(b->text, (size_t)cap, 1);
        if (!grown) {
            return tlr_err_nomem(b->err, "message", cap);
        }
        b->text = grown;
        b->cap = (size_t)cap;
    }
    if (len > 0) {
        memcpy(b->text + b->n, text, len);
        b->n += len;
    }
    return 0;
}

static int flush_text(struct builder *b)
{
    int rc = b->n ? tlr_encode(b->t, b->text, b->n, 0, b->out, b->err) : 0;
    b->n = 0;
    return rc;
}

/* A piece of the format, in which special tokens count. */
static int add_piece(struct builder *b, const char *piece)
{
    size_t len = strlen(piece), done = 0, pos = 0, start;
    int32_t id;
    int rc;
    while ((id = tlr_tokenizer_next_added(b->t, piece, len, &start, &pos)) >=
           0) {
        if ((rc = add_text(b, piece + done, start - done)) ||
            (rc = flush_text(b)) || (rc = tlr_ids_push(b->out, id, b->err))) {
            return rc;
        }
        done = pos;
    }
    return add_text(b, piece + done, len - done);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int add_message(struct builder *b, const struct tlr_chat *c,
                       enum tlr_role role, const char *text)
{
    size_t len = strlen(text);
    while (c->trims && len > 0 && is_blank(text[len - 1])) {
        len--;
    }
    while (c->trims && len > 0 && is_blank(*text)) {
        text++;
        len--;
    }
    int rc;
    if ((rc = add_piece(b, c->prefix[role])) || (rc = add_text(b, text, len))) {
        return rc;
    }
    return add_piece(b, c->suffix[role]);
}

/* begin, bos and the default system message. */
static int add_beginning(struct builder *b, const struct tlr_chat *c,
                         bool has_system)
{
    int rc = tlr_encode(b->t, "", 0, TLR_ENCODE_BOS, b->out, b->err);
    rc = rc ? rc : add_piece(b, c->begin);
    return rc || has_system || !c->default_system
               ? rc
               : add_message(b, c, TLR_ROLE_SYSTEM, c->default_system);
}

int tlr_chat_encode(const struct tlr_chat *c, const struct tlr_tokenizer *t,
                    const struct tlr_message *messages, size_t n_messages,
                    bool first, bool open_reply, struct tlr_ids *out,
                    struct tlr_err *err)
{
    struct builder b = {.t = t, .out = out, .err = err};
    bool has_system = n_messages > 0 && messages[0].role == TLR_ROLE_SYSTEM;
    int rc = first ? add_beginning(&b, c, has_system) : 0;
    for (size_t i = 0; rc == 0 && i < n_messages; i++) {
        rc = add_message(&b, c, messages[i].role, messages[i].text);
    }
    if (rc == 0 && open_reply) {
        rc = add_piece(&b, c->prefix[TLR_ROLE_ASSISTANT]);
    }
    rc = rc ? rc : flush_text(&b);
    tlr_free(b.text);
    return rc;
}
