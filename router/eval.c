/* eval.c - items to workers, answers to outcomes; see eval.h.
 *
 * A worker takes the next item that is not done, walks all runs through one tree
 * (walk.h), and hands the item's outcomes over under the lock.
 */
#include <pthread.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "router/eval_internal.h"

enum { DEFAULT_AHEAD = 15 };

struct job {
    const struct tlr_items *items;
    const struct tlr_eval_models *models;
    const struct tlr_eval_options *opt;
    struct tlr_ids *prompts; /* [items->n] */
    uint32_t max_prompt;
    struct tlr_outcome *outcomes;
    uint8_t *done;
    pthread_mutex_t lock;
    /* under the lock */
    size_t next;
    struct tlr_walk_counts work;
    int rc;
    struct tlr_err err;
};

struct worker {
    struct job *job;
    struct tlr_expert expert;
    struct tlr_walk *walk;
    struct tlr_eval_lm *lm;
    struct tlr_outcome *outcomes; /* [n_runs] */
    char *text;                   /* of the last answer */
    size_t cap_text;
};

int tlr_eval_policies(const struct tlr_eval_models *models,
                      const struct tlr_eval_options *options,
                      struct tlr_policy out[TLR_N_POLICIES])
{
    bool has[TLR_N_POLICIES] = {false};
    int n = 0;
    for (size_t i = 0; i < options->n_runs; i++) {
        enum tlr_policy_kind kind = options->runs[i].kind;
        if (has[kind] || kind == TLR_POLICY_ALWAYS || kind == TLR_POLICY_NEVER)
            continue;
        has[kind] = true;
        out[n++] = (struct tlr_policy){
            .kind = kind, .seed = options->seed,
            .router = models->routers[kind]};
    }
    return n;
}

/* ---- one item ---- */

static int text_of(struct worker *w, const int32_t *ids, uint32_t n,
                   size_t *len, struct tlr_err *err)
{
    const struct tlr_tokenizer *t =
        tlr_model_tokenizer(w->job->models->slm);
    *len = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct tlr_bytes b = tlr_token_bytes(t, ids[i]);
        if (tlr_token_is_special(t, ids[i]))
            continue;
        if (*len + b.len + 1 > w->cap_text) {
            size_t cap = 2 * (*len + b.len) + 1024;
            char *grown = tlr_realloc(w->text, cap, 1);
            if (!grown)
                return tlr_err_nomem(err, "answer", cap);
            w->text = grown;
            w->cap_text = cap;
        }
        memcpy(w->text + *len, b.ptr, b.len);
        *len += b.len;
    }
    return 0;
}

static int mark(struct worker *w, const struct tlr_item *item,
                const struct tlr_walk_path *path, struct tlr_outcome *o,
                struct tlr_err *err)
{
    enum tlr_task_kind task = w->job->opt->task;
    size_t len;
    int rc = text_of(w, path->ids, path->n_tok, &len, err);
    if (rc)
        return rc;
    const char *text = w->text ? w->text : "";
    *o = (struct tlr_outcome){
        .n_judged = 1,
        .n_right = tlr_item_right(item, task, text, len, false),
        .n_strict = tlr_item_right(item, task, text, len, true),
        .choice = task == TLR_TASK_CSQA
                      ? tlr_item_choice(item, text, len, false) : -1,
        .n_tok = path->n_tok, .n_asked = path->n_asked,
        .n_known = path->n_known, .n_agree = path->n_agree};
    return 0;
}

static int do_item(struct worker *w, size_t i, struct tlr_err *err)
{
    const struct tlr_eval_options *opt = w->job->opt;
    const struct tlr_ids *prompt = &w->job->prompts[i];
    /* Another draw for each item: one seed would ask at the same places. */
    uint64_t seed = tlr_hash_u64(opt->seed, i);
    if (w->lm)
        return tlr_eval_lm_item(w->lm, prompt->ids, prompt->n, seed,
                                w->outcomes, err);
    int rc = tlr_walk_begin(w->walk, prompt->ids, prompt->n, seed, err);
    for (size_t r = 0; r < opt->n_runs && !rc; r++) {
        struct tlr_walk_path path;
        rc = tlr_walk_run(w->walk, opt->runs[r].kind, opt->runs[r].tau, &path,
                          err);
        if (!rc)
            rc = mark(w, &w->job->items->items[i], &path, &w->outcomes[r],
                      err);
    }
    return rc;
}

