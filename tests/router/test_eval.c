/* test_eval.c - outcomes do not depend on jobs, guesses or interruptions; what a
 * state file may hold; what points are made of. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "router/calibrate.h"
#include "router/eval.h"
#include "tests/router/tiny.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

enum { N_ITEMS = 7, N_RUNS = 8, MAX_TOK = 24 };

static const struct tlr_eval_run runs[N_RUNS] = {
    {TLR_POLICY_NEVER, 0, 0},          {TLR_POLICY_ALWAYS, 1, 1},
    {TLR_POLICY_MLP, 0.1, 0.3f},       {TLR_POLICY_MLP, 0.3, 0.5f},
    {TLR_POLICY_ENTROPY, 0.1, 0.003f}, {TLR_POLICY_ENTROPY, 0.3, 0.0035f},
    {TLR_POLICY_RANDOM, 0.1, 0.1f},    {TLR_POLICY_RANDOM, 0.3, 0.3f}};

struct rig {
    struct tlr_model *slm, *llm;
    struct tlr_router *mlp;
    struct tlr_items items;
    struct tlr_eval_models models;
    struct tlr_outcome outcomes[N_ITEMS * N_RUNS];
    uint8_t done[N_ITEMS];
    struct tlr_eval_state *state;
    int n_each, stop_after;
};

static int open_expert(void *ctx, uint32_t n_ctx, struct tlr_expert *out,
                       struct tlr_err *err)
{
    const struct rig *r = ctx;
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    o.n_ctx = n_ctx;
    o.n_threads = 1;
    o.cpu_level = (int)tlr_test_cpu_level();
    return tlr_expert_open_model(out, r->llm, r->slm, &o, err);
}

static void begin(struct rig *r)
{
    struct tlr_err err = TLR_ERR_INIT;
    memset(r, 0, sizeof *r);
    r->slm = tiny_model(TLR_Q4);
    r->llm = tiny_model(TLR_Q8);
    r->mlp = tiny_router(r->slm, TLR_POLICY_MLP);
    r->models = (struct tlr_eval_models){
        .slm = r->slm, .llm = r->llm,
        .session = {.cpu_level = (int)tlr_test_cpu_level()},
        .open_expert = open_expert, .ctx = r};
    r->models.routers[TLR_POLICY_MLP] = r->mlp;
    ck_assert_msg(!tlr_items_read(&r->items, TLR_TASK_CSQA,
                                  tiny_questions(N_ITEMS), 0, &err),
                  "%s", err.text);
}

static void end(struct rig *r)
{
    tlr_items_clear(&r->items);
    tlr_router_free(r->mlp);
    tlr_model_close(r->slm);
    tlr_model_close(r->llm);
}

static int each(void *ctx, size_t item, const struct tlr_outcome *outcomes,
                struct tlr_err *err)
{
    struct rig *r = ctx;
    r->n_each++;
    return r->state ? tlr_eval_state_add(r->state, item, outcomes, err) : 0;
}

static bool stopped(void *ctx)
{
    const struct rig *r = ctx;
    return r->stop_after > 0 && r->n_each >= r->stop_after;
}

static int eval(struct rig *r, int n_jobs, int n_ahead, struct tlr_err *err)
{
    struct tlr_eval_options o = {
        .task = TLR_TASK_CSQA, .runs = runs, .n_runs = N_RUNS,
        .max_tok = MAX_TOK, .seed = 3, .n_jobs = n_jobs, .n_ahead = n_ahead,
        .raw = true, .each = each, .is_stopped = stopped, .ctx = r};
    return tlr_eval(&r->items, &r->models, &o, r->outcomes, r->done, NULL, err);
}

static void same(const struct rig *a, const struct rig *b)
{
    for (size_t i = 0; i < N_ITEMS * N_RUNS; i++) {
        const struct tlr_outcome *x = &a->outcomes[i], *y = &b->outcomes[i];
        ck_assert_uint_eq(x->n_judged, 1);
        ck_assert_uint_eq(x->n_right, y->n_right);
        ck_assert_uint_eq(x->n_strict, y->n_strict);
        ck_assert_int_eq(x->choice, y->choice);
        ck_assert_uint_eq(x->n_tok, y->n_tok);
        ck_assert_uint_eq(x->n_asked, y->n_asked);
        ck_assert_uint_eq(x->n_known, y->n_known);
        ck_assert_uint_eq(x->n_agree, y->n_agree);
    }
}

START_TEST(test_jobs_and_guesses)
{
    struct rig a, b;
    struct tlr_err err = TLR_ERR_INIT;
    uint32_t n_asked = 0, n_tok = 0;
    begin(&a);
    ck_assert_msg(!eval(&a, 1, 0, &err), "%s", err.text);
    ck_assert_int_eq(a.n_each, N_ITEMS);
    for (size_t i = 0; i < N_ITEMS; i++) {
        const struct tlr_outcome *o = &a.outcomes[i * N_RUNS];
        ck_assert_uint_eq(o[0].n_asked, 0);
        ck_assert_uint_eq(o[1].n_asked, o[1].n_tok);
        ck_assert_uint_eq(o[1].n_agree, o[1].n_tok);
        for (int r = 0; r < N_RUNS; r++)
            ck_assert_uint_eq(o[r].n_known, o[r].n_tok);
        n_asked += o[7].n_asked;
        n_tok += o[7].n_tok;
    }
    ck_assert_uint_gt(n_asked * 10, n_tok); /* about 0.3 of them */
    ck_assert_uint_lt(n_asked * 2, n_tok);
    static const struct {
        int n_jobs, n_ahead;
    } others[] = {{1, 15}, {3, 15}, {16, 4}};
    for (int i = 0; i < 3; i++) {
        begin(&b);
        ck_assert_msg(!eval(&b, others[i].n_jobs, others[i].n_ahead, &err),
                      "%s", err.text);
        same(&a, &b);
        end(&b);
    }
    end(&a);
}
END_TEST

