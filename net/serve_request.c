/* serve_request.c - see serve_request.h.  This file owns OpenAI's formats. */
#include "net/serve_request.h"

#include <string.h>

#include "base/mem.h"
#include "net/serve_fields.h"
#include "net/serve_prompt.h"

enum { DEFAULT_TEXT_TOK = 16, DEFAULT_GENERATE_TOK = 128 };

struct reading {
    struct tlr_request *out;
    const struct tlr_request_limits *limits;
    const json_t *root;
    struct tlr_fault *fault;
    struct tlr_err *err;
};

/* ---- fields of OpenAI's that would change the text, and that we lack ---- */

/* A list, an object or a string that holds something. */
static bool holds_something(const json_t *v)
{
    return json_array_size(v) > 0 || json_object_size(v) > 0 ||
           json_string_length(v) > 0;
}

struct only {
    const char *name;
    double value;
};

/* Numbers that we have one value of. */
static int refuse_numbers(const json_t *object, const struct only *list,
                          size_t n, struct tlr_fault *f)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *v = tlr_field(object, list[i].name);
        if (v && !(json_is_number(v) && json_number_value(v) == list[i].value))
            return tlr_fault_set(f, 400, "unsupported", list[i].name,
                                 "%s: only %g is supported", list[i].name,
                                 list[i].value);
    }
    return 0;
}

