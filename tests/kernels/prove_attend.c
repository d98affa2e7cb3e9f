/* prove_attend.c - attend_f32, attend_f16.
 *
 * Bound: a score is off by at most D = scale * (head_dim/8 + 8) u sum |q||k|,
 * its distance to the maximum by 2D and a rounding of itself; exp turns that
 * into a relative error E = 2D + u * spread + 2^-22 of each weight, the sum of
 * the weights into another E, and the weighted sum of n_pos values adds
 * (n_pos + 10) u: in all sum p|v| * (2E + (n_pos + 10) u).  Doubled for the
 * terms of second order; weights under 2^-126 may be flushed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

struct shape {
    int head_dim, n_pos, split; /* positions in the first span */
    size_t gap;                 /* elements between positions beside head_dim */
    enum input kind;
};

struct cache {
    struct guarded k, v;         /* as the kernel sees them */
    float *k_values, *v_values;  /* [n_pos][stride], as f32 */
    size_t stride, n;
};

static void cache_part(struct proof *p, struct guarded *g, float **values,
                       size_t n, enum input kind, double largest)
{
    bool f16 = p->op == TLR_OP_ATTEND_F16;
    *values = malloc(n * sizeof **values);
    ck_assert_ptr_nonnull(*values);
    fill(&p->rng, *values, n, kind, largest);
    *g = guard(n * (f16 ? 2 : 4));
    for (size_t i = 0; i < n; i++) {
        if (!f16) {
            ((float *)g->ptr)[i] = (*values)[i];
            continue;
        }
        uint16_t h = tlr_f32_to_f16((*values)[i]);
        ((uint16_t *)g->ptr)[i] = h;
        (*values)[i] = tlr_f16_to_f32(h);
    }
}

/* bound[i] for each element of the output. */
static void bounds(double *bound, const struct shape *s, const struct cache *c,
                   const float *q, float scale)
{
    double *score = malloc((size_t)s->n_pos * sizeof *score);
    ck_assert_ptr_nonnull(score);
    double off = 0, max = -INFINITY, min = INFINITY, total = 0;
    for (int p = 0; p < s->n_pos; p++) {
        double sum = 0, size = 0;
        for (int i = 0; i < s->head_dim; i++) {
            double t = (double)q[i] *
                       (double)c->k_values[(size_t)p * c->stride + (size_t)i];
            sum += t;
            size += fabs(t);
        }
        score[p] = (double)scale * sum;
        off = fmax(off, (double)scale * size);
        max = fmax(max, score[p]);
        min = fmin(min, score[p]);
    }
    for (int p = 0; p < s->n_pos; p++)
        total += exp(score[p] - max);
    double spread = fmin(max - min, 100);
    off *= (s->head_dim / 8 + 8) * ROUNDOFF;
    double weight_error = 2 * off + spread * ROUNDOFF + 0x1p-22;
    double error = 2 * (2 * weight_error + (s->n_pos + 10) * ROUNDOFF);
    for (int i = 0; i < s->head_dim; i++) {
        double size = 0, flushed = 0;
        for (int p = 0; p < s->n_pos; p++) {
            double v =
                fabs((double)c->v_values[(size_t)p * c->stride + (size_t)i]);
            size += exp(score[p] - max) / total * v;
            flushed += v;
        }
        bound[i] = error * size + flushed * 0x1p-125 + s->n_pos * TINIEST;
    }
    free(score);
}

static void call(const struct proof *p, tlr_any_fn *fn, float *out,
                 const float *q, const struct cache *c, const struct shape *s,
                 int split, float scale, float *scores)
{
    size_t size = p->op == TLR_OP_ATTEND_F16 ? 2 : 4;
    size_t at = (size_t)split * c->stride * size;
    struct tlr_kv_span spans[2] = {
        {c->k.ptr, c->v.ptr, c->stride, split},
        {(char *)c->k.ptr + at, (char *)c->v.ptr + at, c->stride,
         s->n_pos - split}};
    int n_spans = split == s->n_pos ? 1 : 2;
    ((tlr_attend_fn *)fn)(out, q, spans, n_spans, s->head_dim, scale, scores);
}

