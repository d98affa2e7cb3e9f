/* decode.c - see decode.h.
 *
 * Order of a joint step: append the last token without the head; run as much of
 * the head as the policy must see; trust; then either the large model is asked
 * (and a head that was not run stays unrun) or the small model's token is picked.
 * The sampler draws only for a token that stands, so looking (explain) changes no
 * text.
 */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "router/decode_internal.h"
#include "router/router.h"

int tlr_joint_new(struct tlr_joint **out, struct tlr_session *s,
                  const struct tlr_model *m,
                  const struct tlr_joint_options *options, struct tlr_err *err)
{
    *out = NULL;
    bool is_large = options->mode == TLR_LARGE_ONLY;
    if (is_large && !options->expert)
        return tlr_err_set(err, TLR_EUSAGE,
                           "mode large: needs a large model, found none");
    int rc = options->mode == TLR_JOINT
                 ? tlr_policy_check(&options->policy, err)
                 : 0;
    if (rc)
        return rc;
    const struct tlr_router *router =
        options->mode == TLR_JOINT ? options->policy.router : NULL;
    size_t n_scratch = router ? tlr_router_scratch(router) : 0;
    uint32_t n_ctx = tlr_session_options_used(s)->n_ctx;
    struct tlr_joint *j = tlr_calloc(1, sizeof *j);
    if (!j)
        return tlr_err_nomem(err, "joint decoding", sizeof *j);
    j->session = s;
    j->o = *options;
    j->o.policy.pool = tlr_session_pool(s);
    j->n_ids = tlr_model_n_ids(m);
    j->n_ctx = n_ctx;
    j->pending = -1;
    j->ends = tlr_model_generation(m);
    j->n_prompt = tlr_pos(s);
    j->scratch = tlr_calloc(n_scratch, sizeof *j->scratch);
    j->ids = tlr_calloc(is_large ? n_ctx : 0, sizeof *j->ids);
    if (!j->scratch || !j->ids) {
        tlr_joint_free(j);
        return tlr_err_nomem(err, "joint decoding", n_scratch * 4 + n_ctx * 4);
    }
    if (is_large) {
        const int32_t *ids = options->prompt ? options->prompt : tlr_ids_of(s);
        size_t n = options->prompt ? options->n_prompt : tlr_pos(s);
        j->n = (uint32_t)(n < n_ctx ? n : n_ctx);
        memcpy(j->ids, ids, j->n * sizeof *ids);
        j->n_prompt = j->n;
    }
    rc = tlr_ahead_new(j, m, err);
    if (rc) {
        tlr_joint_free(j);
        return rc;
    }
    *out = j;
    return 0;
}

void tlr_joint_stop(struct tlr_joint *j)
{
    if (j->open.is_open)
        tlr_expert_cancel(j->o.expert, &j->open.ticket);
    j->open.is_open = false;
    if (j->ahead)
        tlr_ahead_stop(j);
}

void tlr_joint_free(struct tlr_joint *j)
{
    if (!j)
        return;
    tlr_joint_stop(j);
    tlr_ahead_free(j);
    tlr_free(j->scratch);
    tlr_free(j->ids);
    tlr_free(j);
}

/* ---- the clock ---- */

/* Time since the last mark belongs to *ns. */
void tlr_joint_mark(struct tlr_joint *j, uint64_t *ns)
{
    uint64_t now = tlr_now_ns();
    *ns += now - j->mark_ns;
    j->mark_ns = now;
}

/* ---- the small model ---- */

int tlr_joint_see_top(struct tlr_joint *j, struct tlr_sight *v, int k,
                      struct tlr_err *err)
{
    if (v->n_top >= k)
        return 0;
    int rc = tlr_top(j->session, k, v->ids, v->logits, err);
    v->n_top = rc ? 0 : k;
    return rc;
}

static int see_logits(struct tlr_joint *j, struct tlr_sight *v,
                      struct tlr_err *err)
{
    int rc = tlr_run_head(j->session, err);
    v->has_logits = !rc;
    return rc;
}

static void see_signals(const struct tlr_joint *j, struct tlr_sight *v)
{
    if (!v->has_signals)
        tlr_signals_of(tlr_logits(j->session), j->n_ids, &v->signals);
    v->has_signals = true;
}

/* How many of the best logits a pick needs; 0: all of them. */
static int n_pick(const struct tlr_joint *j)
{
    uint32_t n = j->o.sampler ? tlr_sampler_n_top(j->o.sampler) : 1;
    return n <= TLR_TOP_MAX ? (int)n : 0;
}

