/* serve_reply.c - see serve_reply.h.
 *
 * Key order is that of OpenAI's and SGLang's own replies.  jansson takes a NULL
 * value for a failure of the call it is given to, so a reply that ran out of
 * memory lacks a field; tlr_reply_dump reports what cannot be printed at all.
 */
#include "net/serve_reply.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

int tlr_buffer_add(struct tlr_buffer *b, const char *bytes, size_t n,
                   struct tlr_err *err)
{
    if (b->n + n > b->cap) {
        size_t cap = (b->n + n) * 2 + 256;
        char *grown = tlr_realloc(b->bytes, cap, 1);
        if (!grown)
            return tlr_err_nomem(err, "reply", cap);
        b->bytes = grown;
        b->cap = cap;
    }
    memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
    return 0;
}

void tlr_buffer_clear(struct tlr_buffer *b)
{
    tlr_free(b->bytes);
    *b = (struct tlr_buffer){.bytes = NULL};
}

struct dump {
    struct tlr_buffer *out;
    struct tlr_err *err;
    int rc;
};

static int dump_part(const char *bytes, size_t n, void *ctx)
{
    struct dump *d = ctx;
    d->rc = tlr_buffer_add(d->out, bytes, n, d->err);
    return d->rc ? -1 : 0;
}

int tlr_reply_dump(struct tlr_buffer *out, json_t *root, struct tlr_err *err)
{
    struct dump d = {out, err, 0};
    if (!root)
        return tlr_err_nomem(err, "reply", 0);
    int bad = json_dump_callback(root, dump_part, &d, JSON_COMPACT);
    json_decref(root);
    return bad && !d.rc ? tlr_err_nomem(err, "reply", 0) : d.rc;
}

/* "data: {...}" and an empty line. */
static int add_event(struct tlr_buffer *out, json_t *root, struct tlr_err *err)
{
    int rc = tlr_buffer_add(out, "data: ", 6, err);
    if (rc) {
        json_decref(root);
        return rc;
    }
    rc = tlr_reply_dump(out, root, err);
    return rc ? rc : tlr_buffer_add(out, "\n\n", 2, err);
}

/* ---- errors ---- */

static const char *error_type(int status)
{
    return status == 401   ? "authentication_error"
           : status == 403 ? "permission_error"
           : status == 404 ? "not_found_error"
           : status == 429 ? "rate_limit_error"
           : status >= 500 ? "server_error"
                           : "invalid_request_error";
}

static json_t *error_object(int status, const char *code, const char *param,
                            const char *text)
{
    json_t *o = json_object(), *e = json_object();
    json_object_set_new(e, "message", tlr_reply_text(text, strlen(text)));
    json_object_set_new(e, "type", json_string(error_type(status)));
    json_object_set_new(e, "param", param && param[0] ? json_string(param)
                                                      : json_null());
    json_object_set_new(e, "code", code ? json_string(code) : json_null());
    json_object_set_new(o, "error", e);
    return o;
}

int tlr_reply_error(struct tlr_buffer *out, int status, const char *code,
                    const char *param, const char *text, struct tlr_err *err)
{
    return tlr_reply_dump(out, error_object(status, code, param, text), err);
}

/* ---- what OpenAI's formats share ---- */

static json_t *envelope(const struct tlr_reply *r, const char *object)
{
    json_t *o = json_object();
    json_object_set_new(o, "id", json_string(r->id));
    json_object_set_new(o, "object", json_string(object));
    json_object_set_new(o, "created", json_integer((json_int_t)r->created));
    json_object_set_new(o, "model", tlr_reply_text(r->model_name,
                                                   strlen(r->model_name)));
    json_object_set_new(o, "choices", json_array());
    return o;
}

static const char *finish_name(const struct tlr_job *j)
{
    return j->finish == TLR_JOB_LENGTH ? "length" : "stop";
}

static json_t *usage(const struct tlr_job *j)
{
    json_t *o = json_object(), *details = json_object();
    json_int_t prompt = (json_int_t)j->ask.prompt.n;
    json_int_t made = (json_int_t)j->n_text_tok;
    json_object_set_new(o, "prompt_tokens", json_integer(prompt));
    json_object_set_new(o, "completion_tokens", json_integer(made));
    json_object_set_new(o, "total_tokens", json_integer(prompt + made));
    json_object_set_new(details, "cached_tokens",
                        json_integer((json_int_t)j->n_cached));
    json_object_set_new(o, "prompt_tokens_details", details);
    return o;
}