static int refuse_unsupported(const struct reading *r)
{
    static const char *const lists[] = {
        "tools", "functions", "logit_bias", "suffix", "audio", "prediction",
        "stop_token_ids", "bad_words", "guided_json", "guided_regex",
        "web_search_options"};
    static const struct only numbers[] = {{"n", 1}, {"best_of", 1},
                                          {"presence_penalty", 0},
                                          {"frequency_penalty", 0},
                                          {"min_tokens", 0}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (holds_something(tlr_field(r->root, lists[i])))
            return tlr_fault_set(r->fault, 400, "unsupported", lists[i],
                                 "%s: this server does not have it", lists[i]);
    int rc = refuse_numbers(r->root, numbers, sizeof numbers / sizeof *numbers,
                            r->fault);
    if (rc)
        return rc;
    if (json_is_true(tlr_field(r->root, "echo")))
        return tlr_fault_set(r->fault, 400, "unsupported", "echo",
                             "echo: this server does not have it");
    const json_t *format = tlr_field(r->root, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (format && (!type || strcmp(type, "text") != 0))
        return tlr_fault_set(r->fault, 400, "unsupported", "response_format",
                             "response_format: only text is supported");
    return 0;
}

/* ---- what OpenAI's two formats share ---- */

/* The seed may be any 64-bit number, negative ones too. */
static int read_seed(const struct reading *r)
{
    int64_t seed = 0;
    int rc = tlr_field_int(r->root, "seed", INT64_MIN, INT64_MAX, &seed,
                           r->fault);
    bool has = !rc && tlr_field(r->root, "seed");
    r->out->ask.seed = has ? (uint64_t)seed : r->limits->seed;
    return rc;
}

static int read_max_tokens(const struct reading *r, int64_t fallback)
{
    int64_t n = fallback;
    int rc = tlr_field_int(r->root, "max_tokens", 1, INT32_MAX, &n, r->fault);
    if (!rc)
        rc = tlr_field_int(r->root, "max_completion_tokens", 1, INT32_MAX, &n,
                           r->fault);
    r->out->ask.max_tokens = (uint32_t)n;
    return rc;
}

static int read_stream(const struct reading *r)
{
    struct tlr_request *q = r->out;
    const json_t *options = NULL;
    int rc = tlr_field_bool(r->root, "stream", &q->stream, r->fault);
    if (!rc)
        rc = tlr_field_object(r->root, "stream_options", &options, r->fault);
    if (!rc && options)
        rc = tlr_field_bool(options, "include_usage", &q->has_usage, r->fault);
    if (!rc)
        rc = tlr_field_bool(r->root, "return_token_ids", &q->has_ids,
                            r->fault);
    return rc ? rc : tlr_field_bool(r->root, "ignore_eos", &q->ask.ignore_eos,
                                    r->fault);
}

static int read_n_top(const struct reading *r, const char *name, int64_t most)
{
    int64_t n = 0, n_ids = tlr_model_n_ids(r->limits->model);
    int rc = tlr_field_int(r->root, name, 0, most < n_ids ? most : n_ids, &n,
                           r->fault);
    r->out->ask.n_top = (int)n;
    return rc;
}

/* Chat: a flag and a number beside it; text: the number alone. */
static int read_logprobs(const struct reading *r)
{
    struct tlr_job_ask *a = &r->out->ask;
    if (r->out->api == TLR_API_TEXT) {
        a->has_logprobs = tlr_field(r->root, "logprobs") != NULL;
        return read_n_top(r, "logprobs", TLR_JOB_TOP_MAX);
    }
    int rc = tlr_field_bool(r->root, "logprobs", &a->has_logprobs, r->fault);
    if (!rc)
        rc = read_n_top(r, "top_logprobs", TLR_JOB_TOP_MAX);
    if (!rc && a->n_top > 0 && !a->has_logprobs)
        rc = tlr_fault_set(r->fault, 400, "invalid_value", "top_logprobs",
                           "top_logprobs: goes with logprobs: true");
    return rc;
}

static int read_openai(const struct reading *r)
{
    struct tlr_job_ask *a = &r->out->ask;
    bool is_chat = r->out->api == TLR_API_CHAT;
    int rc = refuse_unsupported(r);
    if (!rc)
        rc = is_chat ? tlr_prompt_messages(&a->prompt, r->root, r->limits,
                                           r->fault, r->err)
                     : tlr_prompt_text(&a->prompt, r->root, "prompt", "prompt",
                                       &r->out->is_batch, r->limits, r->fault,
                                       r->err);
    if (!rc)
        rc = read_max_tokens(r, is_chat ? (int64_t)r->limits->n_ctx
                                        : DEFAULT_TEXT_TOK);
    if (!rc)
        rc = tlr_field_sampling(r->root, a, "repetition_penalty", r->fault);
    if (!rc)
        rc = tlr_field_stops(r->root, "stop", a, r->fault, r->err);
    if (!rc)
        rc = read_seed(r);
    if (!rc)
        rc = read_logprobs(r);
    if (!rc)
        rc = read_stream(r);
    return rc ? rc : tlr_field_routing(r->root, r->limits, a, r->fault);
}

/* ---- SGLang's /generate ---- */

static int read_generate_sampling(const struct reading *r)
{
    struct tlr_job_ask *a = &r->out->ask;
    const json_t *p = NULL;
    int64_t n = DEFAULT_GENERATE_TOK;
    int rc = tlr_field_object(r->root, "sampling_params", &p, r->fault);
    a->max_tokens = (uint32_t)n;
    if (rc || !p)
        return rc;
    static const char *const lacking[] = {"regex", "json_schema", "ebnf",
                                          "stop_token_ids", "logit_bias"};
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
        if (holds_something(tlr_field(p, lacking[i])))
            return tlr_fault_set(r->fault, 400, "unsupported", lacking[i],
                                 "%s: this server does not have it",
                                 lacking[i]);
    static const struct only numbers[] = {{"n", 1}, {"presence_penalty", 0},
                                          {"frequency_penalty", 0},
                                          {"min_new_tokens", 0}};
    rc = refuse_numbers(p, numbers, sizeof numbers / sizeof *numbers, r->fault);
    if (!rc)
        rc = tlr_field_int(p, "max_new_tokens", 1, INT32_MAX, &n, r->fault);
    a->max_tokens = (uint32_t)n;
    if (!rc)
        rc = tlr_field_sampling(p, a, "repetition_penalty", r->fault);
    if (!rc)
        rc = tlr_field_stops(p, "stop", a, r->fault, r->err);
    return rc ? rc : tlr_field_bool(p, "ignore_eos", &a->ignore_eos, r->fault);
}

static int read_rid(const struct reading *r)
{
    struct tlr_bytes rid = {NULL, 0};
    int rc = tlr_field_text(r->root, "rid", &rid, r->fault);
    if (rc || !rid.ptr)
        return rc;
    if (rid.len >= sizeof r->out->id)
        return tlr_fault_set(r->fault, 400, "invalid_value", "rid",
                             "rid: expected up to %zu bytes, found %zu",
                             sizeof r->out->id - 1, rid.len);
    memcpy(r->out->id, rid.ptr, rid.len);
    return 0;
}

static int read_generate(const struct reading *r)
{
    struct tlr_job_ask *a = &r->out->ask;
    a->seed = r->limits->seed;
    int rc = tlr_prompt_text(&a->prompt, r->root, "text", "input_ids",
                             &r->out->is_batch, r->limits, r->fault, r->err);
    if (!rc)
        rc = read_generate_sampling(r);
    if (!rc)
        rc = tlr_field_bool(r->root, "stream", &r->out->stream, r->fault);
    if (!rc)
        rc = tlr_field_bool(r->root, "return_logprob", &a->has_logprobs,
                            r->fault);
    if (!rc)
        rc = read_n_top(r, "top_logprobs_num", TLR_JOB_TOP_MAX);
    a->has_logprobs = a->has_logprobs || a->n_top > 0;
    if (!rc)
        rc = read_rid(r);
    return rc ? rc : tlr_field_routing(r->root, r->limits, a, r->fault);
}

/* ---- all ---- */

int tlr_request_parse(struct tlr_request *out, enum tlr_serve_api api,
                      struct tlr_bytes body,
                      const struct tlr_request_limits *limits,
                      struct tlr_fault *fault, struct tlr_err *err)
{
    const struct tlr_generation *g = tlr_model_generation(limits->model);
    json_t *root = NULL;
    *out = (struct tlr_request){.api = api};
    if (g)
        out->ask.generation = *g;
    else
        tlr_generation_default(&out->ask.generation);
    struct reading r = {out, limits, NULL, fault, err};
    int rc = tlr_body_parse(&root, body, fault);
    r.root = root;
    if (!rc)
        rc = api == TLR_API_GENERATE ? read_generate(&r) : read_openai(&r);
    json_decref(root);
    return rc;
}

void tlr_request_clear(struct tlr_request *r)
{
    tlr_job_ask_clear(&r->ask);
}
