/* probe.c - what does this server speak, and does it cut text as we do?
 *
 * The list of models names most servers; of the rest, pages that only one kind has;
 * of those that still say nothing, the first format that gets an answer.  Then a
 * text is cut on both sides: the same ids make token mode, anything else text mode.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/net_internal.h"

/* ---- one request, waited for ---- */

static int before(void *ctx, struct tlr_http_call *c, struct tlr_err *err)
{
    struct tlr_net *n = ctx;
    struct tlr_audit_entry e = {.path = c->path, .n_bytes = c->body.n,
                                .text = c->body.ptr, .n_text = c->body.n};
    pthread_mutex_lock(&n->lock);
    n->account.n_requests++;
    pthread_mutex_unlock(&n->lock);
    return tlr_audit_add(n->audit, &e, err);
}

/* The reply to GET, or to POST of what n->probe.body holds.  *root is NULL and the
 * code 0 where there was a reply that is no JSON object with status 200; only a
 * server that cannot be talked to at all is an error. */
static int fetch(struct tlr_net *n, const char *path, bool is_post,
                 json_t **root, struct tlr_err *err)
{
    struct tlr_http_call *c = &n->probe;
    *root = NULL;
    c->path = path;
    c->is_post = is_post;
    c->before = before;
    c->ctx = n;
    c->deadline_ns = tlr_now_ns() + (uint64_t)(n->o.timeout_s * 1e9);
    if (!is_post)
        tlr_buf_reset(&c->body);
    if (c->body.failed)
        return tlr_err_nomem(err, "probe", c->body.n);
    tlr_http_submit(n->http, c);
    int rc = tlr_net_await(n, c, err);
    pthread_mutex_lock(&n->lock);
    tlr_net_count(n, c);
    pthread_mutex_unlock(&n->lock);
    if (rc)
        return rc;
    /* A page that is missing is told by 404, 405, 500 or 501. */
    if (c->code || c->status == 401 || c->status == 403 || c->status == 429 ||
        c->status > 501) {
        rc = tlr_net_check_reply(n, c);
        return tlr_err_set(err, rc, "%s", c->err.text);
    }
    struct tlr_bytes body = {(const uint8_t *)c->reply.ptr, c->reply.n};
    if (tlr_net_check_reply(n, c) == 0)
        *root = tlr_net_json(body, NULL);
    return 0;
}

/* ---- who are you? ---- */

static enum tlr_net_api_kind kind_of_owner(const char *owner)
{
    static const struct {
        const char *word;
        enum tlr_net_api_kind kind;
    } known[] = {{"sglang", TLR_NET_SGLANG}, {"vllm", TLR_NET_VLLM},
                 {"llamacpp", TLR_NET_LLAMACPP},
                 {"llama.cpp", TLR_NET_LLAMACPP}};
    for (size_t i = 0; owner && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(owner, known[i].word) == 0)
            return known[i].kind;
    return TLR_NET_AUTO;
}

/* The model asked for, else the first of the list; and whose list it is. */
static int list_models(struct tlr_net *n, enum tlr_net_api_kind *kind,
                       struct tlr_err *err)
{
    json_t *root;
    int rc = fetch(n, "/v1/models", false, &root, err);
    if (rc)
        return rc;
    const json_t *data = json_object_get(root, "data");
    const json_t *first = json_array_get(data, 0);
    const char *id = tlr_net_string(first, "id", NULL);
    *kind = kind_of_owner(tlr_net_string(first, "owned_by", NULL));
    if (id && !n->model[0])
        snprintf(n->model, sizeof n->model, "%s", id);
    json_decref(root);
    return 0;
}

/* Pages that only one kind of server has. */
static int look_at_pages(struct tlr_net *n, enum tlr_net_api_kind *kind,
                         struct tlr_err *err)
{
    static const struct {
        const char *path, *key;
        enum tlr_net_api_kind kind;
    } pages[] = {{"/get_model_info", "model_path", TLR_NET_SGLANG},
                 {"/props", "default_generation_settings", TLR_NET_LLAMACPP},
                 {"/version", "version", TLR_NET_VLLM}};
    int rc = 0;
    for (size_t i = 0; i < 3 && *kind == TLR_NET_AUTO && !rc; i++) {
        json_t *root;
        rc = fetch(n, pages[i].path, false, &root, err);
        if (json_object_get(root, pages[i].key))
            *kind = pages[i].kind;
        json_decref(root);
    }
    return rc;
}

/* ---- a question to see whether there is an answer ---- */

