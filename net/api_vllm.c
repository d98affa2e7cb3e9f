/* api_vllm.c - vLLM's POST /v1/completions with ids.
 *
 * "return_token_ids" gives choices[].token_ids; older servers know only
 * "return_tokens_as_token_ids", which makes logprobs.tokens "token_id:N".  Both are
 * asked for; a server ignores the one it does not know.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/api.h"

static void build(struct tlr_buf *b, const struct tlr_net_ask *a)
{
    tlr_buf_text(b, "{\"model\":");
    tlr_buf_json(b, a->model, strlen(a->model));
    tlr_buf_text(b, ",\"prompt\":");
    if (a->text)
        tlr_buf_json(b, a->text, a->n_text);
    else
        tlr_buf_ids(b, a->ids, a->n_ids);
    tlr_buf_text(b, ",\"max_tokens\":");
    tlr_buf_int(b, a->n_tok);
    tlr_buf_text(b, ",\"temperature\":0,\"top_p\":1,\"top_k\":1,\"min_p\":0,"
                    "\"frequency_penalty\":0,\"presence_penalty\":0,"
                    "\"repetition_penalty\":1,\"min_tokens\":0,\"n\":1,"
                    "\"ignore_eos\":false,\"echo\":false,\"stream\":false,"
                    "\"add_special_tokens\":false,\"skip_special_tokens\":true,"
                    "\"logprobs\":0,\"return_tokens_as_token_ids\":true,"
                    "\"return_token_ids\":true}");
}

/* "token_id:151645" */
static int32_t id_of_name(const json_t *name)
{
    static const char prefix[] = "token_id:";
    const char *s = json_string_value(name);
    if (!s || strncmp(s, prefix, sizeof prefix - 1) != 0)
        return -1;
    s += sizeof prefix - 1;
    char *end;
    long v = *s >= '0' && *s <= '9' ? strtol(s, &end, 10) : -1;
    return v >= 0 && v <= INT32_MAX && *end == '\0' ? (int32_t)v : -1;
}

static int ids_of_names(struct tlr_net_answer *out, const json_t *names,
                        struct tlr_err *err)
{
    size_t n = json_array_size(names);
    if (n > TLR_NET_IDS_MAX)
        return tlr_err_set(err, TLR_ELIMIT,
                           "reply: logprobs.tokens: %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        out->ids[i] = id_of_name(json_array_get(names, i));
        if (out->ids[i] < 0)
            return 0; /* tokens in words: the text has to do */
    }
    out->n_ids = (int)n;
    return 0;
}

static int read_answer(struct tlr_net_answer *out, const json_t *root,
                       struct tlr_err *err)
{
    const json_t *choice = tlr_net_choice(out, root, err);
    size_t n;
    if (!choice)
        return TLR_EFORMAT;
    const char *text = tlr_net_string(choice, "text", &n);
    int rc = text ? tlr_net_take_text(out, text, n, err) : 0;
    if (rc)
        return rc;
    /* A number here is a stop token; null with "stop" is the end of text. */
    long long id = tlr_net_int(choice, "stop_reason", -1);
    if (id >= 0 && id <= INT32_MAX)
        out->end_id = (int32_t)id;
    const json_t *ids = json_object_get(choice, "token_ids");
    const json_t *made = json_object_get(choice, "logprobs");
    const json_t *names = json_object_get(made, "tokens");
    const json_t *logs = json_object_get(made, "token_logprobs");
    for (size_t i = 0; i < json_array_size(logs); i++)
        tlr_net_take_log_p(out, i, json_array_get(logs, i));
    if (ids && !json_is_null(ids)) {
        out->n_ids = tlr_net_ids(ids, "token_ids", out->ids, TLR_NET_IDS_MAX,
                                 err);
        return out->n_ids < 0 ? TLR_EFORMAT : 0;
    }
    return json_is_array(names) ? ids_of_names(out, names, err) : 0;
}

const struct tlr_net_api tlr_net_api_vllm = {
    .name = "vllm", .path = "/v1/completions", .build = build,
    .read = read_answer, .takes_ids = true, .tokenize_path = "/tokenize",
    .tokenize_text = "prompt", .tokenize_more = ",\"add_special_tokens\":false"};
