/* attention.c - one layer's attention over the KV cache, grouped queries.
 *
 * Two thread regions: per token (bias, norms, rotation, store), then per query
 * head and block of tokens.  Every query streams the cache in position order
 * through the attend kernel, so a token's result does not depend on what else
 * is in the batch.  Vaswani et al. 2017 (arXiv 1706.03762), eq. 1; grouped
 * queries: Ainslie et al. 2023 (arXiv 2305.13245).
 */
#include "engine/attention.h"

#include <math.h>

enum { QUERY_BLOCK = 16 }; /* tokens of one item when there are many */

struct region {
    struct tlr_session *s;
    const struct tlr_layer *layer;
    uint32_t layer_index;
    const struct tlr_batch *batch;
    int block; /* tokens of one item */
};

void tlr_rope_tables(float *cos_out, float *sin_out, uint32_t n_ctx,
                     uint32_t head_dim, float theta, const float *factors)
{
    uint32_t half = head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        /* Rounded to f32 where Hugging Face rounds: at position 4096 one ulp
         * of the angle is 2.4e-4 rad, so the roundings are part of the model. */
        float exponent = (float)(2 * i) / (float)head_dim;
        float power = (float)pow((double)theta, (double)exponent);
        float inv_freq = 1.0f / power;
        if (factors) {
            inv_freq /= factors[i];
        }
        for (uint32_t pos = 0; pos < n_ctx; pos++) {
            float angle = (float)pos * inv_freq;
            cos_out[(size_t)pos * half + i] = (float)cos((double)angle);
            sin_out[(size_t)pos * half + i] = (float)sin((double)angle);
        }
    }
}

static uint32_t row_pos(const struct region *r, int t)
{
    const struct tlr_session *s = r->s;
    return r->batch->branches ? s->pos + s->branch_len : s->pos + (uint32_t)t;
}

/* Where head `head` of row t goes: an offset into the timeline or branches. */
static void store_row(const struct region *r, int t, const float *k,
                      const float *v)
{
    struct tlr_session *s = r->s;
    const struct tlr_kv *kv = &s->kv;
    bool branches = r->batch->branches;
    uint8_t *k_base = branches ? kv->branch_k : kv->k;
    uint8_t *v_base = branches ? kv->branch_v : kv->v;
    for (uint32_t h = 0; h < kv->n_kv_heads; h++) {
        uint64_t off =
            branches ? tlr_kv_branch_offset(kv, r->layer_index, h, (uint32_t)t,
                                            s->branch_len)
                     : tlr_kv_offset(kv, r->layer_index, h, row_pos(r, t));
        tlr_kv_store(kv, &s->kernels, k_base + off, k + h * kv->head_dim);
        tlr_kv_store(kv, &s->kernels, v_base + off, v + h * kv->head_dim);
    }
}

static void norm_heads(const struct tlr_session *s, float *x, const float *w,
                       int n_heads)
{
    const struct tlr_config *c = s->model->config;
    for (int h = 0; w && h < n_heads; h++) {
        float *head = x + (size_t)h * c->head_dim;
        s->kernels.rmsnorm(head, head, w, (int)c->head_dim, c->rms_eps);
    }
}

static void prepare_row(void *ctx, int t, int thread)
{
    (void)thread;
    const struct region *r = ctx;
    struct tlr_session *s = r->s;
    const struct tlr_layer *l = r->layer;
    const struct tlr_config *c = s->model->config;
    int n_q = (int)c->n_heads, n_kv = (int)c->n_kv_heads;
    int hd = (int)c->head_dim;
    float *q = s->w.q + (size_t)t * (size_t)(n_q * hd);
    float *k = s->w.k + (size_t)t * (size_t)(n_kv * hd);
    float *v = s->w.v + (size_t)t * (size_t)(n_kv * hd);
    if (l->q_bias) {
        s->kernels.add(q, l->q_bias, n_q * hd);
        s->kernels.add(k, l->k_bias, n_kv * hd);
        s->kernels.add(v, l->v_bias, n_kv * hd);
    }
    norm_heads(s, q, l->q_norm, n_q);
    norm_heads(s, k, l->k_norm, n_kv);
    size_t at = (size_t)row_pos(r, t) * (c->head_dim / 2);
    s->kernels.rope(q, s->rope_cos + at, s->rope_sin + at, n_q, hd);
    s->kernels.rope(k, s->rope_cos + at, s->rope_sin + at, n_kv, hd);
    store_row(r, t, k, v);
}

/* The positions that row t sees: the timeline before it and itself, or the
 * timeline and its own branch. */
static int row_spans(const struct region *r, int t, uint32_t kv_head,
                     struct tlr_kv_span spans[2])
{
    const struct tlr_session *s = r->s;
    const struct tlr_kv *kv = &s->kv;
    uint64_t off = tlr_kv_offset(kv, r->layer_index, kv_head, 0);
    int n = 0;
    int n_pos = (int)(r->batch->branches ? s->pos : row_pos(r, t) + 1);
    if (n_pos > 0) {
        spans[n++] = (struct tlr_kv_span){kv->k + off, kv->v + off,
                                          kv->head_dim, n_pos};
    }
    if (r->batch->branches) {
        off = tlr_kv_branch_offset(kv, r->layer_index, kv_head, (uint32_t)t, 0);
        spans[n++] =
            (struct tlr_kv_span){kv->branch_k + off, kv->branch_v + off,
                                 kv->head_dim, (int)s->branch_len + 1};
    }
    return n;
}

static void attend_item(void *ctx, int item, int thread)
{
    const struct region *r = ctx;
    struct tlr_session *s = r->s;
    const struct tlr_config *c = s->model->config;
    int head = item % (int)c->n_heads;
    int first = item / (int)c->n_heads * r->block;
    int last = first + r->block;
    if (last > r->batch->n) {
        last = r->batch->n;
    }
    uint32_t kv_head = (uint32_t)head / (c->n_heads / c->n_kv_heads);
    float scale = (float)(1.0 / sqrt((double)c->head_dim));
    tlr_attend_fn *attend = s->kv.elem_bytes == 4 ? s->kernels.attend_f32
                                                  : s->kernels.attend_f16;
    float *scores = s->w.scores + (size_t)thread * s->w.scores_stride;
    for (int t = first; t < last; t++) {
        struct tlr_kv_span spans[2];
        int n_spans = row_spans(r, t, kv_head, spans);
        size_t at = ((size_t)t * c->n_heads + (size_t)head) * c->head_dim;
        attend(s->w.att + at, s->w.q + at, spans, n_spans, (int)c->head_dim,
               scale, scores);
    }
}

void tlr_attention(struct tlr_session *s, uint32_t layer,
                   const struct tlr_batch *b)
{
    struct region r = {.s = s,
                       .layer = &s->model->layers[layer],
                       .layer_index = layer,
                       .batch = b,
                       .block = b->n <= TLR_MAX_BRANCHES ? 1 : QUERY_BLOCK};
    if (b->n == 1) {
        prepare_row(&r, 0, 0);
    } else {
        tlr_pool_run(s->pool, prepare_row, &r, b->n);
    }
    int n_blocks = (b->n + r.block - 1) / r.block;
    tlr_pool_run(s->pool, attend_item, &r,
                 n_blocks * (int)s->model->config->n_heads);
}
