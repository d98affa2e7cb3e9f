/* api.c - see api.h: the table of formats, and what they share. */
#include "net/api.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

const struct tlr_net_api *tlr_net_api(enum tlr_net_api_kind kind)
{
    static const struct tlr_net_api *const apis[TLR_NET_N_APIS] = {
        &tlr_net_api_sglang, &tlr_net_api_vllm, &tlr_net_api_llamacpp,
        &tlr_net_api_openai, &tlr_net_api_openai_chat};
    return apis[kind];
}

enum tlr_net_api_kind tlr_net_api_find(const char *name)
{
    for (int i = 0; i < TLR_NET_OPENAI_CHAT; i++)
        if (strcmp(tlr_net_api((enum tlr_net_api_kind)i)->name, name) == 0)
            return (enum tlr_net_api_kind)i;
    return TLR_NET_AUTO;
}

static void drop_rivals(struct tlr_net_answer *a)
{
    tlr_free(a->drafted);
    a->drafted = a->rivals = NULL;
    a->n_rivals = 0;
}

void tlr_net_answer_begin(struct tlr_net_answer *a)
{
    tlr_buf_reset(&a->text);
    a->has_text = false;
    a->n_ids = -1;
    for (int i = 0; i < TLR_NET_IDS_MAX; i++)
        a->p[i] = NAN;
    drop_rivals(a);
    a->finish = TLR_NET_GOES_ON;
    a->end_id = -1;
    a->n_cached = -1;
    a->server_ms = NAN;
    a->model[0] = '\0';
}

void tlr_net_answer_clear(struct tlr_net_answer *a)
{
    tlr_buf_clear(&a->text);
    drop_rivals(a);
}

void tlr_net_take_log_p(struct tlr_net_answer *a, size_t i, const json_t *log_p)
{
    double v = json_is_number(log_p) ? json_number_value(log_p) : (double)NAN;
    if (i < TLR_NET_IDS_MAX && v <= 0)
        a->p[i] = exp(v);
}

int tlr_net_take_text(struct tlr_net_answer *a, const char *text, size_t n,
                      struct tlr_err *err)
{
    if (n > TLR_NET_TEXT_MAX)
        return tlr_err_set(err, TLR_ELIMIT,
                           "reply: text: expected at most %d bytes, found %zu",
                           TLR_NET_TEXT_MAX, n);
    tlr_buf_put(&a->text, text, n);
    a->has_text = true;
    return a->text.failed ? tlr_err_nomem(err, "reply", n) : 0;
}

void tlr_net_take_finish(struct tlr_net_answer *a, const char *reason)
{
    if (!reason)
        return;
    if (strcmp(reason, "stop") == 0 || strcmp(reason, "eos") == 0)
        a->finish = TLR_NET_AT_END;
    else if (strcmp(reason, "length") == 0 || strcmp(reason, "limit") == 0)
        a->finish = TLR_NET_AT_LIMIT;
}

const json_t *tlr_net_choice(struct tlr_net_answer *a, const json_t *root,
                             struct tlr_err *err)
{
    const json_t *choices = json_object_get(root, "choices");
    const json_t *choice = json_array_get(choices, 0);
    if (json_array_size(choices) != 1 || !json_is_object(choice)) {
        tlr_err_set(err, TLR_EFORMAT,
                    "reply: choices: expected one choice, found %zu",
                    json_array_size(choices));
        return NULL;
    }
    tlr_net_take_finish(a, tlr_net_string(choice, "finish_reason", NULL));
    const json_t *usage = json_object_get(root, "usage");
    a->n_cached = tlr_net_int(json_object_get(usage, "prompt_tokens_details"),
                              "cached_tokens", -1);
    const char *model = tlr_net_string(root, "model", NULL);
    snprintf(a->model, sizeof a->model, "%s", model ? model : "");
    return choice;
}

/* Servers that answer 200 with an error inside. */
static int check_error(const json_t *root, struct tlr_err *err)
{
    const json_t *e = json_object_get(root, "error");
    if (!e || json_is_null(e))
        return 0;
    const char *text = json_is_string(e) ? json_string_value(e)
                                         : tlr_net_string(e, "message", NULL);
    return tlr_err_set(err, TLR_EFORMAT, "reply: is an error: %.200s",
                       text ? text : "without a message");
}

int tlr_net_parse(const struct tlr_net_api *api, struct tlr_bytes body,
                  struct tlr_net_answer *out, struct tlr_err *err)
{
    json_t *root = tlr_net_json(body, err);
    if (!root)
        return TLR_EFORMAT;
    int rc = check_error(root, err);
    if (!rc)
        rc = api->read(out, root, err);
    if (!rc && out->n_ids < 0 && !out->has_text)
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "reply: expected token ids or a text, found neither");
    json_decref(root);
    return rc;
}
