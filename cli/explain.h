/* explain.h - who wrote which token, why, and what it cost: a table, lines of
 * statistics, or JSON. */
#ifndef TLR_CLI_EXPLAIN_H
#define TLR_CLI_EXPLAIN_H

#include <jansson.h>

#include "cli/generate.h"
#include "cli/routing.h"

/* A line for each record, on standard error. */
void cli_print_explain(const struct cli_generate *g,
                       const struct cli_routing *r);
/* The lines that --stats has about routing, on standard error. */
void cli_print_routing(const struct cli_generate *g,
                       const struct cli_routing *r);
/* Says on standard error that the large model failed, if it did. */
void cli_print_failures(const struct cli_generate *g,
                        const struct cli_routing *r);

/* {"mode", "policy", "tau", ...}: how, and what came of it. */
json_t *cli_routing_json(const struct cli_generate *g,
                         const struct cli_routing *r);
/* One object for each record. */
json_t *cli_records_json(const struct cli_generate *g);

#endif
