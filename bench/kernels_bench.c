/* kernels_bench.c - see kernels_bench.h.
 *
 * One arena, four times the last cache, filled once with 16-bit words that are
 * ordinary numbers whether read as f32, bf16, f16, int8 or nibbles; any slot's
 * operand may lie anywhere in it.  Cold calls go through it in an order that no
 * prefetcher follows.  A sample is as many calls as take SAMPLE_NS; the median
 * over the samples is reported.  The reference on many tokens is timed on
 * REF_TOK of them and multiplied: its time is in proportion.
 */
#include "bench/kernels_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "bench/kernel_cases.h"
#include "bench/stream.h"

enum { MAX_SAMPLES = 200, SAMPLE_NS = 20000, REF_TOK = 8, ALIGN = 64 };
enum { PEAK_MS = 200, LINE_MS = 5, MAX_TOK = 256, MAX_COLS = 4864 };
static const uint64_t LARGEST_ITEM = (uint64_t)640 << 20;

struct bench {
    const struct tlr_kernels_bench_options *o;
    struct tlr_kernels_bench_result *out;
    uint8_t *arena;
    size_t arena_bytes, cache_bytes;
    float *x, *y, *y2;
    void *act;
    struct tlr_counters counters;
    double sample_ms; /* of one row */
    enum tlr_cpu_level best;
};

bool tlr_kernels_bench_matches(const char *op, const char *slot)
{
    return !op || strncmp(op, slot, strlen(op)) == 0;
}

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* A third of the arena is for what is written. */
static size_t in_bytes(const struct bench *b)
{
    return b->arena_bytes / 3 * 2 & ~(size_t)(ALIGN - 1);
}

static bool fits(const struct bench *b, const struct tlr_case_size *s)
{
    return s->item_bytes <= in_bytes(b) &&
           s->out_bytes <= b->arena_bytes - in_bytes(b);
}

static int alloc(struct bench *b, struct tlr_err *err)
{
    size_t n_y = (size_t)MAX_TOK * MAX_COLS + 151936; /* dequant: 4864 x 896 */
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) *
                      (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = tlr_stream_buffer_bytes();
    if (bytes < LARGEST_ITEM / 2 * 3)
        bytes = LARGEST_ITEM / 2 * 3;
    if (bytes > memory / 8)
        bytes = memory / 8 & ~(uint64_t)((1 << 20) - 1);
    b->arena_bytes = bytes;
    b->arena = tlr_alloc_aligned(bytes);
    b->x = tlr_alloc_aligned((size_t)MAX_TOK * MAX_COLS * sizeof *b->x);
    n_y = n_y > (size_t)MAX_COLS * 896 ? n_y : (size_t)MAX_COLS * 896;
    b->y = tlr_alloc_aligned(n_y * sizeof *b->y);
    size_t n_y2 = (size_t)151936 * 4; /* score: four tokens */
    b->y2 = tlr_alloc_aligned(n_y2 * sizeof *b->y2);
    b->act = tlr_alloc_aligned(tlr_act_bytes(MAX_TOK, MAX_COLS));
    if (!b->arena || !b->x || !b->y || !b->y2 || !b->act)
        return tlr_err_nomem(err, "operands of the kernels", bytes);
    memset(b->y, 0, n_y * sizeof *b->y);
    memset(b->y2, 0, n_y2 * sizeof *b->y2);
    return 0;
}

/* Exponents that are normal in f16 (0x2000 is 2^-7) and, as the upper half, in
 * f32 and bf16 (2^-63 .. 2^-8); signs at random. */
static void fill(struct bench *b)
{
    uint64_t *words = (uint64_t *)(void *)b->arena;
    uint64_t state = 1;
    for (size_t i = 0; i < b->arena_bytes / 8; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t v = state ^ state >> 29;
        words[i] = (v & 0x9BFF9BFF9BFF9BFFu) | 0x2000200020002000u;
    }
    for (size_t i = 0; i < (size_t)MAX_TOK * MAX_COLS; i++)
        b->x[i] = (float)(tlr_hash_u64(7, i) % 2001) / 1000.0f - 1.0f;
}

/* x to act, for the case's tokens, in the groups that the slot wants. */
static void quantise(const struct bench *b, const struct tlr_case *c)
{
    struct tlr_kernels k;
    tlr_kernels_init(&k, b->best);
    uint8_t *act = b->act;
    for (int t = 0; t < c->n_tok; t += TLR_ACT_GROUP) {
        int n = c->n_tok - t < TLR_ACT_GROUP ? c->n_tok - t : TLR_ACT_GROUP;
        k.quantise(act, NULL, b->x + (size_t)t * (size_t)c->n_cols,
                   (size_t)c->n_cols, n, c->n_cols);
        act += tlr_act_bytes((size_t)n, (size_t)c->n_cols);
    }
}

struct place {
    size_t item, out; /* strides */
    size_t n;         /* how many there are */
    size_t at;        /* next one, in steps that jump about */
};

