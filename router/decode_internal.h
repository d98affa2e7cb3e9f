/* decode_internal.h - what the serial loop (decode.c) and the one that runs ahead
 * (optimistic.c, ahead.h) share: the handle, and one position's way from step to trust.
 */
#ifndef TLR_ROUTER_DECODE_INTERNAL_H
#define TLR_ROUTER_DECODE_INTERNAL_H

#include "router/decode.h"

struct tlr_ahead;

/* What the head made of the position at hand. */
struct tlr_sight {
    int n_top; /* 0: tlr_top did not run */
    int32_t ids[TLR_TOP_MAX];
    float logits[TLR_TOP_MAX];
    bool has_logits;
    struct tlr_signals signals;
    bool has_signals;
};

/* Tokens of the large model that stand behind those there are: the rest of a
 * burst. */
struct tlr_given {
    int32_t ids[TLR_BURST_MAX];
    int n;
};

/* The serial loop's ask, and the position that it is for. */
struct tlr_open_ask {
    bool is_open; /* not answered yet: what follows holds */
    bool is_sent; /* false: the expert carried no more */
    struct tlr_expert_ticket ticket;
    struct tlr_sight sight;
    struct tlr_joint_token token;
    uint64_t begun_ns;
};

struct tlr_joint {
    struct tlr_session *session;
    struct tlr_joint_options o;
    uint32_t n_ids, n_ctx;
    int32_t pending; /* the last token, not appended yet; -1: none */
    float *scratch;  /* of the router */
    int32_t *ids;    /* [n_ctx] LARGE_ONLY: the text, which no session holds */
    uint32_t n;
    struct tlr_joint_totals totals;
    struct tlr_err failure;
    uint64_t mark_ns;
    struct tlr_open_ask open;
    struct tlr_given given;
    uint32_t n_prompt; /* tokens before the text */
    const struct tlr_generation *ends; /* NULL: none are known */
    struct tlr_ahead *ahead;           /* NULL: the serial loop */
};

extern const struct tlr_joint_token tlr_joint_no_token;

/* Time since the last mark belongs to *ns. */
void tlr_joint_mark(struct tlr_joint *j, uint64_t *ns);
/* As much of the head as the policy needs, then trust and is_asked, at the
 * session's last token. */
int tlr_joint_see(struct tlr_joint *j, struct tlr_sight *v,
                  struct tlr_joint_token *t, struct tlr_err *err);
/* The k best tokens, or more, into v. */
int tlr_joint_see_top(struct tlr_joint *j, struct tlr_sight *v, int k,
                      struct tlr_err *err);
/* How many tokens a question behind n_before tokens, the prompt's with them, is
 * for. */
int tlr_joint_n_ask(const struct tlr_joint *j, uint32_t n_before);
void tlr_given_set(struct tlr_given *g, const int32_t *ids, int n);
int32_t tlr_given_take(struct tlr_given *g); /* n > 0 */
/* The small model's token, to stand in the text: the sampler draws. */
int tlr_joint_pick(struct tlr_joint *j, struct tlr_sight *v, int32_t *id,
                   struct tlr_err *err);
/* Times of a reply that was waited wait_ns for in all. */
void tlr_joint_times(struct tlr_joint_token *t,
                     const struct tlr_expert_reply *r, uint64_t wait_ns);

/* ---- optimistic.c ---- */

/* Leaves j->ahead NULL where the options or the expert do not allow it. */
int tlr_ahead_new(struct tlr_joint *j, const struct tlr_model *m,
                  struct tlr_err *err);
void tlr_ahead_free(struct tlr_joint *j);
int tlr_ahead_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err);
void tlr_ahead_stop(struct tlr_joint *j);
uint32_t tlr_ahead_pos(const struct tlr_joint *j);
int32_t tlr_ahead_pending(const struct tlr_joint *j);
bool tlr_ahead_is_waiting(const struct tlr_joint *j);

#endif
