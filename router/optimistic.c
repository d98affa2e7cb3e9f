/* optimistic.c - the joint loop, running ahead of the large model's replies.
 *
 * Tokens that are not sure yet wait in a queue, a lane's (ahead.h).  Where the
 * policy asks, the small model's likeliest token stands in for the reply and
 * decoding goes on behind it in the session's own timeline.  A reply that says the same makes it sure;
 * another one takes back what came after it (tlr_rewind) and nothing else.  Later
 * doubtful positions are asked for meanwhile; what they answer holds only if all
 * before them holds, so those asks may be lost, and how many is bounded.
 *
 * Where a question is for several tokens, the positions behind it are guessed and
 * await its reply, without the policy.  With TLR_EXPERT_AUTO nobody knows how many
 * there are, so one is reckoned with; what ran behind it goes if there are more.
 *
 * With several lanes others go on behind the second-best tokens of the oldest open
 * questions, in sessions of their own; all lanes take a step in one pass over the
 * weights.  A reply that says that token makes its lane the text's.
 *
 * Why the text is the serial loop's to the bit: a position is seen by the very
 * steps that the serial loop makes, one token at a time on the same prefix, and a
 * rewound session makes the same bits again.  The sampler's draws are taken back
 * with their tokens.  The small model's own token of a doubtful position is
 * drawn in advance, for a reply that fails, and the draw undone.
 */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "router/ahead.h"

static int open_branches(struct tlr_joint *j, const struct tlr_model *m, int n,
                         struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    struct tlr_session_options o = *tlr_session_options_used(j->session);
    o.lender = j->session;
    o.n_branches = 0;
    int rc = 0;
    while (!rc && a->n_branches < n) {
        rc = tlr_session_new(&a->branches[a->n_branches].session, m, &o, err);
        a->n_branches += !rc;
    }
    return rc;
}

int tlr_ahead_new(struct tlr_joint *j, const struct tlr_model *m,
                  struct tlr_err *err)
{
    struct tlr_speculation *s = &j->o.ahead;
    if (j->o.mode != TLR_JOINT || !j->o.expert || j->o.explain ||
        !(s->calls >= 1) || !tlr_expert_is_async(j->o.expert))
        return 0;
    j->ahead = tlr_calloc(1, sizeof *j->ahead);
    if (!j->ahead)
        return tlr_err_nomem(err, "joint decoding", sizeof *j->ahead);
    j->ahead->text.session = j->session;
    j->ahead->text.first = tlr_pos(j->session);
    j->ahead->text.before = -1;
    j->ahead->text.is_live = true;
    if (j->o.expert->is_budgeted)
        s->calls = 1;
    /* A guess behind two others is right too rarely to pay for it, where asks
     * are dear. */
    if (s->n_flight < 1)
        s->n_flight = s->calls < 2 ? 3 : TLR_FLIGHT_MAX;
    if (s->n_flight > TLR_FLIGHT_MAX)
        s->n_flight = TLR_FLIGHT_MAX;
    /* A sampler that draws has one state, and the lanes would need two. */
    bool draws = j->o.sampler && tlr_sampler_n_top(j->o.sampler) != 1;
    int n = s->n_lanes < TLR_LANE_MAX ? s->n_lanes : TLR_LANE_MAX;
    return n > 1 && !draws ? open_branches(j, m, n - 1, err) : 0;
}

void tlr_ahead_free(struct tlr_joint *j)
{
    for (int k = 0; j->ahead && k < j->ahead->n_branches; k++)
        tlr_session_free(j->ahead->branches[k].session);
    tlr_free(j->ahead);
    j->ahead = NULL;
}

/* A burst's token behind its first. */
static bool is_given(const struct tlr_ahead_entry *e)
{
    return e->t.is_llm && !e->t.is_asked;
}

