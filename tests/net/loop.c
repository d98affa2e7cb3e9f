/* loop.c - see loop.h. */
#include "tests/net/loop.h"

#include <stdio.h>
#include <string.h>

#include "tests/router/tiny.h"
#include "tests/support/tlr_check.h"

struct loop loop_open(enum tlr_net_api_kind kind)
{
    struct loop l = {.m = tiny_model(TLR_Q8)};
    l.o = (struct server_options){
        .kind = kind,
        .seam = {.tok = tlr_model_tokenizer(l.m),
                 .gen = tlr_model_generation(l.m), .chat = tlr_model_chat(l.m),
                 .n_ids = tlr_model_n_ids(l.m)}};
    for (int i = 0; i < LOOP_PROMPT; i++)
        l.prompt[i] = 40 + 7 * i;
    return l;
}

void loop_close(struct loop *l)
{
    tlr_model_close(l->m);
}

struct loop_result loop_run(const struct loop *l, struct tlr_expert *e,
                            double calls)
{
    struct loop_result r = {.failure = ""};
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = NULL;
    struct tlr_joint *j = NULL;
    struct tlr_session_options so = {.n_ctx = 128, .n_threads = 1,
                                     .cpu_level = -1};
    struct tlr_joint_options o = {
        .policy = {.kind = TLR_POLICY_RANDOM, .tau = 0.5f, .seed = 3},
        .expert = e, .ahead = {.calls = calls}, .burst = l->burst};
    ck_assert_msg(!tlr_session_new(&s, l->m, &so, &err), "%s", err.text);
    ck_assert_msg(!tlr_prefill(s, l->prompt, LOOP_PROMPT, 0, &err), "%s",
                  err.text);
    ck_assert_msg(!tlr_joint_new(&j, s, l->m, &o, &err), "%s", err.text);
    for (int i = 0; i < LOOP_TOK; i++) {
        struct tlr_joint_token t;
        ck_assert_msg(!tlr_joint_next(j, &t, &err), "%s", err.text);
        r.ids[i] = t.id;
        r.by[i] = t.is_llm ? 'L' : t.is_failed ? 'F' : 's';
    }
    r.totals = tlr_joint_read(j);
    snprintf(r.failure, sizeof r.failure, "%.500s", tlr_joint_failure(j));
    tlr_joint_free(j);
    tlr_session_free(s);
    return r;
}

void loop_same(const struct loop_result *got, const struct loop_result *want)
{
    for (int i = 0; i < LOOP_TOK; i++)
        ck_assert_msg(got->ids[i] == want->ids[i] && got->by[i] == want->by[i],
                      "token %d: %d by %s, expected %d by %s; %s", i,
                      (int)got->ids[i], got->by, (int)want->ids[i], want->by,
                      got->failure);
    ck_assert_uint_eq(got->totals.n_asked, want->totals.n_asked);
    ck_assert_uint_eq(got->totals.n_llm, want->totals.n_llm);
    ck_assert_uint_eq(got->totals.n_failed, want->totals.n_failed);
}

struct tlr_net_options loop_options(const struct server *s)
{
    struct tlr_net_options o = TLR_NET_OPTIONS_INIT;
    o.url = server_url(s);
    return o;
}

struct tlr_net *loop_connect(const struct loop *l,
                             const struct tlr_net_options *o,
                             struct tlr_expert *e)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_net *n = NULL;
    ck_assert_msg(!tlr_net_open(&n, o, l->m, &err), "%s", err.text);
    ck_assert_msg(!tlr_net_connect(n, &err), "%s", err.text);
    ck_assert_msg(!tlr_net_expert(n, e, &err), "%s", err.text);
    return n;
}
