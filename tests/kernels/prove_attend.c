/* prove_attend.c - attend_f32, attend_f16, attend_q8 and attend_merge.
 *
 * What a part means is judged, not its parts: acc / L, the result, and
 * M + log2 L, by which it is merged.  A score is off by at most
 * D = (head_dim + 4) u scale log2(e) sum |q||k|, its distance to M by a rounding
 * more (an M that is off changes acc and L alike); 2^x turns that into a
 * relative error E = ln2 (D + u spread) + 2^-22 of each weight, the sum of the
 * weights into E + n_pos u, and the weighted sum into as much again: in all
 * sum p|v| (2E + (2 n_pos + 10) u), a tenth more for the terms of second order;
 * weights under 2^-126 may be flushed.  Beside ref, a row must be the same bits
 * alone and in any company, and however its spans are cut.
 *
 * A variant in int16 (kernels.h) is judged in the same way, but on the rounded
 * queries, keys and values, whose result in double takes the place of ref's; 2^x
 * is good to 2^-18, and a weight is off by half of the unit u' that the weights
 * of its row have: in all u' / 2L sum (|v| / d + 1/2), d the unit of v.  How far
 * that is from ref must be small beside the results of random inputs.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/variants_decl.h"
#include "tests/kernels/prover.h"

enum { BLOCK = TLR_KV_BLOCK, MAX_ROWS = 64, HUGE_SCORE = N_INPUTS };

struct shape {
    int head_dim, n_tok, n_heads, n_pos;
    int split;  /* positions of the first span; 0: there is one span */
    bool causal; /* token t sees n_pos - n_tok + 1 + t, at least 0 */
    int kind;   /* enum input, or HUGE_SCORE */
};

/* Keys or values: whole blocks whose unused places are NaN, and what they
 * mean. */
struct side {
    struct guarded g;
    float *x; /* [n_pos][head_dim] */
};

struct fixture {
    const struct shape *s;
    bool int16; /* k.x and v.x are rounded, and value_unit is set */
    float value_unit[TLR_KV_STRETCH];
    struct side k, v;
    struct guarded q;
    size_t block_bytes, row_floats;
    int n_seen[MAX_ROWS];
    float *scratch, *want, *alone;
    struct output got;
};

static size_t bytes_of_block(enum tlr_kernel_op op, int head_dim)
{
    size_t n = (size_t)head_dim * BLOCK;
    size_t n_scales = (size_t)(head_dim + 31) / 32 * BLOCK;
    return op == TLR_OP_ATTEND_F32   ? n * 4
           : op == TLR_OP_ATTEND_F16 ? n * 2
                                     : n + 2 * n_scales;
}

/* One position: x becomes what was written. */
static void write_pos(enum tlr_kernel_op op, char *block, int p, float *x,
                      int head_dim, bool is_key)
{
    uint16_t *half = (uint16_t *)(void *)block;
    int8_t *q = (int8_t *)(half + (head_dim + 31) / 32 * BLOCK);
    float d = 0;
    for (int i = 0; i < head_dim; i++) {
        int at = is_key ? i * BLOCK + p : p * head_dim + i;
        if (op == TLR_OP_ATTEND_F32) {
            ((float *)(void *)block)[at] = x[i];
            continue;
        }
        if (op == TLR_OP_ATTEND_F16) {
            half[at] = tlr_f32_to_f16(x[i]);
            x[i] = tlr_f16_to_f32(half[at]);
            continue;
        }
        if (i % 32 == 0) {
            float a = 0;
            for (int j = i; j < i + 32 && j < head_dim; j++)
                a = fmaxf(a, fabsf(x[j]));
            half[i / 32 * BLOCK + p] = tlr_f32_to_f16(a / 126);
            d = tlr_f16_to_f32(half[i / 32 * BLOCK + p]);
        }
        q[at] = (int8_t)(d > 0 ? lrintf(x[i] / d) : 0);
        x[i] = d * (float)q[at];
    }
}

static void make_side(struct proof *p, struct side *side, const struct shape *s,
                      enum input kind, double largest, bool is_key)
{
    size_t n = (size_t)s->n_pos * (size_t)s->head_dim;
    size_t bytes = bytes_of_block(p->op, s->head_dim);
    side->x = malloc(n * sizeof *side->x);
    ck_assert_ptr_nonnull(side->x);
    fill(&p->rng, side->x, n, kind, largest);
    side->g = guard((size_t)(s->n_pos + BLOCK - 1) / BLOCK * bytes);
    memset(side->g.ptr, 0xff, (size_t)(s->n_pos + BLOCK - 1) / BLOCK * bytes);
    for (int i = 0; i < s->n_pos; i++)
        write_pos(p->op, (char *)side->g.ptr + (size_t)(i / BLOCK) * bytes,
                  i % BLOCK, side->x + (size_t)i * (size_t)s->head_dim,
                  s->head_dim, is_key);
}

