/* label.c - `tlr label`: labels for a router, from questions with gold chains.
 *
 * Owns the files and the jobs' models; what a label is, router/label.h says.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/pair.h"
#include "cli/routing.h"
#include "router/label.h"
#include "router/router.h"

struct label_args {
    struct cli_llm_args llm;
    const char *file, *task, *slm, *out, *chains, *router, *previous;
    struct cli_session_args session;
    int64_t max_items, completions, completion_tokens, chain_tokens, jobs,
        shots, seed;
    double tau, mix;
    bool raw, json;
};

static const struct cli_operand operands[] = {
    { .name = "FILE", .kind = CLI_FILE, .at = offsetof(struct label_args, file),
      .help = "questions, one JSON object a line" },
};

static const struct cli_option options[] = {
    { .name = "task", .required = true, .kind = CLI_CHOICE,
      .at = offsetof(struct label_args, task), .value = "csqa|gsm8k",
      .help = "what the questions are: multiple choice, or maths with a boxed "
              "answer" },
    { .name = "slm", .required = true, .kind = CLI_FILE,
      .at = offsetof(struct label_args, slm), .value = "MODEL",
      .help = "the small model that the router is for" },
    CLI_LLM_OPTIONS(struct label_args, llm, true, NULL),
    { .name = "output", .letter = 'o', .required = true, .kind = CLI_FILE,
      .at = offsetof(struct label_args, out), .value = "OUT",
      .help = "the dataset; one that a stopped run left is gone on with" },
    { .name = "max-items", .kind = CLI_INT,
      .at = offsetof(struct label_args, max_items), .value = "N",
      .help = "label the first N questions", .unset = "all", .min = 1,
      .max = 1e9 },
    { .name = "completions", .kind = CLI_INT,
      .at = offsetof(struct label_args, completions), .value = "N",
      .help = "of a question's positions where both models are wrong (in mixed "
              "chains: differ), finish N; the others stay without a label",
      .fallback = "2", .min = 0, .max = 1e6 },
    { .name = "completion-tokens", .kind = CLI_INT,
      .at = offsetof(struct label_args, completion_tokens), .value = "N",
      .help = "most tokens of one completion behind a gold chain; in a mixed one "
              "--chain-tokens counts", .fallback = "96", .min = 1,
      .max = 1048576 },
    { .name = "chains", .kind = CLI_CHOICE,
      .at = offsetof(struct label_args, chains), .value = "gold|llm|mixed",
      .help = "where the chains of thought come from: the file; the large "
              "model; both models in turn", .fallback = "gold" },
    { .name = "mix", .kind = CLI_SHARE, .at = offsetof(struct label_args, mix),
      .value = "S",
      .help = "with --chains mixed: share of the tokens that the model writes "
              "whose turn it is not", .fallback = "25%" },
    { .name = "chain-tokens", .kind = CLI_INT,
      .at = offsetof(struct label_args, chain_tokens), .value = "N",
      .help = "most tokens of a chain that the models write",
      .fallback = "256", .min = 1, .max = 1048576 },
    CLI_PROMPT_OPTIONS(struct label_args),
    { .name = "router", .kind = CLI_FILE,
      .at = offsetof(struct label_args, router), .value = "ROUTER",
      .help = "finish texts with this router in the loop: in a later round "
              "(--previous), or for --chains mixed" },
    { .name = "previous", .kind = CLI_FILE,
      .at = offsetof(struct label_args, previous), .value = "DATASET",
      .help = "a later round: the dataset of the round before, of which case "
              "3 is labelled again" },
    { .name = "tau", .kind = CLI_REAL, .at = offsetof(struct label_args, tau),
      .value = "T",
      .help = "with --router: trust below which the large model is asked",
      .fallback = "0.95", .min = 0, .max = 1 },
    { .name = "seed", .kind = CLI_INT, .at = offsetof(struct label_args, seed),
      .value = "N", .help = "chooses what is completed", .fallback = "1",
      .min = 0, .max = 9007199254740991.0 },
    { .name = "jobs", .letter = 'j', .kind = CLI_INT,
      .at = offsetof(struct label_args, jobs), .value = "N",
      .help = "questions labelled side by side", .min = 1, .max = 1024,
      .unset = "physical performance cores that this process may use" },
    { .name = "threads", .letter = 't', .kind = CLI_INT,
      .at = offsetof(struct label_args, session.threads), .value = "N",
      .help = "threads of each job", .fallback = "1", .min = 1, .max = 4096 },
    { .name = "cpu", .kind = CLI_CHOICE,
      .at = offsetof(struct label_args, session.cpu), .value = CLI_CPU_CHOICE,
      .help = "instruction set of the kernels, at most what the machine has",
      .unset = "TLR_CPU, else auto: the machine's best" },
    CLI_CTX_OPTION(struct label_args, session.ctx,
                   "positions for prompt, chain and completion (when not given: "
                   "the model's own limit, at most 4096)"),
    CLI_KV_OPTION(struct label_args, session),
    CLI_ACT_OPTION(struct label_args, session),
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct label_args, json),
      .help = "print the summary as one JSON object" },
};

static const char *const examples[] = {
    "tlr label questions.jsonl --task csqa --slm small.bin --llm model:big.bin "
    "-o train.tlrd", "Label gold chains; the same command goes on after a stop.",
    "tlr label questions.jsonl --task csqa --slm small.bin --llm model:big.bin "
    "-o second.tlrd --router router.bin --previous train.tlrd",
    "CITER's second round.",
    NULL
};

/* Everything that is opened for a run. */
struct work {
    const struct label_args *args;
    struct tlr_items items;
    struct tlr_model *slm;
    struct cli_llm llm;
    struct tlr_router *router;
    struct tlr_dataset *previous;
    struct tlr_policy policy;
    struct tlr_label_options options;
    struct tlr_labeller *labellers;
    struct tlr_expert *experts;
    int n_jobs;
    uint64_t who;
    struct tlr_dataset_writer *writer;
    uint32_t first;
    struct cli_progress progress;
};

