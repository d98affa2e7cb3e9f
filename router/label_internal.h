/* label_internal.h - between label.c, label_text.c and label_mixed.c only. */
#ifndef TLR_ROUTER_LABEL_INTERNAL_H
#define TLR_ROUTER_LABEL_INTERNAL_H

#include "router/label.h"

/* l->ids: the prompt's n_prompt ids, the chain's, and the end of turn where the
 * model has one. */
int tlr_label_encode(struct tlr_labeller *l, const struct tlr_item *item,
                     uint32_t group, struct tlr_err *err);

/* The session comes to hold l->ids[0 .. n), n >= n_prompt - 1.  What all items
 * share is computed once, and always in one piece: the bits of f32 matrices
 * depend on how many tokens come at once, and an item's rows must not depend on
 * the item before. */
int tlr_label_hold(struct tlr_labeller *l, size_t n, struct tlr_err *err);

/* Text of ids, special tokens left out, appended to l->text[*len]. */
int tlr_label_text(struct tlr_labeller *l, const int32_t *ids, size_t n,
                   size_t *len, struct tlr_err *err);

/* Whether the text before position pos, `token` there, and what is then written
 * (by the small model, or by the joint loop where there is a policy) answers the
 * item.  The session holds l->ids at least up to pos. */
int tlr_label_complete(struct tlr_labeller *l, const struct tlr_item *item,
                       uint32_t pos, int32_t token, bool *is_right,
                       uint64_t *n_tok, struct tlr_err *err);

/* Appends a chain that both models wrote in turn to l->ids, behind the prompt. */
int tlr_label_write_mixed(struct tlr_labeller *l, uint32_t group,
                          struct tlr_err *err);

/* Labels of a mixed chain's rows, of which slm and llm are known. */
int tlr_label_mixed(struct tlr_labeller *l, const struct tlr_item *item,
                    uint32_t group, struct tlr_label_rows *out,
                    struct tlr_err *err);

/* The positions that are completed: of those left open at most n_completions, by
 * a seeded hash; they carry the weight of all.  Returns how many were open. */
uint32_t tlr_label_choose(const struct tlr_label_options *o, uint32_t group,
                          struct tlr_label_rows *out);

#endif
