/* test_optimistic.c - running ahead changes nothing that can be seen: hundreds of
 * drawn schedules beside the serial loop with the same answers. */
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/decode.h"
#include "tests/router/oracle.h"
#include "tests/router/rig.h"

enum { N_PROMPT = 12, MOST_TOK = 48, VOCAB = 320, N_SCHEDULES = 24 };

struct stage {
    struct tlr_model *slm;
    struct tlr_router *routers[TLR_N_POLICIES];
    int32_t prompt[N_PROMPT];
};

static struct stage stage_open(enum tlr_type type)
{
    struct stage s = {0};
    s.slm = random_model("tiny-llama", type);
    for (int k = 0; k < TLR_N_POLICIES; k++)
        if (tlr_policy_is_trained(k))
            s.routers[k] = rig_router(k, s.slm, 5 + (uint64_t)k);
    golden_ids(s.slm, s.prompt, N_PROMPT);
    return s;
}

static void stage_close(struct stage *s)
{
    for (int k = 0; k < TLR_N_POLICIES; k++)
        tlr_router_free(s->routers[k]);
    tlr_model_close(s->slm);
}

/* One run and all that it leaves behind. */
struct play {
    struct tlr_joint_token tokens[MOST_TOK];
    int n, rc;
    struct tlr_joint_totals totals;
    char failure[TLR_ERR_TEXT_BYTES], error[TLR_ERR_TEXT_BYTES];
    int32_t ids[N_PROMPT + MOST_TOK];
    uint32_t n_ids;
    uint64_t draw;
    int n_most_open, n_open;
    uint64_t n_parked, n_shared;
};

struct setting {
    struct oracle oracle; /* what is "in" of it */
    struct tlr_policy policy;
    struct tlr_generation sampling;
    bool is_sampled, is_required, is_budgeted, knows_end;
    uint32_t n_ctx;
    int max_tok;
    enum tlr_joint_mode mode;
    bool explain;
    int burst;
    bool with_bursts; /* draw() chooses it */
    bool parks; /* driven as a server does it, beside another text */
};

/* A step of the text and of another one, then the text's next token; p->n_parked
 * counts the calls that had nothing to do, p->n_shared the steps. */
static int next_in_company(struct tlr_joint *j, struct tlr_session *s,
                           struct tlr_session *other, struct play *p,
                           struct tlr_joint_token *t, struct tlr_err *err)
{
    for (;;) {
        struct tlr_session *both[2] = {s, other};
        int32_t ids[2] = {tlr_joint_pending(j), 7};
        if (tlr_pos(other) == 100)
            MUST(tlr_rewind(other, 1, &must_err));
        if (ids[0] >= 0 &&
            !tlr_decode_together(both, ids, 2, TLR_STEP_LOGITS, NULL)) {
            tlr_joint_appended(j);
            p->n_shared++;
        }
        int rc = tlr_joint_next(j, t, err);
        if (rc != TLR_EPENDING)
            return rc;
        ck_assert_str_eq(err->text, "");
        p->n_parked += tlr_joint_is_waiting(j);
    }
}

