/* test_burst.c - one question for several tokens: which they are, who wrote them, how
 * many are asked for, and when a large model that is unsure goes on.  Each token is
 * held to what the large model writes when it is asked for that one alone. */
#include <math.h>

#include "router/decode.h"
#include "tests/router/rig.h"

enum { N_PROMPT = 12, N_TOK = 40, VOCAB = 320 };

struct stage {
    struct tlr_model *slm, *llm;
    int32_t prompt[N_PROMPT];
};

/* So that some choices are sure and some are not. */
static void sharpen(float *rows, uint32_t first, uint32_t n, uint32_t n_cols)
{
    (void)first;
    for (uint32_t i = 0; i < n * n_cols; i++)
        rows[i] *= 2.5f;
}

static struct stage stage_open(void)
{
    struct stage s = {.slm = random_model("tiny-llama", TLR_Q8)};
    s.llm = edited_model("tiny-llama", TLR_Q4, "embed", sharpen);
    golden_ids(s.slm, s.prompt, N_PROMPT);
    return s;
}

static void stage_close(struct stage *s)
{
    tlr_model_close(s->slm);
    tlr_model_close(s->llm);
}

/* An expert that counts what it is asked for. */
struct counting {
    struct tlr_expert inner;
    int n_asks, n_tok;
};

static int ask_counting(void *self, const int32_t *ids, size_t n, int n_tok,
                        struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct counting *c = self;
    c->n_asks++;
    c->n_tok += n_tok;
    return c->inner.ops->ask(c->inner.self, ids, n, n_tok, out, err);
}

static struct tlr_expert counting_open(const struct stage *st,
                                       struct counting *c)
{
    static const struct tlr_expert_ops ops = {.ask = ask_counting};
    *c = (struct counting){.n_asks = 0};
    MUST(tlr_expert_open_model(&c->inner, st->llm, st->slm, NULL, &must_err));
    return (struct tlr_expert){.ops = &ops, .self = c, .name = "counting"};
}

struct run {
    struct tlr_joint_token t[N_TOK];
    struct tlr_joint_totals totals;
    struct counting asked;
};

static void run(const struct stage *st, struct tlr_joint_options o,
                struct run *out)
{
    struct tlr_session *s =
        new_session(st->slm, (struct tlr_session_options){.n_ctx = 128});
    struct tlr_expert e = counting_open(st, &out->asked);
    struct tlr_joint *j = NULL;
    o.expert = &e;
    o.policy = (struct tlr_policy){.kind = TLR_POLICY_RANDOM, .tau = 0.2f,
                                   .seed = 9};
    MUST(tlr_prefill(s, st->prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, st->slm, &o, &must_err));
    for (int i = 0; i < N_TOK; i++)
        MUST(tlr_joint_next(j, &out->t[i], &must_err));
    out->totals = tlr_joint_read(j);
    tlr_joint_free(j);
    tlr_session_free(s);
    tlr_expert_close(&out->asked.inner);
}

/* What the large model writes at i behind the run's tokens, and how sure it is. */
static int32_t alone(const struct stage *st, const struct run *r, int i,
                     double *p)
{
    struct tlr_session *s =
        new_session(st->llm, (struct tlr_session_options){.n_ctx = 128});
    double sum = 0;
    MUST(tlr_prefill(s, st->prompt, N_PROMPT, 0, &must_err));
    for (int k = 0; k < i; k++)
        MUST(tlr_decode(s, r->t[k].id, 0, &must_err));
    MUST(tlr_run_head(s, &must_err));
    const float *x = tlr_logits(s);
    int32_t best = 0;
    for (int32_t k = 1; k < VOCAB; k++)
        best = x[k] > x[best] ? k : best;
    for (int32_t k = 0; k < VOCAB; k++)
        sum += exp((double)x[k] - (double)x[best]);
    tlr_session_free(s);
    *p = 1 / sum;
    return best;
}

static void check_given(const struct stage *st, const struct run *r, int i)
{
    const struct tlr_joint_token *t = &r->t[i];
    double p;
    ck_assert(t->is_llm && !t->is_failed);
    ck_assert_int_eq(t->id, t->llm);
    ck_assert_int_eq(t->id, alone(st, r, i, &p));
    if (!t->is_asked) {
        ck_assert_int_eq(t->slm, -1);
        ck_assert(isnan(t->trust));
    }
}

/* Behind each asked token stand n - 1 of the large model's, unasked. */
START_TEST(a_burst_is_one_question)
{
    static const int bursts[] = {0, 1, 2, 3, TLR_BURST_MAX};
    int n = bursts[_i] ? bursts[_i] : 1, left = 0;
    uint64_t n_llm = 0;
    struct stage st = stage_open();
    static struct run r;
    run(&st, (struct tlr_joint_options){.burst = bursts[_i]}, &r);
    for (int i = 0; i < N_TOK; i++) {
        const struct tlr_joint_token *t = &r.t[i];
        ck_assert_int_eq(t->is_llm, left > 0 || t->is_asked);
        ck_assert(left == 0 || !t->is_asked);
        left = left > 0 ? left - 1 : t->is_asked ? n - 1 : 0;
        n_llm += t->is_llm;
        if (t->is_llm)
            check_given(&st, &r, i);
        else
            ck_assert_int_eq(t->id, t->slm);
    }
    ck_assert_uint_ge(r.totals.n_asked, 3 - (n == TLR_BURST_MAX));
    ck_assert_uint_eq(r.totals.n_calls, r.totals.n_asked);
    ck_assert_uint_eq(r.totals.n_llm, n_llm);
    ck_assert_int_eq(r.asked.n_asks, (int)r.totals.n_asked);
    ck_assert_int_eq(r.asked.n_tok, n * r.asked.n_asks);
    stage_close(&st);
}
END_TEST

