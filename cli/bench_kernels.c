/* bench_kernels.c - `tlr bench --kernels`: the rows of bench/kernels_bench.h as
 * a table, JSON, CSV or Markdown.
 *
 * The rows are kept until all are there, because the ratio and the plot need
 * them and a table that stops in the middle helps nobody.
 */
#include "cli/bench_kernels.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"

struct rows {
    struct tlr_kernel_row *items;
    size_t n, cap;
    struct cli_progress progress;
    const struct tlr_kernels_bench_result *result;
};

static int keep_row(void *ctx, const struct tlr_kernel_row *row)
{
    struct rows *r = ctx;
    if (r->n == r->cap) {
        size_t cap = r->cap * 2 + 64;
        void *grown = tlr_realloc(r->items, cap, sizeof *r->items);
        if (!grown)
            return -1;
        r->items = grown;
        r->cap = cap;
    }
    r->items[r->n++] = *row;
    cli_progress_set(&r->progress, r->n, r->result->n_expected,
                     row->variant->slot);
    return 0;
}

static int interrupted(void)
{
    return cli_interrupted();
}

/* What is derived from a row; GB/s is bytes per ns. */
static double gb_s(const struct tlr_kernel_row *r)
{
    return r->n_bytes / r->ns;
}

static double gop_s(const struct tlr_kernel_row *r)
{
    return r->n_ops / r->ns;
}

static double share(const struct tlr_kernel_row *r)
{
    return r->roof_ns / r->ns;
}

static double ratio(const struct tlr_kernel_row *r)
{
    return r->ref_ns / r->ns;
}

static const char *unit(const struct tlr_kernel_row *r)
{
    return r->is_int ? "GOP/s" : "GFLOP/s";
}

static const char *state(const struct tlr_kernel_row *r)
{
    return r->is_cold ? "cold" : "hot";
}

/* ---- --list ---- */

static int list(const struct cli_kernels_args *a, struct tlr_err *err)
{
    size_t n, n_shown = 0;
    const struct tlr_variant *v = tlr_kernel_variants(&n);
    json_t *slots = json_object();
    for (size_t i = 0; i < n; i++) {
        if (v[i].level != TLR_CPU_REF ||
            !tlr_kernels_bench_matches(a->op, v[i].slot))
            continue;
        const char *used = tlr_kernels_variant(v[i].slot, a->level);
        n_shown++;
        if (a->json) {
            cli_json_put(slots, v[i].slot, json_string(used));
            continue;
        }
        cli_printf("%-14s %-12s of", v[i].slot, used);
        for (size_t k = i; k < n && strcmp(v[k].slot, v[i].slot) == 0; k++)
            cli_printf(" %s%s", v[k].isa,
                       tlr_cpu_has(v[k].level) ? "" : "(not here)");
        cli_printf("\n");
    }
    if (n_shown == 0) {
        json_decref(slots);
        return tlr_err_set(err, TLR_EUSAGE, "--op: no slot begins with '%s'; "
                           "tlr bench --kernels --list names them", a->op);
    }
    if (!a->json) {
        json_decref(slots);
        return 0;
    }
    json_t *j = json_object();
    cli_json_put(j, "cpu", json_string(tlr_cpu_level_name(a->level)));
    cli_json_put(j, "slots", slots);
    return cli_json_print(j, err);
}

/* ---- the forms of the result ---- */

