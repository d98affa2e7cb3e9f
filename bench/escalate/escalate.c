/* escalate.c - what the wait for a large model costs, and how much of it the joint
 * loop hides: `make bench-escalate`.
 *
 * A small model of random weights in the shape of Qwen2.5-0.5B writes with a large
 * one that is an oracle at the end of a wire (oracle.h).  For every latency and
 * every share of routed tokens: the small model alone, the serial loop, and the
 * loop that runs ahead, each at its bound of asks.  Texts are compared token by
 * token.  One JSON object a line.
 *
 * With --http the oracle is a server on this machine and the client is tlr's own:
 * what it takes beyond the set latency is overhead_ms_p50.  That needs a model
 * with a tokenizer (--model).
 */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "bench/escalate/loopback.h"
#include "bench/escalate/oracle.h"
#include "bench/random_model.h"
#include "cli/cli.h"
#include "net/net.h"
#include "router/decode.h"

enum { LIST_MAX = 8, N_CTX = 4096 };

struct list {
    double items[LIST_MAX];
    int n;
};

struct args {
    struct list rtt_ms, shares, calls;
    struct list lanes; /* timelines followed at once, for each of calls */
    double llm_ms;
    uint32_t n_tok, n_prompt; /* n_tok 0: by share */
    const char *model;        /* NULL: random weights */
    bool http;
};

struct bench {
    struct args a;
    struct tlr_model *model;
    struct tlr_session *session;
    int32_t *prompt, *first, *second; /* [N_CTX] */
    uint32_t n_tok;
    struct tlr_policy policy;
    float *waits_ms; /* of each ask of the serial loop, beyond the set latency */
    size_t n_waits;
};

struct outcome {
    double seconds;
    struct tlr_joint_totals totals;
};

/* ---- one run ---- */

/* Writes n_tok tokens behind the prompt into ids. */
static int write_text(struct bench *b, const struct tlr_joint_options *o,
                      int32_t *ids, struct outcome *out, struct tlr_err *err)
{
    struct tlr_joint *j = NULL;
    struct tlr_joint_token t;
    int rc = tlr_rewind(b->session, 0, err);
    if (!rc)
        rc = tlr_prefill(b->session, b->prompt, b->a.n_prompt, 0, err);
    if (!rc)
        rc = tlr_joint_new(&j, b->session, b->model, o, err);
    if (rc)
        return rc;
    b->n_waits = 0;
    uint64_t begun = tlr_now_ns();
    for (uint32_t i = 0; i < b->n_tok && !rc; i++) {
        rc = tlr_joint_next(j, &t, err);
        ids[i] = t.id;
        if (!rc && t.is_llm)
            b->waits_ms[b->n_waits++] = (float)(t.llm_ns + t.wire_ns) / 1e6f;
    }
    out->seconds = (double)(tlr_now_ns() - begun) / 1e9;
    out->totals = tlr_joint_read(j);
    tlr_joint_free(j);
    return rc;
}

static int teach(struct bench *b, struct oracle *o, struct tlr_err *err)
{
    struct outcome unused;
    struct wire w = {.oracle = o};
    struct tlr_expert e = wire_expert(&w);
    struct tlr_joint_options jo = {.policy = b->policy, .expert = &e,
                                   .require_expert = true};
    o->teacher = b->session;
    int rc = write_text(b, &jo, b->first, &unused, err);
    o->teacher = NULL;
    return rc;
}

/* ---- rows ---- */

static double rate(const struct bench *b, const struct outcome *o)
{
    return b->n_tok / o->seconds;
}

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

struct row {
    double rtt_ms, calls, overhead_ms;
    int n_lanes;
    uint64_t n_connections; /* 0: there is no network */
    const struct oracle *oracle;
    struct outcome small, serial, ahead;
    bool is_identical;
};