/* The large model alone: the text it writes token by token, in fewer questions, and
 * none for tokens that nobody wants. */
START_TEST(alone_it_is_asked_less)
{
    static struct run one, r;
    struct stage st = stage_open();
    struct tlr_joint_options o = {.mode = TLR_LARGE_ONLY, .burst = 7};
    run(&st, (struct tlr_joint_options){.mode = TLR_LARGE_ONLY}, &one);
    o.ahead.max_tok = _i ? N_TOK : 0;
    run(&st, o, &r);
    for (int i = 0; i < N_TOK; i++) {
        ck_assert_int_eq(r.t[i].id, one.t[i].id);
        ck_assert(r.t[i].is_llm && r.t[i].is_asked == (i % 7 == 0));
    }
    ck_assert_int_eq(one.asked.n_asks, N_TOK);
    ck_assert_int_eq(r.asked.n_asks, 6);
    ck_assert_int_eq(r.asked.n_tok, _i ? N_TOK : 42);
    stage_close(&st);
}
END_TEST

/* Showing what the other would write asks for one token more a position and changes
 * nothing. */
START_TEST(explaining_a_burst_changes_nothing)
{
    static struct run plain, shown;
    struct stage st = stage_open();
    struct tlr_joint_options o = {.burst = _i ? TLR_EXPERT_AUTO : 3};
    run(&st, o, &plain);
    o.explain = true;
    run(&st, o, &shown);
    for (int i = 0; i < N_TOK; i++) {
        ck_assert_int_eq(plain.t[i].id, shown.t[i].id);
        ck_assert_int_eq(plain.t[i].is_llm, shown.t[i].is_llm);
        ck_assert_int_eq(plain.t[i].is_asked, shown.t[i].is_asked);
        ck_assert(shown.t[i].slm >= 0 && shown.t[i].llm >= 0);
    }
    ck_assert_uint_eq(plain.totals.n_llm, shown.totals.n_llm);
    stage_close(&st);
}
END_TEST

/* auto: on while the token before had less than one half, four at most. */
START_TEST(unsure_it_goes_on)
{
    static struct run r;
    struct stage st = stage_open();
    struct tlr_joint_options o = {.mode = _i ? TLR_LARGE_ONLY : TLR_JOINT,
                                  .burst = TLR_EXPERT_AUTO};
    int n = 0, n_sure = 0, n_full = 0, n_goes_on = 0;
    double p = 1;
    run(&st, o, &r);
    for (int i = 0; i < N_TOK; i++) {
        const struct tlr_joint_token *t = &r.t[i];
        bool goes_on = n > 0 && n < TLR_EXPERT_AUTO_MAX && p < 0.5;
        ck_assert_int_eq(t->is_llm && !t->is_asked, goes_on);
        n_sure += n > 0 && p >= 0.5;
        n_full += n == TLR_EXPERT_AUTO_MAX && p < 0.5;
        n_goes_on += goes_on;
        n = t->is_asked ? 1 : goes_on ? n + 1 : 0;
        if (t->is_llm) {
            check_given(&st, &r, i);
            alone(&st, &r, i, &p);
        }
    }
    ck_assert_int_gt(n_goes_on, 3);
    ck_assert_int_gt(n_sure, 1);
    ck_assert_int_gt(n_full + !_i, 0);
    stage_close(&st);
}
END_TEST

/* The context's end: no token is asked for that it cannot hold. */
START_TEST(the_context_ends_a_burst)
{
    struct stage st = stage_open();
    struct counting c;
    struct tlr_expert e = counting_open(&st, &c);
    struct tlr_session *s = new_session(
        st.slm, (struct tlr_session_options){.n_ctx = N_PROMPT + 4});
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_joint_options o = {.policy = {.kind = TLR_POLICY_ALWAYS},
                                  .expert = &e, .burst = TLR_BURST_MAX};
    MUST(tlr_prefill(s, st.prompt, N_PROMPT, 0, &must_err));
    MUST(tlr_joint_new(&j, s, st.slm, &o, &must_err));
    for (int i = 0; i < 5; i++)
        MUST(tlr_joint_next(j, &t, &must_err));
    ck_assert_int_eq(c.n_asks, 1);
    ck_assert_int_eq(c.n_tok, 5);
    ck_assert_int_eq(tlr_joint_next(j, &t, &err), TLR_ELIMIT);
    tlr_joint_free(j);
    tlr_session_free(s);
    tlr_expert_close(&c.inner);
    stage_close(&st);
}
END_TEST

Suite *suite_burst(void);
Suite *suite_burst(void)
{
    Suite *s = suite_create("burst");
    TCase *tc = tcase_create("burst");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, a_burst_is_one_question, 0, 5);
    tcase_add_loop_test(tc, alone_it_is_asked_less, 0, 2);
    tcase_add_loop_test(tc, explaining_a_burst_changes_nothing, 0, 2);
    tcase_add_loop_test(tc, unsure_it_goes_on, 0, 2);
    tcase_add_test(tc, the_context_ends_a_burst);
    suite_add_tcase(s, tc);
    return s;
}