static const char *state_path(void)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/eval.state", tlr_test_tmpdir());
    return path;
}

static int open_state(struct rig *r, const char *header, struct tlr_err *err)
{
    return tlr_eval_state_open(&r->state, state_path(), header, r->outcomes,
                               r->done, N_ITEMS, N_RUNS, err);
}

#define HEADER "{\"seed\":3,\"task\":\"csqa\",\"tlr_eval\":1}"

START_TEST(test_resume)
{
    struct rig a, b;
    struct tlr_err err = TLR_ERR_INIT;
    remove(state_path());
    begin(&a);
    ck_assert_msg(!eval(&a, 1, 15, &err), "%s", err.text);
    for (int run = 0; run < 4; run++) { /* two items, then the line is cut */
        begin(&b);
        ck_assert_msg(!open_state(&b, HEADER, &err), "%s", err.text);
        b.stop_after = run < 3 ? 2 : 0;
        int n_before = 0;
        for (int i = 0; i < N_ITEMS; i++)
            n_before += b.done[i];
        ck_assert_int_eq(n_before, run * 2);
        int rc = eval(&b, 1, 15, &err);
        ck_assert_int_eq(rc, run < 3 ? TLR_ECANCELLED : 0);
        tlr_err_clear(&err);
        tlr_eval_state_close(b.state);
        FILE *f = fopen(state_path(), "a");
        ck_assert(f != NULL);
        fputs("{\"item\":6,\"ru", f);
        fclose(f);
        if (run == 3)
            same(&a, &b);
        end(&b);
    }
    begin(&b); /* all there: nothing is computed */
    ck_assert_msg(!open_state(&b, HEADER, &err), "%s", err.text);
    ck_assert(!eval(&b, 1, 15, &err));
    ck_assert_int_eq(b.n_each, 0);
    same(&a, &b);
    tlr_eval_state_close(b.state);
    end(&b);
    end(&a);
}
END_TEST