static void print_row(const struct bench *b, const struct row *r)
{
    const struct tlr_joint_totals *n = &r->ahead.totals;
    double kept = (double)n->n_asked, of = (double)r->oracle->n;
    double wait = (double)(n->llm_ns + n->wire_ns) / 1e6 / kept;
    double exposed = (double)n->exposed_ns / 1e6 / kept;
    double speeds[] = {rate(b, &r->small), rate(b, &r->serial),
                       rate(b, &r->ahead)};
    json_t *j = json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:{s:f, s:f, s:f}, s:f, s:f, s:b, s:f,"
        " s:f, s:f, s:f, s:f, s:I, s:I, s:o, s:o}",
        "rtt_ms", r->rtt_ms, "llm_ms", b->a.llm_ms, "routed_share",
        kept / b->n_tok, "agree_top1", (double)r->oracle->n_top1 / of,
        "agree_top4", (double)r->oracle->n_top4 / of, "speculate", r->calls,
        "lanes", r->n_lanes, "tok_s", "small_only", speeds[0], "serial",
        speeds[1], "optimistic",
        speeds[2], "over_serial", speeds[2] / speeds[1], "of_small_only",
        speeds[2] / speeds[0], "identical", r->is_identical, "calls_per_kept",
        (double)n->n_calls / kept, "hidden_ms", fmax(wait - exposed, 0),
        "exposed_ms", exposed, "slm_ms_per_token",
        (double)n->slm_ns / 1e6 / b->n_tok, "redone_ms_per_token",
        (double)n->lost_ns / 1e6 / b->n_tok, "branches_taken",
        (json_int_t)n->n_branches, "tokens", (json_int_t)b->n_tok,
        "overhead_ms_p50", real(r->overhead_ms), "connections", r->n_connections
                                              ? json_integer((json_int_t)
                                                    r->n_connections)
                                              : json_null());
    json_dumpf(j, stdout, JSON_REAL_PRECISION(5) | JSON_PRESERVE_ORDER);
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(j);
}

/* A client of its own for each run, so that connections are a run's. */
struct line {
    struct wire wire;
    struct loopback *server;
    struct tlr_net *net;
    struct tlr_expert expert;
};

static void hang_up(struct line *l)
{
    tlr_expert_close(&l->expert);
    tlr_net_close(l->net);
    l->net = NULL;
}

static int dial(struct line *l, const struct bench *b, struct tlr_err *err)
{
    struct tlr_net_options o = TLR_NET_OPTIONS_INIT;
    if (!l->server) {
        l->expert = wire_expert(&l->wire);
        return 0;
    }
    o.url = loopback_url(l->server);
    o.api = "llamacpp";
    o.timeout_s = 120;
    int rc = tlr_net_open(&l->net, &o, b->model, err);
    rc = rc ? rc : tlr_net_connect(l->net, err);
    return rc ? rc : tlr_net_expert(l->net, &l->expert, err);
}

/* One run on a line of its own. */
static int run_on(struct bench *b, struct line *l, struct tlr_speculation ahead,
                  int32_t *ids, struct row *r, struct outcome *out,
                  struct tlr_err *err)
{
    struct tlr_joint_options jo = {.policy = b->policy, .expert = &l->expert,
                                   .require_expert = true, .ahead = ahead};
    struct tlr_expert_account account;
    int rc = dial(l, b, err);
    if (!rc)
        tlr_expert_warm(&l->expert, b->prompt, b->a.n_prompt);
    rc = rc ? rc : write_text(b, &jo, ids, out, err);
    if (!rc)
        tlr_expert_account_of(&l->expert, &account);
    r->n_connections = rc ? 0 : account.n_connections;
    hang_up(l);
    return rc;
}

/* One latency: the serial loop, the small model alone, then every bound of asks:
 * near one another in time, as machines change their pace. */
