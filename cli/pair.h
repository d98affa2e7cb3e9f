/* pair.h - what the verbs that join two models open: the small one, its routers,
 * and the large one behind --llm.
 */
#ifndef TLR_CLI_PAIR_H
#define TLR_CLI_PAIR_H

#include "cli/cli.h"
#include "cli/llm.h"
#include "router/expert.h"
#include "router/policy.h"
#include "router/router.h"
#include "router/task.h"

/* How questions are put; type has int64_t shots and bool raw. */
#define CLI_PROMPT_OPTIONS(type)                                               \
    { .name = "shots", .kind = CLI_INT, .at = offsetof(type, shots),           \
      .value = "N",                                                            \
      .help = "worked examples before each question, at most as many as tlr "  \
              "has: 5 of csqa, 0 of the others",                               \
      .fallback = "5", .min = 0, .max = TLR_SHOTS_MAX },                       \
    { .name = "raw", .kind = CLI_FLAG, .at = offsetof(type, raw),              \
      .help = "send the prompts without the chat template" }

/* How questions are answered; type has int64_t max_tokens and jobs. */
#define CLI_ANSWER_OPTIONS(type)                                               \
    { .name = "max-tokens", .letter = 'n', .kind = CLI_INT,                    \
      .at = offsetof(type, max_tokens), .value = "N",                          \
      .help = "most tokens of one answer", .fallback = "100", .min = 1,        \
      .max = 65536 },                                                          \
    { .name = "jobs", .letter = 'j', .kind = CLI_INT,                          \
      .at = offsetof(type, jobs), .value = "N",                                \
      .help = "items at the same time, one thread each",                       \
      .unset = "one for each core", .min = 1, .max = 4096 }

struct cli_pair {
    struct tlr_model *slm;
    struct cli_llm llm;
    struct tlr_session_options session;
    /* At most one of a kind; order is that in which they were found: --router
     * first, then the model's own. */
    struct tlr_router *routers[TLR_N_POLICIES];
    enum tlr_policy_kind order[TLR_N_POLICIES];
    int n_routers;
};

/* llm: its llm may be NULL.  Routers that are not the model's are refused. */
int cli_pair_open(struct cli_pair *out, const char *slm,
                  const struct cli_llm_args *llm,
                  const struct cli_list *routers,
                  const struct tlr_session_options *session,
                  struct tlr_err *err);
void cli_pair_close(struct cli_pair *p); /* a zeroed one is allowed */

/* An expert over the large model; ctx is the pair (struct tlr_eval_models). */
int cli_pair_expert(void *ctx, uint32_t n_ctx, struct tlr_expert *out,
                    struct tlr_err *err);

/* The threshold of a policy for a share: from its own router's calibration, else
 * from the first that has it. */
int cli_pair_tau(const struct cli_pair *p, enum tlr_policy_kind kind,
                 double share, float *tau, struct tlr_err *err);

/* "a,b,c": the next piece of *list into out; false when there is none. */
bool cli_next_word(const char **list, char *out, size_t cap);

/* A list of policies without never and always, each once. */
int cli_policies(const char *list, enum tlr_policy_kind *out, int *n,
                 struct tlr_err *err);

#endif
