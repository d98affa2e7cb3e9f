/* serve_routes.c - what is behind each path, but for what makes text. */
#include <string.h>

#include "base/mem.h"
#include "net/serve_exchange.h"
#include "net/serve_fields.h"
#include "router/router.h"

enum { METRICS_BYTES = 16384 };

static struct tlr_bytes body_of(const struct tlr_exchange *x)
{
    return (struct tlr_bytes){(const uint8_t *)x->body.bytes, x->body.n};
}

/* ---- what is there ---- */

static enum MHD_Result health(struct tlr_exchange *x)
{
    json_t *o = json_object();
    json_object_set_new(o, "status", json_string("ok"));
    return tlr_send_json(x, 200, o);
}

/* What a request may ask of routing, and what it gets when it says nothing. */
static json_t *routing_object(const struct tlr_request_limits *l)
{
    static const char *const modes[] = {"joint", "small", "large"};
    enum tlr_policy_kind kind =
        l->router ? tlr_router_shape(l->router)->kind : l->policy.kind;
    json_t *o = json_object();
    json_object_set_new(o, "mode", json_string(modes[l->mode]));
    json_object_set_new(o, "policy",
                        json_string(tlr_policy_name(l->policy.kind)));
    json_object_set_new(o, "tau", json_real((double)l->policy.tau));
    json_object_set_new(o, "llm", json_boolean(l->has_llm));
    json_object_set_new(o, "router", l->router
                                         ? json_string(tlr_policy_name(kind))
                                         : json_null());
    json_object_set_new(
        o, "calibrated",
        json_boolean(l->router &&
                     tlr_calibration_has(tlr_router_calibration(l->router),
                                         l->policy.kind)));
    return o;
}

static json_t *model_object(const struct tlr_server *s)
{
    json_t *o = json_object();
    json_object_set_new(o, "id", tlr_reply_text(s->o.model_name,
                                                strlen(s->o.model_name)));
    json_object_set_new(o, "object", json_string("model"));
    json_object_set_new(o, "created", json_integer((json_int_t)s->created));
    json_object_set_new(o, "owned_by", json_string("tlr"));
    json_object_set_new(o, "max_model_len", json_integer(s->o.limits.n_ctx));
    json_object_set_new(o, "tlr", routing_object(&s->o.limits));
    return o;
}

/* Nothing in it comes from elsewhere, and it talks to nobody else. */
static enum MHD_Result page(struct tlr_exchange *x)
{
    return tlr_send(x, 200, "text/html; charset=utf-8",
                    (const char *)tlr_web_page, tlr_web_page_bytes);
}

static enum MHD_Result models(struct tlr_exchange *x)
{
    json_t *o = json_object(), *list = json_array();
    json_array_append_new(list, model_object(x->server));
    json_object_set_new(o, "object", json_string("list"));
    json_object_set_new(o, "data", list);
    return tlr_send_json(x, 200, o);
}

static enum MHD_Result one_model(struct tlr_exchange *x)
{
    const char *name = x->url + strlen("/v1/models/");
    if (strcmp(name, x->server->o.model_name) == 0)
        return tlr_send_json(x, 200, model_object(x->server));
    struct tlr_fault f = {.status = 0};
    tlr_fault_of(&f, 404, "model_not_found", "there is no such model here");
    return tlr_send_fault(x, &f);
}

/* SGLang's clients ask for it first. */
static enum MHD_Result model_info(struct tlr_exchange *x)
{
    const char *name = x->server->o.model_name;
    json_t *o = json_object();
    json_object_set_new(o, "model_path", tlr_reply_text(name, strlen(name)));
    json_object_set_new(o, "tokenizer_path",
                        tlr_reply_text(name, strlen(name)));
    json_object_set_new(o, "is_generation", json_true());
    return tlr_send_json(x, 200, o);
}

static enum MHD_Result metrics(struct tlr_exchange *x)
{
    struct tlr_server *s = x->server;
    struct tlr_metrics m;
    char *page = tlr_calloc(METRICS_BYTES, 1);
    if (!page)
        return MHD_NO;
    tlr_scheduler_metrics(s->scheduler, &m);
    tlr_scheduler_lock(s->scheduler);
    memcpy(m.n_http, s->n_http, sizeof m.n_http);
    tlr_scheduler_unlock(s->scheduler);
    m.n_connections = tlr_watch_count(s->watch);
    size_t n = tlr_metrics_print(&m, page, METRICS_BYTES);
    n = n < METRICS_BYTES ? n : METRICS_BYTES - 1;
    enum MHD_Result sent = tlr_send(
        x, 200, "text/plain; version=0.0.4; charset=utf-8", page, n);
    tlr_free(page);
    return sent;
}

