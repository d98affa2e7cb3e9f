/* test_expert.c - the checked wrappers around an expert: what a ticket may hold,
 * and an expert that can only stand still. */
#include "router/expert.h"

#include "tests/router/rig.h"

enum { N_IDS = 320 };

/* Answers each ask at the second look, with the number of ids it was sent. */
struct later {
    size_t n[4];
    int looks[4];
    int n_submitted, n_cancelled, fail_code, answer_len;
};

static int later_submit(void *self, const int32_t *ids, size_t n, int n_tok,
                        uint64_t *ticket, struct tlr_err *err)
{
    (void)ids, (void)n_tok;
    struct later *l = self;
    if (l->n_submitted == 4)
        return tlr_err_set(err, TLR_ELIMIT, "later: full");
    l->n[l->n_submitted] = n;
    l->looks[l->n_submitted] = 0;
    *ticket = (uint64_t)++l->n_submitted;
    return 0;
}

static int later_wait(void *self, uint64_t ticket, int timeout_ms,
                      struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct later *l = self;
    if (timeout_ms == 0 && l->looks[ticket - 1]++ == 0)
        return TLR_EPENDING;
    if (l->fail_code)
        return tlr_err_set(err, l->fail_code, "later: no answer");
    out->ids[0] = (int32_t)l->n[ticket - 1];
    out->n_tok = l->answer_len;
    out->first_byte_ns = 5;
    return 0;
}

static void later_cancel(void *self, uint64_t ticket)
{
    struct later *l = self;
    ck_assert_uint_le(ticket, (uint64_t)l->n_submitted);
    l->n_cancelled++;
}

static struct tlr_expert later_expert(struct later *l)
{
    static const struct tlr_expert_ops ops = {.submit = later_submit,
                                              .wait = later_wait,
                                              .cancel = later_cancel};
    return (struct tlr_expert){.ops = &ops, .self = l, .name = "later"};
}

static const int32_t text[N_IDS + 8] = {1, 2, 3};

START_TEST(tickets_come_back_in_any_order)
{
    struct later l = {.answer_len = 1};
    struct tlr_expert e = later_expert(&l);
    struct tlr_expert_ticket t[2];
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert(tlr_expert_is_async(&e));
    MUST(tlr_expert_submit(&e, text, 3, 1, N_IDS, &t[0], &must_err));
    MUST(tlr_expert_submit(&e, text, 2, 1, N_IDS, &t[1], &must_err));
    ck_assert_int_eq(tlr_expert_wait(&e, &t[1], 0, N_IDS, &reply, &err),
                     TLR_EPENDING);
    ck_assert_str_eq(err.text, "");
    MUST(tlr_expert_wait(&e, &t[1], 0, N_IDS, &reply, &must_err));
    ck_assert_int_eq(reply.ids[0], 2);
    ck_assert_uint_eq(reply.first_byte_ns, 5);
    MUST(tlr_expert_wait(&e, &t[0], -1, N_IDS, &reply, &must_err));
    ck_assert_int_eq(reply.ids[0], 3);
    /* Both are spent. */
    ck_assert_int_eq(tlr_expert_wait(&e, &t[0], 0, N_IDS, &reply, &err),
                     TLR_EUSAGE);
    tlr_expert_cancel(&e, &t[0]);
    ck_assert_int_eq(l.n_cancelled, 0);
    MUST(tlr_expert_submit(&e, text, 1, 1, N_IDS, &t[0], &must_err));
    tlr_expert_cancel(&e, &t[0]);
    ck_assert_int_eq(l.n_cancelled, 1);
    MUST(tlr_expert_submit(&e, text, 1, 1, N_IDS, &t[0], &must_err));
    err = (struct tlr_err)TLR_ERR_INIT;
    ck_assert_int_eq(tlr_expert_submit(&e, text, 1, 1, N_IDS, &t[1], &err),
                     TLR_ELIMIT);
    tlr_expert_cancel(&e, &t[1]); /* nothing to cancel */
    ck_assert_int_eq(l.n_cancelled, 1);
}
END_TEST

START_TEST(what_comes_late_is_checked_too)
{
    struct later l = {.answer_len = 2};
    struct tlr_expert e = later_expert(&l);
    struct tlr_expert_ticket t;
    struct tlr_expert_reply reply;
    struct tlr_err err = TLR_ERR_INIT;
    MUST(tlr_expert_submit(&e, text, 3, 1, N_IDS, &t, &must_err));
    ck_assert_int_eq(tlr_expert_wait(&e, &t, -1, N_IDS, &reply, &err),
                     TLR_EFORMAT);
    l.answer_len = 1;
    err = (struct tlr_err)TLR_ERR_INIT;
    MUST(tlr_expert_submit(&e, text, N_IDS, 1, N_IDS, &t, &must_err));
    ck_assert_int_eq(tlr_expert_wait(&e, &t, -1, N_IDS, &reply, &err),
                     TLR_EFORMAT);
    ck_assert(strstr(err.text, "found 320") != NULL);
    l.fail_code = TLR_EIO;
    err = (struct tlr_err)TLR_ERR_INIT;
    MUST(tlr_expert_submit(&e, text, 3, 1, N_IDS, &t, &must_err));
    ck_assert_int_eq(tlr_expert_wait(&e, &t, -1, N_IDS, &reply, &err),
                     TLR_EIO);
    ck_assert_int_eq(t.n_tok, 0);
    for (int n_tok = 0; n_tok <= TLR_EXPERT_TOK_MAX + 1;
         n_tok += TLR_EXPERT_TOK_MAX + 1) {
        err = (struct tlr_err)TLR_ERR_INIT;
        ck_assert_int_eq(
            tlr_expert_submit(&e, text, 3, n_tok, N_IDS, &t, &err),
            TLR_EUSAGE);
    }
}
END_TEST

START_TEST(one_that_only_asks_is_asked_at_once)
{
    struct rig_expert table = {.id = 7, .n_tok = 1, .fail_every = 2,
                               .fail_code = TLR_EIO};
    struct tlr_expert e = rig_expert(&table);
    struct tlr_expert_ticket t;
    struct tlr_expert_reply reply;
    struct tlr_expert_account account;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert(!tlr_expert_is_async(&e));
    MUST(tlr_expert_submit(&e, text, 3, 1, N_IDS, &t, &must_err));
    ck_assert_int_eq(table.n_asks, 1);
    MUST(tlr_expert_wait(&e, &t, 0, N_IDS, &reply, &must_err));
    ck_assert_int_eq(reply.ids[0], 7);
    MUST(tlr_expert_submit(&e, text, 3, 1, N_IDS, &t, &must_err));
    ck_assert_int_eq(tlr_expert_wait(&e, &t, 0, N_IDS, &reply, &err),
                     TLR_EIO);
    ck_assert_msg(strstr(err.text, "no answer to ask 2") != NULL, "%s",
                  err.text);
    tlr_expert_warm(&e, text, 3); /* no server, no harm */
    tlr_expert_account_of(&e, &account);
    ck_assert_uint_eq(account.n_requests, 0);
}
END_TEST

Suite *suite_expert(void);
Suite *suite_expert(void)
{
    Suite *s = suite_create("expert");
    TCase *tc = tcase_create("expert");
    tcase_add_test(tc, tickets_come_back_in_any_order);
    tcase_add_test(tc, what_comes_late_is_checked_too);
    tcase_add_test(tc, one_that_only_asks_is_asked_at_once);
    suite_add_tcase(s, tc);
    return s;
}
