/* eval_report.c - see eval_report.h.  One list of columns makes the CSV and the
 * JSON, so they cannot drift apart. */
#include "cli/eval_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

/* name, offset in struct tlr_eval_point */
#define COLUMNS(X)                                                             \
    X("routed_share", routed_share)                                            \
    X("accuracy", accuracy)                                                    \
    X("accuracy_low", low)                                                     \
    X("accuracy_high", high)                                                   \
    X("strict_accuracy", strict)                                               \
    X("agreement", agreement)                                                  \
    X("answer_agreement", answer_agreement)                                    \
    X("mean_tokens", mean_tok)                                                 \
    X("seconds", seconds)                                                      \
    X("gap_recovered", gap)                                                    \
    X("gap_low", gap_low)                                                      \
    X("gap_high", gap_high)                                                    \
    X("p_value", p)                                                            \
    X("perplexity", perplexity)

static const struct {
    const char *name;
    size_t at;
} columns[] = {
#define COLUMN(label, field)                                                   \
    {label, offsetof(struct tlr_eval_point, field)},
    COLUMNS(COLUMN)
#undef COLUMN
};

static double number(const struct tlr_eval_point *p, size_t column)
{
    return *(const double *)((const char *)p + columns[column].at);
}

/* How much the runs shared: what they wrote beside what was computed. */
static json_t *work_json(const struct tlr_walk_counts *w)
{
    json_t *j = json_object();
    const struct {
        const char *name;
        uint64_t n;
    } rows[] = {{"runs", w->n_runs},         {"run_tokens", w->n_run_tok},
                {"slm_steps", w->n_steps},   {"slm_step_tokens", w->n_step_tok},
                {"llm_asks", w->n_asks},     {"llm_ask_tokens", w->n_ask_tok}};
    for (size_t i = 0; i < CLI_COUNT(rows); i++)
        cli_json_put(j, rows[i].name, json_integer((json_int_t)rows[i].n));
    cli_json_put(j, "slm_seconds", cli_json_real((double)w->slm_ns * 1e-9));
    cli_json_put(j, "llm_seconds", cli_json_real((double)w->llm_ns * 1e-9));
    return j;
}

int cli_eval_json(const struct cli_eval_report *r, struct tlr_err *err)
{
    json_t *root = json_object(), *points = json_array(), *costs = json_object();
    cli_json_put(root, "task", json_string(tlr_task_name(r->task)));
    cli_json_put(root, "file", cli_json_text(r->file, strlen(r->file)));
    cli_json_put(root, "slm", cli_json_text(r->slm, strlen(r->slm)));
    cli_json_put(root, "llm", cli_json_text(r->llm, strlen(r->llm)));
    cli_json_put(root, "network", cli_llm_json(r->network));
    cli_json_put(root, "n",
                 json_integer(r->n_points ? (json_int_t)r->points[0].n : 0));
    for (size_t i = 0; i < r->n_points; i++) {
        const struct tlr_eval_point *p = &r->points[i];
        json_t *j = json_object();
        cli_json_put(j, "policy", json_string(tlr_policy_name(p->run.kind)));
        cli_json_put(j, "target_share", cli_json_real(p->run.share));
        cli_json_put(j, "tau", cli_json_real((double)p->run.tau));
        for (size_t c = 0; c < CLI_COUNT(columns); c++)
            cli_json_put(j, columns[c].name, cli_json_real(number(p, c)));
        cli_json_put(j, "n", json_integer((json_int_t)p->n));
        cli_json_push(points, j);
    }
    cli_json_put(root, "points", points);
    cli_json_put(costs, "slm_ms", cli_json_real(r->costs.slm_ms));
    cli_json_put(costs, "ask_ms", cli_json_real(r->costs.ask_ms));
    cli_json_put(costs, "ask_token_ms", cli_json_real(r->costs.ask_tok_ms));
    cli_json_put(root, "costs", costs);
    cli_json_put(root, "work", work_json(&r->costs.work));
    return cli_json_print(root, err);
}

static void csv_number(double v)
{
    if (isfinite(v))
        cli_printf(",%.10g", v);
    else
        cli_printf(",");
}

void cli_eval_csv(const struct cli_eval_report *r)
{
    cli_printf("policy,target_share,tau");
    for (size_t c = 0; c < CLI_COUNT(columns); c++)
        cli_printf(",%s", columns[c].name);
    cli_printf(",n\n");
    for (size_t i = 0; i < r->n_points; i++) {
        const struct tlr_eval_point *p = &r->points[i];
        cli_printf("%s", tlr_policy_name(p->run.kind));
        csv_number(p->run.share);
        csv_number((double)p->run.tau);
        for (size_t c = 0; c < CLI_COUNT(columns); c++)
            csv_number(number(p, c));
        cli_printf(",%llu\n", (unsigned long long)p->n);
    }
}

/* "12.3", or a dash where there is no number. */
static const char *percent(char out[16], double v)
{
    if (isfinite(v))
        snprintf(out, 16, "%.1f", v * 100);
    else
        snprintf(out, 16, "-");
    return out;
}

static const char *plain(char out[16], double v, int digits)
{
    if (isfinite(v))
        snprintf(out, 16, "%.*f", digits, v);
    else
        snprintf(out, 16, "-");
    return out;
}

static void table_row(const struct tlr_eval_point *p, bool is_text)
{
    char a[9][16], low_high[40];
    snprintf(low_high, sizeof low_high, "%s..%s", percent(a[0], p->low),
             percent(a[1], p->high));
    cli_printf("| %-8s | %7s | %6s | %8s | %11s | %6s | %8s |",
               tlr_policy_name(p->run.kind), percent(a[0], p->run.share),
               percent(a[1], p->routed_share), percent(a[2], p->accuracy),
               low_high, percent(a[3], p->strict), percent(a[4], p->agreement));
    if (is_text)
        cli_printf(" %7s |", plain(a[5], p->perplexity, 3));
    else
        cli_printf(" %6s | %6s | %7s |", plain(a[5], p->mean_tok, 1),
                   plain(a[6], p->seconds, 2), percent(a[7], p->answer_agreement));
    cli_printf(" %6s | %9s |\n", percent(a[7], p->gap), plain(a[8], p->p, 4));
}

void cli_eval_table(const struct cli_eval_report *r)
{
    bool is_text = r->task == TLR_TASK_LM;
    cli_printf("%s, %llu items of %s\nsmall: %s   large: %s\n\n",
               tlr_task_name(r->task),
               (unsigned long long)(r->n_points ? r->points[0].n : 0), r->file,
               r->slm, r->llm);
    cli_printf("| policy   | aimed %% | routed | accuracy | 95 %%        | strict "
               "| agrees %% |%s gap %%  | p         |\n",
               is_text ? " perpl.  |" : " tokens | s/item | answers |");
    cli_printf("|----------|---------|--------|----------|-------------|--------"
               "|----------|%s--------|-----------|\n",
               is_text ? "---------|" : "--------|--------|---------|");
    for (size_t i = 0; i < r->n_points; i++)
        table_row(&r->points[i], is_text);
    cli_printf("\ngap: how much of the way from never's accuracy to always's; p: "
               "that the first policy at the same aim is not better (paired "
               "bootstrap)\n");
    if (!is_text)
        cli_printf("s/item: computed from a step's %.1f ms and an escalation's "
                   "%.1f ms + %.2f ms a token, measured here on one thread, "
                   "prompts left out; the runs themselves share their steps\n",
                   r->costs.slm_ms, r->costs.ask_ms, r->costs.ask_tok_ms);
}
