/* hash_llm.c - see hash_llm.h and server.h: a large model that is a hash of its
 * prefix, in every wire format. */
#include "tests/net/hash_llm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/support/tlr_check.h"

enum { MOST = 64 };

/* ---- the model ---- */

static bool prints(const struct server_options *o, int32_t id)
{
    struct tlr_bytes b = tlr_token_bytes(o->seam.tok, id);
    return b.len > 0 && !tlr_token_is_special(o->seam.tok, id) &&
           b.ptr[0] >= ' ' && tlr_utf8_valid(b.ptr, b.len);
}

int32_t hash_next(const struct server_options *o, const int32_t *ids, size_t n,
                  bool by_text)
{
    uint64_t h = 77;
    for (size_t i = 0; i < n; i++)
        h = tlr_hash_u64(h, (uint64_t)ids[i]);
    if (h % 61 == 0)
        return o->seam.gen->eos[0];
    int32_t id = (int32_t)(h % o->seam.n_ids);
    while (by_text && !prints(o, id))
        id = (id + 1) % (int32_t)o->seam.n_ids;
    return id;
}

/* How sure it is of its token behind ids[0..n). */
static double log_p(const int32_t *ids, size_t n)
{
    uint64_t h = 78;
    for (size_t i = 0; i < n; i++)
        h = tlr_hash_u64(h, (uint64_t)ids[i]);
    return h % 2 ? -0.1 : -1.5;
}

static bool is_end(const struct server_options *o, int32_t id)
{
    return tlr_generation_is_eos(o->seam.gen, id);
}

/* Up to n_tok tokens after ids[0..n), which has room for them. */
static int make(const struct server_options *o, int32_t *ids, size_t n,
                int n_tok, bool by_text)
{
    for (int i = 0; i < n_tok; i++) {
        ids[n + (size_t)i] = hash_next(o, ids, n + (size_t)i, by_text);
        if (is_end(o, ids[n + (size_t)i]))
            return i + 1;
    }
    return n_tok;
}

/* ---- questions ---- */

struct question {
    int32_t ids[2048];
    size_t n;
    bool by_text, wants_p;
    int n_tok, n_made;
    int from; /* token of the prompt whose successors' rivals are wanted; -1 */
};

static bool take_prompt(const struct server_options *o, const json_t *prompt,
                        struct question *q)
{
    struct tlr_ids ids = {0};
    q->by_text = json_is_string(prompt);
    if (q->by_text) {
        ck_assert_int_eq(tlr_encode(o->seam.tok, json_string_value(prompt),
                                    json_string_length(prompt),
                                    TLR_ENCODE_SPECIAL, &ids, NULL), 0);
        q->n = ids.n;
        ck_assert_uint_lt(q->n, 1024);
        memcpy(q->ids, ids.ids, ids.n * sizeof *ids.ids);
        tlr_ids_clear(&ids);
        return true;
    }
    q->n = json_array_size(prompt);
    for (size_t i = 0; i < q->n && i < 1024; i++)
        q->ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    return q->n > 0 && q->n < 1024;
}

/* Messages, spelled as chatml does. */
static json_t *spell_messages(const json_t *messages)
{
    struct tlr_buf b = {0};
    size_t n = json_array_size(messages);
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(messages, i);
        tlr_buf_text(&b, "<|im_start|>");
        tlr_buf_text(&b, json_string_value(json_object_get(m, "role")));
        tlr_buf_text(&b, "\n");
        tlr_buf_text(&b, json_string_value(json_object_get(m, "content")));
        if (i + 1 < n)
            tlr_buf_text(&b, "<|im_end|>\n");
    }
    json_t *text = json_string(n > 0 ? b.ptr : "");
    tlr_buf_clear(&b);
    return text;
}

/* ---- answers ---- */

