/* attend.c - the oracle of attend_* and attend_merge: scores, softmax and sums
 * in double, one query after the other. */
#include <assert.h>
#include <math.h>

#include "kernels/variants_decl.h"

enum element { ELEMENT_F32, ELEMENT_F16, ELEMENT_Q8 };

static size_t block_bytes(enum element type, int head_dim)
{
    size_t n = (size_t)head_dim * TLR_KV_BLOCK;
    size_t n_scales = (size_t)(head_dim + 31) / 32 * TLR_KV_BLOCK;
    return type == ELEMENT_F32   ? n * 4
           : type == ELEMENT_F16 ? n * 2
                                 : n + n_scales * 2;
}

/* Dimension i of position p of a block; `at` is where it lies among its n. */
static double element(const char *block, enum element type, int head_dim, int i,
                      int p, size_t at)
{
    if (type == ELEMENT_F32)
        return (double)((const float *)(const void *)block)[at];
    const uint16_t *half = (const uint16_t *)(const void *)block;
    if (type == ELEMENT_F16)
        return (double)tlr_f16_to_f32(half[at]);
    int n_scales = (head_dim + 31) / 32 * TLR_KV_BLOCK;
    const int8_t *q = (const int8_t *)(half + n_scales);
    return (double)tlr_f16_to_f32(half[i / 32 * TLR_KV_BLOCK + p]) *
           (double)q[at];
}

/* Where position p of the stretch lies: its span, and its block there. */
static const struct tlr_kv_span *span_of(const struct tlr_attend *job, int *p)
{
    const struct tlr_kv_span *span = job->spans;
    for (; *p >= span->n_pos; span++)
        *p -= span->n_pos;
    return span;
}

static double score(const struct tlr_attend *job, const float *q, int p,
                    enum element type)
{
    const struct tlr_kv_span *span = span_of(job, &p);
    const char *block = (const char *)span->k +
                        (size_t)(p / TLR_KV_BLOCK) *
                            block_bytes(type, job->head_dim);
    int lane = p % TLR_KV_BLOCK;
    double sum = 0;
    for (int i = 0; i < job->head_dim; i++)
        sum += (double)q[i] * element(block, type, job->head_dim, i, lane,
                                      (size_t)(i * TLR_KV_BLOCK + lane));
    return sum * (double)job->scale * 1.4426950408889634;
}

static void add_value(double *acc, const struct tlr_attend *job, int p,
                      double weight, enum element type)
{
    const struct tlr_kv_span *span = span_of(job, &p);
    const char *block = (const char *)span->v +
                        (size_t)(p / TLR_KV_BLOCK) *
                            block_bytes(type, job->head_dim);
    int lane = p % TLR_KV_BLOCK;
    for (int i = 0; i < job->head_dim; i++)
        acc[i] += weight * element(block, type, job->head_dim, i, lane,
                                   (size_t)(lane * job->head_dim + i));
}

static void attend_one(float *part, const struct tlr_attend *job,
                       const float *q, int n_seen, enum element type)
{
    double scores[TLR_KV_STRETCH], acc[TLR_MAX_HEAD_DIM] = {0};
    double max = -INFINITY, sum = 0;
    for (int p = 0; p < n_seen; p++) {
        scores[p] = score(job, q, p, type);
        max = fmax(max, scores[p]);
    }
    max = (double)(float)max;
    for (int p = 0; p < n_seen; p++) {
        double weight = exp2(scores[p] - max);
        sum += weight;
        add_value(acc, job, p, weight, type);
    }
    for (int i = 0; i < job->head_dim; i++)
        part[i] = (float)acc[i];
    part[job->head_dim] = (float)max;
    part[job->head_dim + 1] = (float)sum;
}

static void attend(float *part, const struct tlr_attend *job, enum element type)
{
    int n_pos = 0;
    for (int i = 0; i < job->n_spans; i++) {
        assert(n_pos % TLR_KV_BLOCK == 0);
        n_pos += job->spans[i].n_pos;
    }
    (void)n_pos; /* only asserted */
    assert(n_pos <= TLR_KV_STRETCH && job->head_dim % 8 == 0);
    assert(job->head_dim > 0 && job->head_dim <= TLR_MAX_HEAD_DIM);
    for (int t = 0; t < job->n_tok; t++) {
        assert(job->n_seen[t] >= 0 && job->n_seen[t] <= n_pos);
        for (int h = 0; h < job->n_heads; h++) {
            const float *q = job->q + (size_t)t * job->q_stride +
                             (size_t)h * (size_t)job->head_dim;
            size_t row = (size_t)(t * job->n_heads + h);
            attend_one(part + row * TLR_PART_FLOATS(job->head_dim), job, q,
                       job->n_seen[t], type);
        }
    }
}

void tlr_attend_f32_ref(float *part, const struct tlr_attend *job,
                        float *scratch)
{
    (void)scratch;
    attend(part, job, ELEMENT_F32);
}

void tlr_attend_f16_ref(float *part, const struct tlr_attend *job,
                        float *scratch)
{
    (void)scratch;
    attend(part, job, ELEMENT_F16);
}

void tlr_attend_q8_ref(float *part, const struct tlr_attend *job,
                       float *scratch)
{
    (void)scratch;
    attend(part, job, ELEMENT_Q8);
}

void tlr_attend_merge_ref(float *into, const float *part, int n_rows,
                          int head_dim)
{
    for (int r = 0; r < n_rows; r++, into += TLR_PART_FLOATS(head_dim),
             part += TLR_PART_FLOATS(head_dim)) {
        if (!(part[head_dim + 1] > 0))
            continue;
        float max = fmaxf(into[head_dim], part[head_dim]);
        double keep = exp2((double)into[head_dim] - (double)max);
        double take = exp2((double)part[head_dim] - (double)max);
        for (int i = 0; i < head_dim; i++)
            into[i] = (float)(keep * (double)into[i] + take * (double)part[i]);
        into[head_dim] = max;
        into[head_dim + 1] = (float)(keep * (double)into[head_dim + 1] +
                                     take * (double)part[head_dim + 1]);
    }
}
