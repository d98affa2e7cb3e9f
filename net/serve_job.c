/* serve_job.c - see serve_job.h. */
#include "net/serve_job.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

void tlr_job_ask_clear(struct tlr_job_ask *ask)
{
    tlr_ids_clear(&ask->prompt);
    tlr_free(ask->stop_bytes);
    *ask = (struct tlr_job_ask){.n_stops = 0};
}

int tlr_job_new(struct tlr_job **out, struct tlr_job_ask *ask,
                struct tlr_err *err)
{
    struct tlr_job *j = tlr_calloc(1, sizeof *j);
    *out = j;
    if (!j) {
        tlr_job_ask_clear(ask);
        return tlr_err_nomem(err, "request", sizeof *j);
    }
    j->ask = *ask;
    *ask = (struct tlr_job_ask){.n_stops = 0};
    j->n_holders = 1;
    j->stop = -1;
    j->submit_ns = tlr_now_ns();
    return 0;
}

void tlr_job_free(struct tlr_job *j)
{
    if (!j)
        return;
    tlr_job_ask_clear(&j->ask);
    tlr_text_clear(&j->text);
    tlr_free(j->tokens);
    tlr_free(j->top_ids);
    tlr_free(j->top_logprobs);
    tlr_free(j);
}

static int grow(struct tlr_job *j, struct tlr_err *err)
{
    size_t cap = 2 * j->cap + 32, n_top = (size_t)j->ask.n_top;
    struct tlr_job_token *tokens =
        tlr_realloc(j->tokens, cap, sizeof *tokens);
    if (tokens)
        j->tokens = tokens;
    int32_t *ids = tlr_realloc(j->top_ids, cap * n_top + 1, sizeof *ids);
    if (ids)
        j->top_ids = ids;
    float *logprobs =
        tlr_realloc(j->top_logprobs, cap * n_top + 1, sizeof *logprobs);
    if (logprobs)
        j->top_logprobs = logprobs;
    if (!tokens || !ids || !logprobs)
        return tlr_err_nomem(err, "tokens of an answer",
                             cap * (sizeof *tokens + n_top * 8));
    j->cap = cap;
    return 0;
}

int tlr_job_push(struct tlr_job *j, const struct tlr_job_token *t,
                 const int32_t *top_ids, const float *top_logprobs,
                 struct tlr_err *err)
{
    int rc = j->n == j->cap ? grow(j, err) : 0;
    if (rc)
        return rc;
    size_t n_top = (size_t)j->ask.n_top;
    if (n_top > 0) {
        memcpy(j->top_ids + j->n * n_top, top_ids, n_top * sizeof *top_ids);
        memcpy(j->top_logprobs + j->n * n_top, top_logprobs,
               n_top * sizeof *top_logprobs);
    }
    j->tokens[j->n++] = *t;
    return 0;
}