static bool is_int16(const struct proof *p)
{
#if defined(__x86_64__)
    return p->fn == (tlr_any_fn *)tlr_attend_f16_avx512vnni;
#else
    (void)p;
    return false;
#endif
}

/* As kernels.h has it; gives the unit. */
static float round_elements(float *x, int n, float levels)
{
    float a = 0;
    for (int i = 0; i < n; i++)
        a = fmaxf(a, fabsf(x[i]));
    double up = a < 0x1p-100f ? 0 : (double)(levels / a);
    for (int i = 0; i < n; i++)
        x[i] = (float)(rint((double)x[i] * up) * (double)(a / levels));
    return a / levels;
}

static float score_levels(int head_dim)
{
    return floorf(sqrtf(2147482624.0f / (float)head_dim));
}

static void round_sides(struct fixture *f)
{
    int dim = f->s->head_dim;
    for (int p = 0; p < f->s->n_pos; p++) {
        round_elements(f->k.x + p * dim, dim, score_levels(dim));
        f->value_unit[p] = round_elements(f->v.x + p * dim, dim, 4095);
    }
}

static void setup(struct proof *p, struct fixture *f, const struct shape *s)
{
    size_t dim = (size_t)s->head_dim, n_rows = (size_t)(s->n_tok * s->n_heads);
    bool extreme = s->kind == IN_EXTREME, huge = s->kind == HUGE_SCORE;
    enum input kind = huge ? IN_RANDOM : (enum input)s->kind;
    *f = (struct fixture){.s = s,
                          .block_bytes = bytes_of_block(p->op, s->head_dim),
                          .row_floats = TLR_PART_FLOATS(s->head_dim)};
    f->q = guard(n_rows * dim * sizeof(float));
    float *q = f->q.ptr;
    fill(&p->rng, q, n_rows * dim, kind, 2);
    /* extreme scores reach +-80 and extreme values 6e4, the end of f16 */
    make_side(p, &f->k, s, extreme ? IN_RANDOM : kind, 1, true);
    make_side(p, &f->v, s, extreme ? kind : IN_RANDOM, 6e4, false);
    f->int16 = is_int16(p);
    if (f->int16)
        round_sides(f);
    for (size_t i = 0; (extreme || huge) && i < n_rows * dim; i++)
        q[i] *= huge ? 1000 : 10; /* huge: one position takes all */
    for (int t = 0; t < s->n_tok; t++) {
        int seen = s->causal ? s->n_pos - s->n_tok + 1 + t : s->n_pos;
        f->n_seen[t] = seen < 0 ? 0 : seen;
    }
    f->scratch = aligned_alloc(64, TLR_ATTEND_SCRATCH(s->head_dim) * 4);
    f->want = malloc(n_rows * f->row_floats * sizeof *f->want);
    f->alone = malloc(f->row_floats * sizeof *f->alone);
    ck_assert(f->scratch && f->want && f->alone);
    f->got = output_new(4, dim + 2, f->row_floats, n_rows);
}

static void teardown(struct fixture *f)
{
    output_free(&f->got);
    free(f->scratch);
    free(f->want);
    free(f->alone);
    free(f->k.x);
    free(f->v.x);
    unguard(&f->k.g);
    unguard(&f->v.g);
    unguard(&f->q);
}

/* Rows of heads [head, head + n_heads) of tokens [tok, tok + n_tok); all of
 * them have a next stretch, which nobody can read. */
static void call(tlr_any_fn *fn, float *part, const struct fixture *f, int tok,
                 int n_tok, int head, int n_heads, int split)
{
    const struct shape *s = f->s;
    size_t at = (size_t)(split / BLOCK) * f->block_bytes;
    struct tlr_kv_span spans[2] = {
        {f->k.g.ptr, f->v.g.ptr, split},
        {(char *)f->k.g.ptr + at, (char *)f->v.g.ptr + at, s->n_pos - split}};
    size_t dim = (size_t)s->head_dim, q_stride = (size_t)s->n_heads * dim;
    size_t end = (size_t)(s->n_pos + BLOCK - 1) / BLOCK * f->block_bytes;
    bool is_all = n_tok == s->n_tok && n_heads == s->n_heads;
    struct tlr_attend job = {
        .q = (const float *)f->q.ptr + (size_t)tok * q_stride +
             (size_t)head * dim,
        .q_stride = q_stride,
        .n_seen = f->n_seen + tok,
        .n_tok = n_tok,
        .n_heads = n_heads,
        .spans = split ? spans : spans + 1,
        .n_spans = split ? 2 : 1,
        .next = {(char *)f->k.g.ptr + end, (char *)f->v.g.ptr + end,
                 is_all ? TLR_KV_STRETCH : 0},
        .head_dim = s->head_dim,
        .scale = 1 / sqrtf((float)s->head_dim)};
    ((tlr_attend_fn *)fn)(part, &job, f->scratch);
}