static const char probe_words[] =
    "Token routing 2026: x_1 += 3.14;\n\tCaf\xC3\xA9, \xE6\x9D\xB1\xE4\xBA\xAC "
    "\xF0\x9F\x99\x82   it's (ok)";

/* Asks for n_tok tokens after the probe's text; *has_answer says whether the reply
 * is one in that format. */
static int try_format(struct tlr_net *n, enum tlr_net_api_kind kind,
                      bool by_text, bool is_strict, int n_tok,
                      struct tlr_net_answer *answer, bool *has_answer,
                      struct tlr_err *err)
{
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\"Count to ten.\"},"
        "{\"role\":\"assistant\",\"content\":\"One, two, \"}]";
    const struct tlr_net_api *api = tlr_net_api(kind);
    struct tlr_ids ids = {0};
    int rc = tlr_encode(n->seam.tok, probe_words, sizeof probe_words - 1, 0,
                        &ids, err);
    struct tlr_net_ask ask = {
        .ids = ids.ids, .n_ids = ids.n, .text = by_text ? probe_words : NULL,
        .n_text = sizeof probe_words - 1, .messages = messages, .n_tok = n_tok,
        .model = n->model, .is_strict = is_strict};
    json_t *root = NULL;
    *has_answer = false;
    tlr_buf_reset(&n->probe.body);
    api->build(&n->probe.body, &ask);
    if (!rc)
        rc = fetch(n, api->path, true, &root, err);
    if (!rc && root) {
        tlr_net_answer_begin(answer);
        *has_answer = api->read(answer, root, NULL) == 0 &&
                      (answer->n_ids >= 0 || answer->has_text);
    }
    json_decref(root);
    tlr_ids_clear(&ids);
    return rc;
}

/* Completions before chat, all fields before the standard's alone. */
static int settle_openai(struct tlr_net *n, struct tlr_err *err)
{
    struct tlr_net_answer answer = {0};
    char why[300] = "";
    bool ok = false;
    int rc = 0;
    for (int i = 0; i < 4 && !rc && !ok; i++) {
        n->kind = i < 2 ? TLR_NET_OPENAI : TLR_NET_OPENAI_CHAT;
        n->is_strict = i % 2;
        /* Only a complaint about the request makes it worth to leave fields out. */
        if (n->is_strict && n->probe.status != 400 && n->probe.status != 422)
            continue;
        rc = try_format(n, n->kind, true, n->is_strict, 1, &answer, &ok, err);
        if (!why[0])
            snprintf(why, sizeof why, "%.250s", n->probe.err.text);
    }
    tlr_net_answer_clear(&answer);
    n->by_text = true;
    if (rc || ok)
        return rc;
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "%s: answers in no format that tlr knows%s%s; is this "
                       "the address of an LLM server?", n->url.base,
                       why[0] ? ": " : "", why);
}

/* A server that does not say what it is. */
static int try_all(struct tlr_net *n, enum tlr_net_api_kind *kind,
                   struct tlr_err *err)
{
    static const enum tlr_net_api_kind order[] = {
        TLR_NET_SGLANG, TLR_NET_LLAMACPP, TLR_NET_VLLM};
    struct tlr_net_answer answer = {0};
    int rc = 0;
    for (int i = 0; i < 3 && *kind == TLR_NET_AUTO && !rc; i++) {
        bool ok;
        rc = try_format(n, order[i], false, false, 1, &answer, &ok, err);
        /* Any OpenAI-style server answers there; only vLLM with ids. */
        if (!rc && ok && (order[i] != TLR_NET_VLLM || answer.n_ids >= 0))
            *kind = order[i];
    }
    tlr_net_answer_clear(&answer);
    if (!rc && *kind == TLR_NET_AUTO)
        *kind = TLR_NET_OPENAI;
    return rc;
}

/* ---- do you cut text as we do? ---- */

/* The probe's words and the end of text, spelled out. */
static int probe_text(const struct tlr_net *n, struct tlr_buf *text,
                      struct tlr_ids *ids, struct tlr_err *err)
{
    tlr_buf_put(text, probe_words, sizeof probe_words - 1);
    if (n->seam.gen && n->seam.gen->n_eos > 0) {
        struct tlr_bytes b = tlr_token_bytes(n->seam.tok, n->seam.gen->eos[0]);
        tlr_buf_put(text, b.ptr, b.len);
        tlr_buf_text(text, "end");
    }
    if (text->failed)
        return tlr_err_nomem(err, "probe", text->n);
    return tlr_encode(n->seam.tok, text->ptr, text->n, TLR_ENCODE_SPECIAL, ids,
                      err);
}

