/* session.h - inside of a session handle: everything lives in one arena. */
#ifndef TLR_ENGINE_SESSION_H
#define TLR_ENGINE_SESSION_H

#include "base/pool.h"
#include "engine/kvcache.h"
#include "engine/linear.h"
#include "engine/model.h"
#include "kernels/kernels.h"

/* Activations of one step, f32, one row per token ([n_batch] rows, at least
 * TLR_MAX_BRANCHES). */
struct tlr_work {
    float *x;      /* [dim] residual stream */
    float *xn;     /* [dim] normalised x, then what a sub-block adds to x */
    float *q;      /* [n_heads*head_dim] */
    float *k, *v;  /* [n_kv_heads*head_dim] */
    float *att;    /* [n_heads*head_dim] */
    float *gate;   /* [ffn_dim] */
    float *up;     /* [ffn_dim] */
    float *scores; /* [threads][scores_stride] scratch of attend */
    size_t scores_stride;
};

struct tlr_session {
    const struct tlr_model *model;
    struct tlr_session_options opt; /* defaults filled in */
    struct tlr_kernels kernels;
    struct tlr_pool *pool;
    uint8_t *arena;
    struct tlr_kv kv;
    struct tlr_work w;
    struct tlr_linear_env linear;
    float *rope_cos, *rope_sin; /* [n_ctx][head_dim/2] */

    int32_t *ids; /* [n_ctx] the timeline */
    uint32_t pos; /* its length */
    float *hidden, *logits; /* [dim], [n_vocab] of the last token */
    bool has_hidden, has_logits;

    /* Rows of branches, and of prefill_each while it runs. */
    float *row_hidden; /* [TLR_MAX_BRANCHES][dim] */
    float *row_logits; /* [TLR_MAX_BRANCHES][n_vocab] */
    int32_t *branch_ids; /* [n_branches][branch_tok] */
    int n_live;          /* branches in use; 0: none */
    uint32_t branch_len;
    bool branch_has_logits;
};

/* Refusals of a step, before anything changes: ids that do not exist, more
 * positions than there are. */
int tlr_session_check_ids(const struct tlr_session *s, const int32_t *ids,
                          size_t n, struct tlr_err *err);
int tlr_session_check_room(const struct tlr_session *s, uint64_t n_more,
                           struct tlr_err *err);

#endif