/* What rounding the weights 2^score / total adds to element i, see above. */
static double weight_bound(const struct fixture *f, const double *weight,
                           int n_seen, int i)
{
    double most = 0, all = 0, size = 0;
    for (int p = 0; p < n_seen; p++) {
        double w = weight[p] * (double)f->value_unit[p];
        most = fmax(most, w);
        all += w;
    }
    double unit = fmax(most / 32767, all / (INT32_MAX / 4095 - 256));
    for (int p = 0; p < n_seen; p++) {
        double v = (double)f->v.x[p * f->s->head_dim + i];
        double d = (double)f->value_unit[p];
        size += 0.5 + (d > 0 ? fabs(v) / d : 0);
    }
    return 1.01 * unit / 2 * size + 0x1p-76;
}

/* exact[i] and bound[i] for each element of acc / L, and for M + log2 L at the
 * end. */
static void bounds(double *exact, double *bound, const struct fixture *f,
                   const float *row, int n_seen)
{
    int dim = f->s->head_dim;
    double score[TLR_KV_STRETCH], off = 0, max = -INFINITY, min = INFINITY;
    double scale = 1.4426950408889634 / sqrt((double)dim), total = 0;
    float q[TLR_MAX_HEAD_DIM];
    float factor = 1 / sqrtf((float)dim) * 0x1.715476p+0f;
    for (int i = 0; i < dim; i++)
        q[i] = f->int16 ? row[i] * factor : row[i];
    if (f->int16) {
        round_elements(q, dim, score_levels(dim));
        scale = 1;
    }
    for (int p = 0; p < n_seen; p++) {
        double sum = 0, size = 0;
        for (int i = 0; i < dim; i++) {
            double t = (double)q[i] *
                       (double)f->k.x[(size_t)p * (size_t)dim + (size_t)i];
            sum += t;
            size += fabs(t);
        }
        score[p] = scale * sum;
        off = fmax(off, scale * size);
        max = fmax(max, score[p]);
        min = fmin(min, score[p]);
    }
    double spread = fmin(max - min, 130);
    for (int p = 0; p < n_seen; p++)
        total += exp2(score[p] - max);
    exact[dim] = max + log2(total);
    for (int p = 0; p < n_seen; p++)
        score[p] = exp2(score[p] - max) / total;
    off *= (dim + 4) * ROUNDOFF;
    double weight = M_LN2 * (off + spread * ROUNDOFF) +
                    (f->int16 ? 0x1p-18 : 0x1p-22);
    double error = 1.1 * (2 * weight + (2 * n_seen + 10) * ROUNDOFF);
    for (int i = 0; i < dim; i++) {
        double size = 0, flushed = 0;
        exact[i] = 0;
        for (int p = 0; p < n_seen; p++) {
            double v = (double)f->v.x[(size_t)p * (size_t)dim + (size_t)i];
            exact[i] += score[p] * v;
            size += score[p] * fabs(v);
            flushed += fabs(v);
        }
        bound[i] = error * size + flushed * 0x1p-125 + n_seen * TINIEST;
        if (f->int16)
            bound[i] += weight_bound(f, score, n_seen, i);
    }
    bound[dim] = 1.5 * error + fabs(max) * 4 * ROUNDOFF;
}

