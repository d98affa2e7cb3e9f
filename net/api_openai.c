/* api_openai.c - any OpenAI-style POST /v1/completions, by text.
 *
 * Fields beyond the standard that greedy decoding needs (top_k, penalties with
 * other defaults) are sent until a server refuses them; then the ask is strict.
 * Ids in the reply are taken where they are.
 */
#include <string.h>

#include "net/api.h"

static void build(struct tlr_buf *b, const struct tlr_net_ask *a)
{
    tlr_buf_text(b, "{\"model\":");
    tlr_buf_json(b, a->model, strlen(a->model));
    tlr_buf_text(b, ",\"prompt\":");
    tlr_buf_json(b, a->text ? a->text : "", a->n_text);
    tlr_buf_text(b, ",\"max_tokens\":");
    tlr_buf_int(b, a->n_tok);
    tlr_buf_text(b, ",\"temperature\":0,\"top_p\":1,\"frequency_penalty\":0,"
                    "\"presence_penalty\":0,\"n\":1,\"echo\":false,"
                    "\"stream\":false");
    if (!a->is_strict)
        tlr_buf_text(b, ",\"top_k\":1,\"min_p\":0,\"repetition_penalty\":1,"
                        "\"repeat_penalty\":1");
    tlr_buf_text(b, "}");
}

static int read_answer(struct tlr_net_answer *out, const json_t *root,
                       struct tlr_err *err)
{
    const json_t *choice = tlr_net_choice(out, root, err);
    size_t n;
    if (!choice)
        return TLR_EFORMAT;
    const char *text = tlr_net_string(choice, "text", &n);
    if (!text)
        return tlr_err_set(err, TLR_EFORMAT,
                           "reply: choices[0].text: expected a string");
    return tlr_net_take_text(out, text, n, err);
}

const struct tlr_net_api tlr_net_api_openai = {
    .name = "openai", .path = "/v1/completions", .build = build,
    .read = read_answer, .adds_bos = true};
