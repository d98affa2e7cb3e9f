/* serve_prompt.c - see serve_prompt.h.  Also what /tokenize and /detokenize
 * take, which are prompts without an answer. */
#include "net/serve_prompt.h"

#include <string.h>

#include "base/mem.h"

enum { MESSAGES_MAX = 4096 };

/* ---- ids that fit ---- */

static int check_fits(const struct tlr_ids *ids,
                      const struct tlr_request_limits *limits,
                      const char *name, struct tlr_fault *f)
{
    if (ids->n == 0)
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: has no tokens", name);
    if (ids->n < limits->n_ctx)
        return 0;
    return tlr_fault_set(f, 400, "context_length_exceeded", name,
                         "%s: %zu tokens do not fit the context of %u with "
                         "room for an answer", name, ids->n,
                         (unsigned)limits->n_ctx);
}

/* A model of random weights has no tokenizer: ids only. */
static int encode(struct tlr_ids *out, struct tlr_bytes text, unsigned flags,
                  const char *name, const struct tlr_request_limits *limits,
                  struct tlr_fault *f, struct tlr_err *err)
{
    const struct tlr_tokenizer *t = tlr_model_tokenizer(limits->model);
    if (!t)
        return tlr_fault_set(f, 400, "unsupported", name,
                             "%s: the model has no tokenizer; give token ids",
                             name);
    return tlr_encode(t, (const char *)text.ptr, text.len, flags, out, err);
}

/* ---- messages ---- */

static int role_of(const json_t *message, size_t i, enum tlr_role *role,
                   struct tlr_fault *f)
{
    static const struct {
        const char *name;
        enum tlr_role role;
    } roles[] = {{"system", TLR_ROLE_SYSTEM}, {"developer", TLR_ROLE_SYSTEM},
                 {"user", TLR_ROLE_USER}, {"assistant", TLR_ROLE_ASSISTANT}};
    const char *name = json_string_value(json_object_get(message, "role"));
    for (size_t k = 0; name && k < sizeof roles / sizeof *roles; k++) {
        if (strcmp(name, roles[k].name) == 0) {
            *role = roles[k].role;
            return 0;
        }
    }
    return tlr_fault_set(f, 400, "invalid_value", "messages",
                         "messages[%zu].role: expected system, developer, user "
                         "or assistant, found %.40s", i,
                         name ? name : "none");
}

/* A list of parts that are all text. */
static int join_parts(const json_t *parts, size_t i, char **out,
                      struct tlr_fault *f, struct tlr_err *err)
{
    size_t n_bytes = 1;
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *text =
            json_object_get(json_array_get(parts, k), "text");
        if (!json_is_string(text))
            return tlr_fault_set(f, 400, "unsupported", "messages",
                                 "messages[%zu].content[%zu]: only parts of "
                                 "type text are supported", i, k);
        n_bytes += json_string_length(text);
    }
    char *at = *out = tlr_calloc(n_bytes, 1);
    if (!at)
        return tlr_err_nomem(err, "message", n_bytes);
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *text =
            json_object_get(json_array_get(parts, k), "text");
        memcpy(at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    return 0;
}

static int content_of(const json_t *message, size_t i, char **out,
                      struct tlr_fault *f, struct tlr_err *err)
{
    const json_t *content = tlr_field(message, "content");
    if (json_is_array(content))
        return join_parts(content, i, out, f, err);
    if (!json_is_string(content))
        return tlr_fault_set(f, 400, "invalid_type", "messages",
                             "messages[%zu].content: expected a string or a "
                             "list of parts", i);
    *out = tlr_strdup(json_string_value(content));
    return *out ? 0 : tlr_err_nomem(err, "message",
                                    json_string_length(content));
}

static int read_message(struct tlr_message *m, const json_t *message, size_t i,
                        struct tlr_fault *f, struct tlr_err *err)
{
    char *text = NULL;
    if (!json_is_object(message))
        return tlr_fault_set(f, 400, "invalid_type", "messages",
                             "messages[%zu]: expected an object", i);
    int rc = role_of(message, i, &m->role, f);
    if (!rc)
        rc = content_of(message, i, &text, f, err);
    m->text = text;
    return rc;
}