static bool judge(struct proof *p, const struct shape *s, const float *want,
                  const struct output *out, const struct output *scores,
                  const double *bound)
{
    const float *got = (const float *)(const void *)out->first;
    double largest = 0;
    if (!output_intact(out) || !output_intact(scores))
        return fails(p, "wrote outside");
    for (int i = 0; i < s->head_dim; i++) {
        largest = fmax(largest, bound[i]);
        if (!within(got[i], want[i], bound[i]))
            return fails(p, "element %d: expected %.9g, found %.9g, bound "
                            "%.3g", i, (double)want[i], (double)got[i],
                         bound[i]);
    }
    if (s->kind == IN_RANDOM &&
        !bound_is_small(largest, want, (size_t)s->head_dim))
        return fails(p, "the bound %.3g proves nothing", largest);
    return true;
}

static bool attend_case(struct proof *p, const struct shape *s)
{
    size_t dim = (size_t)s->head_dim, n_pos = (size_t)s->n_pos;
    struct cache c = {.stride = dim + s->gap};
    c.n = (n_pos - 1) * c.stride + dim;
    float scale = 1 / sqrtf((float)dim);
    /* extreme scores reach +-80 and extreme values 6e4, the end of f16 */
    bool extreme = s->kind == IN_EXTREME;
    struct guarded q = guard(dim * sizeof(float));
    fill(&p->rng, q.ptr, dim, s->kind, 2);
    cache_part(p, &c.k, &c.k_values, c.n, extreme ? IN_RANDOM : s->kind, 1);
    cache_part(p, &c.v, &c.v_values, c.n, extreme ? s->kind : IN_RANDOM, 6e4);
    for (size_t i = 0; extreme && i < dim; i++)
        ((float *)q.ptr)[i] *= 10;

    float want[512];
    double bound[512];
    struct output scores = output_new(4, n_pos, n_pos, 1);
    struct output out = output_new(4, dim, dim, 1);
    float *scratch = (float *)(void *)scores.first;
    call(p, p->ref, want, q.ptr, &c, s, s->split, scale, scratch);
    call(p, p->fn, (float *)(void *)out.first, q.ptr, &c, s, s->split, scale,
         scratch);
    p->n_cases++;
    bounds(bound, s, &c, q.ptr, scale);
    bool ok = judge(p, s, want, &out, &scores, bound);
    if (ok && s->split != s->n_pos) {
        call(p, p->fn, want, q.ptr, &c, s, s->n_pos, scale, scratch);
        ok = memcmp(want, out.first, dim * 4) == 0 ||
             fails(p, "one span has other bits");
    }
    if (!ok) {
        char why[sizeof p->what];
        memcpy(why, p->what, sizeof why);
        fails(p, "head_dim %d, %d positions (%d in the first span), %s: %.380s",
              s->head_dim, s->n_pos, s->split, input_name(s->kind), why);
    }
    output_free(&out);
    output_free(&scores);
    free(c.k_values);
    free(c.v_values);
    unguard(&c.k);
    unguard(&c.v);
    unguard(&q);
    return ok;
}

bool prove_attend(struct proof *p)
{
    static const int dims[] = {8, 16, 24, 32, 64, 80, 96, 128, 256, 512};
    static const int positions[] = {1, 2, 7, 8, 9, 15, 16, 17, 33, 100, 513};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        for (size_t j = 0; j < sizeof positions / sizeof positions[0]; j++) {
            for (int kind = 0; kind < N_INPUTS; kind++) {
                int n = positions[j];
                struct shape one = {dims[i], n, n, 0, (enum input)kind};
                struct shape two = {dims[i], n, n * 2 / 3,
                                    (size_t)dims[i] * 2, (enum input)kind};
                if (!attend_case(p, &one) || !attend_case(p, &two))
                    return false;
            }
        }
    }
    return true;
}
