/* same_text.c - the text of the loop that runs ahead beside the serial loop's, on
 * real weights and real questions: `make same-text`.
 *
 * The large model is a file behind a loopback server of llama.cpp's format, so
 * that tlr's own client carries every ask.  Each question is answered twice, and
 * every token must be the same in id, writer and trust, to the bit.  Latency, bound
 * of asks, lanes, threshold and sampling change from question to question.  One
 * JSON object in the end; exit 1 with the first difference.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/escalate/loopback.h"
#include "net/net.h"
#include "router/decode.h"
#include "router/router.h"
#include "router/task.h"

enum { MOST_TOK = 256, N_CTX = 1024 };

struct args {
    const char *slm, *llm, *questions;
    size_t n_items, n_skipped;
    uint32_t n_tok;
    int n_threads;
};

/* How one question is answered. */
struct plan {
    struct tlr_speculation ahead;
    double latency_ms, share;
    bool draws; /* the small model's tokens are sampled */
};

struct text {
    struct tlr_joint_token tokens[MOST_TOK];
    uint32_t n;
    struct tlr_joint_totals totals;
};

struct bench {
    struct args a;
    struct tlr_model *slm, *llm;
    struct tlr_session *session;
    struct tlr_router *router;
    struct tlr_expert large; /* the file, which the server asks */
    struct loopback *server;
    struct tlr_net *net;
    struct tlr_expert remote; /* the same over the line */
    struct tlr_items items;
    struct text serial, ahead;
    uint64_t n_tok, n_asked, n_calls, n_redone, n_branches;
};

static struct plan plan_of(size_t item)
{
    static const double latencies_ms[] = {0, 12, 40, 90};
    static const double shares[] = {0.07, 0.14, 0.3};
    static const double calls[] = {1.6, 3, 1, 10};
    struct plan p = {.latency_ms = latencies_ms[item % 4],
                     .share = shares[item % 3],
                     .draws = item % 5 == 4};
    p.ahead.calls = calls[item / 4 % 4];
    p.ahead.n_lanes = 1 + item / 16 % TLR_LANE_MAX;
    return p;
}

/* ---- one question ---- */

static int write_text(struct bench *b, const struct tlr_ids *prompt,
                      const struct plan *p, const struct tlr_speculation *ahead,
                      struct text *out, struct tlr_err *err)
{
    struct tlr_joint *j = NULL;
    struct tlr_sampler *sampler = NULL;
    struct tlr_generation g = *tlr_model_generation(b->slm);
    struct tlr_joint_options o = {
        .policy = {.kind = tlr_router_shape(b->router)->kind,
                   .router = b->router},
        .expert = &b->remote, .require_expert = true, .ahead = *ahead};
    g.temperature = p->draws ? 0.8f : 0;
    out->n = 0;
    int rc = tlr_calibration_tau(tlr_router_calibration(b->router),
                                 o.policy.kind, p->share, &o.policy.tau, err);
    rc = rc ? rc : tlr_sampler_new(&sampler, &g, tlr_model_n_ids(b->slm), 11, err);
    o.sampler = sampler;
    rc = rc ? rc : tlr_rewind(b->session, 0, err);
    rc = rc ? rc : tlr_prefill(b->session, prompt->ids, prompt->n, 0, err);
    rc = rc ? rc : tlr_joint_new(&j, b->session, b->slm, &o, err);
    for (bool ends = false; !rc && !ends && out->n < b->a.n_tok;) {
        struct tlr_joint_token *t = &out->tokens[out->n];
        rc = tlr_joint_next(j, t, err);
        out->n += rc == 0;
        ends = !rc && tlr_generation_is_eos(&g, t->id);
    }
    if (j)
        out->totals = tlr_joint_read(j);
    tlr_joint_free(j);
    tlr_sampler_free(sampler);
    return rc;
}

static bool is_same(const struct tlr_joint_token *a,
                    const struct tlr_joint_token *b)
{
    return a->id == b->id && a->slm == b->slm && a->llm == b->llm &&
           a->is_llm == b->is_llm && a->is_asked == b->is_asked &&
           memcmp(&a->trust, &b->trust, sizeof a->trust) == 0;
}

static int compare(const struct bench *b, size_t item, struct tlr_err *err)
{
    uint32_t n = b->serial.n > b->ahead.n ? b->serial.n : b->ahead.n;
    for (uint32_t i = 0; i < n; i++) {
        const struct tlr_joint_token *s = &b->serial.tokens[i];
        const struct tlr_joint_token *a = &b->ahead.tokens[i];
        if (i < b->serial.n && i < b->ahead.n && is_same(s, a))
            continue;
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: line %zu: token %u of %u: expected %d by %s "
                           "(trust %.9g), found %d by %s (trust %.9g) of %u",
                           b->a.questions, b->items.items[item].line, i,
                           b->serial.n, (int)s->id, s->is_llm ? "llm" : "slm",
                           (double)s->trust, (int)a->id,
                           a->is_llm ? "llm" : "slm", (double)a->trust,
                           b->ahead.n);
    }
    return 0;
}