static void play(const struct stage *st, const struct setting *set,
                 struct tlr_speculation ahead, struct play *out)
{
    static struct oracle oracle; /* large */
    struct tlr_session *s = new_session(
        st->slm, (struct tlr_session_options){.n_ctx = set->n_ctx});
    struct tlr_sampler *sampler = NULL;
    struct tlr_joint *j = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    memset(out, 0, sizeof *out);
    oracle = set->oracle;
    struct tlr_expert e = oracle_open(&oracle);
    e.is_budgeted = set->is_budgeted;
    if (set->is_sampled)
        MUST(tlr_sampler_new(&sampler, &set->sampling, VOCAB, 3, &must_err));
    struct tlr_session *other = new_session(
        st->slm, (struct tlr_session_options){.n_ctx = 128});
    struct tlr_joint_options o = {
        .mode = set->mode, .policy = set->policy, .expert = &e,
        .sampler = sampler, .require_expert = set->is_required,
        .ahead = ahead, .burst = set->burst, .explain = set->explain,
        .parks = set->parks};
    MUST(tlr_prefill(s, st->prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, st->slm, &o, &must_err));
    while (out->n < set->max_tok) {
        struct tlr_joint_token *t = &out->tokens[out->n];
        out->rc = set->parks ? next_in_company(j, s, other, out, t, &err)
                             : tlr_joint_next(j, t, &err);
        if (out->rc)
            break;
        ck_assert_uint_eq(tlr_joint_pos(j), (uint32_t)(N_PROMPT + out->n));
        if (out->tokens[out->n++].id == set->oracle.end_id)
            break;
    }
    out->totals = tlr_joint_read(j);
    snprintf(out->failure, sizeof out->failure, "%s", tlr_joint_failure(j));
    snprintf(out->error, sizeof out->error, "%s", err.text);
    tlr_joint_stop(j);
    out->draw = sampler ? tlr_sampler_state(sampler) : 0;
    out->n_ids = tlr_pos(s);
    memcpy(out->ids, tlr_ids_of(s), out->n_ids * sizeof *out->ids);
    out->n_most_open = oracle.n_most_open;
    out->n_open = oracle.n_open;
    tlr_joint_free(j);
    tlr_sampler_free(sampler);
    tlr_session_free(other);
    tlr_session_free(s);
    oracle_close(&oracle);
}

static void same_token(const struct tlr_joint_token *a,
                       const struct tlr_joint_token *b)
{
    ck_assert_int_eq(a->id, b->id);
    ck_assert_int_eq(a->slm, b->slm);
    ck_assert_int_eq(a->llm, b->llm);
    ck_assert_int_eq(a->is_llm, b->is_llm);
    ck_assert_int_eq(a->is_asked, b->is_asked);
    ck_assert_int_eq(a->is_failed, b->is_failed);
    ck_assert_mem_eq(&a->trust, &b->trust, sizeof a->trust);
    ck_assert_int_eq(a->signals.best, b->signals.best);
}

static void same_play(const struct play *a, const struct play *b)
{
    ck_assert_int_eq(a->n, b->n);
    for (int i = 0; i < a->n; i++)
        same_token(&a->tokens[i], &b->tokens[i]);
    ck_assert_int_eq(a->rc, b->rc);
    ck_assert_str_eq(a->error, b->error);
    ck_assert_str_eq(a->failure, b->failure);
    ck_assert_uint_eq(a->totals.n_tok, b->totals.n_tok);
    ck_assert_uint_eq(a->totals.n_asked, b->totals.n_asked);
    ck_assert_uint_eq(a->totals.n_llm, b->totals.n_llm);
    ck_assert_uint_eq(a->totals.n_failed, b->totals.n_failed);
    ck_assert_uint_eq(a->draw, b->draw);
    /* The serial loop appends the last token before it asks in vain. */
    ck_assert(a->n_ids == b->n_ids || (a->rc && a->n_ids == b->n_ids + 1));
    ck_assert_mem_eq(a->ids, b->ids, b->n_ids * sizeof *b->ids);
    ck_assert_int_eq(b->n_open, 0);
}

/* What happened over all schedules, so that nothing passes by not happening. */
struct seen {
    uint64_t n_tok, n_llm, n_failed, n_redone, n_lost_calls, n_ended, n_errors;
    uint64_t n_branches, n_parked, n_shared;
    uint64_t n_given; /* tokens of a burst behind its first */
    int n_most_open;
};

static const struct tlr_speculation serial = {0};

