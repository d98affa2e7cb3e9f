/* api_sglang.c - SGLang's own POST /generate.
 *
 * Ids in, ids out: "output_ids", or in older servers the second slot of each
 * triple in meta_info.output_token_logprobs.  Every field of sampling is sent,
 * because the server's defaults come from the model's generation_config.json.
 *
 * A draft is checked in one call: with logprob_start_len at its first token's
 * predecessor and top_logprobs_num 1 the reply has, for every token of the prefix
 * from there on, its own logarithm and the likeliest token's.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/api.h"

static void build(struct tlr_buf *b, const struct tlr_net_ask *a)
{
    if (a->text) {
        tlr_buf_text(b, "{\"text\":");
        tlr_buf_json(b, a->text, a->n_text);
    } else {
        tlr_buf_text(b, "{\"input_ids\":");
        tlr_buf_ids(b, a->ids, a->n_ids);
    }
    tlr_buf_text(b, ",\"sampling_params\":{\"max_new_tokens\":");
    tlr_buf_int(b, a->n_tok);
    tlr_buf_text(b, ",\"temperature\":0,\"top_p\":1,\"top_k\":1,\"min_p\":0,"
                    "\"frequency_penalty\":0,\"presence_penalty\":0,"
                    "\"repetition_penalty\":1,\"min_new_tokens\":0,\"n\":1,"
                    "\"ignore_eos\":false,\"skip_special_tokens\":true},"
                    "\"stream\":false,\"return_logprob\":true,"
                    "\"logprob_start_len\":");
    tlr_buf_int(b, a->n_checked > 0 ? (int)(a->n_ids - a->n_checked) - 1 : -1);
    tlr_buf_text(b, ",\"top_logprobs_num\":");
    tlr_buf_int(b, a->n_checked > 0);
    tlr_buf_text(b, "}");
}

static void take_probabilities(struct tlr_net_answer *out, const json_t *triples)
{
    for (size_t i = 0; i < json_array_size(triples); i++)
        tlr_net_take_log_p(out, i,
                           json_array_get(json_array_get(triples, i), 0));
}

/* -1: it has none. */
static int32_t id_of_triple(const json_t *triple)
{
    const json_t *id = json_array_get(triple, 1);
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    return v >= 0 && v <= INT32_MAX ? (int32_t)v : -1;
}

static int ids_of_triples(struct tlr_net_answer *out, const json_t *triples,
                          struct tlr_err *err)
{
    size_t n = json_array_size(triples);
    if (n > TLR_NET_IDS_MAX)
        return tlr_err_set(err, TLR_ELIMIT,
                           "reply: meta_info.output_token_logprobs: %zu tokens",
                           n);
    for (size_t i = 0; i < n; i++) {
        out->ids[i] = id_of_triple(json_array_get(triples, i));
        if (out->ids[i] < 0)
            return tlr_err_set(err, TLR_EFORMAT,
                               "reply: meta_info.output_token_logprobs: "
                               "element %zu: expected a token id second", i);
    }
    out->n_ids = (int)n;
    return 0;
}

/* Both lists end with the prefix's last id; where they begin is the server's. */
static int take_rivals(struct tlr_net_answer *out, const json_t *own,
                       const json_t *top, struct tlr_err *err)
{
    size_t n = json_array_size(own), n_top = json_array_size(top);
    n = n < n_top ? n : n_top;
    if (n == 0)
        return 0;
    out->drafted = tlr_calloc(2 * n, sizeof *out->drafted);
    if (!out->drafted)
        return tlr_err_nomem(err, "reply", 2 * n * sizeof *out->drafted);
    out->rivals = out->drafted + n;
    out->n_rivals = n;
    for (size_t i = 1; i <= n; i++) {
        const json_t *best = json_array_get(top, n_top - i);
        out->drafted[n - i] = id_of_triple(
            json_array_get(own, json_array_size(own) - i));
        out->rivals[n - i] = id_of_triple(json_array_get(best, 0));
    }
    return 0;
}

/* {"type": "stop", "matched": 151645}, {"type": "length"}, or a bare word. */
static void take_reason(struct tlr_net_answer *out, const json_t *reason)
{
    tlr_net_take_finish(out, json_is_string(reason)
                                 ? json_string_value(reason)
                                 : tlr_net_string(reason, "type", NULL));
    long long id = tlr_net_int(reason, "matched", -1);
    if (id >= 0 && id <= INT32_MAX)
        out->end_id = (int32_t)id;
}

static int read_answer(struct tlr_net_answer *out, const json_t *root,
                       struct tlr_err *err)
{
    if (json_is_array(root) && json_array_size(root) == 1)
        root = json_array_get(root, 0);
    const json_t *meta = json_object_get(root, "meta_info");
    const json_t *ids = json_object_get(root, "output_ids");
    const json_t *triples = json_object_get(meta, "output_token_logprobs");
    size_t n = 0;
    int rc = 0;
    const char *text = tlr_net_string(root, "text", &n);
    if (text)
        rc = tlr_net_take_text(out, text, n, err);
    if (rc)
        return rc;
    take_reason(out, json_object_get(meta, "finish_reason"));
    take_probabilities(out, triples);
    rc = take_rivals(out, json_object_get(meta, "input_token_logprobs"),
                     json_object_get(meta, "input_top_logprobs"), err);
    if (rc)
        return rc;
    out->n_cached = tlr_net_int(meta, "cached_tokens", -1);
    out->server_ms = 1e3 * tlr_net_real(meta, "e2e_latency");
    if (ids) {
        out->n_ids = tlr_net_ids(ids, "output_ids", out->ids, TLR_NET_IDS_MAX,
                                 err);
        return out->n_ids < 0 ? TLR_EFORMAT : 0;
    }
    return json_is_array(triples) ? ids_of_triples(out, triples, err) : 0;
}

const struct tlr_net_api tlr_net_api_sglang = {
    .name = "sglang", .path = "/generate", .build = build, .read = read_answer,
    .takes_ids = true, .checks_drafts = true, .adds_bos = true,
    .tokenize_path = "/tokenize",
    .tokenize_text = "prompt", .tokenize_more = ",\"add_special_tokens\":false"};