static int measure_rtt(struct bench *b, struct oracle *o, double rtt_ms,
                       struct tlr_err *err)
{
    struct line l = {.wire = {.oracle = o, .think_ms = b->a.llm_ms,
                              .latency_ms = rtt_ms + b->a.llm_ms}};
    struct tlr_speculation ahead = {0};
    struct tlr_joint_options plain = {.mode = TLR_SMALL_ONLY};
    struct row r = {.rtt_ms = rtt_ms, .oracle = o};
    struct wire instant = {.oracle = o}; /* the server has the latency */
    struct tlr_expert llm = wire_expert(&instant);
    int rc = b->a.http ? loopback_open(&l.server, &llm, b->model, err) : 0;
    if (!rc && l.server)
        loopback_set(l.server, l.wire.latency_ms, l.wire.think_ms);
    rc = rc ? rc : run_on(b, &l, ahead, b->first, &r, &r.serial, err);
    /* Beyond the server's own time, which is longer than the latency: it oversleeps. */
    double server_ms = l.server ? loopback_took_ms(l.server)
                                : l.wire.latency_ms;
    r.overhead_ms = median_of(b->waits_ms, b->n_waits) - server_ms;
    rc = rc ? rc : write_text(b, &plain, b->second, &r.small, err);
    if (!rc)
        fprintf(stderr, "serial: %d connections, server %.3f ms\n",
                (int)r.n_connections, server_ms);
    for (int i = 0; i < b->a.calls.n && !rc; i++) {
        r.calls = b->a.calls.items[i];
        r.n_lanes = i < b->a.lanes.n ? (int)b->a.lanes.items[i] : 1;
        ahead = (struct tlr_speculation){.calls = r.calls, .max_tok = b->n_tok,
                                         .n_lanes = r.n_lanes};
        rc = run_on(b, &l, ahead, b->second, &r, &r.ahead, err);
        r.is_identical =
            memcmp(b->first, b->second, b->n_tok * sizeof *b->first) == 0;
        if (!rc)
            print_row(b, &r);
        if (!rc && !r.is_identical)
            rc = tlr_err_set(err, TLR_EMISMATCH,
                             "the loop that runs ahead wrote another text");
    }
    loopback_close(l.server);
    return rc;
}

/* How many of the text's positions a policy routes. */
static uint32_t count_routed(const struct bench *b, const struct tlr_policy *p)
{
    uint32_t n = 0;
    float trust = 1;
    for (uint32_t i = 0; i < b->n_tok; i++)
        if (!tlr_policy_trust_of(p, NULL, NULL, NULL, b->a.n_prompt + i, NULL,
                                 &trust, NULL))
            n += tlr_policy_asks(p, trust);
    return n;
}

/* Whole blocks of the oracle's lessons, so that it agrees exactly as often as it
 * is told: a length for them, and the first seed that routes that many. */
static void choose_positions(struct bench *b, double share)
{
    uint32_t n_routed = share < 0.1 ? ORACLE_BLOCK : 2 * ORACLE_BLOCK;
    b->n_tok = (uint32_t)(n_routed / share + 0.5);
    b->policy = (struct tlr_policy){.kind = TLR_POLICY_RANDOM,
                                    .tau = (float)share};
    if (b->a.n_tok) {
        b->n_tok = b->a.n_tok;
        return;
    }
    while (count_routed(b, &b->policy) != n_routed)
        b->policy.seed++;
}

static int measure_share(struct bench *b, double share, struct tlr_err *err)
{
    struct oracle o;
    choose_positions(b, share);
    int rc = oracle_init(&o, err);
    rc = rc ? rc : teach(b, &o, err);
    for (int i = 0; i < b->a.rtt_ms.n && !rc; i++)
        rc = measure_rtt(b, &o, b->a.rtt_ms.items[i], err);
    oracle_clear(&o);
    return rc;
}

