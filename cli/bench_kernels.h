/* bench_kernels.h - `tlr bench --kernels`. */
#ifndef TLR_CLI_BENCH_KERNELS_H
#define TLR_CLI_BENCH_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "bench/kernels_bench.h"

struct cli_kernels_args {
    const char *op, *svg;
    double seconds;
    bool list, json, csv, md;
    enum tlr_cpu_level level; /* variants above it take no part */
};

int cli_bench_kernels(const struct cli_kernels_args *args, struct tlr_err *err);

/* roofline_svg.c: a log-log plot of the rows, written to path. */
int cli_roofline_svg(const char *path, const struct tlr_roofline *roof,
                     const struct tlr_kernel_row *rows, size_t n_rows,
                     struct tlr_err *err);

#endif