/* How many of them the policy looks at. */
static int n_policy(const struct tlr_joint *j)
{
    return j->o.policy.kind == TLR_POLICY_MAXLOGIT ? 1 : TLR_SIGNAL_TOP;
}

int tlr_joint_n_top(const struct tlr_joint *j)
{
    enum tlr_policy_need need = j->o.mode == TLR_JOINT
                                    ? tlr_policy_need(j->o.policy.kind)
                                    : TLR_NEED_HIDDEN;
    int n = n_pick(j), least = need == TLR_NEED_TOP ? n_policy(j) : 1;
    if (n == 0 || need == TLR_NEED_LOGITS || j->o.explain)
        return 0;
    return n > least ? n : least;
}

/* As much of the head as the policy needs, and in the same pass what a pick
 * behind it needs, where that is more of the same. */
static int look(struct tlr_joint *j, struct tlr_sight *v, struct tlr_err *err)
{
    enum tlr_policy_need need = tlr_policy_need(j->o.policy.kind);
    if (need == TLR_NEED_LOGITS || j->o.explain ||
        (need == TLR_NEED_TOP && n_pick(j) == 0)) {
        int rc = see_logits(j, v, err);
        if (rc)
            return rc;
    }
    /* What is only shown is not the router's time. */
    if (j->o.explain)
        see_signals(j, v);
    if (need != TLR_NEED_TOP)
        return 0;
    int k = n_policy(j);
    return tlr_joint_see_top(j, v, k > n_pick(j) ? k : n_pick(j), err);
}

int tlr_joint_pick(struct tlr_joint *j, struct tlr_sight *v, int32_t *id,
                   struct tlr_err *err)
{
    struct tlr_session *s = j->session;
    int k = n_pick(j), rc;
    if (k == 0 || v->has_logits) {
        rc = see_logits(j, v, err);
        if (rc)
            return rc;
        *id = j->o.sampler ? tlr_sample(j->o.sampler, tlr_logits(s),
                                        tlr_ids_of(s), tlr_pos(s))
                           : tlr_argmax(tlr_logits(s), j->n_ids);
        return 0;
    }
    rc = tlr_joint_see_top(j, v, k, err);
    if (rc)
        return rc;
    *id = j->o.sampler ? tlr_sample_top(j->o.sampler, v->ids, v->logits)
                       : v->ids[0];
    return 0;
}

/* ---- the policy ---- */

static int trust(struct tlr_joint *j, struct tlr_sight *v,
                 struct tlr_joint_token *t, struct tlr_err *err)
{
    const struct tlr_policy *p = &j->o.policy;
    float features[TLR_N_FEATURES] = {0};
    if (tlr_policy_need(p->kind) == TLR_NEED_LOGITS)
        see_signals(j, v);
    if (p->kind == TLR_POLICY_MLP_PLUS)
        tlr_features(v->logits, features);
    else if (v->n_top > 0)
        features[0] = v->logits[0];
    int rc = tlr_policy_trust_of(p, tlr_hidden(j->session), features,
                                 v->has_signals ? &v->signals : NULL,
                                 tlr_pos(j->session), j->scratch, &t->trust,
                                 err);
    t->is_asked = !rc && tlr_policy_asks(p, t->trust);
    return rc;
}

/* ---- the large model ---- */

void tlr_joint_times(struct tlr_joint_token *t,
                     const struct tlr_expert_reply *r, uint64_t wait_ns)
{
    t->llm_ns = r->think_ns < wait_ns ? r->think_ns : wait_ns;
    t->wire_ns = wait_ns - t->llm_ns;
    t->queue_ns = r->queue_ns;
    t->connect_ns = r->connect_ns;
    t->first_byte_ns = r->first_byte_ns;
    t->cached_tok = r->cached_tok;
}

int tlr_joint_n_ask(const struct tlr_joint *j, uint32_t n_before)
{
    int n = j->o.burst;
    uint32_t most = j->n_ctx - n_before + 1, n_made = n_before - j->n_prompt;
    if (n == TLR_EXPERT_AUTO)
        return n;
    if (j->o.ahead.max_tok > n_made && j->o.ahead.max_tok - n_made < most)
        most = j->o.ahead.max_tok - n_made;
    n = n > 0 ? n : 1;
    return (uint32_t)n < most ? n : (int)most;
}

void tlr_given_set(struct tlr_given *g, const int32_t *ids, int n)
{
    g->n = n;
    if (n > 0)
        memcpy(g->ids, ids, (size_t)n * sizeof *ids);
}

