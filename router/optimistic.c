/* optimistic.c - the joint loop, running ahead of the large model's replies.
 *
 * Tokens that are not sure yet wait in a queue, a lane's.  Where the policy asks, the small
 * model's likeliest token stands in for the reply and decoding goes on behind it
 * in the session's own timeline.  A reply that says the same makes it sure;
 * another one takes back what came after it (tlr_rewind) and nothing else.  Later
 * doubtful positions are asked for meanwhile; what they answer holds only if all
 * before them holds, so those asks may be lost, and how many is bounded.
 *
 * With two guesses a second lane goes on behind the second-best token of the
 * oldest open question, in a session of its own; both lanes take a step in one
 * pass over the weights.  A reply that says that token makes it the text's.
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
#include "router/decode_internal.h"

/* Nobody gains from running further ahead than replies take. */
enum { AHEAD_MAX = 96 };

enum state {
    SURE,    /* if those before it are */
    DOUBTED, /* to be asked for, not asked yet */
    ASKED,
    BROKEN   /* the run ends here, with `why` of its flight */
};

struct entry {
    struct tlr_joint_token t; /* id: the guess, until it is sure */
    enum state state;
    int flight;      /* of ASKED, BROKEN and a failed one; else -1 */
    int32_t second;  /* the next best guess, -1: none is wanted */
    int32_t own;     /* the small model's token where the policy asks */
    uint64_t draw;   /* the sampler before this token, */
    uint64_t drawn;  /* and after `own` */
    uint64_t asked_ns;
};

struct flight {
    bool is_used;
    struct tlr_expert_ticket ticket;
    struct tlr_err why;
    int rc;
};

struct lane {
    struct tlr_session *session;
    struct entry queue[AHEAD_MAX];
    int n;
    uint32_t first; /* tokens before queue[0] */
    int32_t before; /* the last of them, which need not be in the session; -1: all
                       of them are, and none was decided here */
};

struct tlr_ahead {
    struct lane text;
    struct lane branch; /* behind the second guess of text.queue[0]; no session:
                           there is never one */
    bool is_branching;
    struct flight flights[TLR_FLIGHT_MAX];
    int n_flight;
    uint64_t n_kept;  /* asks whose reply was waited for and used */
    uint64_t still_ns; /* parked since then, with nothing to do; 0: not */
};

static int open_branch(struct tlr_joint *j, const struct tlr_model *m,
                       struct tlr_err *err)
{
    struct tlr_session_options o = *tlr_session_options_used(j->session);
    o.lender = j->session;
    o.n_branches = 0;
    return tlr_session_new(&j->ahead->branch.session, m, &o, err);
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
    return s->n_guesses > 1 && !draws ? open_branch(j, m, err) : 0;
}

void tlr_ahead_free(struct tlr_joint *j)
{
    if (j->ahead)
        tlr_session_free(j->ahead->branch.session);
    tlr_free(j->ahead);
    j->ahead = NULL;
}

uint32_t tlr_ahead_pos(const struct tlr_joint *j)
{
    return j->ahead->text.first - (j->ahead->text.before >= 0);
}

/* ---- the sampler ---- */

static uint64_t draw_state(const struct tlr_joint *j)
{
    return j->o.sampler ? tlr_sampler_state(j->o.sampler) : 0;
}

static void set_draw(const struct tlr_joint *j, uint64_t state)
{
    if (j->o.sampler)
        tlr_sampler_set_state(j->o.sampler, state);
}

/* ---- taking back ---- */

static void end_flight(struct tlr_joint *j, struct entry *e)
{
    struct tlr_ahead *a = j->ahead;
    if (e->flight < 0)
        return;
    tlr_expert_cancel(j->o.expert, &a->flights[e->flight].ticket);
    a->flights[e->flight].is_used = false;
    a->n_flight--;
    e->flight = -1;
}

static void lose(struct tlr_joint *j, struct lane *l, int from)
{
    for (int i = from; i < l->n; i++) {
        end_flight(j, &l->queue[i]);
        j->totals.n_redone++;
        j->totals.lost_ns += l->queue[i].t.slm_ns + l->queue[i].t.router_ns;
    }
    l->n = from < l->n ? from : l->n;
}

