/* calibrate.c - `tlr calibrate`: thresholds for shares, and shares for budgets. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/output.h"
#include "cli/pair.h"
#include "router/calibrate.h"

struct calibrate_args {
    struct cli_llm_args llm;
    const char *file, *task, *slm, *out, *policy;
    struct cli_list routers;
    int64_t max_items, max_tokens, jobs, shots;
    double ask_ms, slm_ms, tok_s, ask_price, tok_price;
    struct cli_session_args session;
    bool raw, json;
};

static const struct cli_operand operands[] = {
    { .name = "FILE", .kind = CLI_FILE, .optional = true,
      .at = offsetof(struct calibrate_args, file),
      .help = "training questions as JSON lines; never those that tlr eval will "
              "measure on; none: only looks thresholds up" },
};

static const struct cli_option options[] = {
    { .name = "slm", .kind = CLI_FILE, .required = true,
      .at = offsetof(struct calibrate_args, slm), .value = "MODEL",
      .help = "the small model" },
    CLI_LLM_OPTIONS(struct calibrate_args, llm, false,
                    "none: it is needed with FILE"),
    { .name = "router", .kind = CLI_LIST,
      .at = offsetof(struct calibrate_args, routers), .value = "ROUTER",
      .help = "the router to calibrate", .unset = "the small model's own" },
    { .name = "out", .letter = 'o', .kind = CLI_FILE,
      .at = offsetof(struct calibrate_args, out), .value = "ROUTER2",
      .help = "write the router with its thresholds here; needed with FILE" },
    { .name = "task", .kind = CLI_CHOICE,
      .at = offsetof(struct calibrate_args, task), .value = "csqa|gsm8k",
      .help = "what FILE holds", .fallback = "csqa" },
    { .name = "policy", .kind = CLI_TEXT,
      .at = offsetof(struct calibrate_args, policy), .value = "LIST",
      .help = "policies to find thresholds for",
      .unset = "the router's own, entropy, margin, maxprob, maxlogit" },
    { .name = "max-items", .kind = CLI_INT,
      .at = offsetof(struct calibrate_args, max_items), .value = "N",
      .help = "the first N questions only", .fallback = "200", .min = 1,
      .max = 1e9 },
    CLI_ANSWER_OPTIONS(struct calibrate_args),
    CLI_PROMPT_OPTIONS(struct calibrate_args),
    { .name = "latency-ms", .kind = CLI_REAL,
      .at = offsetof(struct calibrate_args, ask_ms), .value = "L",
      .help = "what one escalation costs", .min = 1e-6, .max = 1e9 },
    { .name = "slm-ms", .kind = CLI_REAL,
      .at = offsetof(struct calibrate_args, slm_ms), .value = "S",
      .help = "what a token of the small model costs", .min = 0, .max = 1e9 },
    { .name = "target-tok-s", .kind = CLI_REAL,
      .at = offsetof(struct calibrate_args, tok_s), .value = "R",
      .help = "print the threshold that still gives R tokens a second",
      .min = 1e-6, .max = 1e9 },
    { .name = "ask-price", .kind = CLI_REAL,
      .at = offsetof(struct calibrate_args, ask_price), .value = "P",
      .help = "price of one escalation, in any currency", .min = 1e-12,
      .max = 1e12 },
    { .name = "target-price", .kind = CLI_REAL,
      .at = offsetof(struct calibrate_args, tok_price), .value = "Q",
      .help = "print the threshold at which a token of text costs Q on average",
      .min = 0, .max = 1e12 },
    CLI_KV_OPTION(struct calibrate_args, session),
    CLI_ACT_OPTION(struct calibrate_args, session),
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct calibrate_args, json),
      .help = "print one JSON object" },
};

static const char *const examples[] = {
    "tlr calibrate train.jsonl --slm small.bin --llm model:big.bin --router "
    "r.bin -o r2.bin",
    "Measure the thresholds of a router and of the policies it competes with.",
    "tlr calibrate --slm small.bin --latency-ms 170 --slm-ms 20 --target-tok-s "
    "30",
    "Which share, and which threshold, keeps 30 tokens a second?",
    NULL
};

struct job {
    const struct calibrate_args *args;
    struct cli_pair pair;
    struct tlr_items items;
    enum tlr_policy_kind kinds[TLR_N_POLICIES];
    int n_kinds;
    struct cli_progress progress;
};

static void progress(void *ctx, size_t done, size_t total)
{
    struct job *j = ctx;
    cli_progress_set(&j->progress, done, total, NULL);
}

static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return cli_interrupted();
}

static struct tlr_router *router_of(const struct job *j)
{
    return j->pair.routers[j->pair.order[0]];
}

static int choose_policies(struct job *j, struct tlr_err *err)
{
    static const enum tlr_policy_kind others[] = {
        TLR_POLICY_ENTROPY, TLR_POLICY_MARGIN, TLR_POLICY_MAXPROB,
        TLR_POLICY_MAXLOGIT };
    enum tlr_policy_kind listed[TLR_N_POLICIES];
    int n_listed = 0, rc = 0;
    if (!j->args->policy) {
        j->kinds[j->n_kinds++] = j->pair.order[0];
        for (size_t i = 0; i < CLI_COUNT(others); i++)
            j->kinds[j->n_kinds++] = others[i];
        return 0;
    }
    rc = cli_policies(j->args->policy, listed, &n_listed, err);
    for (int i = 0; i < n_listed && !rc; i++) {
        struct tlr_policy p = { .kind = listed[i],
                                .router = j->pair.routers[listed[i]] };
        rc = tlr_policy_check(&p, err);
        if (listed[i] != TLR_POLICY_RANDOM) /* its tau is the share */
            j->kinds[j->n_kinds++] = listed[i];
    }
    return rc;
}