static void compare(const struct stage *st, const struct setting *set,
                    struct tlr_speculation ahead, struct seen *seen)
{
    static struct play a, b;
    struct setting alone = *set;
    alone.parks = false;
    alone.oracle.busy = 0;
    play(st, &alone, serial, &a);
    play(st, set, ahead, &b);
    same_play(&a, &b);
    ck_assert_uint_ge(b.totals.n_calls, b.totals.n_asked);
    /* The bound, with the ask that an error or the end left behind. */
    double rate = set->is_budgeted ? 1 : ahead.calls;
    if (ahead.calls > 0)
        ck_assert_double_le((double)b.totals.n_calls,
                            rate * ((double)b.totals.n_asked + 1) + 1e-6);
    seen->n_tok += b.totals.n_tok;
    seen->n_llm += b.totals.n_llm;
    seen->n_failed += b.totals.n_failed;
    seen->n_redone += b.totals.n_redone;
    seen->n_branches += b.totals.n_branches;
    seen->n_parked += b.n_parked;
    seen->n_shared += b.n_shared;
    seen->n_lost_calls += b.totals.n_calls - b.totals.n_asked;
    for (int i = 0; i < b.n; i++)
        seen->n_given += b.tokens[i].is_llm && !b.tokens[i].is_asked;
    seen->n_errors += b.rc != 0;
    seen->n_ended += b.n > 0 && b.tokens[b.n - 1].id == set->oracle.end_id;
    if (b.n_most_open > seen->n_most_open)
        seen->n_most_open = b.n_most_open;
}

/* The threshold under which a third of a run's trusts lie. */
static float middle_tau(const struct stage *st, const struct setting *set)
{
    static struct play own;
    struct setting never = *set;
    never.policy.tau = -INFINITY;
    never.max_tok = MOST_TOK;
    never.n_ctx = 128;
    never.is_sampled = false;
    never.oracle.budget = -1;
    play(st, &never, serial, &own);
    float sorted[MOST_TOK];
    for (int i = 0; i < own.n; i++) {
        sorted[i] = own.tokens[i].trust;
        for (int k = i; k > 0 && sorted[k] < sorted[k - 1]; k--) {
            float swap = sorted[k];
            sorted[k] = sorted[k - 1];
            sorted[k - 1] = swap;
        }
    }
    return sorted[own.n / 3 + 1];
}

static struct setting setting_of(const struct stage *st,
                                 enum tlr_policy_kind kind)
{
    struct setting set = {
        .oracle = {.like = st->slm, .seed = 11, .agree = 0.6,
                   .end_id = -1, .fail_code = TLR_EIO, .most_ticks = 20,
                   .carries = TLR_FLIGHT_MAX, .budget = -1},
        .policy = {.kind = kind, .seed = 9, .router = st->routers[kind]},
        .n_ctx = 128, .max_tok = MOST_TOK};
    tlr_generation_default(&set.sampling);
    set.policy.tau = middle_tau(st, &set);
    return set;
}

static double drawn(uint64_t *h)
{
    *h = tlr_hash_u64(*h, 1);
    return (double)(*h >> 11) * 0x1p-53;
}

/* Another schedule: delays, answers, what the expert carries, how much may be
 * asked. */
static struct tlr_speculation draw(struct setting *set, uint64_t seed)
{
    static const double rates[] = {1, 1.3, 1.6, 2, 3, 100};
    static const int bursts[] = {2, 3, 4, 7, TLR_BURST_MAX, TLR_EXPERT_AUTO};
    uint64_t h = tlr_hash_u64(77, seed), of_burst = tlr_hash_u64(78, seed);
    set->burst = set->with_bursts ? bursts[of_burst % 6] : 0;
    set->oracle.shorter = of_burst % 5 == 0 ? 0.5 : 0;
    set->oracle.seed = seed;
    set->oracle.schedule = h;
    set->oracle.agree = drawn(&h);
    set->oracle.second = drawn(&h) * (1 - set->oracle.agree);
    set->oracle.most_ticks = (int)(drawn(&h) * drawn(&h) * 60);
    set->oracle.carries = 1 + (int)(drawn(&h) * TLR_FLIGHT_MAX);
    return (struct tlr_speculation){
        .calls = rates[(int)(drawn(&h) * 6)],
        .n_flight = (int)(drawn(&h) * (TLR_FLIGHT_MAX + 1)),
        .n_lanes = 1 + (int)(drawn(&h) * TLR_LANE_MAX),
        .max_tok = drawn(&h) < 0.5 ? MOST_TOK : 0};
}