/* Drops queue[from..]; the text up to there stays in the session. */
static void take_back(struct tlr_joint *j, struct lane *l, int from)
{
    if (from < l->n)
        set_draw(j, l->queue[from].draw);
    lose(j, l, from);
    /* The last token that is left goes, too: it may be another one now. */
    uint32_t keep = l->first + (uint32_t)from - (from > 0 || l->before >= 0);
    if (tlr_pos(l->session) > keep)
        tlr_rewind(l->session, keep, NULL);
}

static void drop_branch(struct tlr_joint *j)
{
    if (j->ahead->is_branching)
        lose(j, &j->ahead->branch, 0);
    j->ahead->is_branching = false;
}

void tlr_ahead_stop(struct tlr_joint *j)
{
    drop_branch(j);
    take_back(j, &j->ahead->text, 0);
}

/* ---- the branch ---- */

/* Begins where the text's oldest question is open. */
static void begin_branch(struct tlr_joint *j)
{
    struct lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    if (!branch->session || j->ahead->is_branching || text->n == 0 ||
        text->queue[0].state != ASKED || text->queue[0].second < 0 ||
        tlr_adopt(branch->session, text->session, text->first, NULL))
        return;
    branch->n = 0;
    branch->first = text->first + 1;
    branch->before = text->queue[0].second;
    j->ahead->is_branching = true;
}

/* The branch's token is the text's: what lies behind it comes along.  Else false,
 * and the branch is gone. */
static bool take_branch(struct tlr_joint *j)
{
    struct lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    bool is_it = j->ahead->is_branching && text->queue[0].t.id == branch->before;
    if (is_it) {
        take_back(j, text, 1);
        is_it = tlr_adopt(text->session, branch->session,
                          tlr_pos(branch->session), NULL) == 0;
    }
    if (!is_it) {
        drop_branch(j);
        return false;
    }
    memcpy(text->queue + 1, branch->queue,
           (size_t)branch->n * sizeof *branch->queue);
    text->n = 1 + branch->n;
    branch->n = 0;
    j->ahead->is_branching = false;
    j->totals.n_branches++;
    return true;
}

/* ---- replies ---- */

/* What was asked for at queue[i] is known; else the small model's token stands
 * there. */
static void settle(struct tlr_joint *j, struct lane *l, int i, bool is_answered)
{
    struct entry *e = &l->queue[i];
    bool is_root = l == &j->ahead->text && i == 0;
    int32_t guess = e->t.id;
    e->state = SURE;
    e->t.is_llm = is_answered;
    e->t.is_failed = !is_answered;
    e->t.slm = is_answered ? -1 : e->own;
    e->t.id = is_answered ? e->t.llm : e->own;
    uint64_t draw = is_answered ? e->draw : e->drawn;
    bool is_right = e->t.id == guess && draw == e->draw;
    if (is_root && is_right)
        drop_branch(j);
    if (is_right || (is_root && take_branch(j)))
        return;
    uint64_t before = j->totals.lost_ns;
    take_back(j, l, i + 1);
    set_draw(j, draw);
    e->t.exposed_ns += j->totals.lost_ns - before; /* the wait's work was vain */
}

static void land(struct tlr_joint *j, struct lane *l, int i, int rc,
                 const struct tlr_expert_reply *reply)
{
    struct entry *e = &l->queue[i];
    struct flight *f = &j->ahead->flights[e->flight];
    uint64_t told = reply->think_ns + reply->wire_ns;
    uint64_t since = tlr_now_ns() - e->asked_ns;
    f->rc = rc;
    tlr_joint_times(&e->t, reply, told && told < since ? told : since);
    if (rc && (j->o.require_expert || rc == TLR_ECANCELLED)) {
        e->state = BROKEN;
        if (l == &j->ahead->text && i == 0)
            drop_branch(j);
        take_back(j, l, i + 1);
        return;
    }
    if (!rc) {
        e->t.llm = reply->ids[0];
        end_flight(j, e);
    }
    settle(j, l, i, !rc);
}

