/* optimistic.c - the joint loop, running ahead of the large model's replies.
 *
 * Tokens that are not sure yet wait in a queue.  Where the policy asks, the small
 * model's likeliest token stands in for the reply and decoding goes on behind it
 * in the session's own timeline.  A reply that says the same makes it sure;
 * another one takes back what came after it (tlr_rewind) and nothing else.  Later
 * doubtful positions are asked for meanwhile; what they answer holds only if all
 * before them holds, so those asks may be lost, and how many is bounded.
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

struct tlr_ahead {
    struct entry queue[AHEAD_MAX];
    int n;
    uint32_t first;   /* tokens before queue[0] */
    bool has_token;   /* one was handed out: it is not part of pos */
    struct flight flights[TLR_FLIGHT_MAX];
    int n_flight;
    uint64_t n_kept;  /* asks whose reply was waited for and used */
};

int tlr_ahead_new(struct tlr_joint *j, struct tlr_err *err)
{
    struct tlr_speculation *s = &j->o.ahead;
    if (j->o.mode != TLR_JOINT || !j->o.expert || j->o.explain ||
        !(s->calls >= 1) || !tlr_expert_is_async(j->o.expert))
        return 0;
    j->ahead = tlr_calloc(1, sizeof *j->ahead);
    if (!j->ahead)
        return tlr_err_nomem(err, "joint decoding", sizeof *j->ahead);
    j->ahead->first = tlr_pos(j->session);
    if (j->o.expert->is_budgeted)
        s->calls = 1;
    /* A guess behind two others is right too rarely to pay for it, where asks
     * are dear. */
    if (s->n_flight < 1)
        s->n_flight = s->calls < 2 ? 3 : TLR_FLIGHT_MAX;
    if (s->n_flight > TLR_FLIGHT_MAX)
        s->n_flight = TLR_FLIGHT_MAX;
    return 0;
}

void tlr_ahead_free(struct tlr_joint *j)
{
    tlr_free(j->ahead);
    j->ahead = NULL;
}

