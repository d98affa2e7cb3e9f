/* label_internal.h - between label.c and label_text.c only. */
#ifndef TLR_ROUTER_LABEL_INTERNAL_H
#define TLR_ROUTER_LABEL_INTERNAL_H

#include "router/label.h"

/* l->ids: the prompt's n_prompt ids, the chain's, and the end of turn where the
 * model has one. */
int tlr_label_encode(struct tlr_labeller *l, const struct tlr_item *item,
                     struct tlr_err *err);

/* Label of one position of case 3; the session holds l->ids at least up to it. */
int tlr_label_complete(struct tlr_labeller *l, const struct tlr_item *item,
                       struct tlr_row *row, uint64_t *n_tok,
                       struct tlr_err *err);

#endif