static void check_bursts(const struct setting *set, const struct seen *seen)
{
    if (set->with_bursts)
        ck_assert_uint_gt(seen->n_given, seen->n_tok / 10);
    else
        ck_assert_uint_eq(seen->n_given, 0);
}

START_TEST(equals_the_serial_loop)
{
    enum tlr_policy_kind kind = (enum tlr_policy_kind)(_i % TLR_N_POLICIES);
    int round = _i / TLR_N_POLICIES;
    struct stage st = stage_open(round % 2 ? TLR_F32 : TLR_Q4N);
    struct setting set = setting_of(&st, kind);
    set.with_bursts = round >= 2;
    set.oracle.second = 0.2;
    struct seen seen = {0};
    for (int k = 0; k < N_SCHEDULES; k++)
        compare(&st, &set, draw(&set, (uint64_t)(100 * _i + k)), &seen);
    ck_assert_uint_eq(seen.n_tok, N_SCHEDULES * MOST_TOK);
    if (kind != TLR_POLICY_NEVER) {
        ck_assert_uint_gt(seen.n_llm, seen.n_tok / 20);
        ck_assert_uint_gt(seen.n_redone, 50);
        ck_assert_uint_gt(seen.n_lost_calls, 5);
        ck_assert_int_ge(seen.n_most_open, 3);
        ck_assert_uint_gt(seen.n_branches, set.with_bursts ? 3 : 10);
        check_bursts(&set, &seen);
    }
    stage_close(&st);
}
END_TEST

/* Failures of every kind: late, at once, and with a code that must not be
 * mistaken for a full line. */
START_TEST(fails_where_the_serial_loop_fails)
{
    static const int codes[] = {TLR_EIO, TLR_ELIMIT, TLR_EFORMAT};
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_MARGIN);
    struct seen seen = {0};
    set.with_bursts = _i == 1;
    for (int k = 0; k < N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)k);
        set.oracle.fail = 0.4;
        set.oracle.fail_code = codes[k % 3];
        set.oracle.lost_on_submit = k % 3 == 1 ? 0 : 0.5;
        compare(&st, &set, ahead, &seen);
    }
    ck_assert_uint_gt(seen.n_failed, set.with_bursts ? 50 : 100);
    ck_assert_uint_gt(seen.n_branches, 10);
    ck_assert_uint_eq(seen.n_errors, 0);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* Where failure ends the run, the tokens before it come out first. */
START_TEST(ends_where_the_serial_loop_ends)
{
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_ENTROPY);
    struct seen seen = {0};
    set.with_bursts = _i == 1;
    for (int k = 0; k < N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)k);
        set.oracle.fail = 0.1;
        set.oracle.lost_on_submit = 0.3;
        set.is_required = k % 2;
        set.oracle.fail_code = k % 2 ? TLR_EIO : TLR_ECANCELLED;
        compare(&st, &set, ahead, &seen);
    }
    ck_assert_uint_ge(seen.n_errors, N_SCHEDULES / (set.with_bursts ? 4 : 2));
    ck_assert_uint_gt(seen.n_llm, 20);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* With a budget of calls nothing is asked in vain, and it ends at the same
 * token. */
START_TEST(a_budget_buys_the_same_tokens)
{
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_MAXPROB);
    struct seen seen = {0};
    set.with_bursts = _i == 1;
    set.is_budgeted = true;
    for (int k = 0; k < N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)k);
        set.oracle.budget = k % 8;
        compare(&st, &set, ahead, &seen);
    }
    ck_assert_uint_eq(seen.n_lost_calls, 0);
    ck_assert_uint_gt(seen.n_llm, 40);
    ck_assert_uint_gt(seen.n_failed, 40);
    ck_assert_uint_gt(seen.n_redone, 20);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* An end of text inside what runs ahead, known to be one or not; a limit of
 * tokens; the end of the context. */
