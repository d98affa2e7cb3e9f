/* test_retry.c - waits, the breaker and budgets by a clock of their own. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "net/retry.h"
#include "tests/support/tlr_check.h"

static const uint64_t SECOND = 1000000000, NOW = 77000000000;

START_TEST(what_may_help)
{
    static const struct {
        long status;
        bool again;
    } rows[] = {{400, false}, {401, false}, {403, false}, {404, false},
                {408, true},  {413, false}, {422, false}, {425, true},
                {429, true},  {500, true},  {501, false}, {502, true},
                {503, true},  {504, true},  {505, false}, {302, false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        ck_assert_msg(tlr_retry_may_help(0, rows[i].status) == rows[i].again,
                      "%ld", rows[i].status);
    ck_assert(tlr_retry_may_help(TLR_EIO, 0));
    ck_assert(tlr_retry_may_help(TLR_EFORMAT, 200));
    ck_assert(!tlr_retry_may_help(TLR_EMISMATCH, 200));
    ck_assert(!tlr_retry_may_help(TLR_ELIMIT, 0));
    ck_assert(!tlr_retry_may_help(TLR_ECANCELLED, 0));
}
END_TEST

/* Full jitter: between 0 and a bound that doubles from 100 ms to 5 s. */
START_TEST(waits)
{
    static const double most_ms[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    for (int made = 1; made <= 8; made++) {
        double longest = 0;
        for (uint64_t r = 0; r < 400; r++) {
            int64_t w = tlr_retry_wait_ns(made, (double)NAN, tlr_hash_u64(r, 1));
            ck_assert_int_ge(w, 0);
            longest = (double)w > longest ? (double)w : longest;
        }
        ck_assert_double_le(longest, most_ms[made - 1] * 1e6);
        ck_assert_double_ge(longest, most_ms[made - 1] * 0.9e6);
    }
    ck_assert_int_ge(tlr_retry_wait_ns(1, 2.5, 3), 2500000000);
    ck_assert_int_eq(tlr_retry_wait_ns(1, 1e300, 3), 86400000000000);
}
END_TEST

static bool allows(struct tlr_breaker *b, uint64_t now, bool trial)
{
    bool is_trial;
    bool ok = tlr_breaker_allows(b, now, &is_trial);
    ck_assert_int_eq(is_trial, trial);
    return ok;
}

START_TEST(breaker)
{
    struct tlr_breaker b = {0};
    for (int i = 0; i < TLR_BREAKER_FAILS; i++) {
        ck_assert(allows(&b, NOW, false));
        tlr_breaker_note(&b, false, (double)NAN, NOW);
    }
    ck_assert(!allows(&b, NOW + SECOND - 1, false));
    /* half open: one may try, the others not */
    ck_assert(allows(&b, NOW + SECOND, true));
    ck_assert(!allows(&b, NOW + SECOND, false));
    tlr_breaker_note(&b, false, (double)NAN, NOW + SECOND);
    ck_assert(!allows(&b, NOW + 3 * SECOND - 1, false));
    ck_assert(allows(&b, NOW + 3 * SECOND, true));
    tlr_breaker_forget(&b); /* given up: the next one tries */
    ck_assert(allows(&b, NOW + 3 * SECOND, true));
    tlr_breaker_note(&b, true, (double)NAN, NOW + 3 * SECOND);
    ck_assert(allows(&b, NOW + 3 * SECOND, false));
    /* closed again: it takes as many failures in a row as before */
    tlr_breaker_note(&b, false, (double)NAN, NOW);
    tlr_breaker_note(&b, true, (double)NAN, NOW);
    for (int i = 0; i < TLR_BREAKER_FAILS - 1; i++)
        tlr_breaker_note(&b, false, (double)NAN, NOW);
    ck_assert(allows(&b, NOW, false));
}
END_TEST

START_TEST(breaker_rests)
{
    struct tlr_breaker b = {0};
    uint64_t now = NOW;
    bool trial;
    for (int i = 0; i < 20; i++) { /* 1, 2, 4 ... 30 s and no longer */
        tlr_breaker_note(&b, false, (double)NAN, now);
        ck_assert_uint_le(b.until_ns, now + 30 * SECOND);
        now += 30 * SECOND;
        ck_assert(tlr_breaker_allows(&b, now, &trial));
    }
    /* the server's own word opens it at once, up to a cap */
    struct tlr_breaker c = {0};
    tlr_breaker_note(&c, false, 7, NOW);
    ck_assert_uint_eq(c.until_ns, NOW + 7 * SECOND);
    struct tlr_breaker d = {0};
    tlr_breaker_note(&d, false, 1e18, NOW);
    ck_assert_uint_eq(d.until_ns, NOW + 30 * SECOND);
}
END_TEST

START_TEST(budgets)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_budget calls = {.max_calls = 2};
    ck_assert_int_eq(tlr_budget_take(&calls, 5, 1, &err), 0);
    ck_assert_int_eq(tlr_budget_take(&calls, 5, 1, &err), 0);
    ck_assert_int_eq(tlr_budget_take(&calls, 5, 1, &err), TLR_ELIMIT);
    ck_assert_uint_eq(calls.calls, 2);
    ck_assert(strstr(err.text, "2 requests") != NULL);
    struct tlr_budget tokens = {.max_tok = 20};
    ck_assert_int_eq(tlr_budget_take(&tokens, 10, 4, NULL), 0);
    ck_assert_int_eq(tlr_budget_take(&tokens, 6, 1, NULL), TLR_ELIMIT);
    ck_assert_int_eq(tlr_budget_take(&tokens, 5, 1, NULL), 0);
    struct tlr_budget wait = {.max_wait_ns = SECOND, .wait_ns = SECOND - 1};
    ck_assert_int_eq(tlr_budget_take(&wait, 1, 1, NULL), 0);
    wait.wait_ns = SECOND;
    ck_assert_int_eq(tlr_budget_take(&wait, 1, 1, NULL), TLR_ELIMIT);
    struct tlr_budget cost = {.max_cost = 1, .price_in = 2, .price_out = 4};
    ck_assert_int_eq(tlr_budget_take(&cost, 300000, 100000, NULL), 0);
    ck_assert_double_eq_tol(tlr_budget_cost(&cost), 1, 1e-9);
    ck_assert_int_eq(tlr_budget_take(&cost, 1, 0, NULL), TLR_ELIMIT);
    struct tlr_budget none = {0};
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(tlr_budget_take(&none, 1 << 20, 64, NULL), 0);
    ck_assert_double_eq(tlr_budget_cost(&none), 0);
}
END_TEST

Suite *suite_retry(void);
Suite *suite_retry(void)
{
    Suite *s = suite_create("retry");
    TCase *t = tcase_create("retry");
    tcase_add_test(t, what_may_help);
    tcase_add_test(t, waits);
    tcase_add_test(t, breaker);
    tcase_add_test(t, breaker_rests);
    tcase_add_test(t, budgets);
    suite_add_tcase(s, t);
    return s;
}