static int measure(struct job *j, struct tlr_calibration *out,
                   struct tlr_err *err)
{
    const struct calibrate_args *a = j->args;
    struct tlr_eval_models models = {
        .slm = j->pair.slm, .llm = j->pair.llm.model, .session = j->pair.session,
        .open_expert = cli_pair_expert, .ctx = &j->pair };
    for (int i = 0; i < TLR_N_POLICIES; i++)
        models.routers[i] = j->pair.routers[i];
    struct tlr_calibrate_options o = {
        .task = (enum tlr_task_kind)tlr_task_find(a->task), .kinds = j->kinds,
        .n_kinds = j->n_kinds, .max_tok = (uint32_t)a->max_tokens,
        .n_jobs = a->jobs == CLI_NO_INT ? tlr_default_threads() : (int)a->jobs,
        .raw = a->raw, .n_shots = (int)a->shots, .progress = progress,
        .is_stopped = is_interrupted, .ctx = j };
    cli_progress_begin(&j->progress, "calibrate", false);
    j->progress.unit = "items";
    cli_interrupt_hold();
    int rc = tlr_calibrate(&j->items, &models, &o, out, NULL, err);
    cli_interrupt_release();
    cli_progress_end(&j->progress);
    cli_print_llm(&j->pair.llm);
    return rc;
}

static int write_router(const char *path, const struct tlr_router *r,
                        struct tlr_err *err)
{
    uint8_t *bytes;
    size_t len;
    int rc = tlr_router_repack(&bytes, &len, r, err);
    if (rc)
        return rc;
    rc = tlr_write_file(path, bytes, len, err);
    tlr_free(bytes);
    return rc;
}

/* New thresholds take the place of those measured before; what this run leaves
 * out is dropped, because it was measured on other text. */
static int calibrate_router(struct job *j, struct tlr_err *err)
{
    const struct calibrate_args *a = j->args;
    int rc = tlr_items_read(&j->items,
                            (enum tlr_task_kind)tlr_task_find(a->task), a->file,
                            (size_t)a->max_items, err);
    if (!rc)
        rc = choose_policies(j, err);
    if (!rc)
        rc = measure(j, tlr_router_calibration(router_of(j)), err);
    return rc ? rc : write_router(a->out, router_of(j), err);
}

/* ---- what is printed ---- */

/* The share that the budget allows; NaN without a budget. */
static double budget_share(const struct calibrate_args *a)
{
    double share = NAN;
    if (!isnan(a->tok_s))
        share = tlr_share_for_speed(isnan(a->slm_ms) ? 0 : a->slm_ms,
                                    a->ask_ms, a->tok_s);
    if (!isnan(a->tok_price))
        share = fmin(isnan(share) ? 1 : share,
                     fmin(1, a->tok_price / a->ask_price));
    return share;
}

static const double shown[] = { 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3,
                                0.5 };

static double tau_at(const struct job *j, int kind, double share)
{
    float tau;
    struct tlr_err none = TLR_ERR_INIT;
    int rc = tlr_calibration_tau(tlr_router_calibration(router_of(j)),
                                 (enum tlr_policy_kind)kind, share, &tau,
                                 &none);
    return rc ? NAN : (double)tau;
}

static bool has_tau(const struct job *j, int kind)
{
    return !isnan(tlr_router_calibration(router_of(j))->tau[kind][0]);
}

