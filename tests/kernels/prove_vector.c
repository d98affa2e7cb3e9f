/* prove_vector.c - rmsnorm, rope, swiglu, add and the f16 conversions.
 *
 * Bounds, with u the unit roundoff:
 *   rmsnorm  the sum of squares has at most n/8 + 8 roundings, the root halves
 *            that, root, division and two products add five: relative
 *   rope     two products and a sum: 3u (|a c| + |b s|)
 *   swiglu   2^-21 relative, |gate up| 2^-125 where the exponential is flushed
 *   add, f16 exact
 * and a few times the tiniest number, scaled, where a step is subnormal.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

static const int lengths[] = {1,  2,  3,  7,  8,  9,   15,  16,  17,   31,  32,
                              33, 47, 63, 64, 65, 128, 576, 896, 1536, 4864};

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

/* in[0..2]: the inputs; y starts as in[0] where the operation is in place. */
struct vector_case {
    int n;
    int head_dim; /* rope */
    enum input kind;
    const float *in[3];
};

static void call(tlr_any_fn *fn, enum tlr_kernel_op op,
                 const struct vector_case *c, float *y)
{
    size_t bytes = (size_t)c->n * sizeof *y;
    switch (op) {
    case TLR_OP_RMSNORM:
        ((tlr_rmsnorm_fn *)fn)(y, c->in[0], c->in[1], c->n, 1e-6f);
        break;
    case TLR_OP_ROPE:
        memcpy(y, c->in[0], bytes);
        ((tlr_rope_fn *)fn)(y, c->in[1], c->in[2], c->n / c->head_dim,
                            c->head_dim);
        break;
    case TLR_OP_SWIGLU:
        ((tlr_swiglu_fn *)fn)(y, c->in[0], c->in[1], c->n);
        break;
    default:
        memcpy(y, c->in[0], bytes);
        ((tlr_add_fn *)fn)(y, c->in[1], c->n);
        break;
    }
}

static double bound_of(enum tlr_kernel_op op, const struct vector_case *c,
                       int i, float want)
{
    double size = fabs((double)want);
    if (op == TLR_OP_RMSNORM) {
        double w = fabs((double)c->in[1][i]);
        return ((c->n / 8 + 8) / 2.0 + 5) * ROUNDOFF * size +
               2 * TINIEST * (1 + w);
    }
    if (op == TLR_OP_ROPE) {
        int half = c->head_dim / 2, j = i % c->head_dim;
        const float *head = c->in[0] + (i - j);
        double a = fabs((double)head[j % half]);
        double b = fabs((double)head[j % half + half]);
        double cos = fabs((double)c->in[1][j % half]);
        double sin = fabs((double)c->in[2][j % half]);
        double sum = j < half ? a * cos + b * sin : b * cos + a * sin;
        return 3 * (ROUNDOFF * sum + TINIEST);
    }
    if (op == TLR_OP_SWIGLU) {
        double g = fabs((double)c->in[0][i]), up = fabs((double)c->in[1][i]);
        return 0x1p-21 * size + g * up * 0x1p-125 + 2 * TINIEST * (1 + up);
    }
    return 0;
}

static bool judge(struct proof *p, const struct vector_case *c,
                  const float *want, const struct output *y)
{
    const float *got = (const float *)(const void *)y->first;
    double largest_bound = 0;
    if (!output_intact(y))
        return fails(p, "n %d %s: wrote outside", c->n, input_name(c->kind));
    for (int i = 0; i < c->n; i++) {
        double bound = bound_of(p->op, c, i, want[i]);
        largest_bound = fmax(largest_bound, bound);
        if (!within(got[i], want[i], bound))
            return fails(p, "n %d (heads of %d) %s: element %d: expected "
                            "%.9g, found %.9g, bound %.3g", c->n, c->head_dim,
                         input_name(c->kind), i, (double)want[i],
                         (double)got[i], bound);
    }
    if (c->kind == IN_RANDOM &&
        !bound_is_small(largest_bound, want, (size_t)c->n))
        return fails(p, "n %d: the bound %.3g proves nothing", c->n,
                     largest_bound);
    return true;
}

