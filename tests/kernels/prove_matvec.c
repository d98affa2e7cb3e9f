/* prove_matvec.c - matvec_* and dequant_*.
 *
 * Bound of a dot product: each product and sum rounds once, so the error is at
 * most k * u * sum |w||x| with k the longest chain of roundings a term passes
 * (Higham 2002, section 3.1).  A kernel keeps at least 8 accumulators:
 * k = n_cols/8 + 24 with the lanes' sum.
 * Subnormal steps add at most the tiniest number each, scaled by the weight.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

struct shape {
    int n_rows, n_cols, n_x;
    enum input kind;
};

static void make_weights(struct proof *p, void *w, const struct shape *s)
{
    size_t n_cols = (size_t)s->n_cols;
    size_t row_bytes = tlr_matrix_bytes(p->type, 1, n_cols);
    float *row = malloc(n_cols * sizeof *row);
    ck_assert_ptr_nonnull(row);
    enum input kind = s->kind == IN_EXTREME ? IN_EXTREME : IN_RANDOM;
    for (int r = 0; r < s->n_rows; r++) {
        fill(&p->rng, row, n_cols, kind, 1e8);
        tlr_band_encode(p->type, (uint8_t *)w + (size_t)r * row_bytes, row, 1,
                        s->n_cols);
    }
    free(row);
}

static bool judge_matvec(struct proof *p, const struct shape *s, const void *w,
                         const float *x, size_t x_stride, const float *want,
                         const struct output *y)
{
    if (!output_intact(y))
        return fails(p, "wrote outside y");
    float *mag = malloc((size_t)s->n_cols * sizeof *mag);
    ck_assert_ptr_nonnull(mag);
    double chain = s->n_cols / 8 + 24, largest_bound = 0;
    bool ok = true;
    for (int r = 0; ok && r < s->n_rows; r++) {
        tlr_row_decode(p->type, mag, w, (uint64_t)r, s->n_cols);
        for (int b = 0; ok && b < s->n_x; b++) {
            double sum = 0, top = 1;
            for (int c = 0; c < s->n_cols; c++) {
                double m = fabs((double)mag[c]);
                sum += m * fabs((double)x[(size_t)b * x_stride + (size_t)c]);
                top = fmax(top, m);
            }
            double bound = chain * (ROUNDOFF * sum + TINIEST * top);
            largest_bound = fmax(largest_bound, bound);
            float got =
                ((const float *)(void *)y->first)[(size_t)b * y->stride +
                                                  (size_t)r];
            float ref = want[(size_t)b * (size_t)s->n_rows + (size_t)r];
            if (!within(got, ref, bound))
                ok = fails(p, "row %d vector %d: expected %.9g, found %.9g, "
                              "bound %.3g", r, b, (double)ref, (double)got,
                           bound);
        }
    }
    free(mag);
    size_t n = (size_t)s->n_rows * (size_t)s->n_x;
    if (ok && s->kind == IN_RANDOM && n >= 8 &&
        !bound_is_small(largest_bound, want, n))
        return fails(p, "the bound %.3g proves nothing", largest_bound);
    return ok;
}

/* A row's bits must not depend on the vectors or rows beside it. */
static bool same_bits_alone(struct proof *p, const struct shape *s,
                            const uint8_t *w, const float *x, size_t x_stride,
                            const struct output *all)
{
    tlr_matvec_fn *fn = (tlr_matvec_fn *)p->fn;
    const float *y = (const float *)(const void *)all->first;
    int starts[2] = {0, s->n_rows - 1};
    bool ok = true;
    for (int i = 0; ok && i < 2; i++) {
        int r0 = starts[i], n_rows = s->n_rows - r0;
        const uint8_t *from = w + tlr_matrix_bytes(p->type, (uint64_t)r0,
                                                   (uint64_t)s->n_cols);
        for (int b = 0; ok && b < s->n_x; b++) {
            struct output one = output_new(4, (size_t)n_rows, (size_t)n_rows, 1);
            fn((float *)(void *)one.first, (size_t)n_rows, from,
               x + (size_t)b * x_stride, x_stride, 1, n_rows, s->n_cols);
            ok = output_intact(&one) &&
                 memcmp(one.first, y + (size_t)b * all->stride + r0,
                        (size_t)n_rows * 4) == 0;
            output_free(&one);
            if (!ok)
                fails(p, "vector %d from row %d alone has other bits", b, r0);
        }
    }
    return ok;
}

