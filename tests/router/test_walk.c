/* test_walk.c - the tree of runs against one joint loop a run, each afresh. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/decode.h"
#include "router/walk.h"
#include "tests/router/tiny.h"
#include "tests/support/cpu.h"
#include "tests/support/tlr_check.h"

enum { MAX_TOK = 40, N_TAUS = 4, SEED = 5 };

static const char *const prompts[] = {"what is the answer, one two three",
                                      "the end", "a b a b a b a b"};

struct rig {
    struct tlr_model *slm;
    struct tlr_router *mlp, *plus;
    struct tiny_expert tiny;
    struct tlr_policy policies[TLR_N_POLICIES];
    int n_policies;
};

static void begin(struct rig *r, enum tlr_type type)
{
    static const enum tlr_policy_kind kinds[] = {
        TLR_POLICY_MLP, TLR_POLICY_MLP_PLUS, TLR_POLICY_ENTROPY,
        TLR_POLICY_MARGIN, TLR_POLICY_MAXPROB, TLR_POLICY_MAXLOGIT,
        TLR_POLICY_RANDOM};
    memset(r, 0, sizeof *r);
    r->slm = tiny_model(type);
    r->mlp = tiny_router(r->slm, TLR_POLICY_MLP);
    r->plus = tiny_router(r->slm, TLR_POLICY_MLP_PLUS);
    r->tiny.n_ids = tlr_model_n_ids(r->slm);
    r->tiny.end = tlr_model_generation(r->slm)->eos[0];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        r->policies[r->n_policies++] = (struct tlr_policy){
            .kind = kinds[i], .seed = 11,
            .router = kinds[i] == TLR_POLICY_MLP        ? r->mlp
                      : kinds[i] == TLR_POLICY_MLP_PLUS ? r->plus
                                                        : NULL};
}

static void end(struct rig *r)
{
    tlr_router_free(r->mlp);
    tlr_router_free(r->plus);
    tlr_model_close(r->slm);
}

static struct tlr_walk *new_walk(struct rig *r, struct tlr_expert *llm,
                                 int n_ahead, bool agreement)
{
    struct tlr_walk_options o = {.n_policies = r->n_policies,
                                 .max_prompt = 128, .max_tok = MAX_TOK,
                                 .n_ahead = n_ahead, .agreement = agreement};
    struct tlr_session_options s = {.cpu_level = (int)tlr_test_cpu_level()};
    struct tlr_walk *w = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    s.n_threads = 1;
    memcpy(o.policies, r->policies, sizeof r->policies);
    ck_assert_msg(!tlr_walk_new(&w, r->slm, &s, llm, &o, &err), "%s", err.text);
    return w;
}

static struct tlr_ids encode(const struct rig *r, const char *text)
{
    struct tlr_ids ids = {0};
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert(!tlr_encode(tlr_model_tokenizer(r->slm), text, strlen(text), 0,
                          &ids, &err));
    return ids;
}

/* One run by the product's own loop, nothing shared with any other. */
static uint32_t afresh(const struct rig *r, const struct tlr_ids *prompt,
                       struct tlr_policy policy, int32_t *out,
                       uint32_t *n_asked)
{
    struct tiny_expert tiny = r->tiny;
    struct tlr_expert llm = tiny_expert(&tiny, false);
    struct tlr_session_options so = {.cpu_level = (int)tlr_test_cpu_level()};
    struct tlr_session *s = NULL;
    struct tlr_joint *j = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    policy.seed = tlr_hash_u64(policy.seed, SEED);
    struct tlr_joint_options jo = {.mode = TLR_JOINT, .policy = policy,
                                   .expert = &llm, .require_expert = true};
    uint32_t n = 0;
    so.n_threads = 1;
    ck_assert(!tlr_session_new(&s, r->slm, &so, &err));
    ck_assert(!tlr_prefill(s, prompt->ids, prompt->n, 0, &err));
    ck_assert_msg(!tlr_joint_new(&j, s, r->slm, &jo, &err), "%s", err.text);
    while (n < MAX_TOK) {
        struct tlr_joint_token t;
        ck_assert_msg(!tlr_joint_next(j, &t, &err), "%s", err.text);
        out[n++] = t.id;
        if (tlr_generation_is_eos(tlr_model_generation(r->slm), t.id))
            break;
    }
    *n_asked = (uint32_t)tlr_joint_read(j).n_asked;
    tlr_joint_free(j);
    tlr_session_free(s);
    return n;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Thresholds at parts of the small model's own trusts. */
static void choose_taus(struct tlr_walk *w, enum tlr_policy_kind kind,
                        float taus[N_TAUS])
{
    static const double parts[N_TAUS] = {0.05, 0.2, 0.5, 0.9};
    struct tlr_walk_path path;
    struct tlr_err err = TLR_ERR_INIT;
    float trusts[MAX_TOK];
    ck_assert(!tlr_walk_run(w, TLR_POLICY_NEVER, 0, &path, &err));
    for (uint32_t i = 0; i < path.n_tok; i++)
        trusts[i] = tlr_walk_trust(w, kind, i);
    qsort(trusts, path.n_tok, sizeof *trusts, by_size);
    for (int i = 0; i < N_TAUS; i++)
        taus[i] = trusts[(size_t)(parts[i] * path.n_tok)];
}

static void compare(const struct rig *r, struct tlr_walk *w,
                    const struct tlr_ids *prompt, struct tlr_policy policy)
{
    int32_t want[MAX_TOK];
    struct tlr_walk_path path;
    struct tlr_err err = TLR_ERR_INIT;
    uint32_t n_asked, n = afresh(r, prompt, policy, want, &n_asked);
    ck_assert_msg(!tlr_walk_run(w, policy.kind, policy.tau, &path, &err), "%s",
                  err.text);
    ck_assert_uint_eq(path.n_tok, n);
    ck_assert_uint_eq(path.n_asked, n_asked);
    ck_assert_int_eq(memcmp(path.ids, want, n * sizeof *want), 0);
}

static void compare_all(enum tlr_type type, int n_ahead, bool with_each)
{
    struct rig r;
    begin(&r, type);
    struct tlr_expert llm = tiny_expert(&r.tiny, with_each);
    struct tlr_walk *w = new_walk(&r, &llm, n_ahead, with_each);
    for (size_t k = 0; k < sizeof prompts / sizeof *prompts; k++) {
        struct tlr_ids prompt = encode(&r, prompts[k]);
        struct tlr_err err = TLR_ERR_INIT;
        ck_assert(!tlr_walk_begin(w, prompt.ids, prompt.n, SEED, &err));
        compare(&r, w, &prompt, (struct tlr_policy){.kind = TLR_POLICY_NEVER});
        compare(&r, w, &prompt, (struct tlr_policy){.kind = TLR_POLICY_ALWAYS});
        for (int p = 0; p < r.n_policies; p++) {
            float taus[N_TAUS];
            choose_taus(w, r.policies[p].kind, taus);
            for (int t = 0; t < N_TAUS; t++) {
                struct tlr_policy policy = r.policies[p];
                policy.tau = taus[t];
                compare(&r, w, &prompt, policy);
            }
        }
        tlr_ids_clear(&prompt);
    }
    tlr_walk_free(w);
    end(&r);
}

START_TEST(test_like_fresh_loops)
{
    static const struct {
        enum tlr_type type;
        int n_ahead;
        bool with_each;
    } rows[] = {{TLR_Q8, 0, true},  {TLR_Q8, 3, true},   {TLR_Q8, 15, true},
                {TLR_Q8, 31, false}, {TLR_Q4N, 15, true}, {TLR_F32, 15, true}};
    compare_all(rows[_i].type, rows[_i].n_ahead, rows[_i].with_each);
}
END_TEST

/* Runs that were there before cost no step and no ask. */
START_TEST(test_sharing)
{
    struct rig r;
    struct tlr_walk_path path;
    struct tlr_err err = TLR_ERR_INIT;
    begin(&r, TLR_Q8);
    struct tlr_expert llm = tiny_expert(&r.tiny, true);
    struct tlr_walk *w = new_walk(&r, &llm, 15, true);
    struct tlr_ids prompt = encode(&r, prompts[0]);
    ck_assert(!tlr_walk_begin(w, prompt.ids, prompt.n, SEED, &err));
    ck_assert(!tlr_walk_run(w, TLR_POLICY_RANDOM, 0.3f, &path, &err));
    struct tlr_walk_counts a = tlr_walk_read(w);
    ck_assert_uint_gt(path.n_asked, 0);
    ck_assert_uint_gt(path.n_tok, path.n_asked);
    ck_assert_uint_gt(a.n_steps, 0);
    ck_assert(!tlr_walk_run(w, TLR_POLICY_RANDOM, 0.3f, &path, &err));
    struct tlr_walk_counts b = tlr_walk_read(w);
    ck_assert_uint_eq(b.n_steps, a.n_steps);
    ck_assert_uint_eq(b.n_asks, a.n_asks);
    ck_assert_uint_eq(b.n_run_tok, 2 * a.n_run_tok);
    ck_assert_uint_eq(path.n_known, path.n_tok);
    tlr_walk_free(w);
    tlr_ids_clear(&prompt);
    end(&r);
}
END_TEST

static bool stop(void *ctx)
{
    int *left = ctx;
    return (*left)-- <= 0;
}

/* A failing or interrupted step leaves a walk that goes on rightly. */
START_TEST(test_failures)
{
    struct rig r;
    struct tlr_walk_path path;
    begin(&r, TLR_Q8);
    struct tlr_expert llm = tiny_expert(&r.tiny, true);
    struct tlr_ids prompt = encode(&r, prompts[0]);
    struct tlr_policy policy = r.policies[r.n_policies - 1];
    policy.tau = 0.5f;
    for (int k = 1; k <= 3; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_walk *w = new_walk(&r, &llm, 15, true);
        ck_assert(!tlr_walk_begin(w, prompt.ids, prompt.n, SEED, &err));
        r.tiny.n_asks = 0;
        r.tiny.fail_at = k;
        ck_assert_int_eq(tlr_walk_run(w, policy.kind, policy.tau, &path, &err),
                         TLR_EIO);
        r.tiny.fail_at = 0;
        compare(&r, w, &prompt, policy);
        tlr_walk_free(w);
    }
    int left = 2;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_walk *w = NULL;
    struct tlr_walk_options o = {.max_prompt = 4, .max_tok = MAX_TOK,
                                 .is_stopped = stop, .ctx = &left};
    ck_assert(!tlr_walk_new(&w, r.slm, NULL, &llm, &o, &err));
    ck_assert_int_eq(tlr_walk_begin(w, prompt.ids, prompt.n, 0, &err),
                     TLR_ELIMIT);
    tlr_err_clear(&err);
    ck_assert(!tlr_walk_begin(w, prompt.ids, 4, 0, &err));
    ck_assert_int_eq(tlr_walk_run(w, TLR_POLICY_NEVER, 0, &path, &err),
                     TLR_ECANCELLED);
    tlr_walk_free(w);
    tlr_ids_clear(&prompt);
    end(&r);
}
END_TEST

Suite *suite_walk(void);
Suite *suite_walk(void)
{
    Suite *s = suite_create("walk");
    TCase *c = tcase_create("walk");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, test_like_fresh_loops, 0, 6);
    tcase_add_test(c, test_sharing);
    tcase_add_test(c, test_failures);
    suite_add_tcase(s, c);
    return s;
}
