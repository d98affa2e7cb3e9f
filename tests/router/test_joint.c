/* test_joint.c - the joint loop beside a naive one written here: two sessions,
 * whole prefixes decoded again for every question, argmax over all logits. */
#include <math.h>

#include "base/mem.h"
#include "router/decode.h"
#include "tests/router/rig.h"

enum { N_PROMPT = 12, N_TOK = 40, VOCAB = 320 };

/* q4 rounds the same weights so coarsely that the two often differ. */
struct rig {
    struct tlr_model *slm, *llm;
    struct tlr_router *routers[TLR_N_POLICIES];
    int32_t prompt[N_PROMPT];
};

static struct rig rig_open(void)
{
    struct rig r = {0};
    r.slm = random_model("tiny-llama", TLR_Q8);
    r.llm = random_model("tiny-llama", TLR_Q4);
    for (int k = 0; k < TLR_N_POLICIES; k++)
        if (tlr_policy_is_trained(k))
            r.routers[k] = rig_router(k, r.slm, 5 + (uint64_t)k);
    golden_ids(r.slm, r.prompt, N_PROMPT);
    return r;
}

static void rig_close(struct rig *r)
{
    for (int k = 0; k < TLR_N_POLICIES; k++)
        tlr_router_free(r->routers[k]);
    tlr_model_close(r->slm);
    tlr_model_close(r->llm);
}

static struct tlr_session *session_on(const struct tlr_model *m)
{
    return new_session(m, (struct tlr_session_options){.n_ctx = 128,
                                                       .n_threads = 2});
}

/* Runs the loop for N_TOK tokens. */
static void run_joint(struct rig *r, const struct tlr_joint_options *o,
                      struct tlr_joint_token out[N_TOK],
                      struct tlr_joint_totals *totals)
{
    struct tlr_session *s = session_on(r->slm);
    struct tlr_joint *j = NULL;
    if (o->mode != TLR_LARGE_ONLY)
        MUST(tlr_prefill(s, r->prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, r->slm, o, &must_err));
    for (int t = 0; t < N_TOK; t++) {
        MUST(tlr_joint_next(j, &out[t], &must_err));
        ck_assert_uint_eq(tlr_joint_pos(j), (uint32_t)(N_PROMPT + t));
    }
    *totals = tlr_joint_read(j);
    if (o->mode != TLR_LARGE_ONLY) /* all but the last token are in it */
        for (int t = 0; t < N_TOK - 1; t++)
            ck_assert_int_eq(tlr_ids_of(s)[N_PROMPT + t], out[t].id);
    tlr_joint_free(j);
    tlr_session_free(s);
}

static struct tlr_joint_options options_of(struct rig *r,
                                           enum tlr_policy_kind kind,
                                           float tau, struct tlr_expert *e)
{
    return (struct tlr_joint_options){
        .policy = {.kind = kind, .tau = tau, .seed = 9,
                   .router = r->routers[kind]},
        .expert = e};
}

/* ---- the naive loop ---- */

static double naive_trust(const struct tlr_policy *p, const float *hidden,
                          const float *logits, int n_before)
{
    double sum = 0, entropy = 0, p1 = 0, p2 = 0;
    float top[VOCAB], features[TLR_N_FEATURES], scratch[4096];
    memcpy(top, logits, sizeof top);
    for (int i = 0; i < VOCAB; i++) /* insertion sort, falling */
        for (int k = i; k > 0 && top[k] > top[k - 1]; k--) {
            float swap = top[k];
            top[k] = top[k - 1];
            top[k - 1] = swap;
        }
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)top[i]);
    for (int i = 0; i < VOCAB; i++) {
        double q = exp((double)top[i]) / sum;
        entropy -= q * log(q);
    }
    p1 = exp((double)top[0]) / sum;
    p2 = exp((double)top[1]) / sum;
    switch (p->kind) {
    case TLR_POLICY_ENTROPY:
        return exp(-entropy);
    case TLR_POLICY_MARGIN:
        return p1 - p2;
    case TLR_POLICY_MAXPROB:
        return p1;
    case TLR_POLICY_MAXLOGIT:
        return (double)top[0];
    case TLR_POLICY_RANDOM:
        return tlr_policy_trust_of(p, NULL, NULL, NULL, (uint32_t)n_before,
                                   NULL, scratch, NULL)
                   ? NAN
                   : (double)scratch[0];
    case TLR_POLICY_ALWAYS:
    case TLR_POLICY_NEVER:
        return p->kind == TLR_POLICY_NEVER;
    default:
        tlr_features(top, features);
        ck_assert_uint_le(tlr_router_scratch(p->router), 4096);
        return 1 / (1 + exp(-(double)tlr_router_logit(
                                  p->router, NULL, hidden, features, scratch)));
    }
}