/* ---- text and ids ---- */

static enum MHD_Result send_problem(struct tlr_exchange *x,
                                    const struct tlr_fault *fault,
                                    const struct tlr_err *err)
{
    return fault->status ? tlr_send_fault(x, fault) : tlr_send_failure(x, err);
}

static enum MHD_Result tokenize(struct tlr_exchange *x)
{
    struct tlr_ids ids = {NULL, 0, 0};
    struct tlr_fault fault = {.status = 0};
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_request_tokenize(&ids, body_of(x), &x->server->o.limits,
                                  &fault, &err);
    json_t *o = NULL;
    if (!rc) {
        json_t *list = json_array();
        for (size_t i = 0; i < ids.n; i++)
            json_array_append_new(list, json_integer(ids.ids[i]));
        o = json_object();
        json_object_set_new(o, "tokens", list);
        json_object_set_new(o, "count", json_integer((json_int_t)ids.n));
        json_object_set_new(o, "max_model_len",
                            json_integer(x->server->o.limits.n_ctx));
    }
    tlr_ids_clear(&ids);
    return rc ? send_problem(x, &fault, &err) : tlr_send_json(x, 200, o);
}

/* The ids' bytes as text; special tokens are spelled out. */
static enum MHD_Result detokenize(struct tlr_exchange *x)
{
    const struct tlr_tokenizer *t =
        tlr_model_tokenizer(x->server->o.limits.model);
    struct tlr_ids ids = {NULL, 0, 0};
    struct tlr_buffer text = {.bytes = NULL};
    struct tlr_fault fault = {.status = 0};
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_request_detokenize(&ids, body_of(x), &x->server->o.limits,
                                    &fault, &err);
    if (!rc && !t)
        rc = tlr_fault_set(&fault, 400, "unsupported", "tokens",
                           "tokens: the model has no tokenizer");
    for (size_t i = 0; i < ids.n && !rc; i++) {
        struct tlr_bytes b = tlr_token_bytes(t, ids.ids[i]);
        rc = b.len ? tlr_buffer_add(&text, (const char *)b.ptr, b.len, &err)
                   : 0;
    }
    json_t *o = NULL;
    if (!rc) {
        json_t *v = text.n ? tlr_reply_text(text.bytes, text.n)
                           : json_string("");
        o = json_object();
        json_object_set(o, "prompt", v);  /* vLLM */
        json_object_set_new(o, "content", v); /* llama.cpp */
    }
    tlr_ids_clear(&ids);
    tlr_buffer_clear(&text);
    return rc ? send_problem(x, &fault, &err) : tlr_send_json(x, 200, o);
}

/* ---- the table ---- */

static const struct tlr_route routes[] = {
    {"GET", "/", true, page},
    {"GET", "/health", true, health},
    {"GET", "/v1/health", true, health},
    {"GET", "/v1/models", false, models},
    {"GET", "/v1/models/", false, one_model}, /* and what follows */
    {"GET", "/metrics", false, metrics},
    {"GET", "/get_model_info", false, model_info},
    {"POST", "/v1/chat/completions", false, tlr_answer_chat},
    {"POST", "/v1/completions", false, tlr_answer_text},
    {"POST", "/generate", false, tlr_answer_generate},
    {"POST", "/tokenize", false, tokenize},
    {"POST", "/detokenize", false, detokenize},
};

static bool fits(const struct tlr_route *r, const char *path)
{
    size_t n = strlen(r->path);
    if (n > 1 && r->path[n - 1] == '/')
        return strncmp(path, r->path, n) == 0;
    return strcmp(path, r->path) == 0;
}

const struct tlr_route *tlr_route_find(const char *method, const char *path,
                                       struct tlr_fault *fault)
{
    const char *wants = strcmp(method, "HEAD") == 0 ? "GET" : method;
    bool has_path = false;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!fits(&routes[i], path))
            continue;
        if (strcmp(routes[i].method, wants) == 0)
            return &routes[i];
        has_path = true;
    }
    if (has_path)
        tlr_fault_of(fault, 405, "method_not_allowed",
                     "this path takes another method");
    else
        tlr_fault_of(fault, 404, "unknown_url",
                     "there is nothing at this path");
    return NULL;
}