static bool run(struct proof *p, int n, int head_dim, enum input kind)
{
    /* sums of products of two are to stay finite in f32 */
    bool products = p->op == TLR_OP_RMSNORM || p->op == TLR_OP_ROPE;
    double largest = products ? 1e15 : 1e30;
    size_t len[3] = {(size_t)n, (size_t)n, 0};
    if (p->op == TLR_OP_ROPE)
        len[1] = len[2] = (size_t)head_dim / 2;
    struct guarded in[3];
    struct vector_case c = {n, head_dim, kind, {0}};
    for (int i = 0; i < 3; i++) {
        in[i] = guard(len[i] * sizeof(float));
        c.in[i] = in[i].ptr;
        /* weights, angles and up stay ordinary in every second case */
        bool odd = i > 0 && kind != IN_EXTREME;
        fill(&p->rng, in[i].ptr, len[i], odd ? IN_RANDOM : kind, largest);
    }
    if (p->op == TLR_OP_SWIGLU && kind == IN_RANDOM) {
        float *gate = in[0].ptr; /* through the whole range of exp */
        for (int i = 0; i < n; i++)
            gate[i] *= i % 3 ? 4.0f : 40.0f;
    }
    float *want = malloc((size_t)n * sizeof *want);
    ck_assert_ptr_nonnull(want);
    call(p->ref, p->op, &c, want);
    struct output y = output_new(4, (size_t)n, (size_t)n, 1);
    call(p->fn, p->op, &c, (float *)(void *)y.first);
    p->n_cases++;
    bool ok = judge(p, &c, want, &y);
    if (ok && (p->op == TLR_OP_RMSNORM || p->op == TLR_OP_SWIGLU)) {
        /* y may be x */
        struct output again = output_new(4, (size_t)n, (size_t)n, 1);
        memcpy(again.first, in[0].ptr, (size_t)n * 4);
        c.in[0] = (const float *)(const void *)again.first;
        call(p->fn, p->op, &c, (float *)(void *)again.first);
        if (memcmp(again.first, y.first, (size_t)n * 4) != 0)
            ok = fails(p, "n %d: other bits in place", n);
        output_free(&again);
    }
    output_free(&y);
    free(want);
    for (int i = 0; i < 3; i++)
        unguard(in + i);
    return ok;
}

bool prove_vector(struct proof *p)
{
    static const int head_dims[] = {2, 6, 8, 16, 30, 32, 64, 96, 128, 256};
    for (int kind = 0; kind < N_INPUTS; kind++) {
        for (int i = 0; p->op == TLR_OP_ROPE && i < COUNT(head_dims); i++) {
            for (int heads = 1; heads <= 14; heads += 13) {
                if (!run(p, heads * head_dims[i], head_dims[i],
                         (enum input)kind))
                    return false;
            }
        }
        for (int i = 0; p->op != TLR_OP_ROPE && i < COUNT(lengths); i++) {
            if (!run(p, lengths[i], 0, (enum input)kind))
                return false;
        }
    }
    return !p->large || p->op == TLR_OP_ROPE || run(p, 151936, 0, IN_RANDOM);
}

/* Sources of a conversion: every f16, and every f32 at, just under and just
 * over an f16 and the midpoint above it (the ties). */
static size_t f16_sources(enum tlr_kernel_op op, void *dst)
{
    size_t n = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        if (op == TLR_OP_FROM_F16) {
            ((uint16_t *)dst)[n++] = (uint16_t)h;
            continue;
        }
        float at = tlr_f16_to_f32((uint16_t)h);
        float next = tlr_f16_to_f32((uint16_t)(h + 1));
        float middle = (float)(((double)at + (double)next) / 2);
        for (int i = 0; i < 6; i++) {
            uint32_t bits;
            memcpy(&bits, i < 3 ? &at : &middle, sizeof bits);
            bits += (uint32_t)(i % 3) - 1;
            memcpy((float *)dst + n++, &bits, sizeof bits);
        }
    }
    return n;
}

static bool f16_case(struct proof *p, const void *all, size_t first, size_t n)
{
    bool from = p->op == TLR_OP_FROM_F16;
    size_t in_size = from ? 2 : 4, out_size = from ? 4 : 2;
    struct guarded src = guard(n * in_size);
    memcpy(src.ptr, (const char *)all + first * in_size, n * in_size);
    void *want = malloc(n * out_size);
    ck_assert_ptr_nonnull(want);
    struct output y = output_new(out_size, n, n, 1);
    if (from) {
        ((tlr_from_f16_fn *)p->ref)(want, src.ptr, (int)n);
        ((tlr_from_f16_fn *)p->fn)((float *)(void *)y.first, src.ptr, (int)n);
    } else {
        ((tlr_to_f16_fn *)p->ref)(want, src.ptr, (int)n);
        ((tlr_to_f16_fn *)p->fn)((uint16_t *)(void *)y.first, src.ptr, (int)n);
    }
    p->n_cases++;
    bool ok = output_intact(&y) && memcmp(y.first, want, n * out_size) == 0;
    if (!ok)
        fails(p, "%zu values from %zu on: %s", n, first,
              output_intact(&y) ? "other bits than ref" : "wrote outside");
    output_free(&y);
    free(want);
    unguard(&src);
    return ok;
}

bool prove_f16(struct proof *p)
{
    void *all = malloc(65536 * 6 * sizeof(float));
    ck_assert_ptr_nonnull(all);
    size_t n = f16_sources(p->op, all);
    bool ok = f16_case(p, all, 0, n);
    for (int i = 0; ok && i < COUNT(lengths); i++)
        ok = f16_case(p, all, 15000 + (size_t)i, (size_t)lengths[i]);
    free(all);
    return ok;
}
