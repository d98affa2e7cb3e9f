/* eval.c - `tlr eval`: what routing buys on a file of questions. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/eval_report.h"
#include "cli/output.h"
#include "cli/pair.h"
#include "cli/routing.h"
#include "engine/json.h"

enum { SHARES_MAX = 64, BOOTSTRAP_SEED = 1 };

#define ALL_SHARES "2%,4%,7%,10%,15%,30%"

struct eval_args {
    struct cli_llm_args llm;
    const char *file, *task, *slm, *policy, *shares, *target, *state, *svg;
    struct cli_list routers;
    double tau;
    int64_t max_items, max_tokens, jobs, shots, seed, ahead;
    struct cli_session_args session;
    bool sweep, json, csv, raw;
};

static const struct cli_operand operands[] = {
    { .name = "FILE", .kind = CLI_FILE, .at = offsetof(struct eval_args, file),
      .help = "questions with answers as JSON lines, or text for --task lm" },
};

static const struct cli_option options[] = {
    { .name = "task", .kind = CLI_CHOICE, .required = true,
      .at = offsetof(struct eval_args, task), .value = "csqa|gsm8k|lm",
      .help = "what FILE holds: multiple choice, sums, plain text" },
    { .name = "slm", .kind = CLI_FILE, .required = true,
      .at = offsetof(struct eval_args, slm), .value = "MODEL",
      .help = "the small model" },
    CLI_LLM_OPTIONS(struct eval_args, llm, true, NULL),
    { .name = "router", .kind = CLI_LIST,
      .at = offsetof(struct eval_args, routers), .value = "ROUTER",
      .help = "a router beside the model, instead of its own of that kind; may "
              "be repeated" },
    { .name = "policy", .kind = CLI_TEXT,
      .at = offsetof(struct eval_args, policy), .value = "LIST",
      .fallback = "mlp,entropy,margin,maxprob,random",
      .help = "policies to compare; never and always are measured too" },
    { .name = "sweep", .kind = CLI_FLAG, .at = offsetof(struct eval_args, sweep),
      .help = "every policy at every share of --shares" },
    { .name = "shares", .kind = CLI_TEXT,
      .at = offsetof(struct eval_args, shares), .value = "LIST",
      .fallback = ALL_SHARES,
      .help = "with --sweep: shares of the tokens that the large model is to "
              "write" },
    { .name = "target-routed", .kind = CLI_TEXT,
      .at = offsetof(struct eval_args, target), .value = "SHARE",
      .help = "one share instead of a sweep, such as 7%" },
    { .name = "tau", .kind = CLI_REAL, .at = offsetof(struct eval_args, tau),
      .value = "T", .help = "one threshold instead, the same for each policy",
      .min = -1e9, .max = 1e9 },
    { .name = "max-items", .kind = CLI_INT,
      .at = offsetof(struct eval_args, max_items), .value = "N",
      .help = "the first N items only", .unset = "all", .min = 1, .max = 1e9 },
    CLI_ANSWER_OPTIONS(struct eval_args),
    { .name = "state", .kind = CLI_FILE, .at = offsetof(struct eval_args, state),
      .value = "STATE",
      .help = "keep the outcome of each finished item here; the same command "
              "goes on where it was stopped" },
    { .name = "seed", .kind = CLI_INT, .at = offsetof(struct eval_args, seed),
      .value = "N", .help = "seed of the random policy", .fallback = "1",
      .min = 0, .max = 9e15 },
    { .name = "ahead", .kind = CLI_INT, .at = offsetof(struct eval_args, ahead),
      .value = "N",
      .help = "tokens guessed for one step of the small model; changes the "
              "speed, not the result",
      .fallback = "15", .min = 0, .max = TLR_WALK_AHEAD_MAX },
    CLI_PROMPT_OPTIONS(struct eval_args),
    CLI_KV_OPTION(struct eval_args, session),
    CLI_ACT_OPTION(struct eval_args, session),
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct eval_args, json),
      .help = "print one JSON object" },
    { .name = "csv", .kind = CLI_FLAG, .at = offsetof(struct eval_args, csv),
      .help = "print comma-separated values" },
    { .name = "svg", .kind = CLI_FILE, .at = offsetof(struct eval_args, svg),
      .value = "OUT", .help = "also draw quality against the routed share" },
};

static const char *const examples[] = {
    "tlr eval --task csqa dev.jsonl --slm small.bin --llm model:big.bin --sweep "
    "--state dev.state --svg dev.svg",
    "Compare all policies at six shares; Ctrl-C and go on later.",
    "tlr eval --task lm text.txt --slm small.bin --llm model:big.bin --policy "
    "mlp --target-routed 7%",
    "Perplexity of the mixture on a text.",
    NULL
};

/* All that one evaluation holds. */
struct job {
    const struct eval_args *args;
    struct cli_pair pair;
    struct tlr_items items;
    struct tlr_eval_run runs[TLR_EVAL_RUNS_MAX];
    size_t n_runs;
    struct tlr_outcome *outcomes;
    uint8_t *done;
    struct tlr_eval_state *state;
    struct tlr_eval_costs costs;
    struct cli_progress progress;
    size_t n_done;
};

