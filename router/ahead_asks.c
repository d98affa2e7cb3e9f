/* ahead_asks.c - see ahead.h: which doubtful positions are asked for, and what a
 * reply makes of those behind it. */
#include <string.h>

#include "base/clock.h"
#include "router/ahead.h"

/* ---- replies ---- */

/* The reply's other tokens: those that were awaited and guessed right are text, the
 * rest is given where the lane comes to it.  What ran behind another end of the burst
 * than the reply's ran by other rules. */
static void settle_burst(struct tlr_joint *j, struct tlr_ahead_lane *l, int i,
                         const int32_t *ids, int n)
{
    bool is_right = true;
    int at = i + 1, known = 0;
    l->queue[i].n_behind = 0;
    for (; known < n && is_right && at < l->n &&
           l->queue[at].state == TLR_AHEAD_AWAITED; at++, known++) {
        struct tlr_ahead_entry *e = &l->queue[at];
        is_right = e->t.id == ids[known];
        e->t.id = e->t.llm = ids[known];
        e->t.is_llm = true;
        e->state = TLR_AHEAD_SURE;
        e->n_behind = 0;
    }
    bool goes_on = is_right && known == n &&
                   !(at < l->n && l->queue[at].state == TLR_AHEAD_AWAITED);
    if (!goes_on)
        tlr_ahead_take_back(j, l, at);
    if (known < n)
        tlr_given_set(&l->given, ids + known, n - known);
}

/* What was asked for at queue[i] is known; else the small model's token stands
 * there. */
static void settle(struct tlr_joint *j, struct tlr_ahead_lane *l, int i,
                   bool is_answered)
{
    struct tlr_ahead_entry *e = &l->queue[i];
    bool is_text = l == &j->ahead->text;
    int32_t guess = e->t.id;
    e->state = TLR_AHEAD_SURE;
    e->t.is_llm = is_answered;
    e->t.is_failed = !is_answered;
    e->t.slm = is_answered ? -1 : e->own;
    e->t.id = is_answered ? e->t.llm : e->own;
    uint64_t draw = is_answered ? e->draw : e->drawn;
    bool is_right = e->t.id == guess && draw == e->draw;
    if (is_text && !is_right && tlr_ahead_take_branch(j, i))
        return;
    if (is_text)
        tlr_ahead_drop_branches(j, i, i + 1);
    if (is_right)
        return;
    uint64_t before = j->totals.lost_ns;
    tlr_ahead_take_back(j, l, i + 1);
    tlr_ahead_set_draw(j, draw);
    e->t.exposed_ns += j->totals.lost_ns - before; /* the wait's work was vain */
}

static void land(struct tlr_joint *j, struct tlr_ahead_lane *l, int i, int rc,
                 const struct tlr_expert_reply *reply)
{
    struct tlr_ahead_entry *e = &l->queue[i];
    struct tlr_ahead_flight *f = &j->ahead->flights[e->flight];
    uint64_t told = reply->think_ns + reply->wire_ns;
    uint64_t since = tlr_now_ns() - e->asked_ns;
    f->rc = rc;
    tlr_joint_times(&e->t, reply, told && told < since ? told : since);
    if (rc && (j->o.require_expert || rc == TLR_ECANCELLED)) {
        e->state = TLR_AHEAD_BROKEN;
        if (l == &j->ahead->text)
            tlr_ahead_drop_branches(j, i, i + 1);
        tlr_ahead_take_back(j, l, i + 1);
        return;
    }
    if (!rc) {
        e->t.llm = reply->ids[0];
        tlr_ahead_end_flight(j, e);
    }
    settle(j, l, i, !rc);
    uint64_t before = j->totals.lost_ns;
    settle_burst(j, l, i, reply->ids + 1, rc ? 0 : reply->n_tok - 1);
    e->t.exposed_ns += j->totals.lost_ns - before;
}

/* Whether the reply for queue[i] came. */
bool tlr_ahead_look_for(struct tlr_joint *j, struct tlr_ahead_lane *l, int i,
                        int timeout_ms)
{
    struct tlr_ahead_flight *f = &j->ahead->flights[l->queue[i].flight];
    struct tlr_expert_reply reply;
    int rc = tlr_expert_wait(j->o.expert, &f->ticket, timeout_ms, j->n_ids,
                             &reply, &f->why);
    if (rc == TLR_EPENDING)
        return false;
    land(j, l, i, rc, &reply);
    return true;
}

/* A reply may take back the rest of the queue, or put another in its place. */
void tlr_ahead_collect(struct tlr_joint *j, struct tlr_ahead_lane *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->queue[i].state == TLR_AHEAD_ASKED)
            tlr_ahead_look_for(j, l, i, 0);
}

/* ---- asks ---- */

/* Counting every ask that is not sure to be needed as lost, so that the bound
 * holds however they end. */
static bool may_ask(const struct tlr_joint *j, const struct tlr_ahead_lane *l,
                    int i)
{
    const struct tlr_ahead *a = j->ahead;
    if (l == &a->text && i == 0)
        return a->n_flight < TLR_FLIGHT_MAX;
    uint64_t n_sure = a->n_kept + a->text.queue[0].t.is_asked;
    if (a->n_flight >= j->o.ahead.n_flight)
        return false;
    double lost = (double)(j->totals.n_calls + 1) - (double)n_sure;
    return lost <= (j->o.ahead.calls - 1) * (double)n_sure + 1e-9;
}

static int free_flight(const struct tlr_ahead *a)
{
    int i = 0;
    while (a->flights[i].is_used)
        i++;
    return i;
}

/* False: as many are under way as the expert carries. */
static bool ask(struct tlr_joint *j, struct tlr_ahead_lane *l, int i)
{
    struct tlr_ahead *a = j->ahead;
    struct tlr_ahead_entry *e = &l->queue[i];
    int at = free_flight(a);
    struct tlr_ahead_flight *f = &a->flights[at];
    tlr_err_clear(&f->why);
    e->asked_ns = tlr_now_ns();
    int rc = tlr_expert_submit(j->o.expert, tlr_ids_of(l->session),
                               l->first + (size_t)i, e->n_ask, j->n_ids,
                               &f->ticket, &f->why);
    if (rc == TLR_ELIMIT && (a->n_flight > 0 || j->o.parks))
        return false;
    f->is_used = true;
    a->n_flight++;
    e->flight = at;
    e->state = TLR_AHEAD_ASKED;
    j->totals.n_calls++;
    if (rc) {
        struct tlr_expert_reply none;
        memset(&none, 0, sizeof none);
        land(j, l, i, rc, &none);
    }
    return true;
}

/* The oldest first: a later one is needed only if that one is. */
void tlr_ahead_ask_all(struct tlr_joint *j, struct tlr_ahead_lane *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->queue[i].state == TLR_AHEAD_DOUBTED &&
            (!may_ask(j, l, i) || !ask(j, l, i)))
            return;
}