static struct place places(const struct bench *b, const struct tlr_case_size *s,
                           bool is_cold)
{
    struct place p = { round_up(s->item_bytes), round_up(s->out_bytes), 1, 0 };
    if (!is_cold)
        return p;
    size_t n_in = p.item ? in_bytes(b) / p.item : SIZE_MAX;
    size_t n_out = p.out ? (b->arena_bytes - in_bytes(b)) / p.out : SIZE_MAX;
    p.n = n_in < n_out ? n_in : n_out;
    return p;
}

static void next(const struct bench *b, struct place *p, struct tlr_operands *o)
{
    /* An odd step of about 0.618 n that shares no factor with most n. */
    size_t step = (size_t)((double)p->n * 0.6180339887) | 1;
    p->at = p->n > 1 ? (p->at + step) % p->n : 0;
    o->item = b->arena + p->at * p->item;
    o->out = b->arena + in_bytes(b) + p->at * p->out;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times calls for sample_ms and fills the row's times and counts. */
static void time_calls(struct bench *b, const struct tlr_variant *v,
                       const struct tlr_case *c, const struct tlr_case_size *s,
                       struct tlr_kernel_row *row)
{
    tlr_case_fn *call = tlr_case_call(c->op);
    struct tlr_operands o = { .x = b->x, .act = b->act, .y = b->y,
                              .y2 = b->y2 };
    struct place p = places(b, s, row->is_cold);
    double samples[MAX_SAMPLES];
    int n = 0;
    next(b, &p, &o);
    uint64_t begun = tlr_now_ns(), from = begun;
    call(v->fn, c, &o); /* warm up, and see how long a sample takes */
    uint64_t once = tlr_now_ns() - from;
    int n_calls = once < SAMPLE_NS ? (int)(SAMPLE_NS / (once + 1)) + 1 : 1;
    double calls = 0;
    tlr_counters_begin(&b->counters);
    do {
        from = tlr_now_ns();
        for (int i = 0; i < n_calls; i++) {
            next(b, &p, &o);
            call(v->fn, c, &o);
        }
        samples[n++] = (double)(tlr_now_ns() - from) / n_calls;
        calls += n_calls;
    } while (n < MAX_SAMPLES &&
             tlr_ms_between(begun, tlr_now_ns()) < b->sample_ms);
    tlr_counters_end(&b->counters, &row->counts);
    row->counts.cycles = (uint64_t)((double)row->counts.cycles / calls);
    row->counts.instructions =
        (uint64_t)((double)row->counts.instructions / calls);
    row->counts.llc_misses = (uint64_t)((double)row->counts.llc_misses / calls);
    row->has_counts = row->counts.cycles > 0;
    qsort(samples, (size_t)n, sizeof *samples, by_value);
    row->ns = samples[n / 2];
    row->ns_min = samples[0];
    row->ns_max = samples[n - 1];
}

static void time_ref(struct bench *b, const struct tlr_variant *v,
                     const struct tlr_case *c, const struct tlr_case_size *s,
                     struct tlr_kernel_row *row)
{
    struct tlr_case less = *c;
    less.n_tok = REF_TOK;
    double scale = (double)c->n_tok / REF_TOK;
    time_calls(b, v, &less, s, row);
    row->ns *= scale;
    row->ns_min *= scale;
    row->ns_max *= scale;
    row->has_counts = false;
}

static void describe(struct tlr_kernel_row *row, const struct tlr_case *c)
{
    if (c->n_rows == 0)
        snprintf(row->shape, sizeof row->shape, "%d", c->n_cols);
    else
        snprintf(row->shape, sizeof row->shape, "%dx%d", c->n_rows, c->n_cols);
    if (c->n_tok > 1) {
        size_t n = strlen(row->shape);
        snprintf(row->shape + n, sizeof row->shape - n, " x %d", c->n_tok);
    }
}

static double roof(const struct bench *b, const struct tlr_case_size *s,
                   bool is_cold)
{
    const struct tlr_roofline *r = &b->out->roof;
    double gb_s = r->read_gb_s;
    size_t n = (size_t)s->n_bytes < in_bytes(b) ? (size_t)s->n_bytes
                                                : in_bytes(b);
    if (!is_cold)
        gb_s = tlr_roofline_read(b->arena, n, LINE_MS);
    return tlr_roofline_ns(s->n_bytes, gb_s, s->n_ops,
                           s->is_int ? r->int_gop_s : r->float_gflop_s);
}

static bool takes_part(const struct bench *b, const struct tlr_variant *v)
{
    return v->level <= b->best && tlr_cpu_has(v->level);
}

/* All variants of one slot on one case, hot or cold; ref comes first. */
static int time_slot(struct bench *b, const struct tlr_variant *v, size_t n,
                     const struct tlr_case *c, bool is_cold,
                     struct tlr_err *err)
{
    struct tlr_case_size s = tlr_case_size(c, v->type);
    double roof_ns = roof(b, &s, is_cold), ref_ns = 0;
    const char *chosen = tlr_kernels_variant(v->slot, b->best);
    if (s.is_int)
        quantise(b, c);
    for (size_t i = 0; i < n && strcmp(v[i].slot, v->slot) == 0; i++) {
        struct tlr_kernel_row row = {
            .variant = &v[i], .n_rows = c->n_rows, .n_cols = c->n_cols,
            .n_tok = c->n_tok, .is_cold = is_cold, .n_bytes = s.n_bytes,
            .n_ops = s.n_ops, .is_int = s.is_int, .roof_ns = roof_ns,
        };
        if (!takes_part(b, &v[i]))
            continue;
        describe(&row, c);
        row.is_chosen = chosen && strcmp(chosen, v[i].isa) == 0;
        if (v[i].level == TLR_CPU_REF && c->n_tok > REF_TOK)
            time_ref(b, &v[i], c, &s, &row);
        else
            time_calls(b, &v[i], c, &s, &row);
        if (v[i].level == TLR_CPU_REF)
            ref_ns = row.ns;
        row.ref_ns = ref_ns;
        b->out->n_rows++;
        if (b->o->row(b->o->ctx, &row) ||
            (b->o->cancelled && b->o->cancelled()))
            return tlr_err_set(err, TLR_ECANCELLED, "bench of the kernels");
    }
    return 0;
}

/* Hot only what the last cache holds; cold only where memory can matter: many
 * tokens read their weights once for all of them. */
static bool wanted(const struct bench *b, const struct tlr_case *c,
                   enum tlr_type type, bool is_cold)
{
    struct tlr_case_size s = tlr_case_size(c, type);
    if (!fits(b, &s))
        return false;
    if (is_cold)
        return c->n_tok <= TLR_MAX_BRANCHES;
    return s.item_bytes <= b->cache_bytes;
}

/* Counts rows (only then is the time of each known), or times them. */
static int each_row(struct bench *b, bool is_dry, struct tlr_err *err)
{
    size_t n_variants, n_cases;
    const struct tlr_variant *v = tlr_kernel_variants(&n_variants);
    const struct tlr_case *c = tlr_kernel_cases(&n_cases);
    int rc = 0;
    for (size_t i = 0; i < n_variants && !rc; i++) {
        if (v[i].level != TLR_CPU_REF ||
            !tlr_kernels_bench_matches(b->o->op, v[i].slot))
            continue;
        if (!tlr_case_call(v[i].op)) {
            b->out->n_untimed += is_dry;
            continue;
        }
        for (size_t k = 0; k < n_cases && !rc; k++) {
            if (c[k].op != v[i].op)
                continue;
            struct tlr_case_size s = tlr_case_size(&c[k], v[i].type);
            if (is_dry)
                b->out->n_too_large += !fits(b, &s);
            for (int cold = 0; cold < 2 && !rc; cold++) {
                if (!wanted(b, &c[k], v[i].type, cold))
                    continue;
                for (size_t m = i; is_dry && m < n_variants &&
                                   strcmp(v[m].slot, v[i].slot) == 0; m++)
                    b->out->n_expected += takes_part(b, &v[m]);
                if (!is_dry)
                    rc = time_slot(b, v + i, n_variants - i, &c[k], cold, err);
            }
        }
    }
    return rc;
}

static bool any_matches(const char *op)
{
    size_t n;
    const struct tlr_variant *v = tlr_kernel_variants(&n);
    for (size_t i = 0; i < n; i++)
        if (tlr_kernels_bench_matches(op, v[i].slot))
            return true;
    return false;
}

static size_t cache_bytes(void)
{
#ifdef _SC_LEVEL3_CACHE_SIZE
    long n = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (n > 0)
        return (size_t)n / 2;
#endif
    return (size_t)16 << 20;
}

int tlr_kernels_bench(struct tlr_kernels_bench_result *out,
                      const struct tlr_kernels_bench_options *options,
                      struct tlr_err *err)
{
    struct bench b = { .o = options, .out = out, .best = options->level,
                       .cache_bytes = cache_bytes() };
    struct tlr_stream stream;
    *out = (struct tlr_kernels_bench_result){ .n_rows = 0 };
    if (!any_matches(options->op))
        return tlr_err_set(err, TLR_EUSAGE, "--op: no slot begins with '%s'; "
                           "tlr bench --kernels --list names them",
                           options->op);
    out->has_counters = tlr_counters_open(&b.counters);
    uint64_t begun = tlr_now_ns();
    int rc = tlr_stream_measure(&stream, 1, err);
    if (!rc)
        rc = alloc(&b, err);
    if (rc)
        goto out;
    tlr_roofline_measure(&out->roof, PEAK_MS);
    out->roof.read_gb_s = stream.gb_s;
    fill(&b);
    rc = each_row(&b, true, err);
    if (rc)
        goto out;
    double left = options->seconds * 1000 - tlr_ms_between(begun, tlr_now_ns());
    b.sample_ms = left > 0 && out->n_expected > 0
                      ? left / (double)out->n_expected : 0;
    if (b.sample_ms > 300)
        b.sample_ms = 300;
    rc = each_row(&b, false, err);
out:
    tlr_counters_close(&b.counters);
    tlr_free(b.act);
    tlr_free(b.y2);
    tlr_free(b.y);
    tlr_free(b.x);
    tlr_free(b.arena);
    return rc;
}