/* Whether the reply for queue[i] came. */
static bool look_for(struct tlr_joint *j, struct lane *l, int i, int timeout_ms)
{
    struct flight *f = &j->ahead->flights[l->queue[i].flight];
    struct tlr_expert_reply reply;
    int rc = tlr_expert_wait(j->o.expert, &f->ticket, timeout_ms, j->n_ids,
                             &reply, &f->why);
    if (rc == TLR_EPENDING)
        return false;
    land(j, l, i, rc, &reply);
    return true;
}

/* A reply may take back the rest of the queue, or put another in its place. */
static void collect(struct tlr_joint *j, struct lane *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->queue[i].state == ASKED)
            look_for(j, l, i, 0);
}

/* ---- asks ---- */

/* Counting every ask that is not sure to be needed as lost, so that the bound
 * holds however they end. */
static bool may_ask(const struct tlr_joint *j, const struct lane *l, int i)
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
static bool ask(struct tlr_joint *j, struct lane *l, int i)
{
    struct tlr_ahead *a = j->ahead;
    struct entry *e = &l->queue[i];
    int at = free_flight(a);
    struct flight *f = &a->flights[at];
    tlr_err_clear(&f->why);
    e->asked_ns = tlr_now_ns();
    int rc = tlr_expert_submit(j->o.expert, tlr_ids_of(l->session),
                               l->first + (size_t)i, 1, j->n_ids, &f->ticket,
                               &f->why);
    if (rc == TLR_ELIMIT && (a->n_flight > 0 || j->o.parks))
        return false;
    f->is_used = true;
    a->n_flight++;
    e->flight = at;
    e->state = ASKED;
    j->totals.n_calls++;
    if (rc) {
        struct tlr_expert_reply none;
        memset(&none, 0, sizeof none);
        land(j, l, i, rc, &none);
    }
    return true;
}

/* The oldest first: a later one is needed only if that one is. */
static void ask_all(struct tlr_joint *j, struct lane *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->queue[i].state == DOUBTED &&
            (!may_ask(j, l, i) || !ask(j, l, i)))
            return;
}

/* ---- one position further ---- */

static int32_t last_id(const struct lane *l)
{
    return l->n > 0 ? l->queue[l->n - 1].t.id : l->before;
}

static bool may_run(const struct tlr_joint *j, const struct lane *l)
{
    const struct tlr_ahead *a = j->ahead;
    if (l == &a->text && l->n == 0)
        return true;
    uint32_t text = l->first + (uint32_t)l->n;
    uint64_t wanted = j->totals.n_tok + (text - a->text.first);
    return (l == &a->text || a->is_branching) && l->n < AHEAD_MAX - 1 &&
           !(l->n > 0 && l->queue[l->n - 1].state == BROKEN) &&
           text <= j->n_ctx && /* seeing it takes that many in the session */
           !(j->ends && tlr_generation_is_eos(j->ends, last_id(l))) &&
           !(j->o.ahead.max_tok && wanted >= j->o.ahead.max_tok);
}

static int append(struct lane *l, struct tlr_err *err)
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
static int guess(struct tlr_joint *j, struct tlr_sight *v, struct entry *e,
                 struct tlr_err *err)
{
    int n = j->ahead->branch.session ? 2 : 1;
    int rc = tlr_joint_see_top(j, v, n, err);
    e->t.id = rc ? -1 : v->ids[0];
    e->second = !rc && n > 1 ? v->ids[1] : -1;
    return rc;
}

static int see_next(struct tlr_joint *j, struct lane *l, struct entry *e,
                    struct tlr_err *err)
{
    struct tlr_sight v;
    e->t = tlr_joint_no_token;
    e->flight = -1;
    e->state = SURE;
    e->draw = draw_state(j);
    j->mark_ns = tlr_now_ns();
    int rc = append(l, err);
    rc = rc ? rc : tlr_joint_see(j, &v, &e->t, err);
    if (!rc && e->t.is_asked && j->ahead->branch.session)
        rc = tlr_joint_see_top(j, &v, 2, err); /* once, for pick and guess */
    rc = rc ? rc : tlr_joint_pick(j, &v, &e->own, err);
    if (!rc && e->t.is_asked)
        rc = guess(j, &v, e, err);
    if (!rc && e->t.is_asked) {
        e->state = DOUBTED;
        e->drawn = draw_state(j);
        set_draw(j, e->draw);
    } else {
        e->t.id = e->t.slm = e->own;
    }
    tlr_joint_mark(j, &e->t.slm_ns);
    return rc;
}