static int measure(struct bench *b, struct tlr_err *err)
{
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    o.n_ctx = N_CTX;
    int rc = b->a.model ? tlr_model_open(&b->model, b->a.model, err)
                        : tlr_bench_random_model(&b->model, "qwen2.5-0.5b", err);
    if (!rc)
        rc = tlr_session_new(&b->session, b->model, &o, err);
    b->prompt = tlr_calloc(N_CTX, sizeof *b->prompt);
    b->first = tlr_calloc(N_CTX, sizeof *b->first);
    b->second = tlr_calloc(N_CTX, sizeof *b->second);
    b->waits_ms = tlr_calloc(N_CTX, sizeof *b->waits_ms);
    if (!rc && (!b->prompt || !b->first || !b->second || !b->waits_ms))
        rc = tlr_err_nomem(err, "texts", N_CTX * sizeof *b->prompt);
    for (uint32_t i = 0; i < b->a.n_prompt && !rc; i++)
        b->prompt[i] = (int32_t)(tlr_hash_u64(3, i) %
                                 tlr_model_n_ids(b->model));
    for (int i = 0; i < b->a.shares.n && !rc; i++)
        rc = measure_share(b, b->a.shares.items[i], err);
    return rc;
}

/* ---- the command line ---- */

static struct list numbers(char *text, double least, double most)
{
    struct list l = {{0}, 0};
    for (char *end, *at = text; *at; at = *end ? end + 1 : end) {
        double v = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(v >= least && v <= most) ||
            l.n == LIST_MAX) {
            fprintf(stderr, "escalate: expected up to %d numbers from %g to %g, "
                            "found '%s'\n", LIST_MAX, least, most, text);
            exit(2);
        }
        l.items[l.n++] = v;
    }
    return l;
}

static void usage(FILE *to)
{
    fputs("usage: bench_escalate [--rtt MS,...] [--share S,...] [--calls N,...]\n"
          "                      [--lanes N,...] [--llm-ms MS] [--tokens N] [--prompt N]\n"
          "                      [--model FILE [--http]]\n", to);
}

static void parse(struct args *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"rtt", required_argument, NULL, 'r'},
        {"share", required_argument, NULL, 's'},
        {"calls", required_argument, NULL, 'c'},
        {"lanes", required_argument, NULL, 'L'},
        {"llm-ms", required_argument, NULL, 'l'},
        {"tokens", required_argument, NULL, 'n'},
        {"prompt", required_argument, NULL, 'p'},
        {"model", required_argument, NULL, 'm'},
        {"http", no_argument, NULL, 'H'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        if (c == 'r')
            a->rtt_ms = numbers(optarg, 0, 60000);
        else if (c == 's')
            a->shares = numbers(optarg, 0.001, 1);
        else if (c == 'c')
            a->calls = numbers(optarg, 1, 10);
        else if (c == 'L')
            a->lanes = numbers(optarg, 1, TLR_LANE_MAX);
        else if (c == 'l')
            a->llm_ms = numbers(optarg, 0, 60000).items[0];
        else if (c == 'n')
            a->n_tok = (uint32_t)numbers(optarg, 1, N_CTX / 2).items[0];
        else if (c == 'H')
            a->http = true;
        else if (c == 'm')
            a->model = optarg;
        else if (c == 'p')
            a->n_prompt = (uint32_t)numbers(optarg, 1, N_CTX / 2).items[0];
        else {
            usage(c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
}

int main(int argc, char **argv)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct bench b = {.a = {.rtt_ms = {{170}, 1}, .shares = {{0.07, 0.14}, 2},
                            .calls = {{1.6, 3}, 2},
                            .lanes = {{1, TLR_LANE_MAX}, 2}, .llm_ms = 30,
                            .n_prompt = 128}};
    cli_fix_blas(argv);
    parse(&b.a, argc, argv);
    int rc = measure(&b, &err);
    if (rc)
        fprintf(stderr, "escalate: %s\n", err.text);
    tlr_session_free(b.session);
    tlr_model_close(b.model);
    tlr_free(b.prompt);
    tlr_free(b.first);
    tlr_free(b.second);
    tlr_free(b.waits_ms);
    return rc ? 1 : 0;
}