/* text of the file, code and part of the message */
static const struct {
    const char *text;
    int code;
    const char *part;
} bad_states[] = {
    {"{\"seed\":4,\"task\":\"csqa\",\"tlr_eval\":1}\n", TLR_EMISMATCH,
     "another seed"},
    {"{\"task\":\"csqa\",\"seed\":3,\"tlr_eval\":1,\"x\":2}\n", TLR_EMISMATCH,
     "another version"},
    {"{\"hello\":1}\n", TLR_EFORMAT, "line 1: expected the header"},
    {"question\n", TLR_EFORMAT, "eval.state"},
    {HEADER "\n{\"item\":7,\"runs\":[]}\n", TLR_EFORMAT, "line 2: expected"},
    {HEADER "\n{\"item\":0,\"runs\":[1,2,3,4,5,6,7,8]}\n", TLR_EFORMAT,
     "line 2: expected"},
    {HEADER "\n{\"item\":-1,\"runs\":[]}\n", TLR_EFORMAT, "line 2"},
    {HEADER "\n[]\n", TLR_EFORMAT, "line 2"},
    {HEADER "\n\n", TLR_EFORMAT, "line 2"},
    {HEADER "\n{\"item\":0,\"runs\":[[1,2,0,0,9,0,9,9,0.0],[1,0,0,0,9,0,9,9,0],"
     "[1,0,0,0,9,0,9,9,0],[1,0,0,0,9,0,9,9,0],[1,0,0,0,9,0,9,9,0],[1,0,0,0,9,0,"
     "9,9,0],[1,0,0,0,9,0,9,9,0],[1,0,0,0,9,0,9,9,0]]}\n", TLR_EFORMAT,
     "line 2"}};

START_TEST(test_bad_state)
{
    struct rig *r = tlr_calloc(1, sizeof *r);
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert(r != NULL);
    FILE *f = fopen(state_path(), "w");
    ck_assert(f != NULL);
    fputs(bad_states[_i].text, f);
    fclose(f);
    ck_assert_int_eq(open_state(r, HEADER, &err), bad_states[_i].code);
    ck_assert_msg(strstr(err.text, bad_states[_i].part) != NULL, "%s",
                  err.text);
    char *text;
    size_t len;
    tlr_err_clear(&err);
    ck_assert(!tlr_read_file(&text, &len, state_path(), 1 << 20, &err));
    ck_assert_str_eq(text, bad_states[_i].text); /* it is not ours to change */
    tlr_free(text);
    tlr_free(r);
}
END_TEST

/* By hand: 4 items, never right on 1, always on 3, mlp on 3, entropy on 2. */
START_TEST(test_points)
{
    static const struct tlr_eval_run four[] = {
        {TLR_POLICY_NEVER, 0, 0}, {TLR_POLICY_ALWAYS, 1, 1},
        {TLR_POLICY_MLP, 0.1, 0.5f}, {TLR_POLICY_ENTROPY, 0.1, 0.2f}};
    static const uint32_t right[4][4] = {
        {1, 1, 1, 1}, {0, 1, 1, 1}, {0, 1, 1, 0}, {0, 0, 0, 0}};
    static const struct tlr_eval_costs costs = {
        .slm_ms = 10, .ask_ms = 20, .ask_tok_ms = 2};
    struct tlr_outcome o[16];
    struct tlr_eval_point p[4];
    struct tlr_err err = TLR_ERR_INIT;
    for (int i = 0; i < 4; i++)
        for (int r = 0; r < 4; r++)
            o[i * 4 + r] = (struct tlr_outcome){
                .n_judged = 1, .n_right = right[i][r], .choice = (int)right[i][r],
                .n_tok = 10, .n_asked = r == 0 ? 0 : r == 1 ? 10 : 1,
                .n_known = 10, .n_agree = r == 1 ? 10 : 7};
    ck_assert(!tlr_eval_points(p, four, 4, o, 4, &costs, 1, &err));
    ck_assert_double_eq(p[0].accuracy, 0.25);
    ck_assert_double_eq(p[2].accuracy, 0.75);
    ck_assert_double_eq(p[2].gap, 1);
    ck_assert_double_eq(p[3].gap, 0.5);
    ck_assert_double_eq(p[0].gap, 0);
    ck_assert_double_eq(p[2].routed_share, 0.1);
    ck_assert_double_eq(p[2].agreement, 0.7);
    ck_assert_double_eq(p[3].answer_agreement, 0.75);
    ck_assert_double_eq_tol(p[0].seconds, 0.1, 1e-12);
    ck_assert_double_eq_tol(p[1].seconds, 0.22, 1e-12);
    ck_assert_double_eq_tol(p[2].seconds, 0.14, 1e-12);
    ck_assert(isnan(p[2].p) && isnan(p[2].perplexity));
    ck_assert(p[3].p > 0.2 && p[3].p < 0.5);  /* (3/4)^4 = 0.32 */
    ck_assert(isnan(p[0].p)); /* never has no share in common with mlp */
    ck_assert_double_le(p[2].low, 0.75);
    ck_assert_double_ge(p[2].high, 0.75);
}
END_TEST