uint32_t tlr_ahead_pos(const struct tlr_joint *j)
{
    return j->ahead->first - j->ahead->has_token;
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

/* Drops queue[from..]; the text up to there stays in the session. */
static void take_back(struct tlr_joint *j, int from)
{
    struct tlr_ahead *a = j->ahead;
    if (from < a->n)
        set_draw(j, a->queue[from].draw);
    for (int i = from; i < a->n; i++) {
        struct entry *e = &a->queue[i];
        end_flight(j, e);
        j->totals.n_redone++;
        j->totals.lost_ns += e->t.slm_ns + e->t.router_ns;
    }
    a->n = from < a->n ? from : a->n;
    /* The last token that is left goes, too: it may be another one now. */
    uint32_t keep = a->first + (uint32_t)from - (from > 0 || a->has_token);
    if (tlr_pos(j->session) > keep)
        tlr_rewind(j->session, keep, NULL);
}

void tlr_ahead_stop(struct tlr_joint *j)
{
    take_back(j, 0);
}

/* ---- replies ---- */

/* What was asked for at queue[i] is known; else the small model's token stands
 * there. */
static void settle(struct tlr_joint *j, int i, bool is_answered)
{
    struct tlr_ahead *a = j->ahead;
    struct entry *e = &a->queue[i];
    int32_t guess = e->t.id;
    e->state = SURE;
    e->t.is_llm = is_answered;
    e->t.is_failed = !is_answered;
    e->t.slm = is_answered ? -1 : e->own;
    e->t.id = is_answered ? e->t.llm : e->own;
    uint64_t draw = is_answered ? e->draw : e->drawn;
    if (e->t.id == guess && draw == e->draw)
        return;
    uint64_t before = j->totals.lost_ns;
    take_back(j, i + 1);
    set_draw(j, draw);
    e->t.exposed_ns += j->totals.lost_ns - before; /* the wait's work was vain */
}

static void land(struct tlr_joint *j, int i, int rc,
                 const struct tlr_expert_reply *reply)
{
    struct entry *e = &j->ahead->queue[i];
    struct flight *f = &j->ahead->flights[e->flight];
    uint64_t told = reply->think_ns + reply->wire_ns;
    uint64_t since = tlr_now_ns() - e->asked_ns;
    f->rc = rc;
    tlr_joint_times(&e->t, reply, told && told < since ? told : since);
    if (rc && (j->o.require_expert || rc == TLR_ECANCELLED)) {
        e->state = BROKEN;
        take_back(j, i + 1);
        return;
    }
    if (!rc) {
        e->t.llm = reply->ids[0];
        end_flight(j, e);
    }
    settle(j, i, !rc);
}

/* Whether the reply for queue[i] came. */
static bool look_for(struct tlr_joint *j, int i, int timeout_ms)
{
    struct flight *f = &j->ahead->flights[j->ahead->queue[i].flight];
    struct tlr_expert_reply reply;
    int rc = tlr_expert_wait(j->o.expert, &f->ticket, timeout_ms, j->n_ids,
                             &reply, &f->why);
    if (rc == TLR_EPENDING)
        return false;
    land(j, i, rc, &reply);
    return true;
}

/* A reply may take back the rest of the queue. */
static void collect(struct tlr_joint *j)
{
    for (int i = 0; i < j->ahead->n; i++)
        if (j->ahead->queue[i].state == ASKED)
            look_for(j, i, 0);
}

/* ---- asks ---- */

/* Counting every ask that is not sure to be needed as lost, so that the bound
 * holds however they end. */
static bool may_ask(const struct tlr_joint *j, int i)
{
    const struct tlr_ahead *a = j->ahead;
    if (i == 0)
        return a->n_flight < TLR_FLIGHT_MAX;
    uint64_t n_sure = a->n_kept + a->queue[0].t.is_asked;
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
static bool ask(struct tlr_joint *j, int i)
{
    struct tlr_ahead *a = j->ahead;
    struct entry *e = &a->queue[i];
    int at = free_flight(a);
    struct flight *f = &a->flights[at];
    tlr_err_clear(&f->why);
    e->asked_ns = tlr_now_ns();
    int rc = tlr_expert_submit(j->o.expert, tlr_ids_of(j->session),
                               a->first + (size_t)i, 1, j->n_ids, &f->ticket,
                               &f->why);
    if (rc == TLR_ELIMIT && a->n_flight > 0)
        return false;
    f->is_used = true;
    a->n_flight++;
    e->flight = at;
    e->state = ASKED;
    j->totals.n_calls++;
    if (rc) {
        struct tlr_expert_reply none;
        memset(&none, 0, sizeof none);
        land(j, i, rc, &none);
    }
    return true;
}

/* The oldest first: a later one is needed only if that one is. */
static void ask_all(struct tlr_joint *j)
{
    for (int i = 0; i < j->ahead->n; i++)
        if (j->ahead->queue[i].state == DOUBTED &&
            (!may_ask(j, i) || !ask(j, i)))
            return;
}

/* ---- one position further ---- */

static bool may_run(const struct tlr_joint *j)
{
    const struct tlr_ahead *a = j->ahead;
    if (a->n == 0)
        return true;
    const struct entry *last = &a->queue[a->n - 1];
    uint32_t text = a->first + (uint32_t)a->n;
    return a->n < AHEAD_MAX && last->state != BROKEN &&
           text <= j->n_ctx && /* seeing it takes that many in the session */
           !(j->ends && tlr_generation_is_eos(j->ends, last->t.id)) &&
           !(j->o.ahead.max_tok &&
             j->totals.n_tok + (uint64_t)a->n >= j->o.ahead.max_tok);
}

static int append(struct tlr_joint *j, struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    uint32_t text = a->first + (uint32_t)a->n;
    int32_t id = a->n > 0 ? a->queue[a->n - 1].t.id : j->pending;
    if (tlr_pos(j->session) == text) {
        if (tlr_hidden(j->session))
            return 0;
        id = tlr_ids_of(j->session)[text - 1]; /* all was taken back */
        int rc = tlr_rewind(j->session, text - 1, err);
        if (rc)
            return rc;
    }
    return tlr_decode(j->session, id, 0, err);
}

/* Its likeliest token without penalties and draws: what the large one writes
 * most often. */
static int32_t best_guess(const struct tlr_joint *j, const struct tlr_sight *v)
{
    return v->n_top > 0 ? v->ids[0]
                        : tlr_argmax(tlr_logits(j->session), j->n_ids);
}

static int see_next(struct tlr_joint *j, struct entry *e, struct tlr_err *err)
{
    struct tlr_sight v;
    e->t = tlr_joint_no_token;
    e->flight = -1;
    e->state = SURE;
    e->draw = draw_state(j);
    j->mark_ns = tlr_now_ns();
    int rc = append(j, err);
    rc = rc ? rc : tlr_joint_see(j, &v, &e->t, err);
    rc = rc ? rc : tlr_joint_pick(j, &v, &e->own, err);
    if (!rc && e->t.is_asked) {
        e->state = DOUBTED;
        e->t.id = best_guess(j, &v);
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
static int run_ahead(struct tlr_joint *j, bool *is_stuck, struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    struct tlr_err why = TLR_ERR_INIT;
    struct entry *e = &a->queue[a->n];
    uint64_t draw = draw_state(j);
    int rc = see_next(j, e, &why);
    if (!rc) {
        a->n++;
        return 0;
    }
    set_draw(j, draw);
    *is_stuck = true;
    return a->n == 0 ? tlr_err_set(err, rc, "%s", why.text) : 0;
}

/* ---- one token ---- */

/* queue[0], which is sure, becomes text. */
static int hand_out(struct tlr_joint *j, struct tlr_joint_token *out,
                    struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    struct entry *e = &a->queue[0];
    if (e->state == BROKEN) {
        const struct flight *f = &a->flights[e->flight];
        int rc = tlr_err_set(err, f->rc, "%s", f->why.text);
        take_back(j, 0);
        return rc;
    }
    if (e->t.is_failed)
        j->failure = a->flights[e->flight].why;
    end_flight(j, e);
    a->n_kept += e->t.is_asked;
    *out = e->t;
    a->n--;
    a->first++;
    a->has_token = true;
    memmove(a->queue, a->queue + 1, (size_t)a->n * sizeof *a->queue);
    return 0;
}

/* Nothing is left to do but to wait. */
static void stand_still(struct tlr_joint *j)
{
    struct entry *e = &j->ahead->queue[0];
    uint64_t begun = tlr_now_ns();
    look_for(j, 0, -1);
    e->t.exposed_ns += tlr_now_ns() - begun;
}

int tlr_ahead_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err)
{
    struct tlr_ahead *a = j->ahead;
    bool is_stuck = false;
    for (;;) {
        collect(j);
        ask_all(j);
        if (a->n > 0 && (a->queue[0].state == SURE ||
                         a->queue[0].state == BROKEN))
            return hand_out(j, out, err);
        if (!is_stuck && may_run(j)) {
            int rc = run_ahead(j, &is_stuck, err);
            if (rc)
                return rc;
        } else {
            stand_still(j);
            is_stuck = false;
        }
    }
}
