/* test_asks.c - asks on their way: many at once, in any order, cancelled, ended by
 * a signal, and no more of them than a budget allows. */
#include <string.h>

#include "tests/net/hash_llm.h"
#include "tests/net/loop.h"
#include "tests/support/tlr_check.h"

/* ---- budgets ---- */

START_TEST(budget_of_calls)
{
    struct loop l = loop_open(TLR_NET_LLAMACPP);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.max_calls = 5;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert(e.is_budgeted);
    struct loop_result r = loop_run(&l, &e, 0);
    ck_assert_uint_eq(r.totals.n_llm, 5);
    ck_assert_uint_eq(r.totals.n_failed, r.totals.n_asked - 5);
    ck_assert_int_eq(server_counts(s).n_questions, 5);
    ck_assert_msg(strstr(r.failure, "5 requests") != NULL, "%s", r.failure);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* A run within a budget; a client of its own, because budgets are a client's. */
static struct loop_result run_within(const struct loop *l, struct server *s,
                                     const struct tlr_net_options *o,
                                     double calls)
{
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(l, o, &e);
    server_spoil(s, FAULT_NONE, 0, 0); /* counts anew */
    struct loop_result r = loop_run(l, &e, calls);
    tlr_net_close(n);
    return r;
}

/* Nothing is asked ahead that might be lost: each budget ends at the serial loop's
 * token, after as many questions. */
START_TEST(budgets_buy_the_same_ahead)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    o.max_calls = _i == 0 ? 9 : 0;
    o.max_tok = _i == 1 ? 300 : 0;
    o.max_cost = _i == 2 ? 0.3 : 0;
    o.price_in = 1000;
    o.price_out = 2000;
    server_delay(s, 10); /* long enough to run ahead */
    struct loop_result want = run_within(&l, s, &o, 0);
    int n_questions = server_counts(s).n_questions;
    struct loop_result got = run_within(&l, s, &o, 10);
    loop_same(&got, &want);
    ck_assert_uint_gt(want.totals.n_llm, 3);
    ck_assert_uint_gt(want.totals.n_failed, 3);
    ck_assert_int_eq(server_counts(s).n_questions, n_questions);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* Waiting ends where its budget does, and with it what was asked ahead. */
START_TEST(budget_of_waiting)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_expert_ticket first, ahead;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    o.max_wait_s = 0.2;
    o.timeout_s = 3600; /* without the budget the test would be timed out */
    struct tlr_net *n = loop_connect(&l, &o, &e);
    uint32_t n_ids = l.o.seam.n_ids;
    ck_assert(!e.is_budgeted);
    server_delay(s, 60000);
    ck_assert_int_eq(tlr_expert_submit(&e, l.prompt, 3, 1, n_ids, &first, &err), 0);
    ck_assert_int_eq(tlr_expert_submit(&e, l.prompt, 4, 1, n_ids, &ahead, &err), 0);
    ck_assert_int_eq(tlr_expert_wait(&e, &ahead, 0, n_ids, &reply, &err),
                     TLR_EPENDING);
    ck_assert_int_eq(tlr_expert_wait(&e, &first, -1, n_ids, &reply, &err),
                     TLR_ELIMIT);
    ck_assert_msg(strstr(err.text, "0.2 s of waiting") != NULL, "%s", err.text);
    err = (struct tlr_err)TLR_ERR_INIT;
    ck_assert_int_eq(tlr_expert_wait(&e, &ahead, 0, n_ids, &reply, &err),
                     TLR_ELIMIT);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* A text whose waiting is over goes on by itself, ahead or not. */
START_TEST(a_text_outlives_its_waiting)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.max_wait_s = 0.2;
    o.timeout_s = 3600;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_delay(s, 60000);
    struct loop_result r = loop_run(&l, &e, _i ? 10 : 0);
    ck_assert_uint_eq(r.totals.n_llm, 0);
    ck_assert_uint_eq(r.totals.n_failed, r.totals.n_asked);
    ck_assert_uint_gt(r.totals.n_failed, LOOP_TOK / 4);
    ck_assert_msg(strstr(r.failure, "of waiting is used up") != NULL, "%s",
                  r.failure);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* ---- tickets ---- */

START_TEST(many_at_once)
{
    enum { N = 40 };
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct tlr_expert_ticket tickets[N] = {{0}};
    struct tlr_expert_reply reply, want;
    struct hash_expert h = {.o = &l.o};
    struct tlr_expert local = hash_expert(&h);
    struct tlr_err err = TLR_ERR_INIT;
    server_delay(s, 20);
    for (int i = 0; i < 8; i++) /* all before any is waited for */
        ck_assert_msg(!tlr_expert_submit(&e, l.prompt, (size_t)(1 + i), 2,
                                         l.o.seam.n_ids, &tickets[i], &err),
                      "%s", err.text);
    ck_assert_int_eq(tlr_expert_wait(&e, &tickets[0], 0, l.o.seam.n_ids, &reply,
                                     &err), TLR_EPENDING);
    tlr_expert_cancel(&e, &tickets[3]);
    for (int i = 7; i >= 0; i--) {
        if (i == 3)
            continue;
        ck_assert_msg(!tlr_expert_wait(&e, &tickets[i], -1, l.o.seam.n_ids,
                                       &reply, &err), "%s", err.text);
        ck_assert_int_eq(tlr_expert_ask(&local, l.prompt, (size_t)(1 + i), 2,
                                        l.o.seam.n_ids, &want, &err), 0);
        ck_assert_int_eq(reply.n_tok, want.n_tok);
        for (int k = 0; k < want.n_tok; k++)
            ck_assert_int_eq(reply.ids[k], want.ids[k]);
    }
    /* Cancelled ones come to their end and their places are used again. */
    for (int i = 0; i < 5 * N; i++) {
        struct tlr_expert_ticket *t = &tickets[i % N];
        tlr_expert_cancel(&e, t);
        int rc = TLR_ELIMIT; /* all places taken: until one is free */
        for (int k = 0; k < 1000000 && rc == TLR_ELIMIT; k++)
            rc = tlr_expert_submit(&e, l.prompt, 3, 1, l.o.seam.n_ids, t, NULL);
        ck_assert_int_eq(rc, 0);
        tlr_expert_cancel(&e, t);
    }
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

START_TEST(warm_up)
{
    struct loop l = loop_open(TLR_NET_LLAMACPP);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    tlr_expert_warm(&e, l.prompt, LOOP_PROMPT);
    ck_assert_msg(!tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, 1, l.o.seam.n_ids,
                                  &reply, &err), "%s", err.text);
    ck_assert_int_eq(reply.cached_tok, 3);
    for (int i = 0; i < 200 && server_counts(s).n_questions < 2; i++)
        tlr_expert_ask(&e, l.prompt, 1, 1, l.o.seam.n_ids, &reply, &err);
    ck_assert_int_ge(server_counts(s).n_questions, 2);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

static bool stop_now(void *ctx)
{
    return *(int *)ctx != 0;
}

START_TEST(interrupted)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    int stop = 0;
    o.is_stopped = stop_now;
    o.ctx = &stop;
    o.timeout_s = 60;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_delay(s, 60000);
    stop = 1;
    ck_assert_int_eq(tlr_expert_ask(&e, l.prompt, LOOP_PROMPT, 1,
                                    l.o.seam.n_ids, &reply, &err),
                     TLR_ECANCELLED);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* ---- gzip ---- */

enum { LONG = 400 }; /* ids: some 1,500 bytes of JSON */

static void check_ask(const struct loop *l, struct tlr_expert *e,
                      const int32_t *ids, size_t n)
{
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(!tlr_expert_ask(e, ids, n, 1, l->o.seam.n_ids, &reply, &err),
                  "%s", err.text);
    ck_assert_int_eq(reply.ids[0], hash_next(&l->o, ids, n, false));
}

/* _i: whether the server unpacks.  One that does not is asked again at once, and
 * without from then on. */
START_TEST(long_questions_are_packed)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    l.o.unpacks = _i;
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    o.gzip = true;
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    int32_t ids[LONG];
    for (int i = 0; i < LONG; i++)
        ids[i] = 100 + i * 7 % 203;
    struct server_counts before = server_counts(s), now;
    check_ask(&l, &e, ids, 20);
    ck_assert_int_eq(server_counts(s).n_packed, 0);
    for (int i = 0; i < 3; i++)
        check_ask(&l, &e, ids, (size_t)(LONG - i));
    now = server_counts(s);
    ck_assert_int_eq(now.n_packed, _i ? 3 : 1);
    ck_assert_int_eq(now.n_requests - before.n_requests, _i ? 4 : 5);
    uint64_t bytes = now.body_bytes - before.body_bytes;
    ck_assert_msg(_i ? bytes < 3 * 1400 : bytes > 3 * 1400, "%llu",
                  (unsigned long long)bytes);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

Suite *suite_asks(void);
Suite *suite_asks(void)
{
    Suite *s = suite_create("asks");
    TCase *t = tcase_create("asks");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, budget_of_calls);
    tcase_add_loop_test(t, budgets_buy_the_same_ahead, 0, 3);
    tcase_add_test(t, budget_of_waiting);
    tcase_add_loop_test(t, a_text_outlives_its_waiting, 0, 2);
    tcase_add_test(t, many_at_once);
    tcase_add_test(t, warm_up);
    tcase_add_test(t, interrupted);
    tcase_add_loop_test(t, long_questions_are_packed, 0, 2);
    suite_add_tcase(s, t);
    return s;
}