/* ---- opening ---- */

static int open_router(struct work *w, struct tlr_err *err)
{
    const struct label_args *a = w->args;
    uint32_t crc = 0;
    int rc = cli_router_open(&w->router, a->router, w->slm, err);
    if (!rc)
        rc = cli_router_crc(&crc, w->router, err);
    if (rc)
        return rc;
    w->who = tlr_hash_u64(tlr_hash_u64(w->who, crc),
                          (uint64_t)(a->tau * 1e9));
    w->policy = (struct tlr_policy){ .kind = tlr_router_shape(w->router)->kind,
                                     .tau = (float)a->tau,
                                     .router = w->router };
    return tlr_policy_check(&w->policy, err);
}

static int open_previous(struct work *w, struct tlr_err *err)
{
    const char *path = w->args->previous;
    int rc = tlr_dataset_open(&w->previous, path, err);
    if (rc)
        return rc;
    const struct tlr_dataset_info *i = tlr_dataset_info(w->previous);
    uint64_t own = tlr_file_fingerprint(tlr_model_file(w->slm));
    if (i->fingerprint != own)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: labelled for the model with fingerprint "
                           "%016" PRIx64 ", %s has %016" PRIx64
                           "; give that model", path, i->fingerprint,
                           w->args->slm, own);
    if (i->n_groups < w->items.n)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: holds %" PRIu32 " questions, expected the %zu "
                           "of %s; finish it first, or give --max-items %"
                           PRIu32, path, i->n_groups, w->items.n,
                           w->args->file, i->n_groups);
    struct tlr_row row;
    tlr_dataset_row(w->previous, 0, &row);
    for (uint64_t k = 0; k < i->n_rows; k++) {
        struct tlr_row other;
        tlr_dataset_row(w->previous, k, &other);
        if (other.round > row.round)
            row.round = other.round;
    }
    if (row.round == UINT16_MAX)
        return tlr_err_set(err, TLR_ELIMIT, "%s: is of round %d, the last",
                           path, row.round);
    w->options.round = (uint16_t)(row.round + 1);
    w->who = tlr_hash_u64(w->who, tlr_dataset_digest(w->previous));
    return 0;
}

