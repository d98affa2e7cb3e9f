/* serve_slot.c - see serve_slot.h.
 *
 * Tokens come from router/decode.h, which is plain decoding where nothing is
 * routed, so a request gets the ids that tlr run prints.
 */
#include "net/serve_slot.h"

#include <math.h>

#include "base/clock.h"

size_t tlr_slot_common(const struct tlr_slot *slot,
                       const struct tlr_ids *prompt)
{
    const int32_t *ids = tlr_ids_of(slot->session);
    size_t n = tlr_pos(slot->session), i = 0;
    n = n < prompt->n - 1 ? n : prompt->n - 1;
    while (i < n && ids[i] == prompt->ids[i])
        i++;
    return i;
}

int tlr_slot_begin(struct tlr_slot *slot, struct tlr_err *err)
{
    struct tlr_job *j = slot->job;
    const struct tlr_job_ask *a = &j->ask;
    size_t n = tlr_slot_common(slot, &a->prompt);
    int rc = tlr_rewind(slot->session, (uint32_t)n, err);
    if (!rc)
        rc = tlr_sampler_new(&slot->sampler, &a->generation,
                             tlr_model_n_ids(slot->model), a->seed, err);
    if (rc)
        return rc;
    slot->n_read = a->mode == TLR_LARGE_ONLY ? a->prompt.n : n;
    pthread_mutex_lock(slot->lock);
    j->n_cached = (uint32_t)n;
    slot->metrics->prompt_tok += a->prompt.n;
    slot->metrics->cached_tok += n;
    pthread_mutex_unlock(slot->lock);
    return 0;
}

void tlr_slot_end(struct tlr_slot *slot)
{
    tlr_joint_free(slot->joint);
    tlr_sampler_free(slot->sampler);
    slot->joint = NULL;
    slot->sampler = NULL;
    slot->used_ns = tlr_now_ns();
}

static int open_joint(struct tlr_slot *slot, struct tlr_err *err)
{
    const struct tlr_job_ask *a = &slot->job->ask;
    struct tlr_joint_options o = {.mode = a->mode, .policy = a->policy,
                                  .sampler = slot->sampler,
                                  .explain = a->explain, .parks = true};
    if (a->mode != TLR_SMALL_ONLY) {
        o.expert = slot->expert;
        o.require_expert = slot->require_llm;
        o.ahead = slot->ahead;
        o.burst = slot->burst;
        o.ahead.max_tok = a->max_tokens;
        if (a->has_logprobs) /* they need the session to stand at the token */
            o.ahead.calls = 0;
    }
    if (a->mode == TLR_LARGE_ONLY) {
        o.prompt = a->prompt.ids;
        o.n_prompt = a->prompt.n;
    }
    return tlr_joint_new(&slot->joint, slot->session, slot->model, &o, err);
}

int tlr_slot_read(struct tlr_slot *slot, size_t most, struct tlr_err *err)
{
    const struct tlr_ids *prompt = &slot->job->ask.prompt;
    size_t n = prompt->n - slot->n_read;
    n = n < most ? n : most;
    int rc = n > 0 ? tlr_prefill(slot->session, prompt->ids + slot->n_read, n,
                                 0, err)
                   : 0;
    slot->n_read += n;
    if (!rc && slot->n_read == prompt->n)
        rc = open_joint(slot, err);
    return rc;
}

/* ---- one token ---- */

int tlr_slot_n_top(const struct tlr_slot *slot)
{
    return slot->job->ask.has_logprobs ? 0 : tlr_joint_n_top(slot->joint);
}