int32_t tlr_given_take(struct tlr_given *g)
{
    int32_t id = g->ids[0];
    g->n--;
    memmove(g->ids, g->ids + 1, (size_t)g->n * sizeof *g->ids);
    return id;
}

/* Only shown, a token comes alone. */
static int send(struct tlr_joint *j, const int32_t *ids, size_t n,
                bool is_shown_only, struct tlr_err *err)
{
    struct tlr_open_ask *a = &j->open;
    if (!a->is_open)
        a->begun_ns = j->mark_ns;
    a->is_open = true;
    int n_tok = is_shown_only ? 1 : tlr_joint_n_ask(j, (uint32_t)n);
    int rc = tlr_expert_submit(j->o.expert, ids, n, n_tok, j->n_ids, &a->ticket,
                               err);
    /* Other texts' asks are on their way, and one of them makes room. */
    if (rc == TLR_ELIMIT && j->o.parks)
        return TLR_EPENDING;
    a->is_sent = true;
    j->totals.n_calls++;
    return rc;
}

/* Its token after ids[0..n) into t->llm.  TLR_EPENDING is for a loop that parks:
 * asked again, this goes on where it was. */
static int ask(struct tlr_joint *j, const int32_t *ids, size_t n,
               struct tlr_joint_token *t, struct tlr_err *err)
{
    struct tlr_open_ask *a = &j->open;
    struct tlr_expert_reply reply = {.n_tok = 0};
    struct tlr_err why = TLR_ERR_INIT;
    bool was_open = a->is_open;
    int rc = a->is_open && a->is_sent ? 0
                                      : send(j, ids, n, !t->is_asked, &why);
    if (!rc)
        rc = tlr_expert_wait(j->o.expert, &a->ticket, j->o.parks ? 0 : -1,
                             j->n_ids, &reply, &why);
    if (rc == TLR_EPENDING)
        return rc;
    a->is_open = a->is_sent = false;
    j->mark_ns = tlr_now_ns();
    t->exposed_ns = j->mark_ns - a->begun_ns;
    tlr_joint_times(t, &reply, t->exposed_ns);
    if (was_open)
        tlr_expert_waited(j->o.expert, t->exposed_ns);
    if (rc)
        return tlr_err_set(err, rc, "%s", why.text);
    t->llm = reply.ids[0];
    tlr_given_set(&j->given, reply.ids + 1, reply.n_tok - 1);
    return 0;
}

/* The next token of a burst. */
static void give(struct tlr_joint *j, struct tlr_joint_token *t)
{
    t->id = t->llm = tlr_given_take(&j->given);
    t->is_llm = true;
    t->is_asked = false;
}

/* The same, where a failure may be lived with. */
static int try_ask(struct tlr_joint *j, struct tlr_joint_token *t,
                   struct tlr_err *err)
{
    struct tlr_err why = TLR_ERR_INIT;
    int rc = ask(j, tlr_ids_of(j->session), tlr_pos(j->session), t, &why);
    if (!rc || rc == TLR_EPENDING)
        return rc;
    if (j->o.require_expert || rc == TLR_ECANCELLED)
        return tlr_err_set(err, rc, "%s", why.text);
    t->is_failed = t->is_asked;
    j->failure = why;
    return 0;
}

/* ---- one token ---- */

static int next_large(struct tlr_joint *j, struct tlr_joint_token *t,
                      struct tlr_err *err)
{
    if (j->pending >= 0) {
        if (j->n == j->n_ctx)
            return tlr_err_set(err, TLR_ELIMIT,
                               "large model: the context of %u is full",
                               j->n_ctx);
        j->ids[j->n++] = j->pending;
        j->pending = -1;
    }
    if (j->given.n > 0) {
        give(j, t);
        return 0;
    }
    t->is_asked = true;
    int rc = ask(j, j->ids, j->n, t, err);
    t->is_llm = !rc;
    t->id = t->llm;
    return rc;
}

static int append(struct tlr_joint *j, struct tlr_err *err)
{
    if (j->pending < 0)
        return 0;
    int rc = tlr_decode(j->session, j->pending, 0, err);
    if (!rc)
        j->pending = -1;
    return rc;
}

int tlr_joint_see(struct tlr_joint *j, struct tlr_sight *v,
                  struct tlr_joint_token *t, struct tlr_err *err)
{
    v->n_top = 0;
    v->has_logits = v->has_signals = false;
    int rc = look(j, v, err);
    tlr_joint_mark(j, &t->slm_ns);
    rc = rc ? rc : trust(j, v, t, err);
    tlr_joint_mark(j, &t->router_ns);
    return rc;
}

