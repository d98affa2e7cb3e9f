/* eval_costs.c - what a step and an escalation cost here, one thread each.
 *
 * Medians of a few, on a prompt of the task: a single run's time is computed from
 * these (eval.h), time = n_tok t_slm + n_asked t_ask + n_tok t_ask_tok, the serial
 * model of two parts (router/README.md) with the large model's reading of what the
 * small one wrote told apart.
 */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "router/eval_internal.h"

enum { N_TIMES = 7, FEW = 1, MANY = 9 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return x[n / 2];
}

static int measure_slm(double *ms, const struct tlr_eval_models *models,
                       const int32_t *prompt, size_t n, struct tlr_err *err)
{
    struct tlr_session_options o = models->session;
    struct tlr_session *s;
    double times[N_TIMES];
    o.n_ctx = (uint32_t)n + N_TIMES;
    o.n_threads = 1;
    if (o.n_ctx > tlr_model_config(models->slm)->max_ctx) {
        n -= N_TIMES;
        o.n_ctx -= N_TIMES;
    }
    int rc = tlr_session_new(&s, models->slm, &o, err);
    if (rc)
        return rc;
    rc = tlr_prefill(s, prompt, n, 0, err);
    for (int i = 0; i < N_TIMES && !rc; i++) {
        uint64_t begun = tlr_now_ns();
        rc = tlr_decode(s, prompt[n - 1], TLR_STEP_LOGITS, err);
        times[i] = tlr_ms_between(begun, tlr_now_ns());
    }
    tlr_session_free(s);
    if (!rc)
        *ms = median(times, N_TIMES);
    return rc;
}

/* The time of an ask after n_new tokens, the prefix before them known. */
static int time_ask(double *ms, struct tlr_expert *e, const int32_t *ids,
                    size_t n_old, int n_new, uint32_t n_ids,
                    struct tlr_err *err)
{
    double times[N_TIMES];
    int rc = 0;
    for (int i = 0; i < N_TIMES && !rc; i++) {
        struct tlr_expert_reply reply;
        rc = tlr_expert_ask(e, ids, n_old, 1, n_ids, &reply, err);
        uint64_t begun = tlr_now_ns();
        if (!rc)
            rc = tlr_expert_ask(e, ids, n_old + (size_t)n_new, 1, n_ids,
                                &reply, err);
        times[i] = tlr_ms_between(begun, tlr_now_ns());
    }
    if (!rc)
        *ms = median(times, N_TIMES);
    return rc;
}

int tlr_eval_measure(struct tlr_eval_costs *out,
                     const struct tlr_eval_models *models,
                     const int32_t *prompt, size_t n, struct tlr_err *err)
{
    struct tlr_expert expert = {0};
    uint32_t n_ids = tlr_model_n_ids(models->slm);
    double few = 0, many = 0;
    if (n <= MANY + N_TIMES) { /* too short a prompt to cut asks from */
        *out = (struct tlr_eval_costs){
            .slm_ms = NAN, .ask_ms = NAN, .ask_tok_ms = NAN};
        return 0;
    }
    int rc = measure_slm(&out->slm_ms, models, prompt, n, err);
    if (!rc)
        rc = models->open_expert(models->ctx, (uint32_t)n + 1, &expert, err);
    if (rc)
        return rc;
    rc = time_ask(&few, &expert, prompt, n - MANY, FEW, n_ids, err);
    if (!rc)
        rc = time_ask(&many, &expert, prompt, n - MANY, MANY, n_ids, err);
    if (!rc) {
        double per_tok = (many - few) / (MANY - FEW);
        out->ask_tok_ms = per_tok > 0 ? per_tok : 0;
        out->ask_ms = few - out->ask_tok_ms > 0 ? few - out->ask_tok_ms : 0;
    }
    tlr_expert_close(&expert);
    return rc;
}