static bool is_same(const struct tlr_net *n, const struct tlr_ids *ours,
                    const json_t *theirs)
{
    const struct tlr_vocab *v = tlr_tokenizer_vocab(n->seam.tok);
    size_t n_theirs = json_array_size(theirs), skip = n_theirs == ours->n + 1;
    if (n_theirs != ours->n + skip ||
        (skip && json_integer_value(json_array_get(theirs, 0)) != v->bos_id))
        return false;
    for (size_t i = 0; i < ours->n; i++) {
        const json_t *id = json_array_get(theirs, i + skip);
        if (!json_is_integer(id) || json_integer_value(id) != ours->ids[i])
            return false;
    }
    return true;
}

/* A token as a server shows it: no end of text, no stray bytes. */
static void put_shown(const struct tlr_net *n, int32_t id,
                      struct tlr_utf8_stream *utf8, struct tlr_buf *out)
{
    char text[3 * (TLR_TOKEN_MAX_BYTES + 4)];
    size_t len = 0;
    if (tlr_token_is_special(n->seam.tok, id) ||
        (n->seam.gen && tlr_generation_is_eos(n->seam.gen, id)))
        return;
    tlr_utf8_stream_push(utf8, tlr_token_bytes(n->seam.tok, id), false, text,
                         &len);
    tlr_buf_put(out, text, len);
}

/* Without a page that cuts text: ids and text of an answer must tell the same. */
static int compare_answer(struct tlr_net *n, bool *same, struct tlr_err *err)
{
    enum { N_TOK = 8 };
    struct tlr_net_answer a = {0};
    struct tlr_buf ours = {0};
    struct tlr_utf8_stream utf8 = {{0}, 0};
    bool ok;
    int rc = try_format(n, n->kind, false, false, N_TOK, &a, &ok, err);
    *same = !rc && ok && a.n_ids > 0 && a.has_text && a.text.n > 0;
    for (int i = 0; *same && i < a.n_ids; i++)
        put_shown(n, a.ids[i], &utf8, &ours);
    /* The last character may be torn. */
    size_t len = ours.n < a.text.n ? ours.n : a.text.n;
    len -= len > 3 ? 3 : 0;
    *same = *same && len > 0 && memcmp(ours.ptr, a.text.ptr, len) == 0 &&
            ours.n < a.text.n + 4 && a.text.n < ours.n + 4;
    tlr_buf_clear(&ours);
    tlr_net_answer_clear(&a);
    return rc;
}

static int compare_tokens(struct tlr_net *n, struct tlr_err *err)
{
    const struct tlr_net_api *api = tlr_net_api(n->kind);
    struct tlr_buf text = {0}, *body = &n->probe.body;
    struct tlr_ids ids = {0};
    json_t *root = NULL;
    bool same = false;
    int rc = probe_text(n, &text, &ids, err);
    tlr_buf_reset(body);
    tlr_buf_text(body, "{\"model\":");
    tlr_buf_json(body, n->model, strlen(n->model));
    tlr_buf_text(body, ",\"");
    tlr_buf_text(body, api->tokenize_text);
    tlr_buf_text(body, "\":");
    tlr_buf_json(body, text.ptr ? text.ptr : "", text.n);
    tlr_buf_text(body, api->tokenize_more);
    tlr_buf_text(body, "}");
    if (!rc)
        rc = fetch(n, api->tokenize_path, true, &root, err);
    const json_t *tokens = json_object_get(root, "tokens");
    if (json_is_array(tokens))
        same = is_same(n, &ids, tokens);
    else if (!rc)
        rc = compare_answer(n, &same, err);
    n->by_text = !same;
    json_decref(root);
    tlr_ids_clear(&ids);
    tlr_buf_clear(&text);
    return rc;
}

int tlr_net_probe(struct tlr_net *n, struct tlr_err *err)
{
    bool is_auto = n->kind == TLR_NET_AUTO;
    enum tlr_net_api_kind kind = n->kind, named = TLR_NET_AUTO;
    int rc = 0;
    if (is_auto || kind == TLR_NET_VLLM || kind == TLR_NET_OPENAI)
        rc = list_models(n, &named, err);
    if (!rc && is_auto) {
        kind = named;
        rc = look_at_pages(n, &kind, err);
        if (!rc && kind == TLR_NET_AUTO)
            rc = try_all(n, &kind, err);
    }
    if (rc)
        return rc;
    n->kind = kind;
    rc = kind == TLR_NET_OPENAI ? settle_openai(n, err)
                                : compare_tokens(n, err);
    if (rc && is_auto)
        n->kind = TLR_NET_AUTO; /* from the beginning next time */
    else if (rc)
        n->kind = kind;
    return rc;
}
