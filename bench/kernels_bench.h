/* kernels_bench.h - the speed of every kernel variant, each by itself.
 *
 * Calls the very functions that the tests prove (kernels/variants.h), on one
 * thread, on the real shapes of a 0.5B model.  Cold: each call's operand lies
 * elsewhere in memory that no cache holds.  Hot: the same operand again and
 * again.
 */
#ifndef TLR_BENCH_KERNELS_BENCH_H
#define TLR_BENCH_KERNELS_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "bench/counters.h"
#include "bench/roofline.h"
#include "kernels/variants.h"

struct tlr_kernel_row {
    const struct tlr_variant *variant;
    char shape[32];   /* "4864x896 x 256" */
    int n_rows, n_cols, n_tok; /* n_rows 0: a vector of n_cols */
    bool is_cold;
    bool is_chosen;   /* fills its slot at the level */
    double n_bytes;   /* that a call must move: weights, inputs, outputs */
    double n_ops;     /* a multiply-add is two */
    bool is_int;      /* which compute peak n_ops is held against */
    double ns;        /* of a call, median of the samples */
    double ns_min, ns_max;
    double roof_ns;   /* what the roofline allows; share = roof_ns / ns */
    double ref_ns;    /* the same call of ref; ratio = ref_ns / ns */
    bool has_counts;
    struct tlr_counts counts; /* of a call */
};

struct tlr_kernels_bench_options {
    const char *op;   /* a slot ("matmul_q8") or how one begins ("matmul");
                         NULL: all */
    enum tlr_cpu_level level; /* variants up to it, as far as there are any */
    double seconds;   /* about this long in all */
    int (*cancelled)(void); /* may be NULL */
    /* Called for every row in the order of the list.  Non-zero stops. */
    int (*row)(void *ctx, const struct tlr_kernel_row *row);
    void *ctx;
};

struct tlr_kernels_bench_result {
    struct tlr_roofline roof;
    size_t n_rows, n_expected; /* handed out so far; in all */
    size_t n_too_large; /* cases left out: larger than an eighth of memory */
    size_t n_untimed;   /* slots without a case in kernel_cases.c */
    bool has_counters;
};

/* Does a slot match `op` as above? */
bool tlr_kernels_bench_matches(const char *op, const char *slot);

/* No slot matches: TLR_EUSAGE. */
int tlr_kernels_bench(struct tlr_kernels_bench_result *out,
                      const struct tlr_kernels_bench_options *options,
                      struct tlr_err *err);

#endif
