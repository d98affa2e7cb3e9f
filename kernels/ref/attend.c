/* attend.c - the oracle of attend_*: the running softmax in double, so that one
 * pass over the cache needs no scores (Milakov & Gimelshein 2018, arXiv
 * 1805.02867, algorithm 3). */
#include <assert.h>
#include <math.h>

#include "kernels/variants_decl.h"

enum { MAX_HEAD_DIM = 512 };

static double element(const void *base, size_t index, bool is_f16)
{
    if (is_f16)
        return (double)tlr_f16_to_f32(((const uint16_t *)base)[index]);
    return (double)((const float *)base)[index];
}

static void attend(float *out, const float *q, const struct tlr_kv_span *spans,
                   int n_spans, int head_dim, float scale, bool is_f16)
{
    assert(head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim % 8 == 0);
    double acc[MAX_HEAD_DIM] = {0};
    double max = -INFINITY, total = 0;
    for (int s = 0; s < n_spans; s++) {
        const struct tlr_kv_span *span = spans + s;
        for (int p = 0; p < span->n_pos; p++) {
            size_t at = (size_t)p * span->stride;
            double score = 0;
            for (int i = 0; i < head_dim; i++)
                score += (double)q[i] *
                         element(span->k, at + (size_t)i, is_f16);
            score *= (double)scale;
            double shrink = score > max ? exp(max - score) : 1;
            max = score > max ? score : max;
            double weight = exp(score - max);
            total = total * shrink + weight;
            for (int i = 0; i < head_dim; i++)
                acc[i] = acc[i] * shrink +
                         weight * element(span->v, at + (size_t)i, is_f16);
        }
    }
    assert(total > 0);
    for (int i = 0; i < head_dim; i++)
        out[i] = (float)(acc[i] / total);
}

void tlr_attend_f32_ref(float *out, const float *q,
                        const struct tlr_kv_span *spans, int n_spans,
                        int head_dim, float scale, float *scores)
{
    (void)scores;
    attend(out, q, spans, n_spans, head_dim, scale, false);
}

void tlr_attend_f16_ref(float *out, const float *q,
                        const struct tlr_kv_span *spans, int n_spans,
                        int head_dim, float scale, float *scores)
{
    (void)scores;
    attend(out, q, spans, n_spans, head_dim, scale, true);
}