/* An error of a position that may never be needed waits until it is: the queue
 * ends before it, and it comes again when all before it is sure. */
static int run_lane(struct tlr_joint *j, struct lane *l, uint64_t spent_ns,
                    struct tlr_err *err)
{
    struct entry *e = &l->queue[l->n];
    uint64_t draw = draw_state(j);
    j->session = l->session;
    int rc = see_next(j, l, e, err);
    j->session = j->ahead->text.session;
    e->t.slm_ns += spent_ns;
    if (rc)
        set_draw(j, draw);
    else
        l->n++;
    return rc;
}

static bool wants_step(const struct lane *l)
{
    return tlr_pos(l->session) + 1 == l->first + (uint32_t)l->n;
}

/* Both lanes' last tokens in one pass over the weights, and all of the head with
 * it; the time that each owes. */
static uint64_t step_together(struct tlr_joint *j)
{
    struct lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    struct tlr_session *sessions[2] = {text->session, branch->session};
    int32_t ids[2] = {last_id(text), last_id(branch)};
    uint64_t begun = tlr_now_ns();
    if (!wants_step(text) || !wants_step(branch) ||
        tlr_decode_together(sessions, ids, 2, TLR_STEP_LOGITS, NULL))
        return 0; /* each by itself: the same, or the error in its place */
    return (tlr_now_ns() - begun) / 2;
}

static int run_ahead(struct tlr_joint *j, bool *is_stuck, struct tlr_err *err)
{
    struct lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    struct tlr_err why = TLR_ERR_INIT;
    bool on_text = may_run(j, text), on_branch = may_run(j, branch);
    uint64_t spent_ns = on_text && on_branch ? step_together(j) : 0;
    if (on_branch && run_lane(j, branch, spent_ns, NULL)) {
        drop_branch(j);
        text->queue[0].second = -1;
    }
    if (!on_text)
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
    struct lane *l = &a->text;
    struct entry *e = &l->queue[0];
    if (e->state == BROKEN) {
        const struct flight *f = &a->flights[e->flight];
        int rc = tlr_err_set(err, f->rc, "%s", f->why.text);
        take_back(j, l, 0);
        return rc;
    }
    if (e->t.is_failed)
        j->failure = a->flights[e->flight].why;
    end_flight(j, e);
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
    look_for(j, &j->ahead->text, 0, -1);
    j->ahead->text.queue[0].t.exposed_ns += tlr_now_ns() - begun;
}

static bool may_go_on(const struct tlr_joint *j)
{
    return may_run(j, &j->ahead->text) || may_run(j, &j->ahead->branch);
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
    struct lane *text = &j->ahead->text, *branch = &j->ahead->branch;
    bool is_stuck = false, has_run = false;
    count_still(j);
    for (;;) {
        collect(j, text);
        collect(j, branch);
        ask_all(j, text);
        ask_all(j, branch);
        if (text->n > 0 && (text->queue[0].state == SURE ||
                            text->queue[0].state == BROKEN))
            return hand_out(j, out, err);
        if (has_run && j->o.parks)
            return TLR_EPENDING;
        begin_branch(j);
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

/* With a branch both lanes share a pass of their own. */
int32_t tlr_ahead_pending(const struct tlr_joint *j)
{
    const struct lane *text = &j->ahead->text;
    bool is_wanted = !j->ahead->is_branching && wants_step(text) &&
                     may_run(j, text);
    return is_wanted ? last_id(text) : -1;
}

bool tlr_ahead_is_waiting(const struct tlr_joint *j)
{
    return j->ahead->still_ns != 0;
}
