/* attention.c - one layer's attention over the KV cache, grouped queries.
 *
 * First bias, norms, rotation and store, a block of positions per item.  Then
 * stretch after stretch of the cache, all query heads of a KV head at once:
 * many tokens are cut into blocks of tokens, and an item walks all stretches
 * that its tokens see; few tokens are cut by head and stretch, and the parts of
 * a head are merged when its last one is there.  Either way a query's parts are
 * joined in the order of the stretches, which lie at fixed positions, so a
 * token's bits do not depend on what else is in the batch, on how it was cut or
 * on the number of threads.
 * Vaswani et al. 2017 (arXiv 1706.03762), eq. 1; grouped queries: Ainslie et
 * al. 2023 (arXiv 2305.13245); merged parts: Dao et al. 2022 (arXiv
 * 2205.14135), section 3.1.
 */
#include "engine/attention.h"

#include <math.h>

enum {
    BLOCK = TLR_KV_BLOCK,
    STRETCH = TLR_KV_STRETCH,
    ITEM_ROWS = 224, /* queries that share one unpacked stretch */
    FEW_TOK = TLR_MAX_BRANCHES,
    ITEMS_PER_THREAD = 4
};

struct region {
    const struct tlr_session *s; /* whose timeline the rows belong to */
    struct tlr_work w;           /* where they lie, from the first one on */
    const struct tlr_layer *layer;
    uint32_t layer_index;
    const struct tlr_batch *batch;
    tlr_attend_fn *attend;
    size_t part_floats;
    int n_group; /* query heads of a KV head */
    float scale;
    int n_pos;      /* positions that the last row sees */
    int n_stretches;
    int n_shared;   /* stretches that are the same for every row */
    int n_fork;     /* positions before the branches' first block */
    int n_items;    /* of a row that is one of several */
    int block_tok;  /* tokens of one item, when there are many */
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

/* ---- keys and values ---- */

static void store_row(const struct region *r, int t, const float *k,
                      const float *v)
{
    const struct tlr_session *s = r->s;
    const struct tlr_kv *kv = &s->kv;
    bool branches = r->batch->branches;
    uint32_t pos = row_pos(r, t), block = pos / BLOCK;
    uint8_t *k_base = branches ? kv->branch_k : kv->k;
    uint8_t *v_base = branches ? kv->branch_v : kv->v;
    for (uint32_t h = 0; h < kv->n_kv_heads; h++) {
        if (branches && s->branch_len == 0) {
            tlr_kv_fork(kv, r->layer_index, h, (uint32_t)t, s->pos);
        }
        uint64_t off = branches
                           ? tlr_kv_branch_offset(kv, r->layer_index, h,
                                                  (uint32_t)t,
                                                  block - s->pos / BLOCK)
                           : tlr_kv_offset(kv, r->layer_index, h, block);
        size_t at = (size_t)h * kv->head_dim;
        tlr_kv_store_key(kv, &s->kernels, k_base + off, pos % BLOCK, k + at);
        tlr_kv_store_value(kv, &s->kernels, v_base + off, pos % BLOCK, v + at);
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

static void prepare_row(const struct region *r, int t)
{
    const struct tlr_session *s = r->s;
    const struct tlr_layer *l = r->layer;
    const struct tlr_config *c = s->model->config;
    int n_q = (int)c->n_heads, n_kv = (int)c->n_kv_heads;
    int hd = (int)c->head_dim;
    float *q = r->w.q + (size_t)t * (size_t)(n_q * hd);
    float *k = r->w.k + (size_t)t * (size_t)(n_kv * hd);
    float *v = r->w.v + (size_t)t * (size_t)(n_kv * hd);
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

/* Rows whose keys share cache lines stay together: those of one block of the
 * timeline, or of one branch. */
static void prepare_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct region *r = ctx;
    if (r->batch->branches) {
        prepare_row(r, item);
        return;
    }
    int shift = (int)(r->s->pos % BLOCK);
    int first = item * BLOCK - shift, last = first + BLOCK;
    first = first < 0 ? 0 : first;
    last = last > r->batch->n ? r->batch->n : last;
    for (int t = first; t < last; t++) {
        prepare_row(r, t);
    }
}

/* ---- stretches ---- */

/* What the rows of a branch (of the timeline: any number) see of a stretch. */
static int stretch_spans(const struct region *r, int stretch, uint32_t head,
                         int branch, struct tlr_kv_span spans[2])
{
    const struct tlr_kv *kv = &r->s->kv;
    int from = stretch * STRETCH, to = from + STRETCH, n = 0;
    to = to > r->n_pos ? r->n_pos : to;
    int fork = to < r->n_fork ? to : r->n_fork;
    if (from < fork) {
        uint64_t off = tlr_kv_offset(kv, r->layer_index, head,
                                     (uint32_t)from / BLOCK);
        spans[n++] =
            (struct tlr_kv_span){kv->k + off, kv->v + off, fork - from};
        from = fork;
    }
    if (from < to) {
        uint64_t off = tlr_kv_branch_offset(kv, r->layer_index, head,
                                            (uint32_t)branch,
                                            (uint32_t)(from - r->n_fork) /
                                                BLOCK);
        spans[n++] = (struct tlr_kv_span){kv->branch_k + off,
                                          kv->branch_v + off, to - from};
    }
    return n;
}

/* Where the stretch behind it begins: a thread takes them in their order. */
static struct tlr_kv_span next_span(const struct region *r, int stretch,
                                    uint32_t head, int branch)
{
    struct tlr_kv_span spans[2] = {{0}};
    if (stretch + 1 < r->n_stretches) {
        stretch_spans(r, stretch + 1, head, branch, spans);
    }
    return spans[0];
}

/* Rows [first, first + n) of a KV head on one stretch. */
static void attend_stretch(const struct region *r, float *part, int stretch,
                           uint32_t head, int first, int n, float *scratch)
{
    const struct tlr_config *c = r->s->model->config;
    struct tlr_kv_span spans[2];
    int n_seen[ITEM_ROWS];
    for (int i = 0; i < n; i++) {
        int seen = (int)row_pos(r, first + i) + 1 - stretch * STRETCH;
        n_seen[i] = seen < 0 ? 0 : seen > STRETCH ? STRETCH : seen;
    }
    size_t q_dim = (size_t)c->n_heads * c->head_dim;
    struct tlr_attend job = {
        .q = r->w.q + (size_t)first * q_dim +
             (size_t)head * (size_t)r->n_group * c->head_dim,
        .q_stride = q_dim,
        .n_seen = n_seen,
        .n_tok = n,
        .n_heads = r->n_group,
        .spans = spans,
        .n_spans = stretch_spans(r, stretch, head, first, spans),
        .next = next_span(r, stretch, head, first),
        .head_dim = (int)c->head_dim,
        .scale = r->scale};
    r->attend(part, &job, scratch);
}

/* Merged rows of a KV head become the results of tokens [first, first + n). */
static void finish_rows(const struct region *r, const float *part,
                        uint32_t head, int first, int n)
{
    const struct tlr_config *c = r->s->model->config;
    for (int i = 0; i < n * r->n_group; i++, part += r->part_floats) {
        size_t t = (size_t)(first + i / r->n_group);
        size_t h = (size_t)head * (size_t)r->n_group +
                   (size_t)(i % r->n_group);
        float *out = r->w.att + (t * c->n_heads + h) * c->head_dim;
        float inverse = 1 / part[c->head_dim + 1];
        for (uint32_t d = 0; d < c->head_dim; d++) {
            out[d] = part[d] * inverse;
        }
    }
}

/* ---- many tokens: an item is a block of them ---- */

static void block_item(void *ctx, int item, int thread)
{
    const struct region *r = ctx;
    const struct tlr_session *s = r->s;
    const struct tlr_config *c = s->model->config;
    int n_blocks = (r->batch->n + r->block_tok - 1) / r->block_tok;
    /* the last tokens see most: first, so that no thread is left with them */
    int block = n_blocks - 1 - item / (int)c->n_kv_heads;
    uint32_t head = (uint32_t)item % c->n_kv_heads;
    int first = block * r->block_tok, n = r->batch->n - first;
    n = n < r->block_tok ? n : r->block_tok;
    size_t n_floats = (size_t)(n * r->n_group) * r->part_floats;
    float *scratch = r->w.attend + (size_t)thread * r->w.attend_stride;
    float *whole = scratch + TLR_ATTEND_SCRATCH(c->head_dim);
    float *part = whole + n_floats;
    int n_stretches = ((int)row_pos(r, first + n - 1) + STRETCH) / STRETCH;
    for (int i = 0; i < n_stretches; i++) {
        attend_stretch(r, i ? part : whole, i, head, first, n, scratch);
        if (i) {
            s->kernels.attend_merge(whole, part, n * r->n_group,
                                    (int)c->head_dim);
        }
    }
    finish_rows(r, whole, head, first, n);
}

/* ---- few tokens: an item is a stretch of a KV head ---- */

static float *part_of(const struct region *r, int stretch, uint32_t head, int t)
{
    size_t n_rows = (size_t)(r->batch->n * r->n_group);
    size_t row = ((size_t)head * (size_t)r->n_stretches + (size_t)stretch) *
                     n_rows +
                 (size_t)(t * r->n_group);
    return r->w.parts + row * r->part_floats;
}

/* Items of a KV head: stretches that all rows share, then each branch's own. */
static int head_items(const struct region *r)
{
    int n_own = r->n_stretches - r->n_shared;
    return r->n_shared + n_own * r->batch->n;
}

static void merge_head(const struct region *r, uint32_t head)
{
    float *whole = part_of(r, 0, head, 0);
    for (int i = 1; i < r->n_stretches; i++) {
        r->s->kernels.attend_merge(whole, part_of(r, i, head, 0),
                                   r->batch->n * r->n_group,
                                   (int)r->s->kv.head_dim);
    }
    finish_rows(r, whole, head, 0, r->batch->n);
}

/* Items of a head follow each other, so a thread streams through one head's
 * cache and has most of its parts near.  Whoever ends the last of them joins
 * all, while other heads are still at work. */
static void stretch_item(void *ctx, int item, int thread)
{
    const struct region *r = ctx;
    uint32_t head = (uint32_t)(item / head_items(r));
    int stretch = item % head_items(r), first = 0, n = r->batch->n;
    if (stretch >= r->n_shared) { /* one branch's own */
        int n_own = r->n_stretches - r->n_shared;
        first = (stretch - r->n_shared) / n_own;
        stretch = r->n_shared + (stretch - r->n_shared) % n_own;
        n = 1;
    }
    attend_stretch(r, part_of(r, stretch, head, first), stretch, head, first, n,
                   r->w.attend + (size_t)thread * r->w.attend_stride);
    if (atomic_fetch_sub(&r->w.unmerged[head], 1) == 1) {
        merge_head(r, head);
    }
}

/* How many items there are; each head's count of them begins. */
static int begin_stretches(const struct region *r)
{
    uint32_t n_kv = r->s->kv.n_kv_heads;
    for (uint32_t h = 0; h < n_kv; h++) {
        atomic_store_explicit(&r->w.unmerged[h], head_items(r),
                              memory_order_relaxed);
    }
    return head_items(r) * (int)n_kv;
}

/* ---- one layer ---- */

static int item_tok(int n_group)
{
    return n_group < ITEM_ROWS ? ITEM_ROWS / n_group : 1;
}

size_t tlr_attention_thread_floats(const struct tlr_config *c)
{
    int n_group = (int)(c->n_heads / c->n_kv_heads);
    size_t n_rows = (size_t)(item_tok(n_group) * n_group);
    return TLR_ATTEND_SCRATCH(c->head_dim) +
           2 * n_rows * TLR_PART_FLOATS(c->head_dim);
}

uint64_t tlr_attention_part_floats(const struct tlr_config *c, uint32_t n_ctx)
{
    uint64_t n_stretches = n_ctx / STRETCH + 1;
    return n_stretches * c->n_heads * FEW_TOK * TLR_PART_FLOATS(c->head_dim);
}

/* Rows b of the timeline of s, in the scratch w. */
static struct region region_of(const struct tlr_session *s,
                               const struct tlr_work *w, uint32_t layer,
                               const struct tlr_batch *b)
{
    const struct tlr_config *c = s->model->config;
    struct region r = {.s = s,
                       .w = *w,
                       .layer = &s->model->layers[layer],
                       .layer_index = layer,
                       .batch = b,
                       .part_floats = TLR_PART_FLOATS(c->head_dim),
                       .n_group = (int)(c->n_heads / c->n_kv_heads),
                       .scale = (float)(1.0 / sqrt((double)c->head_dim))};
    r.attend = s->kv.type == TLR_KV_F32   ? s->kernels.attend_f32
               : s->kv.type == TLR_KV_F16 ? s->kernels.attend_f16
                                          : s->kernels.attend_q8;
    r.n_pos = (int)row_pos(&r, b->n - 1) + 1;
    r.n_stretches = (r.n_pos + STRETCH - 1) / STRETCH;
    r.n_fork = b->branches ? (int)(s->pos / BLOCK * BLOCK) : r.n_pos;
    r.n_shared = b->branches ? r.n_fork / STRETCH : r.n_stretches;
    return r;
}

/* Small items for a short prompt, so that every thread gets some. */
static int block_tok(const struct region *r, int n_threads)
{
    int most = item_tok(r->n_group);
    int want = r->batch->n * (int)r->s->model->config->n_kv_heads /
               (ITEMS_PER_THREAD * n_threads);
    return want < 1 ? 1 : want < most ? want : most;
}

static void attend_timeline(struct tlr_session *s, uint32_t layer,
                            const struct tlr_batch *b)
{
    struct region r = region_of(s, &s->w, layer, b);
    if (b->n == 1) {
        prepare_row(&r, 0);
    } else {
        int n_items = b->branches ? b->n
                                  : ((int)(s->pos % BLOCK) + b->n + BLOCK - 1) /
                                        BLOCK;
        tlr_pool_run(s->pool, prepare_item, &r, n_items);
    }
    if (b->branches || b->n <= FEW_TOK) {
        tlr_pool_run(s->pool, stretch_item, &r, begin_stretches(&r));
        return;
    }
    r.block_tok = block_tok(&r, tlr_pool_threads(s->pool));
    int n_blocks = (b->n + r.block_tok - 1) / r.block_tok;
    tlr_pool_run(s->pool, block_item, &r,
                 n_blocks * (int)s->model->config->n_kv_heads);
}

/* ---- one token of each of several timelines ---- */

struct several {
    struct region rows[FEW_TOK]; /* of one token each */
};

static void prepare_each(void *ctx, int item, int thread)
{
    (void)thread;
    const struct several *all = ctx;
    prepare_row(&all->rows[item], 0);
}

static void each_item(void *ctx, int item, int thread)
{
    struct several *all = ctx;
    struct region *r = all->rows;
    while (item >= r->n_items) {
        item -= r->n_items;
        r++;
    }
    stretch_item(r, item, thread);
}

/* Row t of w, with parts that no other row of the pass writes to. */
static struct tlr_work row_of(const struct tlr_session *s, int t)
{
    const struct tlr_config *c = s->model->config;
    size_t q_dim = (size_t)c->n_heads * c->head_dim;
    size_t kv_dim = (size_t)c->n_kv_heads * c->head_dim;
    struct tlr_work w = s->w;
    w.q += (size_t)t * q_dim;
    w.k += (size_t)t * kv_dim;
    w.v += (size_t)t * kv_dim;
    w.att += (size_t)t * q_dim;
    w.parts += (size_t)t *
               (size_t)(tlr_attention_part_floats(c, s->opt.n_ctx) / FEW_TOK);
    w.unmerged += (size_t)t * c->n_kv_heads;
    return w;
}

static void attend_several(struct tlr_session *s, uint32_t layer,
                           const struct tlr_batch *b)
{
    const struct tlr_batch one = {.n = 1};
    struct several all;
    int n_items = 0;
    for (int t = 0; t < b->n; t++) {
        struct tlr_work w = row_of(s, t);
        all.rows[t] = region_of(b->owners[t], &w, layer, &one);
        all.rows[t].n_items = begin_stretches(&all.rows[t]);
        n_items += all.rows[t].n_items;
    }
    tlr_pool_run(s->pool, prepare_each, &all, b->n);
    tlr_pool_run(s->pool, each_item, &all, n_items);
}

void tlr_attention(struct tlr_session *s, uint32_t layer,
                   const struct tlr_batch *b)
{
    if (b->owners) {
        attend_several(s, layer, b);
    } else {
        attend_timeline(s, layer, b);
    }
}
