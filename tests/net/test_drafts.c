/* test_drafts.c - what the large model would have written at each place of a draft:
 * one call to a server that tells, and what is made of one that does not. */
#include <string.h>

#include "tests/net/hash_llm.h"
#include "tests/net/loop.h"
#include "tests/support/tlr_check.h"

enum { N = 40, FIRST = 5 };

struct rig {
    struct loop l;
    struct server *s;
    struct tlr_net *n;
    struct tlr_expert e;
    int32_t ids[N], out[N - FIRST];
};

static void rig_open(struct rig *r, enum tlr_net_api_kind kind,
                     enum server_rivals rivals)
{
    memset(r, 0, sizeof *r);
    r->l = loop_open(kind);
    r->l.o.rivals = rivals;
    r->s = server_start(&r->l.o);
    struct tlr_net_options o = loop_options(r->s);
    r->n = loop_connect(&r->l, &o, &r->e);
    for (int i = 0; i < N; i++)
        r->ids[i] = (i * 37 + 11) % (int32_t)r->l.o.seam.n_ids;
    /* Some that the model itself would have written. */
    for (size_t i = 8; i < N; i += 3)
        r->ids[i] = hash_next(&r->l.o, r->ids, i, false);
}

static void rig_close(struct rig *r)
{
    tlr_net_close(r->n);
    server_stop(r->s);
    loop_close(&r->l);
}

static int check(struct rig *r, size_t first, struct tlr_err *err)
{
    memset(r->out, 0xff, sizeof r->out);
    return tlr_expert_ask_each(&r->e, r->ids, N, first, r->l.o.seam.n_ids,
                               r->out, err);
}

static void check_right(struct rig *r, size_t first, int n_questions)
{
    struct tlr_err err = TLR_ERR_INIT;
    int before = server_counts(r->s).n_questions, n_same = 0;
    ck_assert_msg(!check(r, first, &err), "%s", err.text);
    for (size_t i = first; i < N; i++) {
        ck_assert_int_eq(r->out[i - first],
                         hash_next(&r->l.o, r->ids, i + 1, false));
        n_same += i + 1 < N && r->out[i - first] == r->ids[i + 1];
    }
    ck_assert_int_ge(n_same, first == FIRST ? 10 : 0);
    ck_assert_int_eq(server_counts(r->s).n_questions - before, n_questions);
}

static const enum server_rivals tellers[] = {RIVALS_NULL, RIVALS_AFTER,
                                             RIVALS_ALL};

START_TEST(one_call_for_a_draft)
{
    struct rig r;
    rig_open(&r, TLR_NET_SGLANG, tellers[_i]);
    ck_assert(r.e.ops->ask_each != NULL);
    check_right(&r, FIRST, 1);
    check_right(&r, N - 2, 1);
    check_right(&r, N - 1, 1); /* nothing but the next token */
    struct tlr_expert_account a;
    tlr_expert_account_of(&r.e, &a);
    ck_assert_uint_eq(a.n_asks, 3);
    ck_assert_uint_eq(a.sent_tok, 3 * N);
    rig_close(&r);
}
END_TEST

/* Asked once too often, and one by one from then on. */
START_TEST(a_server_that_does_not_tell)
{
    struct rig r;
    rig_open(&r, TLR_NET_SGLANG, RIVALS_NONE);
    check_right(&r, FIRST, 1 + N - FIRST);
    check_right(&r, FIRST, N - FIRST);
    rig_close(&r);
}
END_TEST

static const struct {
    enum server_rivals rivals;
    const char *says;
} wrongs[] = {{RIVALS_OTHERS, "reply: expected token 38 of the prompt to be id"},
              {RIVALS_HOLES, "-1"}};

START_TEST(wrong_replies)
{
    struct rig r;
    struct tlr_err err = TLR_ERR_INIT;
    rig_open(&r, TLR_NET_SGLANG, wrongs[_i].rivals);
    ck_assert_int_eq(check(&r, FIRST, &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, wrongs[_i].says), "%s", err.text);
    rig_close(&r);
}
END_TEST

START_TEST(failures_are_failures)
{
    struct rig r;
    struct tlr_err err = TLR_ERR_INIT;
    rig_open(&r, TLR_NET_SGLANG, RIVALS_NULL);
    server_spoil(r.s, FAULT_STATUS_404, 1, 0);
    ck_assert_int_eq(check(&r, FIRST, &err), TLR_EIO);
    server_spoil(r.s, FAULT_NONE, 1, 0);
    check_right(&r, FIRST, 1);
    rig_close(&r);
}
END_TEST

START_TEST(others_are_asked_one_by_one)
{
    struct rig r;
    rig_open(&r, TLR_NET_VLLM, RIVALS_NULL);
    ck_assert(r.e.ops->ask_each == NULL);
    rig_close(&r);
}
END_TEST

Suite *suite_drafts(void);
Suite *suite_drafts(void)
{
    Suite *s = suite_create("drafts");
    TCase *t = tcase_create("drafts");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, one_call_for_a_draft, 0, 3);
    tcase_add_test(t, a_server_that_does_not_tell);
    tcase_add_loop_test(t, wrong_replies, 0, 2);
    tcase_add_test(t, failures_are_failures);
    tcase_add_test(t, others_are_asked_one_by_one);
    suite_add_tcase(s, t);
    return s;
}
