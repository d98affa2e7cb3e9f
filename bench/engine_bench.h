/* engine_bench.h - the speed of prefill, decode and branches of one model. */
#ifndef TLR_BENCH_ENGINE_BENCH_H
#define TLR_BENCH_ENGINE_BENCH_H

#include "engine/tlr.h"

struct tlr_bench_options {
    uint32_t n_prompt;   /* tokens of one prefill */
    uint32_t n_gen;      /* tokens decoded one by one; 0: none */
    uint32_t depth;      /* tokens that are there before either begins */
    uint32_t n_reps;     /* measured repetitions */
    uint32_t n_branches; /* 0: no measurement of branches */
    int (*cancelled)(void); /* may be NULL; asked between steps */
};

struct tlr_bench_rate { /* tokens per second over the repetitions */
    double mean, sd;
};

struct tlr_bench_result {
    struct tlr_bench_rate prefill, decode;
    double ttft_ms;      /* mean time of one prefill with its logits */
    double branch_ratio; /* time of one step of n_branches branches / time of
                            one decode step; 0 when not measured */
};

/* Positions that the session must have for these options. */
uint32_t tlr_bench_positions(const struct tlr_bench_options *o);

/* Ids are a fixed pseudo-random sequence; one warm-up round is not counted.
 * The session's n_branches and branch_tok must suffice. */
int tlr_bench_engine(struct tlr_bench_result *out, struct tlr_session *s,
                     const struct tlr_model *m,
                     const struct tlr_bench_options *o, struct tlr_err *err);

#endif