START_TEST(stops_where_the_serial_loop_stops)
{
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_MLP);
    struct tlr_generation *known =
        (struct tlr_generation *)(uintptr_t)tlr_model_generation(st.slm);
    struct seen seen = {0};
    set.with_bursts = _i == 1;
    for (int k = 0; k < 3 * N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)k);
        static struct play own;
        set.oracle.end = 0;
        set.oracle.end_id = -1;
        set.n_ctx = 128;
        set.max_tok = MOST_TOK;
        if (k % 3 == 0) { /* a token that this very text has */
            play(&st, &set, serial, &own);
            set.oracle.end_id = own.tokens[5 + k % 30].id;
            set.oracle.end = 0.05;
            known->n_eos = k % 2;
            known->eos[0] = set.oracle.end_id;
        } else if (k % 3 == 1) {
            set.max_tok = 1 + k % 20;
            ahead.max_tok = k % 2 ? (uint32_t)set.max_tok : 0;
        } else {
            set.n_ctx = N_PROMPT + (uint32_t)(k % 25);
        }
        uint64_t before = seen.n_errors;
        compare(&st, &set, ahead, &seen);
        ck_assert_uint_eq(seen.n_errors - before, k % 3 == 2);
        known->n_eos = 0;
    }
    ck_assert_uint_ge(seen.n_ended, N_SCHEDULES - 2);
    ck_assert_uint_gt(seen.n_branches, 10);
    ck_assert_uint_gt(seen.n_redone, 100);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* A text that is drawn: draws are taken back with their tokens. */
START_TEST(sampled_text_is_the_same_too)
{
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_RANDOM);
    struct seen seen = {0};
    set.is_sampled = true;
    set.with_bursts = _i == 1;
    set.policy.tau = 0.3f;
    for (int k = 0; k < N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)k);
        set.sampling.temperature = k % 4 == 3 ? 0.0f : 1.0f;
        set.sampling.top_k = k % 2 ? 8 : 0;
        set.sampling.repeat_penalty = k % 3 ? 1.0f : 1.3f;
        set.oracle.fail = 0.2;
        compare(&st, &set, ahead, &seen);
    }
    ck_assert_uint_gt(seen.n_redone, 100);
    ck_assert_uint_gt(seen.n_failed, 20);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* Parked while others take steps: the loop that runs ahead, the serial one, with
 * explain, and the large model alone; with failures and full lines. */
START_TEST(parked_text_is_the_same)
{
    static const struct tlr_speculation none = {0};
    int way = _i % 4;
    struct stage st = stage_open(_i % 2 ? TLR_F32 : TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_MARGIN);
    struct seen seen = {0};
    set.parks = true;
    set.with_bursts = _i >= 4;
    set.explain = way == 2;
    set.mode = way == 3 ? TLR_LARGE_ONLY : TLR_JOINT;
    for (int k = 0; k < 2 * N_SCHEDULES; k++) {
        struct tlr_speculation ahead = draw(&set, (uint64_t)(100 * _i + k));
        set.oracle.fail = way == 3 ? 0.02 : 0.2;
        set.oracle.busy = 0.3;
        set.is_sampled = k % 2;
        set.sampling.temperature = 1.0f;
        compare(&st, &set, way == 0 ? ahead : none, &seen);
    }
    ck_assert_uint_gt(seen.n_parked, set.with_bursts ? 80 : 200);
    ck_assert_uint_gt(seen.n_llm, 200);
    if (way == 3)
        ck_assert_uint_gt(seen.n_errors, 10);
    else
        ck_assert_uint_gt(seen.n_failed, 100);
    if (way < 3) /* a shared step for most tokens */
        ck_assert_uint_gt(seen.n_shared, seen.n_tok / 2);
    if (way == 0)
        ck_assert_uint_gt(seen.n_redone, 100);
    check_bursts(&set, &seen);
    stage_close(&st);
}
END_TEST