/* ---- workers ---- */

static bool is_stopped(void *ctx)
{
    const struct tlr_eval_options *opt = ctx;
    return opt->is_stopped && opt->is_stopped(opt->ctx);
}

static int begin_worker(struct worker *w, struct tlr_err *err)
{
    const struct job *job = w->job;
    const struct tlr_eval_options *opt = job->opt;
    w->outcomes = tlr_calloc(opt->n_runs, sizeof *w->outcomes);
    if (!w->outcomes)
        return tlr_err_nomem(err, "results", opt->n_runs * sizeof *w->outcomes);
    if (opt->task == TLR_TASK_LM)
        return tlr_eval_lm_new(&w->lm, job->models, opt, job->max_prompt, err);
    int rc = job->models->open_expert(job->models->ctx,
                                      job->max_prompt + opt->max_tok,
                                      &w->expert, err);
    if (rc)
        return rc;
    struct tlr_session_options session = job->models->session;
    session.n_threads = 1;
    struct tlr_walk_options walk = {
        .max_prompt = job->max_prompt, .max_tok = opt->max_tok,
        .n_ahead = opt->n_ahead < 0 ? DEFAULT_AHEAD : opt->n_ahead,
        .agreement = !opt->shares_only, .is_stopped = is_stopped,
        .ctx = (void *)(uintptr_t)opt};
    walk.n_policies = tlr_eval_policies(job->models, opt, walk.policies);
    return tlr_walk_new(&w->walk, job->models->slm, &session, &w->expert,
                        &walk, err);
}

/* The next item that is not done; false when there is none or all must stop. */
static bool next_item(struct job *job, size_t *item)
{
    pthread_mutex_lock(&job->lock);
    while (job->next < job->items->n && job->done[job->next])
        job->next++;
    *item = job->next;
    bool has = !job->rc && job->next < job->items->n;
    job->next += has;
    pthread_mutex_unlock(&job->lock);
    return has;
}

static int finish_item(struct worker *w, size_t item, struct tlr_err *err)
{
    struct job *job = w->job;
    const struct tlr_eval_options *opt = job->opt;
    int rc = 0;
    pthread_mutex_lock(&job->lock);
    memcpy(job->outcomes + item * opt->n_runs, w->outcomes,
           opt->n_runs * sizeof *w->outcomes);
    job->done[item] = 1;
    if (opt->each)
        rc = opt->each(opt->ctx, item, w->outcomes, err);
    pthread_mutex_unlock(&job->lock);
    return rc;
}

static void add_work(struct tlr_walk_counts *sum, struct tlr_walk_counts c)
{
    sum->n_runs += c.n_runs;
    sum->n_run_tok += c.n_run_tok;
    sum->n_steps += c.n_steps;
    sum->n_step_tok += c.n_step_tok;
    sum->n_asks += c.n_asks;
    sum->n_ask_tok += c.n_ask_tok;
    sum->slm_ns += c.slm_ns;
    sum->llm_ns += c.llm_ns;
}

static void work(void *ctx, int index, int thread)
{
    struct job *job = ctx;
    struct worker w = {.job = job};
    struct tlr_err err = TLR_ERR_INIT;
    size_t item = 0;
    (void)index;
    (void)thread;
    int rc = begin_worker(&w, &err);
    while (!rc && next_item(job, &item)) {
        rc = is_stopped((void *)(uintptr_t)job->opt)
                 ? TLR_ECANCELLED : do_item(&w, item, &err);
        if (!rc)
            rc = finish_item(&w, item, &err);
    }
    pthread_mutex_lock(&job->lock);
    if (w.walk)
        add_work(&job->work, tlr_walk_read(w.walk));
    if (rc && !job->rc) {
        job->rc = rc;
        job->err = err;
    }
    pthread_mutex_unlock(&job->lock);
    tlr_walk_free(w.walk);
    tlr_eval_lm_free(w.lm);
    tlr_expert_close(&w.expert);
    tlr_free(w.outcomes);
    tlr_free(w.text);
}