static int32_t naive_argmax(const float *x)
{
    int32_t best = 0;
    for (int32_t i = 1; i < VOCAB; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* The large model's token after ids[0..n), in a session of its own. */
static int32_t naive_llm(const struct rig *r, const int32_t *ids, int n)
{
    struct tlr_session *s = session_on(r->llm);
    for (int i = 0; i < n; i++)
        MUST(tlr_decode(s, ids[i], i == n - 1 ? TLR_STEP_LOGITS : 0,
                        &must_err));
    int32_t id = naive_argmax(tlr_logits(s));
    tlr_session_free(s);
    return id;
}

struct naive {
    int32_t id, slm, llm; /* llm -1: not asked */
    double trust;
};

static void run_naive(struct rig *r, const struct tlr_policy *p,
                      struct naive out[N_TOK])
{
    struct tlr_session *s = session_on(r->slm);
    int32_t ids[N_PROMPT + N_TOK];
    memcpy(ids, r->prompt, sizeof r->prompt);
    for (int i = 0; i < N_PROMPT; i++)
        MUST(tlr_decode(s, ids[i], TLR_STEP_LOGITS, &must_err));
    for (int t = 0; t < N_TOK; t++) {
        int n = N_PROMPT + t;
        out[t].trust = naive_trust(p, tlr_hidden(s), tlr_logits(s), n);
        out[t].slm = naive_argmax(tlr_logits(s));
        bool asks = p->kind == TLR_POLICY_ALWAYS ||
                    (p->kind != TLR_POLICY_NEVER &&
                     out[t].trust < (double)p->tau);
        out[t].llm = asks ? naive_llm(r, ids, n) : -1;
        out[t].id = ids[n] = asks ? out[t].llm : out[t].slm;
        MUST(tlr_decode(s, ids[n], TLR_STEP_LOGITS, &must_err));
    }
    tlr_session_free(s);
}

/* A threshold under which about a third of the small model's own positions lie,
 * half-way between two trusts so that no rounding decides. */
static float middle_tau(struct rig *r, enum tlr_policy_kind kind)
{
    struct naive own[N_TOK];
    struct tlr_policy p = {.kind = kind, .tau = -INFINITY, .seed = 9,
                           .router = r->routers[kind]};
    run_naive(r, &p, own);
    double sorted[N_TOK];
    for (int i = 0; i < N_TOK; i++) {
        sorted[i] = own[i].trust;
        for (int k = i; k > 0 && sorted[k] < sorted[k - 1]; k--) {
            double swap = sorted[k];
            sorted[k] = sorted[k - 1];
            sorted[k - 1] = swap;
        }
    }
    return (float)((sorted[N_TOK / 3] + sorted[N_TOK / 3 + 1]) / 2);
}

START_TEST(equals_the_naive_loop)
{
    struct rig r = rig_open();
    enum tlr_policy_kind kind = (enum tlr_policy_kind)_i;
    struct tlr_expert e;
    MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
    struct tlr_joint_options o =
        options_of(&r, kind, middle_tau(&r, kind), &e);
    struct tlr_joint_token got[N_TOK];
    struct tlr_joint_totals totals;
    struct naive want[N_TOK];
    uint64_t n_llm = 0;
    run_joint(&r, &o, got, &totals);
    run_naive(&r, &o.policy, want);
    for (int t = 0; t < N_TOK; t++) {
        ck_assert_int_eq(got[t].id, want[t].id);
        ck_assert_int_eq(got[t].is_asked, want[t].llm >= 0);
        ck_assert_int_eq(got[t].is_llm, want[t].llm >= 0);
        ck_assert_int_eq(got[t].llm, want[t].llm);
        ck_assert_int_eq(got[t].slm, want[t].llm >= 0 ? -1 : want[t].slm);
        ck_assert(fabs((double)got[t].trust - want[t].trust) <=
                  1e-6 * (1 + fabs(want[t].trust)));
        n_llm += got[t].is_llm;
    }
    ck_assert_uint_eq(totals.n_tok, N_TOK);
    ck_assert_uint_eq(totals.n_asked, n_llm);
    ck_assert_uint_eq(totals.n_llm, n_llm);
    ck_assert_uint_eq(totals.n_failed, 0);
    /* Both ways were gone. */
    if (kind == TLR_POLICY_ALWAYS || kind == TLR_POLICY_NEVER) {
        ck_assert_uint_eq(n_llm, kind == TLR_POLICY_ALWAYS ? N_TOK : 0);
    } else {
        ck_assert_uint_ge(n_llm, 2);
        ck_assert_uint_le(n_llm, N_TOK - 2);
    }
    tlr_expert_close(&e);
    rig_close(&r);
}
END_TEST

/* What tlr_joint_n_top says, found beforehand, is all that a token looks for. */
START_TEST(what_is_found_together_is_enough)
{
    struct rig r = rig_open();
    struct tlr_joint_options o =
        options_of(&r, (enum tlr_policy_kind)_i, 0, NULL);
    struct tlr_session *s = session_on(r.slm);
    struct tlr_joint *j = NULL;
    struct tlr_joint_token alone[N_TOK], t;
    struct tlr_joint_totals totals;
    run_joint(&r, &o, alone, &totals);
    MUST(tlr_prefill(s, r.prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
    int k = tlr_joint_n_top(j);
    ck_assert_int_eq(k == 0, tlr_policy_need(_i) == TLR_NEED_LOGITS);
    for (int i = 0; i < N_TOK; i++) {
        if (i > 0) {
            MUST(tlr_decode(s, tlr_joint_pending(j), 0, &must_err));
            tlr_joint_appended(j);
        }
        if (k > 0)
            MUST(tlr_top_together(&s, 1, k, &must_err));
        uint64_t before = tlr_top_read(s).n_calls;
        MUST(tlr_joint_next(j, &t, &must_err));
        ck_assert_uint_eq(tlr_top_read(s).n_calls, before);
        ck_assert_int_eq(t.id, alone[i].id);
    }
    tlr_joint_free(j);
    tlr_session_free(s);
    rig_close(&r);
}
END_TEST

/* With both candidates shown, the same text; without, no head where it asked. */
START_TEST(explaining_changes_nothing)
{
    struct rig r = rig_open();
    enum tlr_policy_kind kind = (enum tlr_policy_kind)_i;
    struct tlr_expert e;
    MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
    struct tlr_joint_options o =
        options_of(&r, kind, middle_tau(&r, kind), &e);
    struct tlr_joint_token plain[N_TOK], shown[N_TOK];
    struct tlr_joint_totals totals;
    int n_differ = 0;
    run_joint(&r, &o, plain, &totals);
    o.explain = true;
    run_joint(&r, &o, shown, &totals);
    for (int t = 0; t < N_TOK; t++) {
        const struct tlr_joint_token *s = &shown[t];
        ck_assert_int_eq(plain[t].id, s->id);
        ck_assert_int_eq(plain[t].is_asked, s->is_asked);
        ck_assert(plain[t].trust == s->trust);
        ck_assert(isnan(plain[t].signals.entropy));
        ck_assert_int_eq(s->id, s->is_llm ? s->llm : s->slm);
        ck_assert(s->slm >= 0 && s->llm >= 0);
        ck_assert_int_eq(s->signals.best, s->slm);
        ck_assert(s->signals.entropy > 0);
        n_differ += s->slm != s->llm;
    }
    ck_assert_int_ge(n_differ, 3); /* the models are not the same */
    ck_assert_int_le(n_differ, N_TOK - 3);
    ck_assert_uint_eq(totals.n_tok, N_TOK);
    tlr_expert_close(&e);
    rig_close(&r);
}
END_TEST

/* A sampled text, too: the sampler draws for tokens that stand, and no others. */
START_TEST(explaining_draws_nothing)
{
    struct rig r = rig_open();
    struct tlr_generation g;
    tlr_generation_default(&g);
    g.temperature = 1.0f;
    g.top_k = 8 * _i; /* 0: all logits */
    struct tlr_joint_token runs[2][N_TOK];
    struct tlr_joint_totals totals;
    int n_drawn = 0;
    for (int k = 0; k < 2; k++) {
        struct tlr_expert e;
        struct tlr_sampler *sampler = NULL;
        MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
        MUST(tlr_sampler_new(&sampler, &g, VOCAB, 3, &must_err));
        struct tlr_joint_options o = options_of(
            &r, TLR_POLICY_MLP, middle_tau(&r, TLR_POLICY_MLP), &e);
        o.sampler = sampler;
        o.explain = k == 1;
        run_joint(&r, &o, runs[k], &totals);
        tlr_sampler_free(sampler);
        tlr_expert_close(&e);
    }
    for (int t = 0; t < N_TOK; t++) {
        ck_assert_int_eq(runs[0][t].id, runs[1][t].id);
        n_drawn += runs[1][t].id != runs[1][t].signals.best;
    }
    ck_assert_int_gt(n_drawn, 0); /* it was not greedy */
    rig_close(&r);
}
END_TEST

START_TEST(modes_are_the_ends_of_the_policies)
{
    struct rig r = rig_open();
    struct tlr_expert e;
    struct tlr_joint_token always[N_TOK], never[N_TOK], large[N_TOK],
        small[N_TOK];
    struct tlr_joint_totals totals;
    MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
    struct tlr_joint_options o =
        options_of(&r, TLR_POLICY_ALWAYS, -INFINITY, &e);
    run_joint(&r, &o, always, &totals);
    ck_assert_uint_eq(totals.n_llm, N_TOK);
    o.policy.kind = TLR_POLICY_NEVER;
    o.policy.tau = INFINITY;
    run_joint(&r, &o, never, &totals);
    ck_assert_uint_eq(totals.n_llm, 0);
    o.mode = TLR_LARGE_ONLY;
    o.prompt = r.prompt;
    o.n_prompt = N_PROMPT;
    run_joint(&r, &o, large, &totals);
    ck_assert_uint_eq(totals.n_llm, N_TOK);
    ck_assert_uint_eq(totals.slm_ns, 0);
    o.mode = TLR_SMALL_ONLY;
    o.expert = NULL;
    run_joint(&r, &o, small, &totals);
    ck_assert_uint_eq(totals.n_asked, 0);
    bool differ = false;
    for (int t = 0; t < N_TOK; t++) {
        ck_assert_int_eq(always[t].id, large[t].id);
        ck_assert_int_eq(never[t].id, small[t].id);
        ck_assert(isnan(large[t].trust) && isnan(small[t].trust));
        differ = differ || large[t].id != small[t].id;
    }
    ck_assert(differ);
    tlr_expert_close(&e);
    rig_close(&r);
}
END_TEST

/* ---- failures ---- */

START_TEST(without_an_expert_it_only_marks)
{
    struct rig r = rig_open();
    struct tlr_joint_token own[N_TOK], marked[N_TOK];
    struct tlr_joint_totals totals;
    struct tlr_joint_options o = options_of(&r, TLR_POLICY_NEVER, 0, NULL);
    run_joint(&r, &o, own, &totals);
    o = options_of(&r, TLR_POLICY_MLP, middle_tau(&r, TLR_POLICY_MLP), NULL);
    run_joint(&r, &o, marked, &totals);
    for (int t = 0; t < N_TOK; t++)
        ck_assert_int_eq(own[t].id, marked[t].id);
    ck_assert_uint_gt(totals.n_asked, 0);
    ck_assert_uint_eq(totals.n_llm, 0);
    ck_assert_uint_eq(totals.n_failed, 0);
    o.mode = TLR_LARGE_ONLY;
    struct tlr_session *s = session_on(r.slm);
    struct tlr_joint *j = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_joint_new(&j, s, r.slm, &o, &err), TLR_EUSAGE);
    ck_assert_ptr_null(j);
    tlr_session_free(s);
    rig_close(&r);
}
END_TEST

static void check_failing(struct rig_expert table, const char *why)
{
    struct rig r = rig_open();
    struct tlr_expert e = rig_expert(&table);
    struct tlr_joint_options o = options_of(&r, TLR_POLICY_ALWAYS, 0, &e);
    struct tlr_session *s = session_on(r.slm);
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    struct tlr_err err = TLR_ERR_INIT;
    MUST(tlr_prefill(s, r.prompt, N_PROMPT, 0, &must_err));
    int32_t best;
    float logit;
    MUST(tlr_top(s, 1, &best, &logit, &must_err));
    MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
    ck_assert_str_eq(tlr_joint_failure(j), "");
    MUST(tlr_joint_next(j, &t, &must_err));
    ck_assert(t.is_asked && t.is_failed && !t.is_llm);
    ck_assert_int_eq(t.llm, -1);
    ck_assert_int_eq(t.id, best);
    ck_assert_int_eq(t.slm, best);
    ck_assert_msg(strstr(tlr_joint_failure(j), why) != NULL, "%s",
                  tlr_joint_failure(j));
    ck_assert_uint_eq(tlr_joint_read(j).n_failed, 1);
    tlr_joint_free(j);
    o.require_expert = true;
    MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
    ck_assert_int_ne(tlr_joint_next(j, &t, &err), 0);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
    tlr_joint_free(j);
    tlr_session_free(s);
    rig_close(&r);
}

START_TEST(a_failing_expert_is_lived_with)
{
    check_failing((struct rig_expert){.id = 3, .n_tok = 1, .fail_every = 1,
                                      .fail_code = TLR_EIO},
                  "no answer");
    check_failing((struct rig_expert){.id = VOCAB, .n_tok = 1},
                  "expected token ids below 320, found 320");
    check_failing((struct rig_expert){.id = -1, .n_tok = 1}, "found -1");
    check_failing((struct rig_expert){.id = 1, .n_tok = 0},
                  "expected 1 to 1 tokens, found 0");
    check_failing((struct rig_expert){.id = 1, .n_tok = 2},
                  "expected 1 to 1 tokens, found 2");
}
END_TEST

/* Every other ask fails: its tokens take turns with the small model's. */
START_TEST(failures_are_counted)
{
    struct rig r = rig_open();
    struct rig_expert table = {.id = 7, .n_tok = 1, .fail_every = 2,
                               .fail_code = TLR_EIO};
    struct tlr_expert e = rig_expert(&table);
    struct tlr_joint_token got[N_TOK];
    struct tlr_joint_totals totals;
    struct tlr_joint_options o = options_of(&r, TLR_POLICY_ALWAYS, 0, &e);
    run_joint(&r, &o, got, &totals);
    ck_assert_uint_eq(totals.n_failed, N_TOK / 2);
    ck_assert_uint_eq(totals.n_llm, N_TOK / 2);
    ck_assert_uint_eq(totals.n_asked, N_TOK);
    for (int t = 0; t < N_TOK; t++) {
        ck_assert_int_eq(got[t].is_failed, t % 2);
        ck_assert(got[t].is_llm ? got[t].id == 7 : got[t].id == got[t].slm);
    }
    /* An interrupt is no failure to live with. */
    table = (struct rig_expert){.fail_every = 1, .fail_code = TLR_ECANCELLED};
    struct tlr_session *s = session_on(r.slm);
    struct tlr_joint *j = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    MUST(tlr_prefill(s, r.prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
    ck_assert_int_eq(tlr_joint_next(j, &got[0], &err), TLR_ECANCELLED);
    tlr_joint_free(j);
    tlr_session_free(s);
    rig_close(&r);
}
END_TEST

START_TEST(a_full_context_is_an_error)
{
    struct rig r = rig_open();
    struct tlr_expert e;
    MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
    for (int mode = TLR_JOINT; mode <= TLR_LARGE_ONLY; mode++) {
        struct tlr_joint_options o = options_of(&r, TLR_POLICY_ALWAYS, 0, &e);
        struct tlr_session *s = new_session(
            r.slm, (struct tlr_session_options){.n_ctx = N_PROMPT + 2});
        struct tlr_joint *j = NULL;
        struct tlr_joint_token t;
        struct tlr_err err = TLR_ERR_INIT;
        o.mode = (enum tlr_joint_mode)mode;
        MUST(tlr_prefill(s, r.prompt, N_PROMPT, 0, &must_err));
        MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
        for (int i = 0; i < 3; i++)
            MUST(tlr_joint_next(j, &t, &must_err));
        ck_assert_int_eq(tlr_joint_next(j, &t, &err), TLR_ELIMIT);
        tlr_joint_free(j);
        tlr_session_free(s);
    }
    tlr_expert_close(&e);
    rig_close(&r);
}
END_TEST

/* ---- memory ---- */

START_TEST(a_token_allocates_nothing)
{
    struct rig r = rig_open();
    for (int k = 0; k < 2 * TLR_N_POLICIES; k++) {
        enum tlr_policy_kind kind = (enum tlr_policy_kind)(k / 2);
        struct tlr_expert e;
        MUST(tlr_expert_open_model(&e, r.llm, r.slm, NULL, &must_err));
        struct tlr_joint_options o =
            options_of(&r, kind, middle_tau(&r, kind), &e);
        o.explain = k % 2;
        struct tlr_session *s = session_on(r.slm);
        struct tlr_joint *j = NULL;
        struct tlr_joint_token t;
        MUST(tlr_prefill(s, r.prompt, N_PROMPT, 0, &must_err));
        MUST(tlr_joint_new(&j, s, r.slm, &o, &must_err));
        unsigned long long before = tlr_mem_count();
        ck_assert_uint_gt(before, 0);
        for (int i = 0; i < N_TOK; i++)
            MUST(tlr_joint_next(j, &t, &must_err));
        ck_assert_uint_eq(tlr_mem_count(), before);
        ck_assert(kind == TLR_POLICY_NEVER || tlr_joint_read(j).n_llm > 0);
        tlr_joint_free(j);
        tlr_session_free(s);
        tlr_expert_close(&e);
    }
    rig_close(&r);
}
END_TEST

START_TEST(memory_may_run_out)
{
    struct rig r = rig_open();
    struct tlr_session *s = session_on(r.slm);
    struct rig_expert table = {.id = 1, .n_tok = 1};
    struct tlr_expert e = rig_expert(&table);
    struct tlr_joint_options o = options_of(&r, TLR_POLICY_MLP, 0.5f, &e);
    struct tlr_joint *j = NULL;
    int rc = TLR_ENOMEM;
    long k = 0;
    for (; rc; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        rc = tlr_joint_new(&j, s, r.slm, &o, &err);
        tlr_mem_fail_after(-1);
        ck_assert(rc == 0 || (rc == TLR_ENOMEM && err.text[0] && !j));
        ck_assert_int_lt(k, 100);
    }
    ck_assert_int_gt(k, 1);
    tlr_joint_free(j);
    tlr_joint_free(NULL);
    struct tlr_expert local;
    for (k = 0, rc = TLR_ENOMEM; rc; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        rc = tlr_expert_open_model(&local, r.llm, r.slm, NULL, &err);
        tlr_mem_fail_after(-1);
        ck_assert(rc == 0 || (rc == TLR_ENOMEM && err.text[0]));
        ck_assert_int_lt(k, 100);
    }
    ck_assert_int_gt(k, 1);
    tlr_expert_close(&local);
    tlr_session_free(s);
    rig_close(&r);
}
END_TEST

Suite *suite_joint(void);
Suite *suite_joint(void)
{
    Suite *s = suite_create("joint");
    TCase *tc = tcase_create("joint");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, equals_the_naive_loop, 0, TLR_N_POLICIES);
    tcase_add_loop_test(tc, what_is_found_together_is_enough, 0,
                        TLR_N_POLICIES);
    tcase_add_loop_test(tc, explaining_changes_nothing, 0, TLR_POLICY_RANDOM);
    tcase_add_loop_test(tc, explaining_draws_nothing, 0, 2);
    tcase_add_test(tc, modes_are_the_ends_of_the_policies);
    tcase_add_test(tc, without_an_expert_it_only_marks);
    tcase_add_test(tc, a_failing_expert_is_lived_with);
    tcase_add_test(tc, failures_are_counted);
    tcase_add_test(tc, a_full_context_is_an_error);
    tcase_add_test(tc, a_token_allocates_nothing);
    tcase_add_test(tc, memory_may_run_out);
    suite_add_tcase(s, tc);
    return s;
}
