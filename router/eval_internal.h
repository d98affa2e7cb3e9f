/* eval_internal.h - between eval.c and the files of its tasks. */
#ifndef TLR_ROUTER_EVAL_INTERNAL_H
#define TLR_ROUTER_EVAL_INTERNAL_H

#include "router/eval.h"

/* The policies of the runs, each once, for a walk. */
int tlr_eval_policies(const struct tlr_eval_models *models,
                      const struct tlr_eval_options *options,
                      struct tlr_policy out[TLR_N_POLICIES]);

/* eval_lm.c: one worker's sessions and rows of numbers. */
struct tlr_eval_lm;
int tlr_eval_lm_new(struct tlr_eval_lm **out,
                    const struct tlr_eval_models *models,
                    const struct tlr_eval_options *options, uint32_t n_ctx,
                    struct tlr_err *err);
int tlr_eval_lm_item(struct tlr_eval_lm *lm, const int32_t *ids, size_t n,
                     uint64_t seed, struct tlr_outcome *outcomes,
                     struct tlr_err *err);
void tlr_eval_lm_free(struct tlr_eval_lm *lm); /* NULL is allowed */

/* eval_costs.c, on this prompt. */
int tlr_eval_measure(struct tlr_eval_costs *out,
                     const struct tlr_eval_models *models,
                     const int32_t *prompt, size_t n, struct tlr_err *err);

#endif