/* What is left of a burst that is in the text already stays known. */
void tlr_ahead_stop(struct tlr_joint *j)
{
    struct tlr_ahead_lane *l = &j->ahead->text;
    struct tlr_given rest = {.n = 0};
    int n = 0;
    for (; n < l->n && is_given(&l->queue[n]); n++)
        rest.ids[rest.n++] = l->queue[n].t.id;
    for (int i = 0; n == l->n && i < l->given.n; i++)
        rest.ids[rest.n++] = l->given.ids[i];
    tlr_ahead_take_back(j, l, 0);
    l->given = rest;
}

uint32_t tlr_ahead_pos(const struct tlr_joint *j)
{
    return j->ahead->text.first - (j->ahead->text.before >= 0);
}

/* ---- one position further ---- */

static int32_t last_id(const struct tlr_ahead_lane *l)
{
    return l->n > 0 ? l->queue[l->n - 1].t.id : l->before;
}

/* Tokens behind the last one that an open burst will bring. */
static int n_behind(const struct tlr_ahead_lane *l)
{
    return l->n > 0 ? l->queue[l->n - 1].n_behind : l->n_behind;
}

static bool may_run(const struct tlr_joint *j, const struct tlr_ahead_lane *l)
{
    const struct tlr_ahead *a = j->ahead;
    if (l == &a->text && l->n == 0)
        return true;
    uint32_t text = l->first + (uint32_t)l->n;
    uint64_t wanted = j->totals.n_tok + (text - a->text.first);
    return l->is_live && text - a->text.first < TLR_AHEAD_MAX - 1 &&
           !(l->n > 0 && l->queue[l->n - 1].state == TLR_AHEAD_BROKEN) &&
           text <= j->n_ctx && /* seeing it takes that many in the session */
           !(j->ends && tlr_generation_is_eos(j->ends, last_id(l))) &&
           !(j->o.ahead.max_tok && wanted >= j->o.ahead.max_tok);
}

static int append(struct tlr_ahead_lane *l, struct tlr_err *err)
{
    uint32_t text = l->first + (uint32_t)l->n;
    int32_t id = last_id(l);
    if (tlr_pos(l->session) == text) {
        if (tlr_hidden(l->session))
            return 0;
        id = tlr_ids_of(l->session)[text - 1]; /* all was taken back */
        int rc = tlr_rewind(l->session, text - 1, err);
        if (rc)
            return rc;
    }
    return tlr_decode(l->session, id, 0, err);
}

/* The small model's likeliest tokens without penalties and draws: what the large
 * one writes most often. */
static int guess(struct tlr_joint *j, struct tlr_sight *v,
                 struct tlr_ahead_entry *e, struct tlr_err *err)
{
    int n = j->ahead->n_branches > 0 ? 2 : 1;
    int rc = tlr_joint_see_top(j, v, n, err);
    e->t.id = rc ? -1 : v->ids[0];
    e->second = !rc && n > 1 ? v->ids[1] : -1;
    return rc;
}

/* A position in a burst: the large model's token, or a guess that awaits it. */
static int see_burst(struct tlr_joint *j, struct tlr_ahead_lane *l,
                     struct tlr_ahead_entry *e, struct tlr_err *err)
{
    int rc = 0;
    if (l->given.n > 0) {
        e->t.id = e->t.llm = tlr_given_take(&l->given);
        e->t.is_llm = true;
    } else {
        struct tlr_sight v = {.n_top = 0};
        rc = guess(j, &v, e, err);
        e->state = TLR_AHEAD_AWAITED;
        e->n_behind = n_behind(l) - 1;
    }
    tlr_joint_mark(j, &e->t.slm_ns);
    return rc;
}

