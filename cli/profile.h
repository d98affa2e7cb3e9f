/* profile.h - where time went, as a table or JSON. */
#ifndef TLR_CLI_PROFILE_H
#define TLR_CLI_PROFILE_H

#include <jansson.h>
#include <stdbool.h>

#include "engine/tlr.h"

/* A row for each operation and one for each layer, milliseconds for each step
 * and the share of the whole; nothing for a phase without a step.  to_err: on
 * standard error, where the product is text. */
void cli_print_profile(const struct tlr_profile *p, const char *phase,
                       bool to_err);

/* One more row under a table that was printed on standard error, for time that
 * was spent beside the steps; its share is that of the steps' total. */
void cli_print_profile_beside(const struct tlr_profile *p, const char *name,
                              uint64_t ns);

/* {"steps", "tokens", "total_ms", "ops": {name: ms}, "layers": [{name: ms}],
 * "outside": {name: ms}}; null without a step. */
json_t *cli_profile_json(const struct tlr_profile *p);

#endif