static int open_models(struct work *w, struct tlr_err *err)
{
    const struct label_args *a = w->args;
    int rc = cli_llm_check(&a->llm, err);
    if (!rc)
        rc = cli_model_open(&w->slm, a->slm, true, err);
    if (!rc)
        rc = cli_check_can_talk(w->slm, a->slm, a->raw, err);
    if (!rc)
        rc = cli_llm_open(&w->llm, &a->llm, w->slm, true, err);
    if (!rc)
        w->who = cli_llm_fingerprint(&w->llm);
    return rc;
}

static int open_jobs(struct work *w, struct tlr_err *err)
{
    const struct label_args *a = w->args;
    struct tlr_session_options o;
    int rc = cli_session_options(&o, &a->session, err);
    w->n_jobs = a->jobs == CLI_NO_INT ? tlr_default_threads() : (int)a->jobs;
    w->labellers = tlr_calloc((size_t)w->n_jobs, sizeof *w->labellers);
    w->experts = tlr_calloc((size_t)w->n_jobs, sizeof *w->experts);
    if (!w->labellers || !w->experts)
        return tlr_err_nomem(err, "jobs", sizeof *w->labellers);
    for (int i = 0; i < w->n_jobs && !rc; i++) {
        struct tlr_labeller *l = &w->labellers[i];
        *l = (struct tlr_labeller){ .options = &w->options, .slm = w->slm,
                                    .expert = &w->experts[i],
                                    .policy = w->router ? &w->policy : NULL,
                                    .previous = w->previous };
        rc = tlr_session_new(&l->session, w->slm, &o, err);
        if (!rc)
            rc = cli_llm_expert(&w->llm, l->expert, w->slm, &o, err);
    }
    return rc;
}

static int open_output(struct work *w, struct tlr_err *err)
{
    struct tlr_dataset_info info = {
        .dim = tlr_model_config(w->slm)->dim,
        .fingerprint = tlr_file_fingerprint(tlr_model_file(w->slm)),
        .source = tlr_label_source(&w->labellers[0], &w->items, w->who)
    };
    return tlr_dataset_append(&w->writer, w->args->out, &info, &w->first, err);
}

static int open_all(struct work *w, struct tlr_err *err)
{
    const struct label_args *a = w->args;
    w->options = (struct tlr_label_options){
        .path = a->file,
        .task = (enum tlr_task_kind)tlr_task_find(a->task),
        .raw = a->raw, .n_shots = (int)a->shots,
        .llm_chains = strcmp(a->chains, "llm") == 0,
        .mixed_chains = strcmp(a->chains, "mixed") == 0,
        .mix = a->mix,
        .n_completions = (uint32_t)a->completions,
        .completion_tok = (uint32_t)a->completion_tokens,
        .chain_tok = (uint32_t)a->chain_tokens,
        .seed = (uint64_t)a->seed
    };
    size_t max = a->max_items == CLI_NO_INT ? 0 : (size_t)a->max_items;
    int rc = tlr_items_read(&w->items, w->options.task, a->file, max, err);
    if (!rc && w->items.n > UINT32_MAX)
        rc = tlr_err_set(err, TLR_ELIMIT, "%s: has %zu questions, expected at "
                         "most %u", a->file, w->items.n, UINT32_MAX);
    if (!rc)
        rc = tlr_label_check(&w->items, &w->options, err);
    if (!rc)
        rc = open_models(w, err);
    if (!rc && a->router)
        rc = open_router(w, err);
    if (!rc && a->previous)
        rc = open_previous(w, err);
    if (!rc)
        rc = open_jobs(w, err);
    return rc ? rc : open_output(w, err);
}

