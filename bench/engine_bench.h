/* engine_bench.h - the speed of prefill, decode and branches of one model. */
#ifndef TLR_BENCH_ENGINE_BENCH_H
#define TLR_BENCH_ENGINE_BENCH_H

#include <stdbool.h>

#include "engine/tlr.h"

struct tlr_bench_options {
    uint32_t n_prompt;   /* tokens of one prefill; 0: none */
    uint32_t n_gen;      /* tokens decoded one by one; 0: none */
    uint32_t depth;      /* tokens that are there before either begins */
    uint32_t n_reps;     /* measured repetitions */
    uint32_t n_branches; /* 0: no measurement of branches */
    uint32_t n_sessions; /* 0: no measurement of sessions decoded together */
    uint32_t n_first;    /* tokens of the very first prefill, which ends with
                            the choice of a token; 0: none */
    bool profile;        /* also count where the time goes */
    int (*cancelled)(void); /* may be NULL; asked between steps */
};

struct tlr_bench_rate { /* tokens per second over the repetitions */
    double mean, sd, median, min, max;
};

enum tlr_bench_phase {
    TLR_BENCH_PREFILL,
    TLR_BENCH_DECODE,
    TLR_BENCH_BRANCHES,
    TLR_BENCH_N_PHASES
};

/* Tokens per second of all sessions of a step together. */
struct tlr_bench_together {
    uint32_t n_sessions;
    struct tlr_bench_rate rate;
};
enum { TLR_BENCH_TOGETHER_MAX = 5 };

struct tlr_bench_result {
    struct tlr_bench_rate prefill, decode;
    double ttft_ms;      /* mean time of one prefill with its logits */
    double branch_ratio; /* time of one step of n_branches branches, the choice
                            of a token for each included, / time of one decode
                            step, medians; 0 when not measured */
    uint64_t first_token_ns; /* tlr_now_ns when the first token was chosen */
    struct tlr_bench_together together[TLR_BENCH_TOGETHER_MAX];
    int n_together; /* rows of it, of 1, 2, 4, ... and n_sessions sessions */
    struct tlr_profile profiles[TLR_BENCH_N_PHASES]; /* of all repetitions */
    uint64_t *profile_ns;                            /* what they point into */
};

void tlr_bench_result_clear(struct tlr_bench_result *r);

/* of v [n], which is sorted; zeros of none. */
struct tlr_bench_rate tlr_bench_rate_of(double *v, uint32_t n);

/* Fills out->together: n_gen steps at `depth`, greedy, of more and more
 * sessions, which borrow from s.  ids [tlr_bench_positions + n_sessions]. */
int tlr_bench_together(struct tlr_bench_result *out, struct tlr_session *s,
                       const struct tlr_model *m, const int32_t *ids,
                       const struct tlr_bench_options *o, struct tlr_err *err);

/* Positions that the session must have for these options. */
uint32_t tlr_bench_positions(const struct tlr_bench_options *o);

/* Ids are a fixed pseudo-random sequence; one warm-up round is not counted.
 * The session's n_branches and branch_tok must suffice.  Clear the result also
 * after a failure. */
int tlr_bench_engine(struct tlr_bench_result *out, struct tlr_session *s,
                     const struct tlr_model *m,
                     const struct tlr_bench_options *o, struct tlr_err *err);

#endif
