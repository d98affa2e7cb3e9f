/* session.h - inside of a session handle: everything lives in one arena. */
#ifndef TLR_ENGINE_SESSION_H
#define TLR_ENGINE_SESSION_H

#include <stdatomic.h>

#include "base/pool.h"
#include "engine/head.h"
#include "engine/kvcache.h"
#include "engine/linear.h"
#include "engine/model.h"
#include "engine/profile.h"
#include "kernels/kernels.h"

/* Activations of one step, f32, one row per token (tlr_session_rows of them). */
struct tlr_work {
    float *x;      /* [dim] residual stream */
    float *xn;     /* [dim] normalised x, then what a sub-block adds to x */
    float *q;      /* [n_heads*head_dim] */
    float *k, *v;  /* [n_kv_heads*head_dim] */
    float *att;    /* [n_heads*head_dim] */
    float *glu;    /* [ffn_dim] input of down; NULL when every down is tiled */
    struct tlr_acts acts;     /* rounded rows of dim or n_heads*head_dim */
    struct tlr_acts glu_acts; /* rounded rows of ffn_dim */
    float *attend; /* [threads][attend_stride] scratch of attention */
    size_t attend_stride;
    float *parts;  /* of attention: results of stretches of the context */
    atomic_int *unmerged; /* [TLR_MAX_BRANCHES][n_kv_heads] of them to come */
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
    struct tlr_profiler profile;
    struct tlr_observer observer;
    float *rope_cos, *rope_sin; /* [n_ctx][head_dim/2] */

    struct tlr_top_work top;

    int32_t *ids; /* [n_ctx] the timeline */
    uint32_t pos; /* its length */
    float *hidden, *logits; /* [dim], [n_vocab] of the last token */
    bool has_hidden, has_logits; /* changed by tlr_session_made alone */
    struct tlr_best found; /* what tlr_top_together found for that hidden state */

    /* Rows of branches, and of prefill_each while it runs. */
    int n_head_rows;   /* at least TLR_MAX_BRANCHES */
    float *row_hidden; /* [n_head_rows][dim] */
    float *row_logits; /* [n_head_rows][n_vocab] */
    int32_t *branch_ids; /* [n_branches][branch_tok] */
    int n_live;          /* branches in use; 0: none */
    uint32_t branch_len;
    bool branch_has_logits;
};

/* Fills in defaults and refuses what cannot be. */
int tlr_session_resolve(struct tlr_session_options *o,
                        const struct tlr_model *m, struct tlr_err *err);

/* Most rows of one step: n_batch, at least TLR_MAX_BRANCHES. */
size_t tlr_session_rows(const struct tlr_session *s);

/* Says what the last token has; what was found for another state is forgotten. */
void tlr_session_made(struct tlr_session *s, bool has_hidden, bool has_logits);

/* Refusals of a step, before anything changes: ids that do not exist, more
 * positions than there are. */
int tlr_session_check_ids(const struct tlr_session *s, const int32_t *ids,
                          size_t n, struct tlr_err *err);
int tlr_session_check_room(const struct tlr_session *s, uint64_t n_more,
                           struct tlr_err *err);

#endif