static bool judge_row(struct proof *p, const struct fixture *f, int row)
{
    const struct shape *s = f->s;
    int dim = s->head_dim, n_seen = f->n_seen[row / s->n_heads];
    const float *want = f->want + (size_t)row * f->row_floats;
    const float *got = (const float *)(const void *)f->got.first +
                       (size_t)row * f->row_floats;
    if (n_seen == 0)
        return (got[dim + 1] == 0 && isinf(got[dim]) && got[dim] < 0 &&
                got[0] == 0) ||
               fails(p, "nothing seen, but L = %g, M = %g",
                     (double)got[dim + 1], (double)got[dim]);
    double exact[TLR_MAX_HEAD_DIM + 1], bound[TLR_MAX_HEAD_DIM + 1];
    double largest = 0, apart = 0;
    float result[TLR_MAX_HEAD_DIM];
    bounds(exact, bound, f, (const float *)f->q.ptr + row * dim, n_seen);
    for (int i = 0; i < dim; i++) {
        double w = (double)want[i] / (double)want[dim + 1];
        apart = fmax(apart, fabs(w - exact[i]));
        w = f->int16 ? exact[i] : w;
        double g = (double)got[i] / (double)got[dim + 1];
        result[i] = (float)w;
        largest = fmax(largest, bound[i]);
        if (!(fabs(g - w) <= bound[i]))
            return fails(p, "row %d, element %d: expected %.9g, found %.9g, "
                            "bound %.3g", row, i, w, g, bound[i]);
    }
    double w = f->int16 ? exact[dim]
                        : (double)want[dim] + log2((double)want[dim + 1]);
    double g = (double)got[dim] + log2((double)got[dim + 1]);
    if (!(fabs(g - w) <= bound[dim]) || !(got[dim + 1] >= 0.999f))
        return fails(p, "row %d: expected M + log2 L %.9g, found %.9g with L "
                        "%.9g, bound %.3g", row, w, g, (double)got[dim + 1],
                     bound[dim]);
    /* whatever the signs, 256 rounded weights may be off by 1/32 of the RMS */
    double slack = f->int16 ? largest / 2 : largest;
    if (s->kind == IN_RANDOM &&
        (!bound_is_small(slack, result, (size_t)dim) || bound[dim] > 1.0 / 64))
        return fails(p, "the bound %.3g proves nothing", largest);
    if (s->kind == IN_RANDOM && !bound_is_small(apart, result, (size_t)dim))
        return fails(p, "%.3g apart from ref, which is not small", apart);
    return true;
}

static bool judge(struct proof *p, struct fixture *f)
{
    const struct shape *s = f->s;
    float *got = (float *)(void *)f->got.first;
    call(p->ref, f->want, f, 0, s->n_tok, 0, s->n_heads, s->split);
    call(p->fn, got, f, 0, s->n_tok, 0, s->n_heads, s->split);
    p->n_cases++;
    if (!output_intact(&f->got))
        return fails(p, "wrote outside");
    for (int row = 0; row < s->n_tok * s->n_heads; row++) {
        if (!judge_row(p, f, row))
            return false;
        call(p->fn, f->alone, f, row / s->n_heads, 1, row % s->n_heads, 1, 0);
        if (memcmp(f->alone, got + (size_t)row * f->row_floats,
                   (size_t)(s->head_dim + 2) * 4) != 0)
            return fails(p, "row %d: other bits alone, in one span", row);
    }
    return true;
}

static bool attend_case(struct proof *p, const struct shape *s)
{
    struct fixture f;
    setup(p, &f, s);
    bool ok = judge(p, &f);
    if (!ok) {
        char why[sizeof p->what];
        memcpy(why, p->what, sizeof why);
        fails(p, "head_dim %d, %d tokens of %d heads, %d positions (%d in the "
                 "first span)%s, %s: %.300s", s->head_dim, s->n_tok, s->n_heads,
              s->n_pos, s->split, s->causal ? ", causal" : "",
              s->kind == HUGE_SCORE ? "huge score"
                                    : input_name((enum input)s->kind), why);
    }
    teardown(&f);
    return ok;
}

bool prove_attend(struct proof *p)
{
    static const int dims[] = {8, 16, 24, 32, 64, 80, 96, 128, 256, 512};
    static const int positions[] = {1,  2,  15, 16,  17,  31, 32,
                                    33, 63, 65, 129, 255, 256};
    static const int rows[][2] = {{1, 1}, {1, 7},  {3, 5}, {2, 14},
                                  {1, 3}, {9, 7}, {64, 1}, {4, 2}};
    bool emulated = getenv("TLR_EMULATED") != NULL; /* wide heads take long */
    int turn = 0; /* every pair of neighbours meets other rows */
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        for (size_t j = 0; j < sizeof positions / sizeof positions[0]; j++) {
            for (int kind = 0; kind <= HUGE_SCORE; kind++, turn++) {
                if (emulated && dims[i] > 128 && turn % 11 != 0)
                    continue;
                const int *r = rows[turn % (dims[i] > 128 ? 5 : 8)];
                int n = positions[j];
                struct shape s = {dims[i], r[0], r[1], n, 0, turn % 3 == 0,
                                  kind};
                if (!attend_case(p, &s))
                    return false;
                s.split = n / 2 / BLOCK * BLOCK;
                s.causal = true;
                if (s.split && !attend_case(p, &s))
                    return false;
            }
        }
    }
    return true;
}