static void print_table(const struct job *j, double budget)
{
    cli_printf("| share  |");
    for (int k = 0; k < TLR_N_POLICIES; k++)
        if (has_tau(j, k))
            cli_printf(" %-10s |", tlr_policy_name((enum tlr_policy_kind)k));
    cli_printf("\n");
    for (size_t i = 0; i <= CLI_COUNT(shown); i++) {
        double share = i < CLI_COUNT(shown) ? shown[i] : budget;
        if (isnan(share))
            continue;
        cli_printf("| %5.1f%% |", share * 100);
        for (int k = 0; k < TLR_N_POLICIES; k++)
            if (has_tau(j, k))
                cli_printf(" %10.6g |", tau_at(j, k, share));
        cli_printf("%s\n", i < CLI_COUNT(shown) ? "" : " the budget's");
    }
}

static json_t *taus_json(const struct job *j, double share)
{
    json_t *o = json_object();
    cli_json_put(o, "share", cli_json_real(share));
    for (int k = 0; k < TLR_N_POLICIES; k++)
        if (has_tau(j, k))
            cli_json_put(o, tlr_policy_name((enum tlr_policy_kind)k),
                         cli_json_real(tau_at(j, k, share)));
    return o;
}

static int print_json(const struct job *j, double budget, struct tlr_err *err)
{
    const struct tlr_calibration *c = tlr_router_calibration(router_of(j));
    json_t *root = json_object(), *list = json_array();
    for (int i = 0; i < TLR_N_SHARES; i++)
        cli_json_push(list, taus_json(j, (double)c->share[i]));
    cli_json_put(root, "positions", json_integer((json_int_t)c->n_positions));
    cli_json_put(root, "thresholds", list);
    cli_json_put(root, "budget",
                 isnan(budget) ? json_null() : taus_json(j, budget));
    return cli_json_print(root, err);
}

static int check_args(const struct calibrate_args *a, struct tlr_err *err)
{
    if (a->file && (!a->llm.llm || !a->out))
        return tlr_err_set(err, TLR_EUSAGE,
                           "FILE is given, so --llm and --out are needed");
    if (!a->file && a->out)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--out is given, so FILE and --llm are needed");
    if (!isnan(a->tok_s) && isnan(a->ask_ms))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--target-tok-s needs --latency-ms");
    if (!isnan(a->tok_price) && isnan(a->ask_price))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--target-price needs --ask-price");
    return 0;
}

static bool is_calibrated(const struct job *j)
{
    bool any = false;
    for (int k = 0; k < TLR_N_POLICIES; k++)
        any = any || has_tau(j, k);
    return any;
}

static int calibrate(const void *args, struct tlr_err *err)
{
    const struct calibrate_args *a = args;
    struct job j = { .args = a };
    struct tlr_session_options o;
    struct cli_session_args session = a->session;
    session.threads = session.ctx = CLI_NO_INT;
    int rc = check_args(a, err);
    if (!rc)
        rc = cli_session_options(&o, &session, err);
    if (!rc)
        rc = cli_pair_open(&j.pair, a->slm, &a->llm, &a->routers, &o, err);
    if (!rc && j.pair.n_routers == 0)
        rc = tlr_err_set(err, TLR_ENOTFOUND,
                         "%s: carries no router; train one (tlr train) and give "
                         "it as --router", a->slm);
    if (!rc && a->file)
        rc = calibrate_router(&j, err);
    if (!rc && !is_calibrated(&j))
        rc = tlr_err_set(err, TLR_ENOTFOUND,
                         "%s: has no thresholds yet; give FILE with training "
                         "questions", tlr_router_label(router_of(&j)));
    if (!rc && a->json)
        rc = print_json(&j, budget_share(a), err);
    else if (!rc)
        print_table(&j, budget_share(a));
    tlr_items_clear(&j.items);
    cli_pair_close(&j.pair);
    return rc;
}

const struct cli_verb cli_verb_calibrate = {
    .name = "calibrate",
    .summary = "find the thresholds of a router",
    .about = "Finds, for each policy, the threshold below which the large model "
             "is asked at a given share of positions, and stores 64 of them "
             "with the router. Shares are those of text that both models wrote "
             "together: the joint loop answers the questions of FILE at 16 "
             "thresholds of each policy, and the curve is turned round. FILE "
             "holds training questions, never those that tlr eval measures "
             "on; give --shots and --raw as they will be used, the router does "
             "not record them. Policies that --policy leaves out lose their "
             "thresholds.\n\n"
             "Without FILE the thresholds that are there are printed. A speed "
             "or a price gives a share of its own: a token takes --slm-ms plus "
             "share times --latency-ms, and costs share times --ask-price.\n\n"
             CLI_LLM_ABOUT "\n\n"
             "With --json: positions (measured on), thresholds (64 objects of "
             "share and each policy's tau), budget (such an object, or null).",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct calibrate_args),
    .main = calibrate,
};
