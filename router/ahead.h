/* ahead.h - the tokens that the loop has run ahead by (optimistic.c says how and
 * why), for the three files that work on them: optimistic.c makes them,
 * ahead_asks.c asks and hears about them, ahead_lanes.c takes them back.
 *
 * None of the functions can fail; the lane is one of j->ahead's.
 */
#ifndef TLR_ROUTER_AHEAD_H
#define TLR_ROUTER_AHEAD_H

#include "router/decode_internal.h"

/* Nobody gains from running further ahead than replies take. */
enum { TLR_AHEAD_MAX = 96 };

enum tlr_ahead_state {
    TLR_AHEAD_SURE,    /* if those before it are */
    TLR_AHEAD_DOUBTED, /* to be asked for, not asked yet */
    TLR_AHEAD_ASKED,
    TLR_AHEAD_AWAITED, /* in the burst of one before it that is doubted or asked */
    TLR_AHEAD_BROKEN   /* the run ends here, with `why` of its flight */
};

struct tlr_ahead_entry {
    struct tlr_joint_token t; /* id: the guess, until it is sure */
    enum tlr_ahead_state state;
    int flight;      /* of what is asked, broken or failed; else -1 */
    int n_ask;       /* tokens to ask for; of what is doubted or asked */
    int n_behind;    /* tokens of an open burst behind this one, as far as known */
    int32_t second;  /* the next best guess, -1: none is wanted */
    int32_t own;     /* the small model's token where the policy asks */
    uint64_t draw;   /* the sampler before this token, */
    uint64_t drawn;  /* and after `own` */
    uint64_t asked_ns;
};

struct tlr_ahead_flight {
    bool is_used;
    struct tlr_expert_ticket ticket;
    struct tlr_err why;
    int rc;
};

struct tlr_ahead_lane {
    struct tlr_session *session;
    bool is_live; /* the text's always is */
    struct tlr_ahead_entry queue[TLR_AHEAD_MAX];
    int n;
    uint32_t first; /* tokens before queue[0] */
    int32_t before; /* the last of them, which need not be in the session; -1: all
                       of them are, and none was decided here */
    int n_behind;   /* as an entry's, of `before`: only a branch has some */
    struct tlr_given given; /* what stands behind queue[n - 1] */
};

struct tlr_ahead {
    struct tlr_ahead_lane text;
    struct tlr_ahead_lane branches[TLR_LANE_MAX - 1]; /* each behind the second
                                          guess of an open question of the text,
                                          which is the token before its first */
    int n_branches; /* that there may be at once */
    struct tlr_ahead_flight flights[TLR_FLIGHT_MAX];
    int n_flight;
    uint64_t n_kept;  /* asks whose reply was waited for and used */
    uint64_t still_ns; /* parked since then, with nothing to do; 0: not */
};

/* ---- ahead_lanes.c ---- */

/* The sampler's state; 0 without one. */
uint64_t tlr_ahead_draw(const struct tlr_joint *j);
void tlr_ahead_set_draw(const struct tlr_joint *j, uint64_t state);
/* The entry's ask is over or not wanted any more. */
void tlr_ahead_end_flight(struct tlr_joint *j, struct tlr_ahead_entry *e);
/* Drops queue[from..] and what was given behind it; the text up to there stays in
 * the session. */
void tlr_ahead_take_back(struct tlr_joint *j, struct tlr_ahead_lane *l,
                         int from);
/* Where the text's oldest questions are open and have none. */
void tlr_ahead_begin_branches(struct tlr_joint *j);
/* Those behind text.queue[from..to). */
void tlr_ahead_drop_branches(struct tlr_joint *j, int from, int to);
/* One that cannot go on: no other begins there. */
void tlr_ahead_give_up(struct tlr_joint *j, struct tlr_ahead_lane *branch);
/* The token of text.queue[i] is not the first guess.  If it is that of a branch
 * there, what lies behind the branch comes along and takes the place of what lies
 * behind the first guess; else false. */
bool tlr_ahead_take_branch(struct tlr_joint *j, int i);

/* ---- ahead_asks.c ---- */

/* Whether the reply for queue[i], which is asked for, came; timeout_ms as in
 * tlr_expert_wait.  A reply may take back the rest of the queue, or put another in
 * its place. */
bool tlr_ahead_look_for(struct tlr_joint *j, struct tlr_ahead_lane *l, int i,
                        int timeout_ms);
/* Looks for all of them. */
void tlr_ahead_collect(struct tlr_joint *j, struct tlr_ahead_lane *l);
/* Asks for what is doubted and may be asked for. */
void tlr_ahead_ask_all(struct tlr_joint *j, struct tlr_ahead_lane *l);

#endif
