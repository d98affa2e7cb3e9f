/* serve_metrics.h - what the server counts, and Prometheus's text of it.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats: counters end in
 * _total, times are seconds, a histogram's buckets are cumulative.
 */
#ifndef TLR_NET_SERVE_METRICS_H
#define TLR_NET_SERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

enum { TLR_METRIC_BUCKETS = 14 };

struct tlr_histogram {
    uint64_t counts[TLR_METRIC_BUCKETS + 1]; /* the last: above all bounds */
    double sum;
    uint64_t n;
};

struct tlr_metrics {
    uint64_t n_finished[5]; /* by enum tlr_job_finish */
    uint64_t n_full;        /* refused with 429 */
    uint64_t n_http[6];     /* replies by the status's first digit */
    uint64_t prompt_tok, cached_tok, generated_tok;
    uint64_t routed_tok, asked_tok, failed_tok; /* of requests that route */
    uint64_t joint_tok;                         /* all tokens of these */
    uint64_t n_steps, step_tok;                 /* steps together, their tokens */
    int n_running, n_waiting, n_slots, n_connections;
    int n_parked; /* of those running: can do nothing before the large model
                     answers */
    uint64_t kv_tok, kv_cap_tok; /* of all slots */
    struct tlr_histogram first_token, between_tokens, whole; /* seconds */
};

void tlr_histogram_add(struct tlr_histogram *h, double seconds);

/* Appends to out [cap]; the length it would have, like snprintf. */
size_t tlr_metrics_print(const struct tlr_metrics *m, char *out, size_t cap);

#endif