static void close_all(struct work *w)
{
    for (int i = 0; w->labellers && i < w->n_jobs; i++) {
        tlr_session_free(w->labellers[i].session);
        tlr_labeller_clear(&w->labellers[i]);
    }
    for (int i = 0; w->experts && i < w->n_jobs; i++)
        tlr_expert_close(&w->experts[i]);
    tlr_free(w->labellers);
    tlr_free(w->experts);
    tlr_dataset_free(w->previous);
    tlr_router_free(w->router);
    cli_llm_close(&w->llm);
    tlr_model_close(w->slm);
    tlr_items_clear(&w->items);
}

/* ---- running ---- */

static int on_progress(void *ctx, uint32_t done,
                       const struct tlr_label_counts *c)
{
    struct work *w = ctx;
    char what[64] = "";
    if (c->n_keep + c->n_ask > 0)
        snprintf(what, sizeof what, "%" PRIu64 " rows, %.0f%% ask", c->n_rows,
                 100.0 * (double)c->n_ask / (double)(c->n_keep + c->n_ask));
    cli_progress_set(&w->progress, done - w->first, w->items.n - w->first,
                     what);
    return cli_interrupted();
}

/* Share of all labels that are 0. */
static double ask_share(const struct tlr_label_counts *c)
{
    uint64_t n = c->n_keep + c->n_ask;
    return n ? (double)c->n_ask / (double)n : NAN;
}

static int report(const struct work *w, uint32_t done,
                  const struct tlr_label_counts *c, double ms,
                  struct tlr_err *err)
{
    if (!w->args->json) {
        cli_printf("%" PRIu32 " of %zu questions in %s, %" PRIu64 " of them "
                   "now: %" PRIu64 " rows\n", done, w->items.n, w->args->out,
                   c->n_items, c->n_rows);
        cli_printf("1  small model right      %" PRIu64 "\n"
                   "2  only large model right %" PRIu64 "\n"
                   "3  both wrong, finished   %" PRIu64 "\n"
                   "   both wrong, left open  %" PRIu64 "\n"
                   "   asking changes nothing %" PRIu64 "\n",
                   c->n_case[TLR_CASE_SLM_RIGHT], c->n_case[TLR_CASE_LLM_RIGHT],
                   c->n_case[TLR_CASE_OUTCOME], c->n_case[TLR_CASE_OPEN],
                   c->n_case[TLR_CASE_TIE]);
        cli_printf("labels: keep %" PRIu64 ", ask %" PRIu64 " (%.1f%%)\n",
                   c->n_keep, c->n_ask, 100 * ask_share(c));
        cli_note("%.1f s, %" PRIu64 " tokens of completions", ms / 1000,
                 c->n_completion_tok);
        return 0;
    }
    const struct { const char *key; uint64_t n; } numbers[] = {
        { "questions", w->items.n }, { "questions_done", done },
        { "questions_now", c->n_items }, { "rows", c->n_rows },
        { "case_slm_right", c->n_case[TLR_CASE_SLM_RIGHT] },
        { "case_llm_right", c->n_case[TLR_CASE_LLM_RIGHT] },
        { "case_outcome", c->n_case[TLR_CASE_OUTCOME] },
        { "case_open", c->n_case[TLR_CASE_OPEN] },
        { "case_tie", c->n_case[TLR_CASE_TIE] },
        { "keep", c->n_keep }, { "ask", c->n_ask },
        { "completion_tokens", c->n_completion_tok },
        { "round", w->options.round }, { "jobs", (uint64_t)w->n_jobs }
    };
    json_t *j = json_object();
    for (size_t i = 0; i < CLI_COUNT(numbers); i++)
        cli_json_put(j, numbers[i].key,
                     json_integer((json_int_t)numbers[i].n));
    cli_json_put(j, "ask_share", cli_json_real(ask_share(c)));
    cli_json_put(j, "seconds", cli_json_real(ms / 1000));
    cli_json_put(j, "network", cli_llm_json(&w->llm));
    return cli_json_print(j, err);
}