/* The end of a choice; finish null while the text goes on. */
static void put_finish(json_t *choice, const struct tlr_job *j, bool is_end)
{
    json_object_set_new(choice, "finish_reason",
                        is_end ? json_string(finish_name(j)) : json_null());
    if (is_end && j->stop >= 0) {
        const struct tlr_bytes *stop = &j->ask.stops[j->stop];
        json_object_set_new(choice, "stop_reason",
                            tlr_reply_text((const char *)stop->ptr,
                                           stop->len));
    }
}

static json_t *logprobs(const struct tlr_reply *r, const struct tlr_job *j,
                        size_t from, size_t to)
{
    if (!j->ask.has_logprobs || from == to)
        return json_null();
    return r->api == TLR_API_CHAT ? tlr_reply_chat_logprobs(r, j, from, to)
                                  : tlr_reply_text_logprobs(r, j, from, to);
}

static json_t *prompt_ids(const struct tlr_job *j)
{
    json_t *list = json_array();
    for (size_t i = 0; i < j->ask.prompt.n; i++)
        json_array_append_new(list, json_integer(j->ask.prompt.ids[i]));
    return list;
}

/* A choice whose text is text[from..to) and whose tokens are [first, last). */
struct part {
    size_t from, to, first, last;
    bool is_end;
};

static json_t *choice_of(const struct tlr_reply *r, const struct tlr_job *j,
                         const struct part *p)
{
    json_t *choice = json_object(), *message = json_object();
    json_t *text = p->to > p->from ? tlr_reply_text(j->text.bytes + p->from,
                                                    p->to - p->from)
                                   : json_string("");
    json_object_set_new(choice, "index", json_integer(0));
    if (r->api == TLR_API_TEXT) {
        json_object_set_new(choice, "text", text);
        json_decref(message);
    } else {
        if (!r->stream || !r->has_begun)
            json_object_set_new(message, "role", json_string("assistant"));
        if (p->to > p->from || !r->stream || !r->has_begun)
            json_object_set(message, "content", text);
        if (!r->stream)
            json_object_set_new(message, "refusal", json_null());
        json_decref(text);
        json_object_set_new(choice, r->stream ? "delta" : "message", message);
    }
    json_object_set_new(choice, "logprobs", logprobs(r, j, p->first, p->last));
    if (r->has_ids)
        json_object_set_new(choice, "token_ids",
                            tlr_reply_ids(j, p->first, p->last));
    if (r->has_ids && !r->has_begun)
        json_object_set_new(choice, "prompt_token_ids", prompt_ids(j));
    put_finish(choice, j, p->is_end);
    return choice;
}

static json_t *openai(const struct tlr_reply *r, const struct tlr_job *j,
                      const struct part *p)
{
    const char *object = r->api == TLR_API_TEXT ? "text_completion"
                         : r->stream            ? "chat.completion.chunk"
                                                : "chat.completion";
    json_t *o = envelope(r, object);
    json_array_append_new(json_object_get(o, "choices"), choice_of(r, j, p));
    if (!r->stream)
        json_object_set_new(o, "usage", usage(j));
    else if (r->has_usage)
        json_object_set_new(o, "usage", json_null());
    if (tlr_reply_has_routing(j) && (p->is_end || p->first < p->last))
        json_object_set_new(o, "tlr", tlr_reply_routing(j, p->first, p->last,
                                                        p->is_end));
    return o;
}

/* ---- SGLang ---- */

static json_t *generate_finish(const struct tlr_job *j)
{
    json_t *o = json_object();
    json_object_set_new(o, "type", json_string(finish_name(j)));
    if (j->finish == TLR_JOB_LENGTH) {
        json_object_set_new(o, "length", json_integer((json_int_t)j->n));
    } else if (j->stop >= 0) {
        const struct tlr_bytes *stop = &j->ask.stops[j->stop];
        json_object_set_new(o, "matched",
                            tlr_reply_text((const char *)stop->ptr,
                                           stop->len));
    } else if (j->n > 0) {
        json_object_set_new(o, "matched",
                            json_integer(j->tokens[j->n - 1].joint.id));
    }
    return o;
}