/* A curve that is known is turned round; noise does not make tau fall. */
START_TEST(test_fit)
{
    struct tlr_calibrate_point line[3] = {{0.2f, 0.1}, {0.4f, 0.3}, {0.5f, 0.6}};
    struct tlr_calibrate_point noisy[3] = {{0.2f, 0.3}, {0.4f, 0.1}, {0.5f, 0.6}};
    float share[TLR_N_SHARES], tau[TLR_N_SHARES];
    tlr_calibration_shares(share);
    tlr_calibration_fit(line, 3, 0.0f, 1.0f, share, tau);
    for (int i = 0; i < TLR_N_SHARES; i++) {
        double s = (double)share[i];
        double want = s < 0.1   ? s * 2
                      : s < 0.3 ? 0.2 + (s - 0.1)
                      : s < 0.6 ? 0.4 + (s - 0.3) / 3
                                : 0.5 + (s - 0.6) / 0.4 * 0.5;
        ck_assert_double_eq_tol((double)tau[i], want, 1e-6);
    }
    tlr_calibration_fit(noisy, 3, 0.0f, 1.0f, share, tau);
    for (int i = 1; i < TLR_N_SHARES; i++) {
        ck_assert(tau[i] >= tau[i - 1]);
        ck_assert(share[i] > share[i - 1] && share[i] < 1);
    }
    ck_assert_double_eq_tol(tlr_share_for_speed(20, 855, 1000 / 79.85), 0.07,
                            1e-9);
    ck_assert_double_eq(tlr_share_for_speed(50, 100, 30), 0);
    ck_assert_double_eq(tlr_share_for_speed(1, 10, 30), 1);
}
END_TEST

/* The loop at a calibrated threshold attains its share, on the same questions,
 * as nearly as their number of tokens lets it. */
START_TEST(test_calibrate)
{
    static const enum tlr_policy_kind kinds[] = {TLR_POLICY_MLP,
                                                 TLR_POLICY_ENTROPY};
    struct rig r;
    struct tlr_calibration c;
    struct tlr_calibrate_point points[2 * TLR_CALIBRATE_GRID];
    struct tlr_err err = TLR_ERR_INIT;
    begin(&r);
    struct tlr_calibrate_options o = {.task = TLR_TASK_CSQA, .kinds = kinds,
                                      .n_kinds = 2, .max_tok = MAX_TOK,
                                      .n_jobs = 2, .raw = true};
    ck_assert_msg(!tlr_calibrate(&r.items, &r.models, &o, &c, points, &err),
                  "%s", err.text);
    ck_assert_uint_gt(c.n_positions, 1000);
    ck_assert(isnan(c.tau[TLR_POLICY_MARGIN][0]));
    for (int k = 0; k < 2; k++) {
        const struct tlr_calibrate_point *p = points + k * TLR_CALIBRATE_GRID;
        ck_assert(p[0].share < 0.1 && p[TLR_CALIBRATE_GRID - 1].share > 0.5);
        for (int i = 1; i < TLR_N_SHARES; i++)
            ck_assert(c.tau[kinds[k]][i] >= c.tau[kinds[k]][i - 1]);
        for (int g = 0; g < TLR_CALIBRATE_GRID; g++) { /* back on the curve */
            float tau;
            double most = 0;
            for (int i = 0; i <= g; i++)
                most = fmax(most, p[i].share);
            if (p[g].share < 0.01 || p[g].share < most || p[g].share > 0.85)
                continue;
            ck_assert(!tlr_calibration_tau(&c, kinds[k], p[g].share, &tau,
                                           &err));
            float low = g > 0 ? p[g - 1].tau : 0;
            float high = g + 1 < TLR_CALIBRATE_GRID ? p[g + 1].tau : 1;
            ck_assert_msg(tau >= low && tau <= high, "%d %d: %g in %g..%g", k,
                          g, (double)tau, (double)low, (double)high);
        }
    }
    end(&r);
}
END_TEST