/* ---- merge ---- */

/* Rows 0, 3, 6.. are as good as random, 1, 4.. of them have nothing in the
 * part, 2, 5.. are far below what they are merged into, or above. */
static void fill_parts(struct proof *p, float *x, int n_rows, int head_dim,
                       enum input kind, bool is_part)
{
    for (int r = 0; r < n_rows; r++, x += TLR_PART_FLOATS(head_dim)) {
        fill(&p->rng, x, (size_t)head_dim, kind, 1e10);
        x[head_dim] = tlr_rng_normal(&p->rng) * 5;
        x[head_dim + 1] = 1 + fabsf(tlr_rng_normal(&p->rng)) * 100;
        if (is_part && r % 3 == 1) {
            memset(x, 0, (size_t)head_dim * sizeof *x);
            x[head_dim] = -INFINITY;
            x[head_dim + 1] = 0;
        }
        if (is_part && r % 3 == 2)
            x[head_dim] += r % 2 ? 500 : -500;
    }
}

static bool judge_merge(struct proof *p, const float *want, const float *got,
                        const float *into, const float *part, int head_dim)
{
    double max = (double)want[head_dim];
    double keep = exp2((double)into[head_dim] - max);
    double take = exp2((double)part[head_dim] - max);
    /* 2^x, and the rounding of x */
    double apart = fabs((double)into[head_dim] - (double)part[head_dim]);
    double error = 0x1p-21 + M_LN2 * ROUNDOFF * fmin(apart, 130);
    if (got[head_dim] != want[head_dim])
        return fails(p, "M: expected %g, found %g", max, (double)got[head_dim]);
    for (int i = 0; i < head_dim + 2; i++) {
        double size = keep * fabs((double)into[i]) +
                      take * fabs((double)part[i]);
        double flushed = fabs((double)into[i]) + fabs((double)part[i]);
        double bound = error * size + 0x1p-125 * flushed + TINIEST;
        if (i != head_dim && !within(got[i], want[i], bound))
            return fails(p, "element %d: expected %.9g, found %.9g, bound %.3g",
                         i, (double)want[i], (double)got[i], bound);
        bool nothing = part[head_dim + 1] == 0;
        if (nothing && memcmp(got + i, into + i, sizeof *got) != 0)
            return fails(p, "element %d: an empty part changed it", i);
    }
    return true;
}

static bool merge_case(struct proof *p, int head_dim, int n_rows,
                       enum input kind)
{
    size_t stride = TLR_PART_FLOATS(head_dim);
    size_t n = (size_t)(n_rows - 1) * stride + (size_t)head_dim + 2;
    struct guarded part = guard(n * 4);
    float *into = calloc((size_t)n_rows, stride * sizeof *into);
    float *want = malloc((size_t)n_rows * stride * sizeof *want);
    ck_assert(into && want);
    fill_parts(p, into, n_rows, head_dim, kind, false);
    fill_parts(p, part.ptr, n_rows, head_dim, kind, true);
    struct output out =
        output_new(4, (size_t)head_dim + 2, stride, (size_t)n_rows);
    float *got = (float *)(void *)out.first;
    for (int r = 0; r < n_rows; r++)
        memcpy(got + (size_t)r * stride, into + (size_t)r * stride,
               ((size_t)head_dim + 2) * 4);
    memcpy(want, into, (size_t)n_rows * stride * 4);
    ((tlr_attend_merge_fn *)p->ref)(want, part.ptr, n_rows, head_dim);
    ((tlr_attend_merge_fn *)p->fn)(got, part.ptr, n_rows, head_dim);
    p->n_cases++;
    bool ok = output_intact(&out) || fails(p, "wrote outside");
    for (int r = 0; ok && r < n_rows; r++) {
        size_t at = (size_t)r * stride;
        ok = judge_merge(p, want + at, got + at, into + at,
                         (const float *)part.ptr + at, head_dim);
    }
    output_free(&out);
    unguard(&part);
    free(into);
    free(want);
    return ok;
}

bool prove_attend_merge(struct proof *p)
{
    static const int dims[] = {8, 16, 24, 64, 80, 128, 512};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        for (int n_rows = 1; n_rows <= 7; n_rows++) {
            for (int kind = 0; kind < N_INPUTS; kind++) {
                if (!merge_case(p, dims[i], n_rows, (enum input)kind))
                    return false;
            }
        }
    }
    return true;
}