/* Cumulative, also in a stream. */
static json_t *generate(const struct tlr_reply *r, const struct tlr_job *j)
{
    json_t *o = json_object(), *meta = json_object();
    json_object_set_new(o, "text",
                        j->text.n_final > 0
                            ? tlr_reply_text(j->text.bytes, j->text.n_final)
                            : json_string(""));
    json_object_set_new(o, "output_ids", tlr_reply_ids(j, 0, j->n));
    json_object_set_new(meta, "id", json_string(r->id));
    json_object_set_new(meta, "finish_reason", j->state == TLR_JOB_DONE
                                                   ? generate_finish(j)
                                                   : json_null());
    json_object_set_new(meta, "prompt_tokens",
                        json_integer((json_int_t)j->ask.prompt.n));
    json_object_set_new(meta, "completion_tokens",
                        json_integer((json_int_t)j->n));
    json_object_set_new(meta, "cached_tokens",
                        json_integer((json_int_t)j->n_cached));
    json_object_set_new(meta, "e2e_latency",
                        json_real((double)(j->last_ns - j->submit_ns) * 1e-9));
    if (j->ask.has_logprobs) {
        json_object_set_new(meta, "output_token_logprobs",
                            tlr_reply_triples(j));
        if (j->ask.n_top > 0)
            json_object_set_new(meta, "output_top_logprobs",
                                tlr_reply_top_triples(j));
    }
    json_object_set_new(o, "meta_info", meta);
    if (tlr_reply_has_routing(j))
        json_object_set_new(o, "tlr", tlr_reply_routing(j, 0, j->n, true));
    if (!r->is_batch)
        return o;
    json_t *list = json_array();
    json_array_append_new(list, o);
    return list;
}

/* ---- whole and in pieces ---- */

int tlr_reply_whole(const struct tlr_reply *r, const struct tlr_job *j,
                    struct tlr_buffer *out, struct tlr_err *err)
{
    struct part all = {0, j->text.n_final, 0, j->n, true};
    return tlr_reply_dump(out, r->api == TLR_API_GENERATE ? generate(r, j)
                                                          : openai(r, j, &all),
                          err);
}

static int end_stream(struct tlr_reply *r, const struct tlr_job *j,
                      struct tlr_buffer *out, struct tlr_err *err)
{
    static const char done[] = "data: [DONE]\n\n";
    int rc = 0;
    r->has_ended = true;
    if (r->has_usage && r->api != TLR_API_GENERATE) {
        json_t *o = envelope(r, r->api == TLR_API_TEXT
                                    ? "text_completion"
                                    : "chat.completion.chunk");
        json_object_set_new(o, "usage", usage(j));
        rc = add_event(out, o, err);
    }
    return rc ? rc : tlr_buffer_add(out, done, sizeof done - 1, err);
}

static int end_failed(struct tlr_reply *r, const struct tlr_job *j,
                      struct tlr_buffer *out, struct tlr_err *err)
{
    r->has_ended = true;
    return add_event(out,
                     j->finish == TLR_JOB_REFUSED
                         ? error_object(503, "stopping", NULL,
                                        "the server is stopping")
                         : error_object(500, "internal_error", NULL,
                                        "the server failed; its log says why"),
                     err);
}

int tlr_reply_events(struct tlr_reply *r, const struct tlr_job *j,
                     struct tlr_buffer *out, struct tlr_err *err)
{
    bool is_done = j->state == TLR_JOB_DONE;
    bool shows_tokens = r->has_ids || j->ask.has_logprobs || j->ask.records ||
                        r->api == TLR_API_GENERATE;
    struct part p = {r->n_sent_text, j->text.n_final, r->n_sent_tok, j->n,
                     is_done};
    if (is_done && j->finish > TLR_JOB_LENGTH)
        return end_failed(r, j, out, err);
    bool is_new = p.to > p.from || (shows_tokens && p.last > p.first);
    if (!is_new && !is_done)
        return 0;
    int rc = add_event(out, r->api == TLR_API_GENERATE ? generate(r, j)
                                                       : openai(r, j, &p),
                       err);
    r->has_begun = true;
    r->n_sent_text = p.to;
    r->n_sent_tok = p.last;
    return rc || !is_done ? rc : end_stream(r, j, out, err);
}