static json_t *ids_json(const int32_t *ids, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

/* The made tokens' text as a server shows it: no special tokens, what is no
 * character as U+FFFD. */
static json_t *text_json(const struct server_options *o,
                         const struct question *q)
{
    char text[4096];
    struct tlr_utf8_stream s = {{0}, 0};
    struct tlr_bytes none = {NULL, 0};
    size_t n = 0, more = 0;
    if (o->content)
        return json_string(o->content);
    for (int i = 0; i < q->n_made; i++) {
        int32_t id = q->ids[q->n + (size_t)i];
        if (is_end(o, id) || tlr_token_is_special(o->seam.tok, id))
            continue;
        tlr_utf8_stream_push(&s, tlr_token_bytes(o->seam.tok, id), false,
                             text + n, &more);
        n += more;
    }
    tlr_utf8_stream_push(&s, none, true, text + n, &more);
    return json_stringn(text, n + more);
}

/* Of each token made, as the format has it; the ids' own list may be one shorter. */
static void put_p(json_t *root, enum tlr_net_api_kind kind,
                  const struct question *q)
{
    json_t *list = json_array();
    for (int i = 0; i < q->n_made; i++) {
        int id = q->ids[q->n + (size_t)i];
        double p = log_p(q->ids, q->n + (size_t)i);
        json_array_append_new(list, kind == TLR_NET_SGLANG
                                        ? json_pack("[fin]", p, id)
                                    : kind == TLR_NET_LLAMACPP
                                        ? json_pack("{si, sf}", "id", id,
                                                    "logprob", p)
                                        : json_real(p));
    }
    if (kind == TLR_NET_SGLANG)
        json_object_set_new(json_object_get(root, "meta_info"),
                            "output_token_logprobs", list);
    else if (kind == TLR_NET_LLAMACPP)
        json_object_set_new(root, "completion_probabilities", list);
    else
        json_object_set_new(json_array_get(json_object_get(root, "choices"), 0),
                            "logprobs",
                            json_pack("{so}", "token_logprobs", list));
}

/* Two lists, an entry for each token of the prompt from `from` on: its own, and the
 * likeliest in its place. */
static void put_rivals(const struct server_options *o, json_t *meta,
                       const struct question *q)
{
    size_t from = o->rivals == RIVALS_ALL ? 0 : (size_t)q->from;
    json_t *own = json_array(), *top = json_array();
    if (o->rivals == RIVALS_AFTER)
        from++;
    for (size_t i = from; i < q->n; i++) {
        int id = q->ids[i] ^ (o->rivals == RIVALS_OTHERS && i + 2 == q->n);
        bool is_null = (i == from && o->rivals != RIVALS_AFTER) ||
                       (o->rivals == RIVALS_HOLES && i + 2 == q->n);
        int rival = i > 0 ? hash_next(o, q->ids, i, false) : 0;
        json_array_append_new(own, i == from ? json_pack("[nin]", id)
                                             : json_pack("[fin]", -1.0, id));
        json_array_append_new(top, is_null ? json_null()
                                           : json_pack("[[fin]]", -0.5, rival));
    }
    json_object_set_new(meta, "input_token_logprobs", own);
    json_object_set_new(meta, "input_top_logprobs", top);
}

static json_t *answer(const struct server_options *o, enum tlr_net_api_kind kind,
                      const struct question *q)
{
    const int32_t *made = q->ids + q->n;
    bool ends = q->n_made > 0 && is_end(o, made[q->n_made - 1]);
    int n = q->n_made - (ends && o->leaves_end_out);
    bool hides = o->hides_ids || kind == TLR_NET_OPENAI ||
                 kind == TLR_NET_OPENAI_CHAT;
    json_t *ids = hides ? json_null() : ids_json(made, n);
    json_t *text = text_json(o, q), *root;
    const char *reason = ends ? "stop" : "length";
    if (kind == TLR_NET_SGLANG) {
        root = json_pack("{so, s{s{ss}, si}}", "text", text, "meta_info",
                         "finish_reason", "type", reason, "cached_tokens", 3);
        if (!hides)
            json_object_set(root, "output_ids", ids);
    } else if (kind == TLR_NET_LLAMACPP) {
        root = json_pack("{so, ss, s{si, sf, sf}}", "content", text, "stop_type",
                         ends ? "eos" : "limit", "timings", "cache_n", 3,
                         "prompt_ms", 0.1, "predicted_ms", 0.1);
        if (!hides)
            json_object_set(root, "tokens", ids);
    } else if (kind == TLR_NET_OPENAI_CHAT) {
        root = json_pack("{ss, s[{s{ss, so}, ss}]}", "model", "hash", "choices",
                         "message", "role", "assistant", "content", text,
                         "finish_reason", reason);
    } else {
        root = json_pack("{ss, s[{so, ss, sO}]}", "model", "hash", "choices",
                         "text", text, "finish_reason", reason, "token_ids",
                         ids);
    }
    json_decref(ids);
    ck_assert(root != NULL);
    if (q->wants_p)
        put_p(root, kind, q);
    if (q->from >= 0 && o->rivals != RIVALS_NONE)
        put_rivals(o, json_object_get(root, "meta_info"), q);
    return root;
}

static int generate(const struct server_options *o, enum tlr_net_api_kind kind,
                    const json_t *body, json_t **out)
{
    static const char *const prompts[] = {"input_ids", "prompt", "prompt",
                                          "prompt"};
    static const char *const counts[] = {"", "max_tokens", "n_predict",
                                         "max_tokens", "max_tokens"};
    struct question q = {.n_made = 0};
    const json_t *params = json_object_get(body, "sampling_params");
    const json_t *n_tok = kind == TLR_NET_SGLANG
                              ? json_object_get(params, "max_new_tokens")
                              : json_object_get(body, counts[kind]);
    json_t *text = NULL;
    const json_t *prompt = NULL;
    if (o->is_strict && json_object_get(body, "top_k")) {
        *out = json_pack("{s{ss}}", "error", "message", "unknown field top_k");
        return 400;
    }
    if (kind == TLR_NET_OPENAI_CHAT)
        prompt = text = spell_messages(json_object_get(body, "messages"));
    else if (!(prompt = json_object_get(body, prompts[kind])))
        prompt = json_object_get(body, "text");
    bool ok = prompt && json_is_integer(n_tok) && take_prompt(o, prompt, &q);
    json_decref(text);
    if (!ok || (kind == TLR_NET_OPENAI && !q.by_text)) {
        *out = json_pack("{ss}", "detail", "what is that?");
        return 422;
    }
    q.n_tok = (int)json_integer_value(n_tok);
    q.wants_p = o->tells_p && !q.by_text &&
                (json_is_true(json_object_get(body, "return_logprob")) ||
                 json_is_integer(json_object_get(body, "logprobs")) ||
                 json_integer_value(json_object_get(body, "n_probs")) == 1);
    q.from = -1;
    if (json_integer_value(json_object_get(body, "top_logprobs_num")) == 1)
        q.from = (int)json_integer_value(json_object_get(body,
                                                         "logprob_start_len"));
    q.n_made = make(o, q.ids, q.n, q.n_tok < MOST ? q.n_tok : MOST, q.by_text);
    *out = answer(o, kind, &q);
    return 200;
}

static int tokenize(const struct server_options *o, const json_t *body,
                    json_t **out)
{
    const char *key = o->kind == TLR_NET_LLAMACPP ? "content" : "prompt";
    const json_t *text = json_object_get(body, key);
    struct tlr_ids ids = {0};
    if (o->cannot_tokenize || !json_is_string(text))
        return 404;
    ck_assert_int_eq(tlr_encode(o->seam.tok, json_string_value(text),
                                json_string_length(text), TLR_ENCODE_SPECIAL,
                                &ids, NULL), 0);
    if (o->cuts_otherwise)
        ids.ids[ids.n / 2]++;
    *out = json_pack("{so}", "tokens", ids_json(ids.ids, (int)ids.n));
    tlr_ids_clear(&ids);
    return 200;
}

static int pages(const struct server_options *o, const char *path, json_t **out)
{
    static const char *const owners[] = {"sglang", "vllm", "llamacpp", "me"};
    if (o->is_anonymous || strcmp(path, "/v1/models") != 0)
        return 404;
    const char *owner = owners[o->kind < 3 ? o->kind : 3];
    *out = json_pack("{s[{ss, ss}]}", "data", "id", "hash", "owned_by", owner);
    return 200;
}

int hash_reply(const struct server_options *o, const char *method,
               const char *path, const char *body, size_t n_body, char **out,
               bool *is_question)
{
    static const char *const paths[] = {"/generate", "/v1/completions",
                                        "/completion", "/v1/completions",
                                        "/v1/chat/completions"};
    json_t *asked = json_loadb(body, n_body, 0, NULL), *said = NULL;
    int status = 404;
    *is_question = false;
    if (strcmp(method, "GET") == 0)
        status = pages(o, path, &said);
    else if (strcmp(path, "/tokenize") == 0 && o->kind != TLR_NET_OPENAI)
        status = tokenize(o, asked, &said);
    else if (strcmp(path, paths[o->kind]) == 0 && !o->chat_only)
        status = generate(o, o->kind, asked, &said);
    else if (o->kind == TLR_NET_OPENAI && strcmp(path, paths[4]) == 0)
        status = generate(o, TLR_NET_OPENAI_CHAT, asked, &said);
    *is_question = strcmp(method, "POST") == 0 &&
                   strcmp(path, "/tokenize") != 0 && status == 200;
    *out = said ? json_dumps(said, JSON_COMPACT) : NULL;
    json_decref(said);
    json_decref(asked);
    return status;
}

/* ---- the same without a line ---- */

/* ids as a server that is sent their text sees them. */
static int through_text(const struct server_options *o, const int32_t *ids,
                        size_t n, struct question *q, struct tlr_err *err)
{
    struct tlr_buf text = {0}, quoted = {0};
    uint8_t begun[4];
    int n_begun;
    tlr_seam_prompt(&o->seam, ids, n, true, &text, begun, &n_begun);
    tlr_buf_text(&quoted, "[");
    tlr_buf_json(&quoted, text.ptr, text.n);
    tlr_buf_text(&quoted, "]");
    json_t *list = json_loadb(quoted.ptr, quoted.n, 0, NULL);
    take_prompt(o, json_array_get(list, 0), q);
    json_decref(list);
    tlr_buf_clear(&text);
    tlr_buf_clear(&quoted);
    /* It cannot know of a character that was only begun. */
    return n_begun > 0 ? tlr_err_set(err, TLR_EMISMATCH, "torn") : 0;
}

static int ask(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct hash_expert *e = self;
    struct question q = {.n = n};
    if (e->fail_every > 0 && ++e->n_asks % e->fail_every == 0)
        return tlr_err_set(err, TLR_EIO, "hash: the line is cut");
    memcpy(q.ids, ids, n * sizeof *ids);
    int rc = e->by_text ? through_text(e->o, ids, n, &q, err) : 0;
    if (rc)
        return rc;
    bool is_auto = n_tok == TLR_EXPERT_AUTO, tells = e->o->tells_p && !e->by_text;
    int most = is_auto ? (tells ? TLR_EXPERT_AUTO_MAX : 1) : n_tok, k = 1;
    out->n_tok = make(e->o, q.ids, q.n, most, e->by_text);
    while (is_auto && k < out->n_tok && exp(log_p(q.ids, q.n + (size_t)k - 1)) < 0.5)
        k++;
    out->n_tok = is_auto ? k : out->n_tok;
    memcpy(out->ids, q.ids + q.n, (size_t)out->n_tok * sizeof *ids);
    return 0;
}

struct tlr_expert hash_expert(struct hash_expert *e)
{
    static const struct tlr_expert_ops ops = {.ask = ask};
    return (struct tlr_expert){.ops = &ops, .self = e, .name = "hash"};
}
