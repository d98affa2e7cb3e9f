/* test_soak.c - ten thousand escalations over a line that fails in a fifth of its
 * answers, in every way that server.h knows: `make soak-net`.
 *
 * Every text is checked against a serial loop without a line, whose large model
 * fails at the very positions where an ask failed: a token that is wrong, lost or
 * credited to the wrong model shows.  One client lives through each format's run,
 * and what it and the loop hold of memory and files must not grow.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/clock.h"
#include "base/hash.h"
#include "tests/net/loop.h"
#include "tests/support/tlr_check.h"

enum { ESCALATIONS = 10000, N_FORMATS = 3, MOST_FILES = 4096 };

static const enum tlr_net_api_kind formats[N_FORMATS] = {
    TLR_NET_SGLANG, TLR_NET_VLLM, TLR_NET_LLAMACPP};

/* TLR_SOAK: escalations that must be answered, of all formats together. */
static uint64_t n_wanted(void)
{
    const char *n = getenv("TLR_SOAK");
    return n && n[0] ? strtoull(n, NULL, 10) : ESCALATIONS;
}

static int n_files(void)
{
    int n = 0;
    for (int fd = 0; fd < MOST_FILES; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* What malloc has handed out, in KiB; 0 where the library does not say.  The
 * server of the tests lives here, too, and takes 128 KiB a connection. */
static long heap_kib(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#if __GLIBC_PREREQ(2, 33)
    struct mallinfo2 m = mallinfo2();
    return (long)((m.uordblks + m.hblkhd) / 1024);
#endif
#endif
    return 0;
}

/* ---- the same text without a line ---- */

struct replay {
    struct hash_expert hash;
    struct tlr_expert hashed;
    const struct loop_result *seen; /* fails where it did */
    uint32_t n_ids;
};

static int ask(void *self, const int32_t *ids, size_t n, int n_tok,
               struct tlr_expert_reply *out, struct tlr_err *err)
{
    struct replay *r = self;
    if (r->seen->by[n - LOOP_PROMPT] == 'F')
        return tlr_err_set(err, TLR_EIO, "as it did");
    return tlr_expert_ask(&r->hashed, ids, n, n_tok, r->n_ids, out, err);
}

static void check_text(const struct loop *l, const struct loop_result *got)
{
    static const struct tlr_expert_ops ops = {.ask = ask};
    struct replay r = {.hash = {.o = &l->o}, .seen = got,
                       .n_ids = l->o.seam.n_ids};
    struct tlr_expert e = {.ops = &ops, .self = &r, .name = "replay"};
    r.hashed = hash_expert(&r.hash);
    struct loop_result want = loop_run(l, &e, 0);
    loop_same(got, &want);
}

/* ---- one format ---- */

static void soak(enum tlr_net_api_kind kind, uint64_t n_most)
{
    static const double calls[] = {1.6, 0, 3, 10};
    struct loop l = loop_open(kind);
    int files = n_files();
    struct server *s = server_start(&l.o);
    struct tlr_net_options o = loop_options(s);
    struct tlr_expert e;
    uint64_t n_llm = 0, n_failed = 0, n_asked = 0, begun = tlr_now_ns();
    long early_kib = 0;
    double longest_ms = 0;
    o.timeout_s = 1;
    struct tlr_net *n = loop_connect(&l, &o, &e);
    server_spoil_mixed(s, 0.2, tlr_test_seed() + (uint64_t)kind);
    for (uint64_t text = 0; n_llm < n_most; text++) {
        for (int i = 0; i < LOOP_PROMPT; i++)
            l.prompt[i] = (int32_t)(tlr_hash_u64(text, (uint64_t)i) %
                                    l.o.seam.n_ids);
        uint64_t at = tlr_now_ns();
        struct loop_result got = loop_run(&l, &e, calls[text % 4]);
        double ms = tlr_ms_between(at, tlr_now_ns());
        longest_ms = ms > longest_ms ? ms : longest_ms;
        check_text(&l, &got);
        if (got.totals.n_llm == 0) /* the server is left alone for a while */
            nanosleep(&(struct timespec){0, 200000000}, NULL);
        n_llm += got.totals.n_llm;
        n_failed += got.totals.n_failed;
        n_asked += got.totals.n_asked;
        if (!early_kib && n_llm >= n_most / 4)
            early_kib = heap_kib();
    }
    long late_kib = heap_kib();
    struct server_counts c = server_counts(s);
    struct tlr_expert_account a;
    tlr_expert_account_of(&e, &a);
    printf("%s: %.0f s, %llu needed, %llu answered, %llu failed; %llu requests, "
           "%d of %d answers spoiled; longest text %.1f s; %ld KiB in use at a "
           "quarter, %ld at the end\n", tlr_net_about(n),
           tlr_ms_between(begun, tlr_now_ns()) / 1e3,
           (unsigned long long)n_asked, (unsigned long long)n_llm,
           (unsigned long long)n_failed, (unsigned long long)a.n_requests,
           c.n_spoiled, c.n_questions, longest_ms / 1e3, early_kib, late_kib);
    ck_assert_int_gt(c.n_spoiled, c.n_questions / 7);
    ck_assert_uint_gt(a.n_retries, n_llm / 20);
    /* Every ask of a text may run into its deadline, none may outlive it. */
    ck_assert_double_le(longest_ms, LOOP_TOK * 1000 * 2);
    tlr_net_close(n);
    server_stop(s);
    loop_close(&l);
    ck_assert_int_eq(n_files(), files);
    ck_assert_int_le(late_kib, early_kib + 2048);
}

START_TEST(a_fifth_of_all_answers_spoiled)
{
    soak(formats[_i], n_wanted() / N_FORMATS + 1);
}
END_TEST

Suite *suite_soak(void);
Suite *suite_soak(void)
{
    Suite *s = suite_create("soak");
    TCase *t = tcase_create("soak");
    tcase_set_timeout(t, 3600);
    tcase_add_loop_test(t, a_fifth_of_all_answers_spoiled, 0, N_FORMATS);
    suite_add_tcase(s, t);
    return s;
}