START_TEST(test_refusals)
{
    struct rig r;
    struct tlr_err err = TLR_ERR_INIT;
    begin(&r);
    r.models.routers[TLR_POLICY_MLP] = NULL;
    ck_assert_int_eq(eval(&r, 1, 15, &err), TLR_EUSAGE);
    ck_assert(strstr(err.text, "needs a trained router") != NULL);
    end(&r);
    tlr_err_clear(&err);
    begin(&r);
    struct tlr_eval_options o = {.task = TLR_TASK_CSQA, .runs = runs,
                                 .n_runs = N_RUNS, .max_tok = 500, .n_jobs = 1,
                                 .raw = true};
    ck_assert_int_eq(tlr_eval(&r.items, &r.models, &o, r.outcomes, r.done, NULL,
                              &err), TLR_ELIMIT);
    ck_assert_msg(strstr(err.text, "item 1: expected a prompt of 1 to 12 "
                                   "tokens") != NULL, "%s", err.text);
    end(&r);
}
END_TEST

/* Plain text: the numbers that each model has by itself are the ends. */
START_TEST(test_lm)
{
    struct rig r;
    struct tlr_err err = TLR_ERR_INIT;
    char path[512];
    struct tlr_items text;
    begin(&r);
    snprintf(path, sizeof path, "%s/text.txt", tlr_test_tmpdir());
    FILE *f = fopen(path, "w");
    ck_assert(f != NULL);
    fputs("one two three four\nfive six seven\n", f);
    fclose(f);
    ck_assert_msg(!tlr_items_read(&text, TLR_TASK_LM, path, 0, &err), "%s",
                  err.text);
    ck_assert_uint_eq(text.n, 1);
    struct tlr_eval_options o = {.task = TLR_TASK_LM, .runs = runs,
                                 .n_runs = N_RUNS, .n_jobs = 1, .n_ahead = -1};
    ck_assert_msg(!tlr_eval(&text, &r.models, &o, r.outcomes, r.done, NULL,
                            &err), "%s", err.text);
    const struct tlr_outcome *never = &r.outcomes[0], *always = &r.outcomes[1];
    ck_assert_uint_gt(never->n_judged, 5);
    ck_assert_uint_eq(never->n_asked, 0);
    ck_assert_uint_eq(always->n_asked, always->n_judged);
    ck_assert_uint_eq(always->n_agree, always->n_judged);
    ck_assert_double_ne(never->nll, always->nll);
    for (int k = 2; k < N_RUNS; k++)
        ck_assert_uint_le(r.outcomes[k].n_asked, r.outcomes[k].n_tok);
    ck_assert_uint_le(r.outcomes[2].n_asked, r.outcomes[3].n_asked);
    /* the large model's own number, by the engine */
    struct tlr_session_options options = {.cpu_level =
                                              (int)tlr_test_cpu_level()};
    struct tlr_session *s = NULL;
    struct tlr_ids ids = {0};
    double nll = 0;
    ck_assert(!tlr_session_new(&s, r.llm, &options, &err));
    ck_assert(!tlr_task_encode(r.slm, TLR_TASK_LM, 0, true, &text.items[0], &ids,
                               NULL, &err));
    ck_assert_uint_eq(ids.n, always->n_judged + 1);
    for (size_t i = 0; i + 1 < ids.n; i++) {
        ck_assert(!tlr_decode(s, ids.ids[i], TLR_STEP_LOGITS, &err));
        nll += tlr_log_sum_exp(tlr_logits(s), tlr_model_config(r.llm)->n_vocab) -
               (double)tlr_logits(s)[ids.ids[i + 1]];
    }
    ck_assert_double_eq_tol(nll, always->nll, 1e-4);
    tlr_ids_clear(&ids);
    tlr_session_free(s);
    tlr_items_clear(&text);
    end(&r);
}
END_TEST

Suite *suite_eval(void);
Suite *suite_eval(void)
{
    Suite *s = suite_create("eval");
    TCase *c = tcase_create("eval");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_jobs_and_guesses);
    tcase_add_test(c, test_resume);
    tcase_add_loop_test(c, test_bad_state, 0,
                        sizeof bad_states / sizeof *bad_states);
    tcase_add_test(c, test_points);
    tcase_add_test(c, test_fit);
    tcase_add_test(c, test_calibrate);
    tcase_add_test(c, test_refusals);
    tcase_add_test(c, test_lm);
    suite_add_tcase(s, c);
    return s;
}