/* log softmax of what the token was chosen from. */
static int logprobs_of(struct tlr_slot *slot,
                       struct tlr_job_token *t, int32_t *top_ids, float *top,
                       struct tlr_err *err)
{
    const struct tlr_job_ask *a = &slot->job->ask;
    t->logprob = NAN;
    if (!a->has_logprobs || a->mode == TLR_LARGE_ONLY)
        return 0;
    int rc = tlr_run_head(slot->session, err);
    if (rc)
        return rc;
    const float *logits = tlr_logits(slot->session);
    double all = tlr_log_sum_exp(logits, tlr_model_n_ids(slot->model));
    t->logprob = (float)(logits[t->joint.id] - all);
    if (a->n_top > 0)
        rc = tlr_top(slot->session, a->n_top, top_ids, top, err);
    for (int i = 0; i < a->n_top && !rc; i++)
        top[i] = (float)(top[i] - all);
    return rc;
}

/* Under the lock: the token's text.  Returns like tlr_text_push. */
static int add_text(struct tlr_slot *slot, struct tlr_job *j,
                    struct tlr_job_token *t, bool is_end, struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(slot->model);
    size_t begin = j->text.n;
    int rc = 0;
    t->begin = t->end = (uint32_t)begin;
    if (is_end || !tok || tlr_token_is_special(tok, t->joint.id))
        return 0;
    struct tlr_text *text = &j->text;
    rc = tlr_text_push(text, tlr_token_bytes(tok, t->joint.id), j->ask.stops,
                       j->ask.n_stops, err);
    t->end = (uint32_t)(text->n > begin ? text->n : begin);
    return rc;
}

/* Under the lock: where the clock stands. */
static void count_token(struct tlr_slot *slot, struct tlr_job *j,
                        struct tlr_job_token *t)
{
    uint64_t now = tlr_now_ns();
    if (j->first_ns == 0) {
        j->first_ns = now;
        tlr_histogram_add(&slot->metrics->first_token,
                          (double)(now - j->submit_ns) * 1e-9);
    } else {
        tlr_histogram_add(&slot->metrics->between_tokens,
                          (double)(now - j->last_ns) * 1e-9);
    }
    j->last_ns = now;
    t->at_ms = (uint32_t)tlr_ms_between(j->submit_ns, now);
    slot->metrics->generated_tok++;
}

/* Writes the token into the job; whether the job goes on is left in *finish:
 * DONE's reason, or -1. */
static int write_token(struct tlr_slot *slot,
                       struct tlr_job_token *t, const int32_t *top_ids,
                       const float *top, int *finish, struct tlr_err *err)
{
    struct tlr_job *j = slot->job;
    const struct tlr_generation *g = &j->ask.generation;
    bool is_end = !j->ask.ignore_eos &&
                  tlr_generation_is_eos(g, t->joint.id);
    uint32_t n_ctx = tlr_session_options_used(slot->session)->n_ctx;
    pthread_mutex_lock(slot->lock);
    count_token(slot, j, t);
    j->totals = tlr_joint_read(slot->joint);
    int rc = add_text(slot, j, t, is_end, err);
    bool is_cut = rc > 0;
    j->stop = rc - 1;
    rc = rc > 0 ? 0 : rc;
    rc = rc ? rc : tlr_job_push(j, t, top_ids, top, err);
    j->n_text_tok += !is_end;
    if (is_end || is_cut)
        *finish = TLR_JOB_STOP;
    else if (j->n_text_tok >= j->ask.max_tokens ||
             tlr_joint_pos(slot->joint) >= n_ctx)
        *finish = TLR_JOB_LENGTH;
    if (*finish >= 0 && !is_cut && !rc) {
        rc = tlr_text_end(&j->text, err);
        j->tokens[j->n - 1].end = (uint32_t)j->text.n;
    }
    pthread_mutex_unlock(slot->lock);
    return rc;
}

int tlr_slot_next(struct tlr_slot *slot, int *finish, struct tlr_err *err)
{
    struct tlr_job_token t = {.begin = 0};
    int32_t top_ids[TLR_JOB_TOP_MAX];
    float top[TLR_JOB_TOP_MAX];
    *finish = -1;
    int rc = tlr_joint_next(slot->joint, &t.joint, err);
    if (!rc)
        rc = logprobs_of(slot, &t, top_ids, top, err);
    return rc ? rc : write_token(slot, &t, top_ids, top, finish, err);
}
