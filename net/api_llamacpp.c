/* api_llamacpp.c - llama.cpp's own POST /completion.
 *
 * Ids in, "tokens" out.  It may make a little more than n_predict to finish a
 * character.  n_predict 0 evaluates the prompt into the cache and makes nothing,
 * which is what a warm-up wants.
 */
#include <math.h>
#include <string.h>

#include "net/api.h"

static void build(struct tlr_buf *b, const struct tlr_net_ask *a)
{
    tlr_buf_text(b, "{\"prompt\":");
    if (a->text)
        tlr_buf_json(b, a->text, a->n_text);
    else
        tlr_buf_ids(b, a->ids, a->n_ids);
    tlr_buf_text(b, ",\"n_predict\":");
    tlr_buf_int(b, a->is_warm ? 0 : a->n_tok);
    tlr_buf_text(b, ",\"temperature\":0,\"top_k\":1,\"top_p\":1,\"min_p\":0,"
                    "\"typical_p\":1,\"repeat_penalty\":1,"
                    "\"presence_penalty\":0,\"frequency_penalty\":0,"
                    "\"dry_multiplier\":0,\"xtc_probability\":0,"
                    "\"dynatemp_range\":0,\"mirostat\":0,\"ignore_eos\":false,"
                    "\"cache_prompt\":true,\"return_tokens\":true,");
    if (a->wants_p)
        tlr_buf_text(b, "\"n_probs\":1,\"post_sampling_probs\":false,");
    tlr_buf_text(b, "\"stream\":false}");
}

/* "stop_type": "eos"; older servers: "stopped_eos": true. */
static void take_reason(struct tlr_net_answer *out, const json_t *root)
{
    tlr_net_take_finish(out, tlr_net_string(root, "stop_type", NULL));
    if (json_is_true(json_object_get(root, "stopped_eos")))
        out->finish = TLR_NET_AT_END;
    else if (json_is_true(json_object_get(root, "stopped_limit")))
        out->finish = TLR_NET_AT_LIMIT;
}

static void take_timings(struct tlr_net_answer *out, const json_t *root)
{
    const json_t *t = json_object_get(root, "timings");
    long long all = tlr_net_int(root, "tokens_evaluated", -1);
    long long fresh = tlr_net_int(t, "prompt_n", -1);
    out->server_ms = tlr_net_real(t, "prompt_ms") +
                     tlr_net_real(t, "predicted_ms");
    out->n_cached = tlr_net_int(t, "cache_n", -1);
    if (out->n_cached < 0 && fresh >= 0 && all >= fresh)
        out->n_cached = all - fresh;
}

/* Older servers' "probs" have no logarithm and are not read. */
static void take_probabilities(struct tlr_net_answer *out, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        tlr_net_take_log_p(out, i,
                           json_object_get(json_array_get(list, i), "logprob"));
}

static int read_answer(struct tlr_net_answer *out, const json_t *root,
                       struct tlr_err *err)
{
    size_t n = 0;
    const char *text = tlr_net_string(root, "content", &n);
    const json_t *ids = json_object_get(root, "tokens");
    int rc = text ? tlr_net_take_text(out, text, n, err) : 0;
    if (rc)
        return rc;
    take_reason(out, root);
    take_timings(out, root);
    take_probabilities(out, json_object_get(root, "completion_probabilities"));
    /* An empty list beside a text: the server knows no "return_tokens". */
    if (!json_is_array(ids) || (json_array_size(ids) == 0 && n > 0))
        return 0;
    out->n_ids = tlr_net_ids(ids, "tokens", out->ids, TLR_NET_IDS_MAX, err);
    return out->n_ids < 0 ? TLR_EFORMAT : 0;
}

const struct tlr_net_api tlr_net_api_llamacpp = {
    .name = "llamacpp", .path = "/completion", .build = build,
    .read = read_answer, .takes_ids = true, .adds_bos = true,
    .tokenize_path = "/tokenize", .tokenize_text = "content",
    .tokenize_more = ",\"add_special\":false,\"parse_special\":true"};
