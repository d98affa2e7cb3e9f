/* api_openai_chat.c - any OpenAI-style POST /v1/chat/completions.
 *
 * For servers that offer chat only: the last message is the assistant's and is to
 * be continued.  vLLM and SGLang want to be told so (continue_final_message);
 * others do it by themselves, or not at all, which the seam cannot see.
 */
#include <string.h>

#include "net/api.h"

static void build(struct tlr_buf *b, const struct tlr_net_ask *a)
{
    tlr_buf_text(b, "{\"model\":");
    tlr_buf_json(b, a->model, strlen(a->model));
    tlr_buf_text(b, ",\"messages\":");
    tlr_buf_text(b, a->messages ? a->messages : "[]");
    tlr_buf_text(b, ",\"max_tokens\":");
    tlr_buf_int(b, a->n_tok);
    tlr_buf_text(b, ",\"temperature\":0,\"top_p\":1,\"frequency_penalty\":0,"
                    "\"presence_penalty\":0,\"n\":1,\"stream\":false");
    if (!a->is_strict)
        tlr_buf_text(b, ",\"top_k\":1,\"min_p\":0,\"repetition_penalty\":1,"
                        "\"repeat_penalty\":1,\"add_generation_prompt\":false,"
                        "\"continue_final_message\":true");
    tlr_buf_text(b, "}");
}

static int read_answer(struct tlr_net_answer *out, const json_t *root,
                       struct tlr_err *err)
{
    const json_t *choice = tlr_net_choice(out, root, err);
    const json_t *message = json_object_get(choice, "message");
    const json_t *content = json_object_get(message, "content");
    if (!choice)
        return TLR_EFORMAT;
    if (json_is_null(content))
        return tlr_net_take_text(out, "", 0, err);
    if (!json_is_string(content))
        return tlr_err_set(err, TLR_EFORMAT,
                           "reply: choices[0].message.content: expected a "
                           "string");
    return tlr_net_take_text(out, json_string_value(content),
                             json_string_length(content), err);
}

const struct tlr_net_api tlr_net_api_openai_chat = {
    .name = "openai chat", .path = "/v1/chat/completions", .build = build,
    .read = read_answer, .adds_bos = true};