int tlr_prompt_messages(struct tlr_ids *out, const json_t *root,
                        const struct tlr_request_limits *limits,
                        struct tlr_fault *f, struct tlr_err *err)
{
    const json_t *list = tlr_field(root, "messages");
    const struct tlr_chat *chat = tlr_model_chat(limits->model);
    size_t n = json_array_size(list);
    if (!chat)
        return tlr_fault_set(f, 400, "unsupported", "messages",
                             "messages: the model has no chat template; use "
                             "/v1/completions");
    if (n == 0 || n > MESSAGES_MAX)
        return tlr_fault_set(f, 400, "invalid_value", "messages",
                             "messages: expected a list of 1 to %d messages",
                             (int)MESSAGES_MAX);
    struct tlr_message *messages = tlr_calloc(n, sizeof *messages);
    if (!messages)
        return tlr_err_nomem(err, "messages", n * sizeof *messages);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = read_message(&messages[i], json_array_get(list, i), i, f, err);
    if (!rc)
        rc = tlr_chat_encode(chat, tlr_model_tokenizer(limits->model), messages,
                             n, true, true, out, err);
    for (size_t i = 0; i < n; i++) {
        char *text;
        memcpy(&text, &messages[i].text, sizeof text); /* ours, not const */
        tlr_free(text);
    }
    tlr_free(messages);
    return rc ? rc : check_fits(out, limits, "messages", f);
}

/* ---- text or ids ---- */

int tlr_prompt_text(struct tlr_ids *out, const json_t *root,
                    const char *text_name, const char *ids_name, bool *is_batch,
                    const struct tlr_request_limits *limits,
                    struct tlr_fault *f, struct tlr_err *err)
{
    const json_t *v = tlr_field(root, text_name);
    const char *name = v ? text_name : ids_name;
    if (v && strcmp(text_name, ids_name) != 0 && tlr_field(root, ids_name))
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: give it or %s, not both", name, ids_name);
    v = v ? v : tlr_field(root, ids_name);
    if (!v)
        return tlr_fault_set(f, 400, "missing", name, "%s: is missing", name);
    const json_t *first = json_array_get(v, 0);
    *is_batch = json_is_array(first) || json_is_string(first);
    if (*is_batch && json_array_size(v) != 1)
        return tlr_fault_set(f, 400, "unsupported", name,
                             "%s: expected one prompt for a request, found %zu",
                             name, json_array_size(v));
    v = *is_batch ? first : v;
    int rc;
    if (json_is_string(v))
        rc = encode(out,
                    (struct tlr_bytes){(const uint8_t *)json_string_value(v),
                                       json_string_length(v)},
                    TLR_ENCODE_SPECIAL | TLR_ENCODE_BOS, name, limits, f, err);
    else if (json_is_array(v))
        rc = tlr_field_ids(v, name, tlr_model_n_ids(limits->model), out, f,
                           err);
    else
        rc = tlr_fault_set(f, 400, "invalid_type", name,
                           "%s: expected a text or a list of token ids", name);
    return rc ? rc : check_fits(out, limits, name, f);
}

/* ---- without an answer ---- */

static int tokenize(struct tlr_ids *out, const json_t *root,
                    const struct tlr_request_limits *limits,
                    struct tlr_fault *f, struct tlr_err *err)
{
    struct tlr_bytes text = {NULL, 0};
    bool bos = true;
    if (tlr_field(root, "messages"))
        return tlr_prompt_messages(out, root, limits, f, err);
    int rc = tlr_field_text(root, "prompt", &text, f);
    if (!rc && !text.ptr)
        rc = tlr_field_text(root, "content", &text, f);
    if (!rc && !text.ptr)
        rc = tlr_field_text(root, "text", &text, f);
    if (!rc && !text.ptr)
        rc = tlr_fault_set(f, 400, "missing", "prompt", "prompt: is missing");
    if (!rc)
        rc = tlr_field_bool(root, "add_special_tokens", &bos, f);
    return rc ? rc
              : encode(out, text,
                       TLR_ENCODE_SPECIAL |
                           (bos ? (unsigned)TLR_ENCODE_BOS : 0u),
                       "prompt", limits, f, err);
}

int tlr_request_tokenize(struct tlr_ids *out, struct tlr_bytes body,
                         const struct tlr_request_limits *limits,
                         struct tlr_fault *fault, struct tlr_err *err)
{
    json_t *root = NULL;
    int rc = tlr_body_parse(&root, body, fault);
    if (!rc)
        rc = tokenize(out, root, limits, fault, err);
    json_decref(root);
    return rc;
}

int tlr_request_detokenize(struct tlr_ids *out, struct tlr_bytes body,
                           const struct tlr_request_limits *limits,
                           struct tlr_fault *fault, struct tlr_err *err)
{
    json_t *root = NULL;
    int rc = tlr_body_parse(&root, body, fault);
    const json_t *list = rc ? NULL : tlr_field(root, "tokens");
    if (!rc && !json_is_array(list))
        rc = tlr_fault_set(fault, 400, "missing", "tokens",
                           "tokens: expected a list of ids");
    if (!rc)
        rc = tlr_field_ids(list, "tokens", tlr_model_n_ids(limits->model), out,
                           fault, err);
    json_decref(root);
    return rc;
}
