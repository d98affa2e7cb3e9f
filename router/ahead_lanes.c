/* ahead_lanes.c - see ahead.h: what a lane gives back, and the branch that may take
 * its place. */
#include <string.h>

#include "router/ahead.h"

/* ---- the sampler ---- */

uint64_t tlr_ahead_draw(const struct tlr_joint *j)
{
    return j->o.sampler ? tlr_sampler_state(j->o.sampler) : 0;
}

void tlr_ahead_set_draw(const struct tlr_joint *j, uint64_t state)
{
    if (j->o.sampler)
        tlr_sampler_set_state(j->o.sampler, state);
}

/* ---- taking back ---- */

void tlr_ahead_end_flight(struct tlr_joint *j, struct tlr_ahead_entry *e)
{
    struct tlr_ahead *a = j->ahead;
    if (e->flight < 0)
        return;
    tlr_expert_cancel(j->o.expert, &a->flights[e->flight].ticket);
    a->flights[e->flight].is_used = false;
    a->n_flight--;
    e->flight = -1;
}

static void lose(struct tlr_joint *j, struct tlr_ahead_lane *l, int from)
{
    for (int i = from; i < l->n; i++) {
        tlr_ahead_end_flight(j, &l->queue[i]);
        j->totals.n_redone++;
        j->totals.lost_ns += l->queue[i].t.slm_ns + l->queue[i].t.router_ns;
    }
    l->n = from < l->n ? from : l->n;
}

void tlr_ahead_take_back(struct tlr_joint *j, struct tlr_ahead_lane *l,
                         int from)
{
    if (from < l->n)
        tlr_ahead_set_draw(j, l->queue[from].draw);
    lose(j, l, from);
    l->given.n = 0;
    /* The last token that is left goes, too: it may be another one now. */
    uint32_t keep = l->first + (uint32_t)from - (from > 0 || l->before >= 0);
    if (tlr_pos(l->session) > keep)
        tlr_rewind(l->session, keep, NULL);
}

void tlr_ahead_drop_branch(struct tlr_joint *j)
{
    if (j->ahead->is_branching)
        lose(j, &j->ahead->branch, 0);
    j->ahead->branch.given.n = 0;
    j->ahead->is_branching = false;
}

/* ---- the branch ---- */

/* Begins where the text's oldest question is open. */
void tlr_ahead_begin_branch(struct tlr_joint *j)
{
    struct tlr_ahead_lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    if (!branch->session || j->ahead->is_branching || text->n == 0 ||
        text->queue[0].state != TLR_AHEAD_ASKED || text->queue[0].second < 0 ||
        tlr_adopt(branch->session, text->session, text->first, NULL))
        return;
    branch->n = 0;
    branch->first = text->first + 1;
    branch->before = text->queue[0].second;
    branch->n_behind = text->queue[0].n_behind;
    branch->given.n = 0;
    j->ahead->is_branching = true;
}

/* The branch's token is the text's: what lies behind it comes along.  Else false,
 * and the branch is gone. */
bool tlr_ahead_take_branch(struct tlr_joint *j)
{
    struct tlr_ahead_lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    bool is_it = j->ahead->is_branching && text->queue[0].t.id == branch->before;
    if (is_it) {
        tlr_ahead_take_back(j, text, 1);
        is_it = tlr_adopt(text->session, branch->session,
                          tlr_pos(branch->session), NULL) == 0;
    }
    if (!is_it) {
        tlr_ahead_drop_branch(j);
        return false;
    }
    memcpy(text->queue + 1, branch->queue,
           (size_t)branch->n * sizeof *branch->queue);
    text->n = 1 + branch->n;
    text->given = branch->given;
    branch->n = 0;
    j->ahead->is_branching = false;
    j->totals.n_branches++;
    return true;
}