static bool matvec_case(struct proof *p, const struct shape *s)
{
    size_t n_cols = (size_t)s->n_cols, n_rows = (size_t)s->n_rows;
    size_t n_x = (size_t)s->n_x, x_stride = n_cols + (n_x % 2 ? 0 : 5);
    struct guarded w = guard(tlr_matrix_bytes(p->type, n_rows, n_cols));
    struct guarded x = guard(((n_x - 1) * x_stride + n_cols) * sizeof(float));
    make_weights(p, w.ptr, s);
    fill(&p->rng, x.ptr, (n_x - 1) * x_stride + n_cols, s->kind, 1e20);

    float *want = malloc(n_x * n_rows * sizeof *want);
    ck_assert_ptr_nonnull(want);
    ((tlr_matvec_fn *)p->ref)(want, n_rows, w.ptr, x.ptr, x_stride, s->n_x,
                              s->n_rows, s->n_cols);
    struct output y = output_new(4, n_rows, n_rows + 3, n_x);
    ((tlr_matvec_fn *)p->fn)((float *)(void *)y.first, y.stride, w.ptr, x.ptr,
                             x_stride, s->n_x, s->n_rows, s->n_cols);
    p->n_cases++;
    bool ok = judge_matvec(p, s, w.ptr, x.ptr, x_stride, want, &y) &&
              same_bits_alone(p, s, w.ptr, x.ptr, x_stride, &y);
    if (!ok) {
        char why[sizeof p->what];
        memcpy(why, p->what, sizeof why);
        fails(p, "[%d,%d] n_x %d %s: %.400s", s->n_rows, s->n_cols, s->n_x,
              input_name(s->kind), why);
    }
    output_free(&y);
    free(want);
    unguard(&x);
    unguard(&w);
    return ok;
}

static const int odd_cols[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64};
static const int real_cols[] = {128, 576, 896, 1536, 4864};
static const int edge_rows[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 33};
static const struct shape whole[] = {
    {4864, 896, 1, IN_RANDOM}, {896, 4864, 8, IN_RANDOM},
    {1536, 576, 3, IN_EXTREME}, {151936, 32, 2, IN_RANDOM}};

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

bool prove_matvec(struct proof *p)
{
    for (int i = 0; i < COUNT(odd_cols); i++) {
        for (int j = 0; j < COUNT(edge_rows); j++) {
            for (int n_x = 1; n_x <= TLR_MAX_BRANCHES; n_x++) {
                for (int kind = 0; kind < N_INPUTS; kind++) {
                    struct shape s = {edge_rows[j], odd_cols[i], n_x,
                                      (enum input)kind};
                    if (!matvec_case(p, &s))
                        return false;
                }
            }
        }
    }
    for (int i = 0; i < COUNT(real_cols); i++) {
        for (int n_x = 1; n_x <= TLR_MAX_BRANCHES; n_x++) {
            struct shape s = {19, real_cols[i], n_x,
                              (enum input)(n_x % N_INPUTS)};
            struct shape random = {19, real_cols[i], n_x, IN_RANDOM};
            if (!matvec_case(p, &s) || !matvec_case(p, &random))
                return false;
        }
    }
    for (int i = 0; p->large && i < COUNT(whole); i++) {
        if (!matvec_case(p, whole + i))
            return false;
    }
    return true;
}

static bool dequant_case(struct proof *p, const struct shape *s)
{
    size_t n = (size_t)s->n_rows * (size_t)s->n_cols;
    struct guarded w = guard(tlr_matrix_bytes(p->type, (uint64_t)s->n_rows,
                                              (uint64_t)s->n_cols));
    make_weights(p, w.ptr, s);
    float *want = malloc(n * sizeof *want);
    ck_assert_ptr_nonnull(want);
    ((tlr_dequant_fn *)p->ref)(want, w.ptr, s->n_rows, s->n_cols);
    struct output y = output_new(4, n, n, 1);
    ((tlr_dequant_fn *)p->fn)((float *)(void *)y.first, w.ptr, s->n_rows,
                              s->n_cols);
    p->n_cases++;
    bool ok = output_intact(&y) && memcmp(y.first, want, n * 4) == 0;
    if (!ok)
        fails(p, "[%d,%d] %s: %s", s->n_rows, s->n_cols, input_name(s->kind),
              output_intact(&y) ? "other bits than ref" : "wrote outside");
    output_free(&y);
    free(want);
    unguard(&w);
    return ok;
}

bool prove_dequant(struct proof *p)
{
    int n_odd = COUNT(odd_cols);
    for (int j = 0; j < COUNT(edge_rows); j++) {
        for (int i = 0; i < n_odd + COUNT(real_cols); i++) {
            int c = i < n_odd ? odd_cols[i] : real_cols[i - n_odd];
            struct shape random = {edge_rows[j], c, 1, IN_RANDOM};
            struct shape extreme = {edge_rows[j], c, 1, IN_EXTREME};
            if (!dequant_case(p, &random) || !dequant_case(p, &extreme))
                return false;
        }
    }
    return true;
}