/* Any other one. */
static int see_own(struct tlr_joint *j, struct tlr_ahead_lane *l,
                   struct tlr_ahead_entry *e, struct tlr_err *err)
{
    struct tlr_sight v;
    int rc = tlr_joint_see(j, &v, &e->t, err);
    if (!rc && e->t.is_asked && j->ahead->n_branches > 0)
        rc = tlr_joint_see_top(j, &v, 2, err); /* once, for pick and guess */
    rc = rc ? rc : tlr_joint_pick(j, &v, &e->own, err);
    if (!rc && e->t.is_asked)
        rc = guess(j, &v, e, err);
    if (!rc && e->t.is_asked) {
        e->state = TLR_AHEAD_DOUBTED;
        e->n_ask = tlr_joint_n_ask(j, l->first + (uint32_t)l->n);
        e->n_behind = e->n_ask == TLR_EXPERT_AUTO ? 0 : e->n_ask - 1;
        e->drawn = tlr_ahead_draw(j);
        tlr_ahead_set_draw(j, e->draw);
    } else {
        e->t.id = e->t.slm = e->own;
    }
    tlr_joint_mark(j, &e->t.slm_ns);
    return rc;
}

static int see_next(struct tlr_joint *j, struct tlr_ahead_lane *l,
                    struct tlr_ahead_entry *e, struct tlr_err *err)
{
    e->t = tlr_joint_no_token;
    e->flight = -1;
    e->state = TLR_AHEAD_SURE;
    e->n_behind = 0;
    e->draw = tlr_ahead_draw(j);
    j->mark_ns = tlr_now_ns();
    int rc = append(l, err);
    if (rc)
        return rc;
    return l->given.n > 0 || n_behind(l) > 0 ? see_burst(j, l, e, err)
                                             : see_own(j, l, e, err);
}

/* An error of a position that may never be needed waits until it is: the queue
 * ends before it, and it comes again when all before it is sure. */
static int run_lane(struct tlr_joint *j, struct tlr_ahead_lane *l,
                    uint64_t spent_ns, struct tlr_err *err)
{
    struct tlr_ahead_entry *e = &l->queue[l->n];
    uint64_t draw = tlr_ahead_draw(j);
    j->session = l->session;
    int rc = see_next(j, l, e, err);
    j->session = j->ahead->text.session;
    e->t.slm_ns += spent_ns;
    if (rc)
        tlr_ahead_set_draw(j, draw);
    else
        l->n++;
    return rc;
}

static bool wants_step(const struct tlr_ahead_lane *l)
{
    return tlr_pos(l->session) + 1 == l->first + (uint32_t)l->n;
}

/* The lanes' last tokens in one pass over the weights, and of the head what the
 * next tokens and guesses are made from; the time that each owes. */
static uint64_t step_together(struct tlr_joint *j,
                              struct tlr_ahead_lane *const *lanes, int n)
{
    struct tlr_session *sessions[TLR_LANE_MAX];
    int32_t ids[TLR_LANE_MAX];
    int k = tlr_joint_n_top(j);
    bool is_wanted = n > 1;
    for (int i = 0; i < n; i++) {
        sessions[i] = lanes[i]->session;
        ids[i] = last_id(lanes[i]);
        is_wanted = is_wanted && wants_step(lanes[i]);
    }
    uint64_t begun = tlr_now_ns();
    if (!is_wanted ||
        tlr_decode_together(sessions, ids, n, k ? 0 : TLR_STEP_LOGITS, NULL) ||
        (k && tlr_top_together(sessions, n, k > 2 ? k : 2, NULL)))
        return 0; /* each by itself: the same, or the error in its place */
    return (tlr_now_ns() - begun) / (uint64_t)n;
}

/* A token further in every lane; the text's comes last, whose error is the
 * loop's. */
static int run_ahead(struct tlr_joint *j, bool *is_stuck, struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    struct tlr_ahead_lane *lanes[TLR_LANE_MAX], *text = &a->text;
    struct tlr_err why = TLR_ERR_INIT;
    int n = 0;
    for (int k = 0; k < a->n_branches; k++)
        if (may_run(j, &a->branches[k]))
            lanes[n++] = &a->branches[k];
    if (may_run(j, text))
        lanes[n++] = text;
    uint64_t spent_ns = step_together(j, lanes, n);
    for (int i = 0; i < n && lanes[i] != text; i++)
        if (run_lane(j, lanes[i], spent_ns, NULL))
            tlr_ahead_give_up(j, lanes[i]);
    if (n == 0 || lanes[n - 1] != text)
        return 0;
    int rc = run_lane(j, text, spent_ns, &why);
    *is_stuck = rc != 0;
    return rc && text->n == 0 ? tlr_err_set(err, rc, "%s", why.text) : 0;
}