/* ---- the runs ---- */

static int add_run(struct job *j, enum tlr_policy_kind kind, double share,
                   float tau, struct tlr_err *err)
{
    if (j->n_runs == TLR_EVAL_RUNS_MAX)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--shares: expected at most %d runs in all",
                           TLR_EVAL_RUNS_MAX);
    j->runs[j->n_runs++] = (struct tlr_eval_run){kind, share, tau};
    return 0;
}

static int read_shares(const struct eval_args *a, double *shares, int *n,
                       struct tlr_err *err)
{
    const char *list = a->target ? a->target : a->shares;
    const char *option = a->target ? "--target-routed" : "--shares";
    char word[32];
    *n = 0;
    while (cli_next_word(&list, word, sizeof word)) {
        if (*n == SHARES_MAX || (a->target && *n == 1))
            return tlr_err_set(err, TLR_EUSAGE, "%s: too many shares", option);
        int rc = cli_share_parse(&shares[*n], option, word, err);
        if (rc)
            return rc;
        ++*n;
    }
    return 0;
}

/* Growing shares of one policy follow each other: neighbours share most of their
 * way through the tree. */
static int add_policy(struct job *j, enum tlr_policy_kind kind,
                      const double *shares, int n, struct tlr_err *err)
{
    float tau = 0;
    int rc = 0;
    if (!isnan(j->args->tau))
        return add_run(j, kind, NAN, (float)j->args->tau, err);
    for (int i = 0; i < n && !rc; i++) {
        rc = cli_pair_tau(&j->pair, kind, shares[i], &tau, err);
        if (!rc)
            rc = add_run(j, kind, shares[i], tau, err);
    }
    return rc;
}

static int plan(struct job *j, struct tlr_err *err)
{
    const struct eval_args *a = j->args;
    enum tlr_policy_kind kinds[TLR_N_POLICIES];
    double shares[SHARES_MAX];
    int n_kinds, n_shares = 0;
    int rc = cli_policies(a->policy, kinds, &n_kinds, err);
    if (!rc)
        rc = read_shares(a, shares, &n_shares, err);
    if (!rc)
        rc = add_run(j, TLR_POLICY_NEVER, 0, 0, err);
    if (!rc)
        rc = add_run(j, TLR_POLICY_ALWAYS, 1, 1, err);
    for (int i = 0; i < n_kinds && !rc; i++) {
        struct tlr_policy p = {.kind = kinds[i],
                               .router = j->pair.routers[kinds[i]]};
        rc = tlr_policy_check(&p, err);
        if (!rc)
            rc = add_policy(j, kinds[i], shares, n_shares, err);
    }
    return rc;
}

/* ---- the state's header: what outcomes depend on ---- */

static json_t *hex(uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    return json_string(text);
}

static uint32_t add_text(uint32_t crc, const char *text)
{
    return text ? tlr_crc32(crc, text, strlen(text) + 1) : crc;
}

static uint32_t items_crc(const struct tlr_items *items)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < items->n; i++) {
        crc = add_text(crc, items->items[i].prompt);
        crc = add_text(crc, items->items[i].answer);
    }
    return crc;
}