static int answer(struct bench *b, size_t item, struct tlr_err *err)
{
    static const struct tlr_speculation serial = {0};
    struct plan p = plan_of(item);
    struct tlr_ids prompt = {0};
    loopback_set(b->server, p.latency_ms, 0);
    p.ahead.max_tok = b->a.n_tok;
    int rc = tlr_task_encode(b->slm, TLR_TASK_CSQA, 0, false,
                             &b->items.items[item], &prompt, NULL, err);
    rc = rc ? rc : write_text(b, &prompt, &p, &serial, &b->serial, err);
    rc = rc ? rc : write_text(b, &prompt, &p, &p.ahead, &b->ahead, err);
    tlr_ids_clear(&prompt);
    if (rc)
        return rc;
    const struct tlr_joint_totals *t = &b->ahead.totals;
    b->n_tok += b->ahead.n;
    b->n_asked += t->n_asked;
    b->n_calls += t->n_calls;
    b->n_redone += t->n_redone;
    b->n_branches += t->n_branches;
    return compare(b, item, err);
}

/* ---- the pair ---- */

static int dial(struct bench *b, struct tlr_err *err)
{
    struct tlr_net_options o = TLR_NET_OPTIONS_INIT;
    int rc = loopback_open(&b->server, &b->large, b->slm, err);
    if (rc)
        return rc;
    o.url = loopback_url(b->server);
    o.timeout_s = 120;
    rc = tlr_net_open(&b->net, &o, b->slm, err);
    rc = rc ? rc : tlr_net_connect(b->net, err);
    return rc ? rc : tlr_net_expert(b->net, &b->remote, err);
}

static int open_all(struct bench *b, struct tlr_err *err)
{
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    o.n_ctx = N_CTX;
    o.n_threads = b->a.n_threads;
    int rc = tlr_items_read(&b->items, TLR_TASK_CSQA, b->a.questions,
                            b->a.n_skipped + b->a.n_items, err);
    rc = rc ? rc : tlr_model_open(&b->slm, b->a.slm, err);
    rc = rc ? rc : tlr_model_open(&b->llm, b->a.llm, err);
    rc = rc ? rc : tlr_router_of_model(&b->router, b->slm, err);
    rc = rc ? rc : tlr_router_check(b->router, b->slm, err);
    rc = rc ? rc : tlr_session_new(&b->session, b->slm, &o, err);
    rc = rc ? rc : tlr_expert_open_model(&b->large, b->llm, b->slm, &o, err);
    return rc ? rc : dial(b, err);
}

static void close_all(struct bench *b)
{
    tlr_expert_close(&b->remote);
    tlr_net_close(b->net);
    loopback_close(b->server);
    tlr_expert_close(&b->large);
    tlr_session_free(b->session);
    tlr_router_free(b->router);
    tlr_model_close(b->llm);
    tlr_model_close(b->slm);
    tlr_items_clear(&b->items);
}

static void print(const struct bench *b, size_t n_done, double seconds,
                  bool is_identical)
{
    printf("{\"questions\": %zu, \"tokens\": %" PRIu64 ", \"asked\": %" PRIu64
           ", \"calls\": %" PRIu64 ", \"redone\": %" PRIu64
           ", \"branches_taken\": %" PRIu64 ", \"seconds\": %.1f, "
           "\"identical\": %s}\n", n_done, b->n_tok, b->n_asked, b->n_calls,
           b->n_redone, b->n_branches, seconds,
           is_identical ? "true" : "false");
}

static int measure(struct bench *b, struct tlr_err *err)
{
    uint64_t begun = tlr_now_ns();
    size_t i = b->a.n_skipped, n_done = 0;
    int rc = open_all(b, err);
    for (; !rc && i < b->items.n; i++) {
        rc = answer(b, i, err);
        n_done += rc == 0;
        if (i % 50 == 49)
            fprintf(stderr, "%zu of %zu\n", i + 1, b->items.n);
    }
    print(b, n_done, tlr_ms_between(begun, tlr_now_ns()) / 1e3, !rc);
    return rc;
}

/* ---- the command line ---- */

static int usage(void)
{
    fputs("usage: same_text [--questions N] [--skip N] [--tokens N] "
          "[--threads N] SLM LLM CSQA.jsonl\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"questions", required_argument, NULL, 'q'},
        {"skip", required_argument, NULL, 's'},
        {"tokens", required_argument, NULL, 'n'},
        {"threads", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0}};
    static struct bench b;
    struct tlr_err err = TLR_ERR_INIT;
    b.a = (struct args){.n_items = 500, .n_tok = 24, .n_threads = 1};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        long n = c == '?' ? -1 : atol(optarg);
        long most = c == 'n' ? MOST_TOK : c == 't' ? 64 : 1000000;
        if (n < (c == 's' ? 0 : 1) || n > most)
            return usage();
        if (c == 'q')
            b.a.n_items = (size_t)n;
        else if (c == 's')
            b.a.n_skipped = (size_t)n;
        else if (c == 'n')
            b.a.n_tok = (uint32_t)n;
        else
            b.a.n_threads = (int)n;
    }
    if (argc - optind != 3)
        return usage();
    b.a.slm = argv[optind];
    b.a.llm = argv[optind + 1];
    b.a.questions = argv[optind + 2];
    int rc = measure(&b, &err);
    if (rc)
        fprintf(stderr, "same_text: %s\n", err.text);
    close_all(&b);
    return rc ? 1 : 0;
}