/* ---- one token ---- */

/* queue[0], which is sure, becomes text. */
static int hand_out(struct tlr_joint *j, struct tlr_joint_token *out,
                    struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    struct tlr_ahead_lane *l = &a->text;
    struct tlr_ahead_entry *e = &l->queue[0];
    if (e->state == TLR_AHEAD_BROKEN) {
        const struct tlr_ahead_flight *f = &a->flights[e->flight];
        int rc = tlr_err_set(err, f->rc, "%s", f->why.text);
        tlr_ahead_take_back(j, l, 0);
        return rc;
    }
    if (e->t.is_failed)
        j->failure = a->flights[e->flight].why;
    tlr_ahead_end_flight(j, e);
    a->n_kept += e->t.is_asked;
    *out = e->t;
    l->n--;
    l->first++;
    l->before = out->id;
    memmove(l->queue, l->queue + 1, (size_t)l->n * sizeof *l->queue);
    return 0;
}

/* Nothing is left to do but to wait. */
static void stand_still(struct tlr_joint *j)
{
    uint64_t begun = tlr_now_ns();
    tlr_ahead_look_for(j, &j->ahead->text, 0, -1);
    j->ahead->text.queue[0].t.exposed_ns += tlr_now_ns() - begun;
}

static bool may_go_on(const struct tlr_joint *j)
{
    const struct tlr_ahead *a = j->ahead;
    bool may = may_run(j, &a->text);
    for (int k = 0; k < a->n_branches; k++)
        may = may || may_run(j, &a->branches[k]);
    return may;
}

/* The time since the last call, if that one ended for want of a reply. */
static void count_still(struct tlr_joint *j)
{
    struct tlr_ahead *a = j->ahead;
    uint64_t ns = a->still_ns ? tlr_now_ns() - a->still_ns : 0;
    a->still_ns = 0;
    if (ns == 0)
        return;
    a->text.queue[0].t.exposed_ns += ns;
    tlr_expert_waited(j->o.expert, ns);
}

int tlr_ahead_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err)
{
    struct tlr_ahead_lane *text = &j->ahead->text;
    struct tlr_ahead_lane *branches = j->ahead->branches;
    bool is_stuck = false, has_run = false;
    count_still(j);
    for (;;) {
        tlr_ahead_collect(j, text);
        for (int k = 0; k < j->ahead->n_branches; k++)
            tlr_ahead_collect(j, &branches[k]);
        tlr_ahead_ask_all(j, text);
        for (int k = 0; k < j->ahead->n_branches; k++)
            tlr_ahead_ask_all(j, &branches[k]);
        if (text->n > 0 && (text->queue[0].state == TLR_AHEAD_SURE ||
                            text->queue[0].state == TLR_AHEAD_BROKEN))
            return hand_out(j, out, err);
        if (has_run && j->o.parks)
            return TLR_EPENDING;
        tlr_ahead_begin_branches(j);
        has_run = !is_stuck && may_go_on(j);
        if (has_run) {
            int rc = run_ahead(j, &is_stuck, err);
            if (rc)
                return rc;
        } else if (j->o.parks) {
            j->ahead->still_ns = tlr_now_ns();
            return TLR_EPENDING;
        } else {
            stand_still(j);
            is_stuck = false;
        }
    }
}

/* ---- several texts ---- */

/* With branches all lanes share a pass of their own. */
int32_t tlr_ahead_pending(const struct tlr_joint *j)
{
    const struct tlr_ahead *a = j->ahead;
    bool is_wanted = wants_step(&a->text) && may_run(j, &a->text);
    for (int k = 0; k < a->n_branches; k++)
        is_wanted = is_wanted && !a->branches[k].is_live;
    return is_wanted ? last_id(&a->text) : -1;
}

bool tlr_ahead_is_waiting(const struct tlr_joint *j)
{
    return j->ahead->still_ns != 0;
}
