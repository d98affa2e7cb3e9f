/* eval_report.h - the results of tlr eval for people, spreadsheets, programs. */
#ifndef TLR_CLI_EVAL_REPORT_H
#define TLR_CLI_EVAL_REPORT_H

#include "cli/llm.h"
#include "router/eval.h"

struct cli_eval_report {
    enum tlr_task_kind task;
    const char *file, *slm, *llm;
    const struct cli_llm *network;
    const struct tlr_eval_point *points;
    size_t n_points;
    struct tlr_eval_costs costs;
};

void cli_eval_table(const struct cli_eval_report *r);
void cli_eval_csv(const struct cli_eval_report *r);
int cli_eval_json(const struct cli_eval_report *r, struct tlr_err *err);

/* eval_svg.c: quality against the routed share, one line for each policy. */
int cli_eval_svg(const char *path, const struct cli_eval_report *r,
                 struct tlr_err *err);

#endif