/* ---- all items ---- */

static int encode(struct job *job, struct tlr_err *err)
{
    const struct tlr_eval_options *opt = job->opt;
    const struct tlr_model *m = job->models->slm;
    bool is_text = opt->task == TLR_TASK_LM;
    uint32_t room = tlr_model_config(m)->max_ctx - (is_text ? 0 : opt->max_tok);
    job->prompts = tlr_calloc(job->items->n, sizeof *job->prompts);
    if (!job->prompts)
        return tlr_err_nomem(err, "prompts",
                             job->items->n * sizeof *job->prompts);
    for (size_t i = 0; i < job->items->n; i++) {
        struct tlr_ids *ids = &job->prompts[i];
        int rc = tlr_task_encode(m, opt->task, opt->n_shots,
                                 opt->raw || is_text, &job->items->items[i],
                                 ids, NULL, err);
        if (rc)
            return rc;
        if (ids->n < 1 || ids->n > room)
            return tlr_err_set(err, TLR_ELIMIT,
                               "item %zu: expected a prompt of 1 to %u tokens "
                               "(the model's positions less the answer's), "
                               "found %zu; shorten it, or lower --shots or "
                               "--max-tokens",
                               i + 1, (unsigned)room, ids->n);
        if (ids->n > job->max_prompt)
            job->max_prompt = (uint32_t)ids->n;
    }
    return 0;
}

static int run_all(struct job *job, struct tlr_err *err)
{
    struct tlr_pool *pool;
    size_t n = job->items->n;
    int n_jobs = job->opt->n_jobs < 1 ? 1 : job->opt->n_jobs;
    if ((size_t)n_jobs > n)
        n_jobs = (int)n;
    int rc = tlr_pool_new(&pool, n_jobs, err);
    if (rc)
        return rc;
    pthread_mutex_init(&job->lock, NULL);
    tlr_pool_run(pool, work, job, n_jobs);
    pthread_mutex_destroy(&job->lock);
    tlr_pool_free(pool);
    if (job->rc && job->err.text[0])
        tlr_err_set(err, job->rc, "%s", job->err.text);
    return job->rc;
}

static int check(const struct tlr_items *items,
                 const struct tlr_eval_models *models,
                 const struct tlr_eval_options *options, struct tlr_err *err)
{
    struct tlr_policy policies[TLR_N_POLICIES];
    if (items->n == 0 || options->n_runs == 0 ||
        options->n_runs > TLR_EVAL_RUNS_MAX)
        return tlr_err_set(err, TLR_EUSAGE,
                           "expected at least one item and 1 to %d runs, found "
                           "%zu and %zu",
                           TLR_EVAL_RUNS_MAX, items->n, options->n_runs);
    int n = tlr_eval_policies(models, options, policies), rc = 0;
    for (int i = 0; i < n && !rc; i++)
        rc = tlr_policy_check(&policies[i], err);
    return rc;
}

int tlr_eval(const struct tlr_items *items, const struct tlr_eval_models *models,
             const struct tlr_eval_options *options,
             struct tlr_outcome *outcomes, uint8_t *done,
             struct tlr_eval_costs *costs, struct tlr_err *err)
{
    struct job job = {.items = items, .models = models, .opt = options,
                      .outcomes = outcomes, .done = done,
                      .err = TLR_ERR_INIT};
    int rc = check(items, models, options, err);
    if (!rc)
        rc = encode(&job, err);
    if (!rc && costs && options->task != TLR_TASK_LM)
        rc = tlr_eval_measure(costs, models, job.prompts[0].ids,
                              job.prompts[0].n, err);
    if (!rc)
        rc = run_all(&job, err);
    if (costs)
        costs->work = job.work;
    for (size_t i = 0; job.prompts && i < items->n; i++)
        tlr_ids_clear(&job.prompts[i]);
    tlr_free(job.prompts);
    return rc;
}
