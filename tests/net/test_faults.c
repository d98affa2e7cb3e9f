/* test_faults.c - a line that breaks in every way that server.h knows: the text is
 * the serial loop's where asking again helps, the small model's where nothing does,
 * and nothing hangs past its deadline. */
#include <string.h>

#include "base/clock.h"
#include "tests/net/loop.h"
#include "tests/support/tlr_check.h"

static const struct {
    const char *name;
    bool again;
} faults[] = {
#define FAULT_ROW(id, again) {#id, again},
    FAULTS(FAULT_ROW)
#undef FAULT_ROW
};

static struct tlr_net_options patient(const struct server *s)
{
    struct tlr_net_options o = loop_options(s);
    o.n_attempts = 6;
    o.timeout_s = 20;
    return o;
}

static struct loop_result without_line(struct loop *l, int fail_every)
{
    struct hash_expert h = {.o = &l->o, .fail_every = fail_every};
    struct tlr_expert e = hash_expert(&h);
    return loop_run(l, &e, 0);
}

static struct loop_result small_alone(struct loop *l)
{
    return without_line(l, 1);
}

/* Every third answer is spoiled.  Where asking again helps, all is as if the line
 * were whole, serially and ahead; where it does not, every third ask fails. */
START_TEST(now_and_then)
{
    enum fault f = (enum fault)_i;
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = patient(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    /* What never ends must be cut off by the ask's own deadline. */
    if (f == FAULT_HANG || f == FAULT_TRICKLE) {
        server_spoil(s, FAULT_NONE, 2, 0);
    } else {
        server_spoil(s, f, 3, 0);
        struct loop_result want = without_line(&l, faults[f].again ? 0 : 3);
        struct loop_result got = loop_run(&l, &e, 0);
        loop_same(&got, &want);
        ck_assert_msg(server_counts(s).n_spoiled > 5, "%s", faults[f].name);
        if (faults[f].again) {
            got = loop_run(&l, &e, 3);
            loop_same(&got, &want);
        }
    }
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* Every answer is spoiled: the small model writes all, each failed ask is counted,
 * and the breaker keeps the wait for all of them near that for a few. */
START_TEST(always)
{
    enum fault f = (enum fault)_i;
    struct loop l = loop_open(TLR_NET_VLLM);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    o.n_attempts = 2;
    o.timeout_s = 0.5;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_spoil(s, f, 1, f == FAULT_HANG ? 60000 : 200);
    struct loop_result want = small_alone(&l);
    for (int ahead = 0; ahead <= 3; ahead += 3) {
        uint64_t begun = tlr_now_ns();
        struct loop_result got = loop_run(&l, &e, ahead);
        double ms = tlr_ms_between(begun, tlr_now_ns());
        for (int i = 0; i < LOOP_TOK; i++)
            ck_assert_msg(got.ids[i] == want.ids[i], "%s: token %d",
                          faults[f].name, i);
        ck_assert_uint_eq(got.totals.n_llm, 0);
        ck_assert_uint_eq(got.totals.n_failed, got.totals.n_asked);
        ck_assert_msg(got.failure[0] != '\0', "%s", faults[f].name);
        /* 30 asks of half a second would be 15 s. */
        ck_assert_msg(ms < 12000, "%s: %.0f ms", faults[f].name, ms);
    }
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

static int ask_once(struct loop *l, struct tlr_expert *e, double *ms,
                    struct tlr_err *err)
{
    struct tlr_expert_reply reply;
    uint64_t begun = tlr_now_ns();
    int rc = tlr_expert_ask(e, l->prompt, LOOP_PROMPT, 1, l->o.seam.n_ids,
                            &reply, err);
    *ms = tlr_ms_between(begun, tlr_now_ns());
    return rc;
}

/* A line that says nothing, or almost nothing: the deadline holds. */
START_TEST(deadline)
{
    enum fault f = _i ? FAULT_TRICKLE : FAULT_HANG;
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_err err = TLR_ERR_INIT;
    double ms;
    o.timeout_s = 0.4;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_spoil(s, f, 1, f == FAULT_HANG ? 60000 : 100);
    ck_assert_int_eq(ask_once(&l, &e, &ms, &err), TLR_EIO);
    ck_assert_double_ge(ms, 350);
    ck_assert_double_le(ms, 5000);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* It stops answering, is left alone, and comes back: the one ask that tries finds
 * out, and all is as before. */
START_TEST(comes_back)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_err err = TLR_ERR_INIT;
    double ms;
    o.timeout_s = 0.3;
    o.n_attempts = 1;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    ck_assert_int_eq(ask_once(&l, &e, &ms, &err), 0);
    server_spoil(s, FAULT_HANG, 1, 60000);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(ask_once(&l, &e, &ms, &err), TLR_EIO);
    int before = server_counts(s).n_questions;
    for (int i = 0; i < 20; i++) {
        struct tlr_err left = TLR_ERR_INIT;
        ck_assert_int_eq(ask_once(&l, &e, &ms, &left), TLR_EIO);
        ck_assert_msg(strstr(left.text, "; left alone for ") != NULL, "%s", left.text);
    }
    ck_assert_int_eq(server_counts(s).n_questions, before);
    server_spoil(s, FAULT_NONE, 0, 0);
    int rc = TLR_EIO;
    for (uint64_t begun = tlr_now_ns();
         rc && tlr_ms_between(begun, tlr_now_ns()) < 10000;)
        rc = ask_once(&l, &e, &ms, NULL);
    ck_assert_int_eq(rc, 0);
    struct loop_result want = without_line(&l, 0), got = loop_run(&l, &e, 0);
    loop_same(&got, &want);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* Nobody listens when the run begins; later somebody does. */
START_TEST(begins_without)
{
    struct loop l = loop_open(TLR_NET_VLLM);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_net *n = NULL;
    struct tlr_err err = TLR_ERR_INIT;
    double ms;
    l.o.key = NULL;
    server_spoil(s, FAULT_NONE, 0, 0);
    server_delay(s, 400);
    o.timeout_s = 0.2;
    ck_assert_int_eq(tlr_net_open(&n, &o, l.m, &err), 0);
    ck_assert_int_eq(tlr_net_connect(n, &err), TLR_EIO);
    ck_assert_int_eq(tlr_net_expert(n, &e, NULL), 0);
    ck_assert_int_eq(ask_once(&l, &e, &ms, NULL), TLR_EIO);
    server_delay(s, 0);
    int rc = TLR_EIO;
    for (uint64_t begun = tlr_now_ns();
         rc && tlr_ms_between(begun, tlr_now_ns()) < 10000;)
        rc = ask_once(&l, &e, &ms, NULL);
    ck_assert_int_eq(rc, 0);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* A server's own words in a message carry nothing that a terminal obeys. */
START_TEST(harmless_words)
{
    struct loop l = loop_open(TLR_NET_SGLANG);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    struct tlr_err err = TLR_ERR_INIT;
    double ms;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_spoil(s, FAULT_STATUS_400, 1, 0);
    ck_assert_int_eq(ask_once(&l, &e, &ms, &err), TLR_EIO);
    ck_assert_msg(strstr(err.text, "400: a bad ?[31mday") != NULL, "%s",
                  err.text);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

/* A fifth of all answers spoiled, in every way at once: no token is lost or wrong. */
START_TEST(mixed)
{
    struct loop l = loop_open(TLR_NET_LLAMACPP);
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = patient(s);
    struct tlr_expert e;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    struct loop_result want = without_line(&l, 0);
    uint64_t asked = 0;
    for (int f = 1; f < N_FAULTS; f++) {
        if (!faults[f].again || f == FAULT_HANG || f == FAULT_TRICKLE)
            continue;
        server_spoil(s, (enum fault)f, 5, 0);
        struct loop_result got = loop_run(&l, &e, f % 2 ? 0 : 2);
        loop_same(&got, &want);
        asked += got.totals.n_asked;
    }
    ck_assert_uint_gt(asked, 300);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
}
END_TEST

Suite *suite_faults(void);
Suite *suite_faults(void)
{
    Suite *s = suite_create("faults");
    TCase *t = tcase_create("faults");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, now_and_then, 1, N_FAULTS);
    tcase_add_loop_test(t, always, 1, N_FAULTS);
    tcase_add_loop_test(t, deadline, 0, 2);
    tcase_add_test(t, comes_back);
    tcase_add_test(t, begins_without);
    tcase_add_test(t, harmless_words);
    tcase_add_test(t, mixed);
    suite_add_tcase(s, t);
    return s;
}