static json_t *row_json(const struct tlr_kernel_row *r)
{
    json_t *j = json_object();
    cli_json_put(j, "slot", json_string(r->variant->slot));
    cli_json_put(j, "variant", json_string(r->variant->isa));
    cli_json_put(j, "chosen", json_boolean(r->is_chosen));
    cli_json_put(j, "shape", json_string(r->shape));
    cli_json_put(j, "rows", json_integer(r->n_rows));
    cli_json_put(j, "cols", json_integer(r->n_cols));
    cli_json_put(j, "tokens", json_integer(r->n_tok));
    cli_json_put(j, "state", json_string(state(r)));
    cli_json_put(j, "ns", cli_json_real(r->ns));
    cli_json_put(j, "ns_min", cli_json_real(r->ns_min));
    cli_json_put(j, "ns_max", cli_json_real(r->ns_max));
    cli_json_put(j, "bytes", cli_json_real(r->n_bytes));
    cli_json_put(j, "ops", cli_json_real(r->n_ops));
    cli_json_put(j, "gb_s", cli_json_real(gb_s(r)));
    cli_json_put(j, "gop_s", cli_json_real(gop_s(r)));
    cli_json_put(j, "gop_unit", json_string(unit(r)));
    cli_json_put(j, "roofline_share", cli_json_real(share(r)));
    cli_json_put(j, "ratio_to_ref", cli_json_real(ratio(r)));
    bool has = r->has_counts;
    cli_json_put(j, "cycles", has ? json_integer((json_int_t)r->counts.cycles)
                                  : json_null());
    cli_json_put(j, "instructions",
                 has ? json_integer((json_int_t)r->counts.instructions)
                     : json_null());
    cli_json_put(j, "llc_misses",
                 has ? json_integer((json_int_t)r->counts.llc_misses)
                     : json_null());
    return j;
}

static int print_json(const struct cli_kernels_args *a,
                      const struct tlr_kernels_bench_result *b,
                      const struct rows *rows, struct tlr_err *err)
{
    char brand[49];
    tlr_cpu_brand(brand);
    json_t *j = json_object(), *array = json_array();
    cli_json_put(j, "processor", cli_json_text(brand, strlen(brand)));
    cli_json_put(j, "cpu", json_string(tlr_cpu_level_name(a->level)));
    cli_json_put(j, "threads", json_integer(1));
    cli_json_put(j, "read_gb_s", cli_json_real(b->roof.read_gb_s));
    cli_json_put(j, "float_gflop_s", cli_json_real(b->roof.float_gflop_s));
    cli_json_put(j, "int_gop_s", b->roof.int_gop_s > 0
                                     ? cli_json_real(b->roof.int_gop_s)
                                     : json_null());
    cli_json_put(j, "counters", json_string(b->has_counters ? "available"
                                                            : "not available"));
    cli_json_put(j, "too_large", json_integer((json_int_t)b->n_too_large));
    cli_json_put(j, "untimed_slots", json_integer((json_int_t)b->n_untimed));
    for (size_t i = 0; i < rows->n; i++)
        cli_json_push(array, row_json(&rows->items[i]));
    cli_json_put(j, "rows", array);
    return cli_json_print(j, err);
}

static void print_csv(const struct rows *rows)
{
    cli_printf("slot,variant,chosen,shape,rows,cols,tokens,state,ns,ns_min,"
               "ns_max,bytes,ops,gb_s,gop_s,gop_unit,roofline_share,"
               "ratio_to_ref,cycles,instructions,llc_misses\n");
    for (size_t i = 0; i < rows->n; i++) {
        const struct tlr_kernel_row *r = &rows->items[i];
        cli_printf("%s,%s,%d,%s,%d,%d,%d,%s,%.1f,%.1f,%.1f,%.0f,%.0f,%.3f,"
                   "%.3f,%s,%.4f,%.3f,", r->variant->slot, r->variant->isa,
                   r->is_chosen, r->shape, r->n_rows, r->n_cols, r->n_tok,
                   state(r), r->ns, r->ns_min, r->ns_max, r->n_bytes, r->n_ops,
                   gb_s(r), gop_s(r), unit(r), share(r), ratio(r));
        if (r->has_counts)
            cli_printf("%llu,%llu,%llu\n", (unsigned long long)r->counts.cycles,
                       (unsigned long long)r->counts.instructions,
                       (unsigned long long)r->counts.llc_misses);
        else
            cli_printf(",,\n");
    }
}

