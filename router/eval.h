/* eval.h - what routing buys: every policy at every share on a file of questions.
 *
 * tlr_eval answers each question once for every run (policy, tau) and keeps an
 * outcome for each; tlr_eval_points makes accuracies, intervals and comparisons
 * of them.  Items are handed to workers in order, each with a session and an
 * expert of its own, one thread each; outcomes depend on neither number nor order.
 * The state file (eval_state.c) makes a killed run go on.
 */
#ifndef TLR_ROUTER_EVAL_H
#define TLR_ROUTER_EVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/tlr.h"
#include "router/expert.h"
#include "router/policy.h"
#include "router/task.h"
#include "router/walk.h"

enum { TLR_EVAL_RUNS_MAX = 1024 };

struct tlr_eval_run {
    enum tlr_policy_kind kind;
    double share; /* aimed at; NaN where tau was given */
    float tau;    /* trust < tau asks; 0 for never, 1 for always */
};

/* One item, one run.  csqa, gsm8k: n_judged is 1.  lm: positions of the text, and
 * right counts those where the mixture's likeliest token is the text's. */
struct tlr_outcome {
    uint32_t n_judged, n_right, n_strict;
    int32_t choice;          /* csqa: index of the chosen answer, -1: none */
    uint32_t n_tok, n_asked; /* written; of them by the large model */
    uint32_t n_known, n_agree; /* struct tlr_walk_path */
    double nll;              /* lm: sum over n_judged, nats */
};

struct tlr_eval_models {
    const struct tlr_model *slm;
    const struct tlr_router *routers[TLR_N_POLICIES]; /* of trained policies */
    const struct tlr_model *llm;       /* lm needs its logits; else may be NULL */
    struct tlr_session_options session; /* n_ctx and n_threads are eval's */
    /* Opens a worker's expert for prefixes of up to n_ctx ids; eval closes it. */
    int (*open_expert)(void *ctx, uint32_t n_ctx, struct tlr_expert *out,
                       struct tlr_err *err);
    void *ctx;
};

struct tlr_eval_options {
    enum tlr_task_kind task;
    const struct tlr_eval_run *runs; /* never and always among them */
    size_t n_runs;
    uint32_t max_tok;
    uint64_t seed;  /* of random */
    int n_jobs;
    int n_ahead;    /* -1: the default */
    bool raw;       /* no chat template */
    int n_shots;    /* worked examples before each item (task.h) */
    bool shares_only; /* n_known stays what the runs needed */
    /* Both under one lock; a negative each ends the run with that code. */
    int (*each)(void *ctx, size_t item, const struct tlr_outcome *outcomes,
                struct tlr_err *err);
    bool (*is_stopped)(void *ctx);
    void *ctx;
};

/* What steps cost on this machine, by themselves: the time of a single run is
 * computed from these, because the runs of an evaluation share their steps. */
struct tlr_eval_costs {
    double slm_ms;     /* of one token by the small model, head included */
    double ask_ms;     /* of an escalation that */
    double ask_tok_ms; /* adds this for every token since the last one */
    struct tlr_walk_counts work; /* of the items this call did */
};

/* Fills outcomes [items->n, n_runs] where done [items->n] is 0, and sets it.
 * costs may be NULL.  Interrupted: TLR_ECANCELLED. */
int tlr_eval(const struct tlr_items *items, const struct tlr_eval_models *models,
             const struct tlr_eval_options *options,
             struct tlr_outcome *outcomes, uint8_t *done,
             struct tlr_eval_costs *costs, struct tlr_err *err);

/* ---- results (eval_points.c) ---- */

struct tlr_eval_point {
    struct tlr_eval_run run;
    uint64_t n;                   /* items */
    double routed_share;          /* asked / written, over all items */
    double accuracy, low, high;   /* 95 % interval by item */
    double strict;                /* by the strict extraction */
    double agreement;             /* tokens that the large model would have
                                     written after the same prefix; NaN where it
                                     was not asked about any */
    double answer_agreement;      /* items whose chosen answer is always's; NaN
                                     where the task has no choices */
    double mean_tok;
    double seconds;               /* an item, by the costs; prompts left out */
    double gap, gap_low, gap_high; /* (accuracy - never) / (always - never) */
    double p;     /* that the first policy of the runs is not better at this
                     share; NaN for itself and for never and always */
    double perplexity; /* lm, else NaN */
};

/* points [n_runs].  outcomes [n_items, n_runs], all of them done. */
int tlr_eval_points(struct tlr_eval_point *points,
                    const struct tlr_eval_run *runs, size_t n_runs,
                    const struct tlr_outcome *outcomes, size_t n_items,
                    const struct tlr_eval_costs *costs, uint64_t seed,
                    struct tlr_err *err);

/* ---- a state file (eval_state.c): JSON lines, a header and one for each item
 * ---- */

struct tlr_eval_state;

/* Opens or makes it.  header is one JSON object without a newline: what must be
 * the same for outcomes to be the same.  TLR_EMISMATCH names the first key that
 * differs.  What the file has goes to outcomes and done; a last line that was cut
 * short is dropped. */
int tlr_eval_state_open(struct tlr_eval_state **out, const char *path,
                        const char *header, struct tlr_outcome *outcomes,
                        uint8_t *done, size_t n_items, size_t n_runs,
                        struct tlr_err *err);
int tlr_eval_state_add(struct tlr_eval_state *s, size_t item,
                       const struct tlr_outcome *outcomes,
                       struct tlr_err *err);
void tlr_eval_state_close(struct tlr_eval_state *s); /* NULL is allowed */

#endif
