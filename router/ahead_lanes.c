/* ahead_lanes.c - see ahead.h: what a lane gives back, and the branches, of which one
 * may take its place. */
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
    if (l == &j->ahead->text)
        tlr_ahead_drop_branches(j, from, l->n);
    lose(j, l, from);
    l->given.n = 0;
    /* The last token that is left goes, too: it may be another one now. */
    uint32_t keep = l->first + (uint32_t)from - (from > 0 || l->before >= 0);
    if (tlr_pos(l->session) > keep)
        tlr_rewind(l->session, keep, NULL);
}

/* ---- branches ---- */

static void drop_branch(struct tlr_joint *j, struct tlr_ahead_lane *branch)
{
    if (branch->is_live)
        lose(j, branch, 0);
    branch->given.n = 0;
    branch->is_live = false;
}

/* Index of the question in the text that a branch stands behind. */
static int question_of(const struct tlr_ahead *a,
                       const struct tlr_ahead_lane *branch)
{
    return (int)(branch->first - 1 - a->text.first);
}

static struct tlr_ahead_lane *branch_at(struct tlr_ahead *a, int i)
{
    for (int k = 0; k < a->n_branches; k++)
        if (a->branches[k].is_live && question_of(a, &a->branches[k]) == i)
            return &a->branches[k];
    return NULL;
}

void tlr_ahead_drop_branches(struct tlr_joint *j, int from, int to)
{
    struct tlr_ahead *a = j->ahead;
    for (int k = 0; k < a->n_branches; k++) {
        int at = question_of(a, &a->branches[k]);
        if (a->branches[k].is_live && at >= from && at < to)
            drop_branch(j, &a->branches[k]);
    }
}

void tlr_ahead_give_up(struct tlr_joint *j, struct tlr_ahead_lane *branch)
{
    j->ahead->text.queue[question_of(j->ahead, branch)].second = -1;
    drop_branch(j, branch);
}

static void begin_branch(struct tlr_ahead *a, struct tlr_ahead_lane *branch,
                         int i)
{
    const struct tlr_ahead_entry *e = &a->text.queue[i];
    uint32_t before = a->text.first + (uint32_t)i;
    if (tlr_adopt(branch->session, a->text.session, before, NULL))
        return;
    branch->n = 0;
    branch->first = before + 1;
    branch->before = e->second;
    branch->n_behind = e->n_behind;
    branch->given.n = 0;
    branch->is_live = true;
}

void tlr_ahead_begin_branches(struct tlr_joint *j)
{
    struct tlr_ahead *a = j->ahead;
    int k = 0;
    for (int i = 0; i < a->text.n; i++) {
        const struct tlr_ahead_entry *e = &a->text.queue[i];
        if (e->state != TLR_AHEAD_ASKED || e->second < 0 || branch_at(a, i))
            continue;
        while (k < a->n_branches && a->branches[k].is_live)
            k++;
        if (k == a->n_branches)
            return;
        begin_branch(a, &a->branches[k], i);
    }
}

bool tlr_ahead_take_branch(struct tlr_joint *j, int i)
{
    struct tlr_ahead_lane *text = &j->ahead->text;
    struct tlr_ahead_lane *branch = branch_at(j->ahead, i);
    if (!branch || branch->before != text->queue[i].t.id)
        return false;
    tlr_ahead_take_back(j, text, i + 1);
    if (tlr_adopt(text->session, branch->session, tlr_pos(branch->session),
                  NULL))
        return false;
    memcpy(text->queue + i + 1, branch->queue,
           (size_t)branch->n * sizeof *branch->queue);
    text->n = i + 1 + branch->n;
    text->given = branch->given;
    branch->n = 0;
    drop_branch(j, branch);
    j->totals.n_branches++;
    return true;
}
