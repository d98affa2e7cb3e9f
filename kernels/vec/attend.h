/* attend.h - attention of one head over a vector vocabulary (x86/vec_*.h),
 * which the including file has included before.
 *
 * Three passes over scores[]: dot products, exponentials, weighted sum of the
 * values.  Each position is treated alike and positions are added in order, so
 * the bits do not depend on where one span ends and the next begins.
 */
#include <stdbool.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/exp.h"

enum { VALUE_VECTORS = 4 }; /* accumulators of the weighted sum */

TLR_INLINE vf load_kv(const void *base, size_t at, int n, const bool is_f16)
{
    if (is_f16) {
        const uint16_t *p = (const uint16_t *)base + at;
        return n == LANES ? vf_load_f16(p) : vf_load_f16_n(p, n);
    }
    const float *p = (const float *)base + at;
    return n == LANES ? vf_load(p) : vf_load_n(p, n);
}

TLR_INLINE float dot(const float *q, const void *k, size_t at, int head_dim,
                     const bool is_f16)
{
    vf sum[2] = {vf_zero(), vf_zero()};
    int i = 0;
    for (; i + 2 * LANES <= head_dim; i += 2 * LANES) {
        size_t j = at + (size_t)i;
        sum[0] = vf_fma(vf_load(q + i), load_kv(k, j, LANES, is_f16), sum[0]);
        sum[1] = vf_fma(vf_load(q + i + LANES),
                        load_kv(k, j + LANES, LANES, is_f16), sum[1]);
    }
    for (; i < head_dim; i += LANES) {
        int n = head_dim - i < LANES ? head_dim - i : LANES;
        vf k_part = load_kv(k, at + (size_t)i, n, is_f16);
        sum[0] = vf_fma(vf_load_n(q + i, n), k_part, sum[0]);
    }
    return vf_sum(vf_add(sum[0], sum[1]));
}

/* scores[p] = scale * q . k_p; returns how many. */
TLR_INLINE int score(float *scores, const float *q,
                     const struct tlr_kv_span *spans, int n_spans, int head_dim,
                     float scale, const bool is_f16)
{
    int n = 0;
    for (int s = 0; s < n_spans; s++) {
        const struct tlr_kv_span *span = spans + s;
        for (int p = 0; p < span->n_pos; p++) {
            size_t at = (size_t)p * span->stride;
            scores[n++] = scale * dot(q, span->k, at, head_dim, is_f16);
        }
    }
    return n;
}

/* scores[p] = exp(scores[p] - max); returns their sum. */
TLR_INLINE float exponentials(float *scores, int n)
{
    float max = scores[0];
    for (int p = 1; p < n; p++)
        max = scores[p] > max ? scores[p] : max;
    vf top = vf_set1(max), sum = vf_zero();
    int p = 0;
    for (; p + LANES <= n; p += LANES) {
        vf e = vf_exp(vf_sub(vf_load(scores + p), top));
        vf_store(scores + p, e);
        sum = vf_add(sum, e);
    }
    if (p < n) {
        vf e = vf_exp(vf_sub(vf_load_n(scores + p, n - p), top));
        vf_store_n(scores + p, e, n - p);
        sum = vf_add(sum, vf_load_n(scores + p, n - p));
    }
    return vf_sum(sum);
}

/* out[first..first+width) = inverse * sum of weight_p * v_p; n_vf vectors, the
 * last of n_last elements. */
TLR_INLINE void weigh(float *out, const float *weights,
                      const struct tlr_kv_span *spans, int n_spans, int first,
                      const int n_vf, int n_last, float inverse,
                      const bool is_f16)
{
    vf acc[VALUE_VECTORS];
    for (int i = 0; i < n_vf; i++)
        acc[i] = vf_zero();
    for (int s = 0; s < n_spans; s++) {
        const struct tlr_kv_span *span = spans + s;
        for (int p = 0; p < span->n_pos; p++) {
            size_t at = (size_t)p * span->stride + (size_t)first;
            vf w = vf_set1(*weights++);
            for (int i = 0; i < n_vf; i++) {
                int n = i + 1 < n_vf ? LANES : n_last;
                size_t j = at + (size_t)(i * LANES);
                acc[i] = vf_fma(w, load_kv(span->v, j, n, is_f16), acc[i]);
            }
        }
    }
    for (int i = 0; i < n_vf; i++)
        vf_store_n(out + first + i * LANES, vf_mul(acc[i], vf_set1(inverse)),
                   i + 1 < n_vf ? LANES : n_last);
}

TLR_INLINE void attend(float *out, const float *q,
                       const struct tlr_kv_span *spans, int n_spans,
                       int head_dim, float scale, float *scores,
                       const bool is_f16)
{
    int n = score(scores, q, spans, n_spans, head_dim, scale, is_f16);
    float inverse = 1 / exponentials(scores, n);
    int i = 0;
    for (; i + VALUE_VECTORS * LANES <= head_dim; i += VALUE_VECTORS * LANES)
        weigh(out, scores, spans, n_spans, i, VALUE_VECTORS, LANES, inverse,
              is_f16);
    for (; i + LANES <= head_dim; i += LANES)
        weigh(out, scores, spans, n_spans, i, 1, LANES, inverse, is_f16);
    if (i < head_dim)
        weigh(out, scores, spans, n_spans, i, 1, head_dim - i, inverse, is_f16);
}

void TLR_FN(attend_f32)(float *out, const float *q,
                        const struct tlr_kv_span *spans, int n_spans,
                        int head_dim, float scale, float *scores)
{
    attend(out, q, spans, n_spans, head_dim, scale, scores, false);
}

void TLR_FN(attend_f16)(float *out, const float *q,
                        const struct tlr_kv_span *spans, int n_spans,
                        int head_dim, float scale, float *scores)
{
    attend(out, q, spans, n_spans, head_dim, scale, scores, true);
}