/* Stopped in the middle and gone on with: the text does not notice. */
START_TEST(goes_on_after_a_stop)
{
    static struct play want;
    static struct oracle oracle;
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_MARGIN);
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    set.burst = _i == 0 ? 1 : _i == 1 ? 4 : TLR_EXPERT_AUTO;
    play(&st, &set, serial, &want);
    oracle = set.oracle;
    struct tlr_expert e = oracle_open(&oracle);
    struct tlr_session *s =
        new_session(st.slm, (struct tlr_session_options){.n_ctx = 128});
    struct tlr_joint_options o = {.policy = set.policy, .expert = &e,
                                  .ahead = {.calls = 3}, .burst = set.burst};
    MUST(tlr_prefill(s, st.prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, st.slm, &o, &must_err));
    tlr_joint_stop(j);
    for (int i = 0; i < MOST_TOK; i++) {
        MUST(tlr_joint_next(j, &t, &must_err));
        same_token(&want.tokens[i], &t);
        if (i % 5 == 4) {
            tlr_joint_stop(j);
            ck_assert_uint_eq(tlr_pos(s), (uint32_t)(N_PROMPT + i));
            ck_assert_int_eq(oracle.n_open, 0);
        }
    }
    ck_assert_uint_gt(tlr_joint_read(j).n_redone, 0);
    tlr_joint_free(j);
    tlr_session_free(s);
    oracle_close(&oracle);
    stage_close(&st);
}
END_TEST

START_TEST(a_token_ahead_allocates_nothing)
{
    static struct oracle oracle;
    struct stage st = stage_open(TLR_Q4N);
    struct setting set = setting_of(&st, TLR_POLICY_ENTROPY);
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    oracle = set.oracle;
    struct tlr_expert e = oracle_open(&oracle);
    struct tlr_session *s =
        new_session(st.slm, (struct tlr_session_options){.n_ctx = 128});
    struct tlr_joint_options o = {.policy = set.policy, .expert = &e,
                                  .ahead = {.calls = 3}};
    MUST(tlr_prefill(s, st.prompt, N_PROMPT, 0, &must_err));
    int rc = TLR_ENOMEM;
    long k = 0;
    for (; rc; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        tlr_mem_fail_after(k);
        rc = tlr_joint_new(&j, s, st.slm, &o, &err);
        tlr_mem_fail_after(-1);
        ck_assert(rc == 0 || (rc == TLR_ENOMEM && err.text[0] && !j));
        ck_assert_int_lt(k, 100);
    }
    ck_assert_int_ge(k, 4);
    unsigned long long before = tlr_mem_count();
    for (int i = 0; i < MOST_TOK; i++)
        MUST(tlr_joint_next(j, &t, &must_err));
    ck_assert_uint_eq(tlr_mem_count(), before);
    ck_assert_uint_gt(tlr_joint_read(j).n_redone, 0);
    tlr_joint_free(j);
    tlr_session_free(s);
    oracle_close(&oracle);
    stage_close(&st);
}
END_TEST

Suite *suite_optimistic(void);
Suite *suite_optimistic(void)
{
    Suite *s = suite_create("optimistic");
    TCase *tc = tcase_create("optimistic");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, equals_the_serial_loop, 0, 4 * TLR_N_POLICIES);
    tcase_add_loop_test(tc, fails_where_the_serial_loop_fails, 0, 2);
    tcase_add_loop_test(tc, ends_where_the_serial_loop_ends, 0, 2);
    tcase_add_loop_test(tc, a_budget_buys_the_same_tokens, 0, 2);
    tcase_add_loop_test(tc, stops_where_the_serial_loop_stops, 0, 2);
    tcase_add_loop_test(tc, sampled_text_is_the_same_too, 0, 2);
    tcase_add_loop_test(tc, parked_text_is_the_same, 0, 8);
    tcase_add_loop_test(tc, goes_on_after_a_stop, 0, 3);
    tcase_add_test(tc, a_token_ahead_allocates_nothing);
    suite_add_tcase(s, tc);
    return s;
}