static int next_joint(struct tlr_joint *j, struct tlr_joint_token *t,
                      struct tlr_err *err)
{
    struct tlr_sight *v = &j->open.sight;
    bool is_given = j->given.n > 0;
    int rc = 0;
    if (j->open.is_open) {
        *t = j->open.token;
    } else {
        rc = append(j, err);
        if (!rc && (!is_given || j->o.explain))
            rc = tlr_joint_see(j, v, t, err);
    }
    if (!rc && is_given)
        give(j, t);
    else if (!rc && j->o.expert && (t->is_asked || j->o.explain))
        rc = try_ask(j, t, err);
    if (rc == TLR_EPENDING)
        j->open.token = *t;
    if (rc)
        return rc;
    if (j->o.explain) {
        t->signals = v->signals;
        t->slm = v->signals.best;
    }
    t->is_llm = is_given || (t->is_asked && t->llm >= 0);
    if (t->is_llm) {
        t->id = t->llm;
        tlr_joint_mark(j, &t->slm_ns);
        return 0;
    }
    rc = tlr_joint_pick(j, v, &t->slm, err);
    t->id = t->slm;
    tlr_joint_mark(j, &t->slm_ns);
    return rc;
}

static int next_small(struct tlr_joint *j, struct tlr_joint_token *t,
                      struct tlr_err *err)
{
    struct tlr_sight v;
    v.n_top = 0;
    v.has_logits = v.has_signals = false;
    int rc = append(j, err);
    if (!rc && j->o.explain)
        rc = see_logits(j, &v, err);
    rc = rc ? rc : tlr_joint_pick(j, &v, &t->slm, err);
    if (!rc && j->o.explain) {
        see_signals(j, &v);
        t->signals = v.signals;
    }
    t->id = t->slm;
    tlr_joint_mark(j, &t->slm_ns);
    return rc;
}

static void account(struct tlr_joint_totals *sum,
                    const struct tlr_joint_token *t)
{
    sum->exposed_ns += t->exposed_ns;
    sum->queue_ns += t->queue_ns;
    sum->connect_ns += t->connect_ns;
    sum->first_byte_ns += t->first_byte_ns;
    sum->cached_tok += (uint64_t)t->cached_tok;
    sum->n_tok++;
    sum->n_asked += t->is_asked;
    sum->n_llm += t->is_llm;
    sum->n_failed += t->is_failed;
    sum->slm_ns += t->slm_ns;
    sum->router_ns += t->router_ns;
    sum->llm_ns += t->llm_ns;
    sum->wire_ns += t->wire_ns;
}

const struct tlr_joint_token tlr_joint_no_token = {
    .id = -1, .slm = -1, .llm = -1, .trust = NAN,
    .signals = {NAN, NAN, NAN, NAN, -1}};

int tlr_joint_next(struct tlr_joint *j, struct tlr_joint_token *out,
                   struct tlr_err *err)
{
    *out = tlr_joint_no_token;
    j->mark_ns = tlr_now_ns();
    int rc = j->ahead                      ? tlr_ahead_next(j, out, err)
             : j->o.mode == TLR_LARGE_ONLY ? next_large(j, out, err)
             : j->o.mode == TLR_SMALL_ONLY ? next_small(j, out, err)
                                           : next_joint(j, out, err);
    if (rc)
        return rc;
    j->pending = out->id;
    account(&j->totals, out);
    return 0;
}

int32_t tlr_joint_pending(const struct tlr_joint *j)
{
    if (j->ahead)
        return tlr_ahead_pending(j);
    return j->o.mode == TLR_LARGE_ONLY ? -1 : j->pending;
}

bool tlr_joint_is_waiting(const struct tlr_joint *j)
{
    return j->ahead ? tlr_ahead_is_waiting(j) : j->open.is_open;
}

void tlr_joint_appended(struct tlr_joint *j)
{
    j->pending = -1;
}

uint32_t tlr_joint_pos(const struct tlr_joint *j)
{
    if (j->ahead)
        return tlr_ahead_pos(j);
    return j->o.mode == TLR_LARGE_ONLY ? j->n : tlr_pos(j->session);
}

struct tlr_joint_totals tlr_joint_read(const struct tlr_joint *j)
{
    return j->totals;
}

const char *tlr_joint_failure(const struct tlr_joint *j)
{
    return j->failure.text;
}
