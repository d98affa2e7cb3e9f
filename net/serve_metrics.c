/* serve_metrics.c - see serve_metrics.h. */
#include "net/serve_metrics.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"

/* Seconds: a fast step to a long wait. */
static const double bounds[TLR_METRIC_BUCKETS] = {
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300};

void tlr_histogram_add(struct tlr_histogram *h, double seconds)
{
    int i = 0;
    while (i < TLR_METRIC_BUCKETS && seconds > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += seconds;
    h->n++;
}

struct page {
    char *out;
    size_t cap, n;
};

static void put(struct page *p, const char *fmt, ...) TLR_PRINTF(2, 3);
static void put(struct page *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t left = p->n < p->cap ? p->cap - p->n : 0;
    int n = vsnprintf(left ? p->out + p->n : NULL, left, fmt, args);
    va_end(args);
    p->n += n > 0 ? (size_t)n : 0;
}

static void head(struct page *p, const char *name, const char *type,
                 const char *help)
{
    put(p, "# HELP tlr_%s %s\n# TYPE tlr_%s %s\n", name, help, name, type);
}

static void number(struct page *p, const char *name, const char *type,
                   const char *help, uint64_t v)
{
    head(p, name, type, help);
    put(p, "tlr_%s %llu\n", name, (unsigned long long)v);
}

static void histogram(struct page *p, const char *name, const char *help,
                      const struct tlr_histogram *h)
{
    uint64_t below = 0;
    head(p, name, "histogram", help);
    for (int i = 0; i < TLR_METRIC_BUCKETS; i++) {
        below += h->counts[i];
        put(p, "tlr_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
            (unsigned long long)below);
    }
    put(p, "tlr_%s_bucket{le=\"+Inf\"} %llu\ntlr_%s_sum %.6f\n"
           "tlr_%s_count %llu\n", name, (unsigned long long)h->n, name, h->sum,
        name, (unsigned long long)h->n);
}

static void requests(struct page *p, const struct tlr_metrics *m)
{
    static const char *const names[5] = {"stop", "length", "cancelled",
                                         "refused", "failed"};
    head(p, "requests_total", "counter", "Texts by how they ended.");
    for (int i = 0; i < 5; i++)
        put(p, "tlr_requests_total{finish=\"%s\"} %llu\n", names[i],
            (unsigned long long)m->n_finished[i]);
    head(p, "http_replies_total", "counter", "HTTP replies by status class.");
    for (int i = 1; i < 6; i++)
        put(p, "tlr_http_replies_total{class=\"%dxx\"} %llu\n", i,
            (unsigned long long)m->n_http[i]);
}

static void tokens(struct page *p, const struct tlr_metrics *m)
{
    static const char counter[] = "counter";
    number(p, "queue_full_total", counter, "Requests refused with 429.",
           m->n_full);
    number(p, "prompt_tokens_total", counter, "Tokens of prompts.",
           m->prompt_tok);
    number(p, "cached_prompt_tokens_total", counter,
           "Of these, found in a slot's KV cache.", m->cached_tok);
    number(p, "generated_tokens_total", counter, "Tokens made.",
           m->generated_tok);
    number(p, "joint_tokens_total", counter, "Tokens of requests that route.",
           m->joint_tok);
    number(p, "asked_tokens_total", counter,
           "Of these, asked of the large model.", m->asked_tok);
    number(p, "routed_tokens_total", counter,
           "Of these, written by the large model.", m->routed_tok);
    number(p, "escalation_failures_total", counter,
           "Asks of the large model that failed.", m->failed_tok);
    number(p, "decode_steps_total", counter,
           "Passes over the weights that decoded.", m->n_steps);
    number(p, "decode_step_tokens_total", counter, "Tokens of these passes.",
           m->step_tok);
}

static void states(struct page *p, const struct tlr_metrics *m)
{
    static const char gauge[] = "gauge";
    number(p, "running_requests", gauge, "Requests in a slot.",
           (uint64_t)m->n_running);
    number(p, "parked_requests", gauge,
           "Of these, waiting for the large model with nothing else to do.",
           (uint64_t)m->n_parked);
    number(p, "waiting_requests", gauge, "Requests in the queue.",
           (uint64_t)m->n_waiting);
    number(p, "slots", gauge, "Texts that can be made at once.",
           (uint64_t)m->n_slots);
    number(p, "connections", gauge, "Open connections.",
           (uint64_t)m->n_connections);
    number(p, "kv_tokens", gauge, "Positions in use in the KV caches.",
           m->kv_tok);
    number(p, "kv_capacity_tokens", gauge, "Positions that they have.",
           m->kv_cap_tok);
}

size_t tlr_metrics_print(const struct tlr_metrics *m, char *out, size_t cap)
{
    struct page p = {out, cap, 0};
    if (cap > 0)
        out[0] = '\0';
    requests(&p, m);
    tokens(&p, m);
    states(&p, m);
    histogram(&p, "time_to_first_token_seconds",
              "From the request's arrival to its first token.",
              &m->first_token);
    histogram(&p, "time_between_tokens_seconds",
              "From one token of a request to its next.", &m->between_tokens);
    histogram(&p, "request_seconds",
              "From the request's arrival to its last token.", &m->whole);
    return p.n;
}