static int routers_crc(const struct cli_pair *p, uint32_t *crc,
                       struct tlr_err *err)
{
    *crc = 0;
    for (int i = 0; i < p->n_routers; i++) {
        int rc = cli_router_crc(crc, p->routers[p->order[i]], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int make_header(const struct job *j, char **out, struct tlr_err *err)
{
    const struct eval_args *a = j->args;
    uint32_t crc;
    size_t len;
    int rc = routers_crc(&j->pair, &crc, err);
    if (rc)
        return rc;
    json_t *h = json_object(), *runs = json_array();
    for (size_t i = 0; i < j->n_runs; i++)
        cli_json_push(runs, json_pack("[sf]",
                                      tlr_policy_name(j->runs[i].kind),
                                      (double)j->runs[i].tau));
    cli_json_put(h, "tlr_eval", json_integer(1));
    cli_json_put(h, "task", json_string(a->task));
    cli_json_put(h, "items", json_integer((json_int_t)j->items.n));
    cli_json_put(h, "questions", hex(items_crc(&j->items)));
    cli_json_put(h, "slm",
                 hex(tlr_file_fingerprint(tlr_model_file(j->pair.slm))));
    cli_json_put(h, "llm", hex(cli_llm_fingerprint(&j->pair.llm)));
    cli_json_put(h, "routers", hex(crc));
    cli_json_put(h, "max-tokens", json_integer(a->max_tokens));
    cli_json_put(h, "seed", json_integer(a->seed));
    cli_json_put(h, "raw", json_boolean(a->raw));
    cli_json_put(h, "shots", json_integer(a->shots));
    cli_json_put(h, "kv", json_string(a->session.kv));
    cli_json_put(h, "act", json_string(a->session.act));
    cli_json_put(h, "policy", runs);
    rc = tlr_json_dump(h, out, &len, err);
    json_decref(h);
    return rc;
}

/* ---- measuring ---- */

static int finished(void *ctx, size_t item, const struct tlr_outcome *outcomes,
                    struct tlr_err *err)
{
    struct job *j = ctx;
    j->n_done++;
    cli_progress_set(&j->progress, j->n_done, j->items.n, NULL);
    return j->state ? tlr_eval_state_add(j->state, item, outcomes, err) : 0;
}

static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return cli_interrupted();
}

static int open_state(struct job *j, struct tlr_err *err)
{
    char *header = NULL;
    if (!j->args->state)
        return 0;
    int rc = make_header(j, &header, err);
    if (!rc)
        rc = tlr_eval_state_open(&j->state, j->args->state, header,
                                 j->outcomes, j->done, j->items.n, j->n_runs,
                                 err);
    tlr_free(header);
    for (size_t i = 0; i < j->items.n; i++)
        j->n_done += j->done[i];
    if (!rc && j->n_done > 0)
        cli_note("%s: %zu of %zu items are there already", j->args->state,
                 j->n_done, j->items.n);
    return rc;
}

static int measure(struct job *j, struct tlr_err *err)
{
    const struct eval_args *a = j->args;
    struct tlr_eval_models models = {
        .slm = j->pair.slm, .llm = j->pair.llm.model, .session = j->pair.session,
        .open_expert = cli_pair_expert, .ctx = &j->pair};
    for (int i = 0; i < TLR_N_POLICIES; i++)
        models.routers[i] = j->pair.routers[i];
    struct tlr_eval_options o = {
        .task = (enum tlr_task_kind)tlr_task_find(a->task),
        .runs = j->runs, .n_runs = j->n_runs,
        .max_tok = (uint32_t)a->max_tokens, .seed = (uint64_t)a->seed,
        .n_jobs = a->jobs == CLI_NO_INT ? tlr_default_threads() : (int)a->jobs,
        .n_ahead = (int)a->ahead, .raw = a->raw, .n_shots = (int)a->shots,
        .each = finished, .is_stopped = is_interrupted, .ctx = j};
    cli_progress_begin(&j->progress, "eval", false);
    j->progress.unit = "items";
    cli_interrupt_hold();
    int rc = tlr_eval(&j->items, &models, &o, j->outcomes, j->done, &j->costs,
                      err);
    cli_interrupt_release();
    cli_progress_end(&j->progress);
    cli_print_llm(&j->pair.llm);
    if (rc == TLR_ECANCELLED && a->state)
        tlr_err_set(err, rc, "%zu of %zu items are in %s; the same command "
                    "goes on", j->n_done, j->items.n, a->state);
    return rc;
}

static int report(struct job *j, struct tlr_err *err)
{
    const struct eval_args *a = j->args;
    struct tlr_eval_point *points = tlr_calloc(j->n_runs, sizeof *points);
    if (!points)
        return tlr_err_nomem(err, "results", j->n_runs * sizeof *points);
    int rc = tlr_eval_points(points, j->runs, j->n_runs, j->outcomes,
                             j->items.n, &j->costs, BOOTSTRAP_SEED, err);
    struct cli_eval_report r = {
        .task = (enum tlr_task_kind)tlr_task_find(a->task), .file = a->file,
        .slm = a->slm, .llm = a->llm.llm, .network = &j->pair.llm, .points = points,
        .n_points = j->n_runs, .costs = j->costs};
    if (!rc && a->svg)
        rc = cli_eval_svg(a->svg, &r, err);
    if (!rc && a->json)
        rc = cli_eval_json(&r, err);
    else if (!rc && a->csv)
        cli_eval_csv(&r);
    else if (!rc)
        cli_eval_table(&r);
    tlr_free(points);
    return rc;
}

static int check_args(const struct eval_args *a, struct tlr_err *err)
{
    int n = a->sweep + (a->target != NULL) + !isnan(a->tau);
    if (n != 1)
        return tlr_err_set(err, TLR_EUSAGE,
                           "give one of --sweep, --target-routed and --tau, "
                           "found %s", n ? "several" : "none");
    if (a->json && a->csv)
        return tlr_err_set(err, TLR_EUSAGE, "give one of --json and --csv");
    return 0;
}

static int allocate(struct job *j, struct tlr_err *err)
{
    size_t n = j->items.n * j->n_runs;
    j->outcomes = tlr_calloc(n, sizeof *j->outcomes);
    j->done = tlr_calloc(j->items.n, 1);
    return j->outcomes && j->done
               ? 0
               : tlr_err_nomem(err, "results", n * sizeof *j->outcomes);
}

static int eval(const void *args, struct tlr_err *err)
{
    struct job *j = tlr_calloc(1, sizeof *j);
    struct tlr_session_options o;
    if (!j)
        return tlr_err_nomem(err, "evaluation", sizeof *j);
    const struct eval_args *a = j->args = args;
    struct cli_session_args session = a->session;
    session.threads = session.ctx = CLI_NO_INT;
    int rc = check_args(a, err);
    if (!rc)
        rc = cli_session_options(&o, &session, err);
    if (!rc)
        rc = tlr_items_read(&j->items,
                            (enum tlr_task_kind)tlr_task_find(a->task), a->file,
                            a->max_items == CLI_NO_INT ? 0
                                                       : (size_t)a->max_items,
                            err);
    if (!rc)
        rc = cli_pair_open(&j->pair, a->slm, &a->llm, &a->routers, &o, err);
    if (!rc)
        rc = plan(j, err);
    if (!rc)
        rc = allocate(j, err);
    if (!rc)
        rc = open_state(j, err);
    if (!rc)
        rc = measure(j, err);
    if (!rc)
        rc = report(j, err);
    tlr_eval_state_close(j->state);
    tlr_free(j->outcomes);
    tlr_free(j->done);
    tlr_items_clear(&j->items);
    cli_pair_close(&j->pair);
    tlr_free(j);
    return rc;
}

const struct cli_verb cli_verb_eval = {
    .name = "eval",
    .summary = "measure what routing buys",
    .about = "Answers every question of FILE with the small model, with the "
             "large one, and with both joined by each policy at each share of "
             "tokens, always greedily, and prints accuracy with a 95 % interval "
             "(bootstrap by item, 2,000 resamples, seeded), the share routed, "
             "how much of the gap between the two models is recovered, and the "
             "probability that the first policy of the list is not better than "
             "this one at that share (paired bootstrap).\n\n"
             "accuracy takes an answer from anywhere in the text as CITER does; "
             "strict only from the closing sentence that the prompt asks for. "
             "agreement is the share of tokens that the large model would have "
             "written after the same prefix. Thresholds come from the router's "
             "calibration (tlr calibrate) and are never fitted on FILE.\n\n"
             "The runs of one question share every step they can, so the time "
             "of a run is computed from measured costs of steps. Results depend "
             "neither on --jobs nor on --ahead.\n\n"
             CLI_LLM_ABOUT "\n\n"
             "With --task lm FILE is plain text; both models read it, and "
             "accuracy is the share of tokens predicted, perplexity that of the "
             "mixture.\n\n"
             "With --json the object has points, a list of policy, "
             "target_share, tau (0 for never, 1 for always), routed_share, "
             "accuracy, agreement, n and the other columns of --csv; what was "
             "not measured is null.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct eval_args),
    .main = eval,
};