static int label_all(struct work *w, struct tlr_err *err)
{
    struct tlr_label_run run = { .items = &w->items, .first = w->first,
                                 .labellers = w->labellers,
                                 .n_jobs = w->n_jobs, .writer = w->writer,
                                 .progress = on_progress, .ctx = w };
    struct tlr_label_counts counts = { 0 };
    uint32_t done = w->first;
    int rc = 0;
    uint64_t begun = tlr_now_ns();
    if (w->first > 0)
        cli_note("%s: holds %" PRIu32 " questions, going on", w->args->out,
                 w->first);
    cli_progress_begin(&w->progress, "label", false);
    w->progress.unit = "questions";
    cli_interrupt_hold();
    if (w->first < w->items.n)
        rc = tlr_label_run(&run, &done, &counts, err);
    cli_interrupt_release();
    cli_progress_end(&w->progress);
    cli_print_llm(&w->llm);
    int rc_close = tlr_dataset_close(w->writer, rc ? NULL : err);
    w->writer = NULL;
    if (rc == TLR_ECANCELLED)
        tlr_err_set(err, TLR_ECANCELLED,
                    "%s: holds %" PRIu32 " of %zu questions; the same command "
                    "goes on from there", w->args->out, done, w->items.n);
    if (!rc)
        rc = rc_close;
    if (!rc)
        rc = report(w, done, &counts, tlr_ms_between(begun, tlr_now_ns()), err);
    return rc;
}

static int label(const void *args, struct tlr_err *err)
{
    const struct label_args *a = args;
    struct work w = { .args = a };
    bool mixed = strcmp(a->chains, "mixed") == 0;
    if (a->previous && (!a->router || mixed))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--previous: a later round needs --router and the "
                           "first round's --chains gold or llm");
    if (a->router && !a->previous && !mixed)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--router: needs --previous or --chains mixed; the "
                           "first round has no router");
    int rc = open_all(&w, err);
    if (!rc)
        rc = label_all(&w, err);
    close_all(&w);
    return rc;
}

const struct cli_verb cli_verb_label = {
    .name = "label",
    .summary = "label which tokens of a small model would have done",
    .about = "Puts each question's gold chain of thought behind its prompt and "
             "asks both models for every token of it. Where the small model "
             "writes the gold token, it may stand; else, where the large one "
             "does, the large one should be asked. Where both are wrong, the "
             "small model finishes the text alone from there, and it may stand "
             "if the answer is still right. Completions cost most, so only "
             "some are made (--completions).\n\n"
             CLI_LLM_ABOUT "\n\n"
             "FILE has JSON lines: for csqa question, choices.label, "
             "choices.text, answerKey and cot; for gsm8k problem and solution, "
             "or prompt, cot and answerKey. Without chains the large model "
             "writes them (--chains llm), and labels say where the small one "
             "agrees. With --chains mixed both write in turn, as they will "
             "where the router is used (--mix 0 without --router: the small one "
             "alone); where they differ, the text is finished behind either's "
             "token, and the large one should be asked where only that answers "
             "right. tlr train --unlikely needs no completion of them "
             "(--completions 0): only how likely the large model finds the "
             "small one's token, which every row has.\n\n"
             "Rows are written question by question, in order, and do not "
             "depend on --jobs. After Ctrl-C or a kill the same command goes "
             "on where it stopped. With --json the object has questions, "
             "questions_done, questions_now (of this run, like all that "
             "follows), rows, case_slm_right, case_llm_right, case_outcome, "
             "case_open, case_tie, keep, ask, ask_share, completion_tokens, round, jobs, "
             "seconds and network (null, or what left the device).",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct label_args),
    .main = label,
};