/* The lines above a table for people. */
static void print_head(const struct tlr_kernels_bench_result *b)
{
    char brand[49];
    tlr_cpu_brand(brand);
    cli_printf("%s, one thread: reads %.1f GB/s of memory, %.0f GFLOP/s of f32",
               brand, b->roof.read_gb_s, b->roof.float_gflop_s);
    if (b->roof.int_gop_s > 0)
        cli_printf(", %.0f GOP/s of int8", b->roof.int_gop_s);
    cli_printf(". Hardware counters: %s.\n\n",
               b->has_counters ? "see cycles, instructions and misses"
                               : "not available");
}

static void print_table(const struct rows *rows, bool has_counters, bool md)
{
    const char *bar = md ? " | " : " ", *edge = md ? "| " : "";
    const char *end = md ? " |\n" : "\n";
    cli_printf("%s%-14s%s%-11s%s%-16s%s%-5s%s%12s%s%7s%s%16s%s%5s%s%8s", edge,
               "slot", bar, "variant", bar, "shape", bar, "state", bar, "ns",
               bar, "GB/s", bar, "operations", bar, "roof", bar, "x ref");
    if (has_counters)
        cli_printf("%s%12s%s%12s%s%10s", bar, "cycles", bar, "instructions",
                   bar, "LLC misses");
    cli_printf("%s", end);
    if (md)
        cli_printf("|---|---|---|---|---:|---:|---:|---:|---:|%s\n",
                   has_counters ? "---:|---:|---:|" : "");
    for (size_t i = 0; i < rows->n; i++) {
        const struct tlr_kernel_row *r = &rows->items[i];
        char isa[24];
        snprintf(isa, sizeof isa, "%s%s", r->variant->isa,
                 r->is_chosen ? "*" : "");
        cli_printf("%s%-14s%s%-11s%s%-16s%s%-5s%s%12.0f%s%7.2f%s%8.1f %-7s%s"
                   "%4.0f%%%s%8.2f", edge, r->variant->slot, bar, isa, bar,
                   r->shape, bar, state(r), bar, r->ns, bar, gb_s(r), bar,
                   gop_s(r), unit(r), bar, share(r) * 100, bar, ratio(r));
        if (has_counters)
            cli_printf("%s%12llu%s%12llu%s%10llu", bar,
                       (unsigned long long)r->counts.cycles, bar,
                       (unsigned long long)r->counts.instructions, bar,
                       (unsigned long long)r->counts.llc_misses);
        cli_printf("%s", end);
    }
}

static int print(const struct cli_kernels_args *a,
                 const struct tlr_kernels_bench_result *b,
                 const struct rows *rows, struct tlr_err *err)
{
    if (a->json)
        return print_json(a, b, rows, err);
    if (a->csv) {
        print_csv(rows);
        return 0;
    }
    print_head(b);
    print_table(rows, b->has_counters, a->md);
    cli_printf("\n* fills the slot on this machine; roof: share of what memory "
               "or arithmetic allow\n");
    if (b->n_too_large > 0)
        cli_printf("%zu cases are larger than an eighth of memory and were "
                   "left out\n", b->n_too_large);
    if (b->n_untimed > 0)
        cli_printf("%zu slots have no case yet and were not timed\n",
                   b->n_untimed);
    return 0;
}

int cli_bench_kernels(const struct cli_kernels_args *a, struct tlr_err *err)
{
    if (a->list)
        return list(a, err);
    struct tlr_kernels_bench_result result;
    struct rows rows = { .result = &result };
    struct tlr_kernels_bench_options o = {
        .op = a->op, .level = a->level, .seconds = a->seconds,
        .cancelled = interrupted, .row = keep_row, .ctx = &rows,
    };
    cli_interrupt_hold();
    cli_progress_begin(&rows.progress, "kernels", false);
    rows.progress.unit = "rows";
    int rc = tlr_kernels_bench(&result, &o, err);
    cli_progress_end(&rows.progress);
    cli_interrupt_release();
    if (!rc)
        rc = print(a, &result, &rows, err);
    if (!rc && a->svg)
        rc = cli_roofline_svg(a->svg, &result.roof, rows.items, rows.n, err);
    tlr_free(rows.items);
    return rc;
}
