/* head.c - the k best rows of the LM head (tlr_top).
 *
 * A q8p head is searched: its high plane gives every row an estimate of its
 * logit and the variance of what the low plane would add.  A row whose estimate
 * plus 8 sigma is below the k-th best estimate minus 8 sigma is out; the few
 * that are left get their exact logit.  The bound is statistical: it takes the
 * low nibbles of weights rounded to the nearest for uniform and independent.
 * SPEED.md has the count of misses on real states (none); weights made for a
 * state could conspire.  Many survivors (a flat distribution) take the full pass, as do
 * heads of other types.
 */
#include "engine/head.h"

#include <math.h>

#include "engine/forward.h"
#include "engine/profile.h"

static const float SIGMAS = 8;

struct search {
    struct tlr_session *s;
    const struct tlr_tensor *w;
    const float *scores; /* of a full pass */
    struct tlr_rows in;
    uint32_t n_ids;
    int k;
};

uint32_t tlr_top_max_bands(uint32_t n_vocab)
{
    return n_vocab / 64 + 8; /* a quarter of all */
}

/* ---- the k best ---- */

static bool is_better(struct tlr_candidate a, struct tlr_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void insert(struct tlr_best *best, int k, struct tlr_candidate c)
{
    if (best->n == k && !is_better(c, best->c[k - 1])) {
        return;
    }
    int i = best->n < k ? best->n++ : k - 1;
    for (; i > 0 && is_better(c, best->c[i - 1]); i--) {
        best->c[i] = best->c[i - 1];
    }
    best->c[i] = c;
}

/* The worst that still counts; nothing below it needs an insert. */
static float bar(const struct tlr_best *best, int k)
{
    return best->n == k ? best->c[k - 1].logit : -INFINITY;
}

static void clear_best(struct search *q)
{
    for (int i = 0; i < q->s->opt.n_threads; i++) {
        q->s->top.best[i].n = 0;
    }
}

/* Of all threads, in the first one's. */
static const struct tlr_best *merge_best(struct search *q)
{
    struct tlr_best *all = q->s->top.best;
    for (int t = 1; t < q->s->opt.n_threads; t++) {
        for (int i = 0; i < all[t].n; i++) {
            insert(&all[0], q->k, all[t].c[i]);
        }
    }
    return &all[0];
}

static int n_blocks(const struct search *q)
{
    return (int)((q->n_ids + TLR_TOP_BLOCK - 1) / TLR_TOP_BLOCK);
}

static int block_rows(const struct search *q, int block)
{
    uint32_t left = q->n_ids - (uint32_t)block * TLR_TOP_BLOCK;
    return (int)(left < TLR_TOP_BLOCK ? left : TLR_TOP_BLOCK);
}

/* ---- all logits ---- */

static void select_block(void *ctx, int block, int thread)
{
    struct search *q = ctx;
    struct tlr_best *best = &q->s->top.best[thread];
    int row = block * TLR_TOP_BLOCK, n = block_rows(q, block);
    for (int i = 0; i < n; i++) {
        float x = q->scores[row + i];
        x = isnan(x) ? -INFINITY : x;
        if (best->n < q->k || x >= bar(best, q->k)) {
            insert(best, q->k, (struct tlr_candidate){x, row + i});
        }
    }
}

static const struct tlr_best *select_all(struct search *q, const float *logits)
{
    clear_best(q);
    q->scores = logits;
    tlr_pool_run(q->s->pool, select_block, q, n_blocks(q));
    return merge_best(q);
}

static const struct tlr_best *full_pass(struct search *q)
{
    struct tlr_linear head = {q->w, q->s->top.scores, q->w->n_rows};
    tlr_linear_run(&q->s->linear, &head, 1, &q->in);
    q->s->top.counts.n_full++;
    return select_all(q, q->s->top.scores);
}

/* ---- the search of two planes ---- */

/* est and reach (in logits) of a block's rows.  With activations in two parts
 * the low plane meets both, so their deviations add up. */
static void score_block(const struct search *q, int row, int n, float *est,
                        float *reach)
{
    tlr_score_fn *score = q->s->kernels.score_q8p;
    float more[TLR_TOP_BLOCK], var[TLR_TOP_BLOCK];
    int n_cols = (int)q->w->n_cols;
    score(est, reach, q->w->data, row, q->in.acts.first, n, n_cols);
    for (int i = 0; i < n; i++) {
        reach[i] = SIGMAS * sqrtf(reach[i]);
    }
    if (!q->in.acts.second) {
        return;
    }
    score(more, var, q->w->data, row, q->in.acts.second, n, n_cols);
    for (int i = 0; i < n; i++) {
        est[i] += more[i];
        reach[i] += SIGMAS * sqrtf(var[i]);
    }
}

static void bound_block(void *ctx, int block, int thread)
{
    struct search *q = ctx;
    struct tlr_top_work *top = &q->s->top;
    struct tlr_best *best = &top->best[thread];
    float est[TLR_TOP_BLOCK], reach[TLR_TOP_BLOCK];
    int row = block * TLR_TOP_BLOCK, n = block_rows(q, block);
    score_block(q, row, n, est, reach);
    float *upper = top->scores + row, most = -INFINITY;
    for (int i = 0; i < n; i++) {
        upper[i] = est[i] + reach[i];
        most = upper[i] > most ? upper[i] : most;
    }
    top->tops[block] = most;
    if (most <= bar(best, q->k)) {
        return;
    }
    for (int i = 0; i < n; i++) {
        float lower = est[i] - reach[i];
        if (lower > bar(best, q->k)) {
            insert(best, q->k, (struct tlr_candidate){lower, row + i});
        }
    }
}

/* Bands of 16 rows with a row that may win; -1: too many. */
static int find_bands(struct search *q, float least)
{
    struct tlr_top_work *top = &q->s->top;
    uint32_t max_bands = tlr_top_max_bands(q->w->n_rows), n = 0;
    for (int block = 0; block < n_blocks(q); block++) {
        if (!(top->tops[block] >= least)) {
            continue;
        }
        int32_t row = block * TLR_TOP_BLOCK, last = -1;
        for (int i = 0; i < block_rows(q, block); i++) {
            if (!(top->scores[row + i] >= least)) {
                continue;
            }
            top->counts.n_survivors++;
            if ((row + i) / TLR_TILE_ROWS == last) {
                continue;
            }
            if (n == max_bands) {
                return -1;
            }
            last = (row + i) / TLR_TILE_ROWS;
            top->bands[n++] = last;
        }
    }
    return (int)n;
}

static void exact_band(void *ctx, int item, int thread)
{
    struct search *q = ctx;
    const struct tlr_kernels *k = &q->s->kernels;
    float y[TLR_TILE_ROWS], rest[TLR_TILE_ROWS];
    int row = q->s->top.bands[item] * TLR_TILE_ROWS;
    int left = (int)q->n_ids - row, n_cols = (int)q->w->n_cols;
    int n = left < TLR_TILE_ROWS ? left : TLR_TILE_ROWS;
    tlr_matmul_fn *matmul = k->matmul[TLR_Q8P - TLR_Q8];
    matmul(y, TLR_TILE_ROWS, q->w->data, row, q->in.acts.first, 1, n, n_cols);
    if (q->in.acts.second) {
        matmul(rest, TLR_TILE_ROWS, q->w->data, row, q->in.acts.second, 1, n,
               n_cols);
        k->add(y, rest, n);
    }
    for (int i = 0; i < n; i++) {
        insert(&q->s->top.best[thread], q->k,
               (struct tlr_candidate){y[i], row + i});
    }
}

static const struct tlr_best *search_planes(struct search *q)
{
    clear_best(q);
    tlr_pool_run(q->s->pool, bound_block, q, n_blocks(q));
    const struct tlr_best *lowers = merge_best(q);
    int n = lowers->n < q->k ? -1 : find_bands(q, bar(lowers, q->k));
    if (n < 0) {
        return full_pass(q);
    }
    clear_best(q);
    tlr_pool_run(q->s->pool, exact_band, q, n);
    return merge_best(q);
}

int tlr_top(struct tlr_session *s, int k, int32_t *ids, float *logits,
            struct tlr_err *err)
{
    uint32_t n_ids = s->model->n_ids;
    int most = n_ids < TLR_TOP_MAX ? (int)n_ids : TLR_TOP_MAX;
    if (k < 1 || k > most) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "best ids: expected 1 to %d, found %d", most, k);
    }
    if (!s->has_hidden) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "LM head: there is no hidden state (no step yet, or "
                           "rewound); decode a token first");
    }
    struct search q = {.s = s, .w = s->model->head, .n_ids = n_ids, .k = k};
    q.in = tlr_forward_rows(s, s->hidden, q.w->n_cols, 1);
    q.in.acts.is_paired = false; /* score_q8p takes one token */
    tlr_profile_begin(s);
    s->top.counts.n_calls++;
    const struct tlr_best *best;
    if (s->has_logits) {
        best = select_all(&q, s->logits);
    } else {
        tlr_linear_round(&s->linear, &q.in);
        best = q.w->type == TLR_Q8P ? search_planes(&q) : full_pass(&q);
    }
    for (int i = 0; i < k; i++) {
        ids[i] = best->c[i].id;
        logits[i] = best->c[i].logit;
    }
    tlr_profile_mark(s, s->model->config->n_layers, TLR_PROFILE_HEAD);
    return 0;
}

struct tlr_top_counts tlr_top_read(const struct tlr_session *s)
{
    return s->top.counts;
}
