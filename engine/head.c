/* head.c - the k best rows of the LM head (tlr_top and its kin for several states).
 *
 * A q8p head is searched: its high plane gives every row an estimate of its
 * logit and the variance of what the low plane would add.  A row whose estimate
 * plus 8 sigma is below the k-th best estimate minus 8 sigma is out; the few
 * that are left get their exact logit.  The bound is statistical: it takes the
 * low nibbles of weights rounded to the nearest for uniform and independent.
 * SPEED.md has the count of misses on real states (none); weights made for a
 * state could conspire.  Many survivors (a flat distribution) take the full pass, as do
 * heads of other types.  The states of all branches, or of all sessions that step
 * together, share each pass over the weights: what survives for one is computed
 * for all.
 */
#include "engine/head.h"

#include <math.h>

#include "engine/forward.h"
#include "engine/profile.h"

static const float SIGMAS = 8;

enum {
    /* Of a search: states, or in a paired group states and their rests. */
    MAX_PARTS = 2 * TLR_MAX_BRANCHES
};

struct search {
    struct tlr_session *s;
    const struct tlr_tensor *w;
    float *scores; /* [n_states][w->n_rows] upper bounds, or logits */
    struct tlr_rows in;
    uint32_t n_ids;
    int k, n_states;
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

static struct tlr_best *best_of(const struct search *q, int thread, int state)
{
    return &q->s->top.best[thread * q->n_states + state];
}

static void clear_best(const struct search *q)
{
    for (int i = 0; i < q->s->opt.n_threads * q->n_states; i++) {
        q->s->top.best[i].n = 0;
    }
}

/* Of all threads, in the first one's. */
static void merge_best(const struct search *q)
{
    for (int state = 0; state < q->n_states; state++) {
        struct tlr_best *into = best_of(q, 0, state);
        for (int t = 1; t < q->s->opt.n_threads; t++) {
            const struct tlr_best *from = best_of(q, t, state);
            for (int i = 0; i < from->n; i++) {
                insert(into, q->k, from->c[i]);
            }
        }
    }
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

static float *scores_of(const struct search *q, int state, int block)
{
    return q->scores + (size_t)state * q->w->n_rows +
           (size_t)block * TLR_TOP_BLOCK;
}

/* ---- all logits ---- */

static void select_block(void *ctx, int block, int thread)
{
    struct search *q = ctx;
    int row = block * TLR_TOP_BLOCK, n = block_rows(q, block);
    for (int state = 0; state < q->n_states; state++) {
        struct tlr_best *best = best_of(q, thread, state);
        const float *logits = scores_of(q, state, block);
        for (int i = 0; i < n; i++) {
            float x = isnan(logits[i]) ? -INFINITY : logits[i];
            if (best->n < q->k || x >= bar(best, q->k)) {
                insert(best, q->k, (struct tlr_candidate){x, row + i});
            }
        }
    }
}

/* scores are logits. */
static void select_all(struct search *q)
{
    clear_best(q);
    tlr_pool_run(q->s->pool, select_block, q, n_blocks(q));
    merge_best(q);
}

static void full_pass(struct search *q)
{
    struct tlr_linear head = {q->w, q->scores, q->w->n_rows};
    tlr_linear_run(&q->s->linear, &head, 1, &q->in);
    q->s->top.counts.n_full += (uint64_t)q->n_states;
    select_all(q);
}

/* ---- the search of two planes ---- */

/* Estimates and deviations of a block's rows, [MAX_PARTS][TLR_TOP_BLOCK], of
 * which the first n_states are the result.  With activations in two parts the
 * low plane meets both, so their deviations add up. */
static void score_block(const struct search *q, int block, float *est,
                        float *dev)
{
    tlr_score_fn *score = q->s->kernels.score_q8p;
    const struct tlr_acts *acts = &q->in.acts;
    int row = block * TLR_TOP_BLOCK, n = block_rows(q, block);
    int n_cols = (int)q->w->n_cols, n_states = q->n_states;
    size_t half = (size_t)n_states * TLR_TOP_BLOCK;
    score(est, dev, TLR_TOP_BLOCK, q->w->data, row, acts->first,
          acts->is_paired ? 2 * n_states : n_states, n, n_cols);
    if (acts->second && !acts->is_paired) {
        score(est + half, dev + half, TLR_TOP_BLOCK, q->w->data, row,
              acts->second, n_states, n, n_cols);
    }
    for (size_t i = 0; acts->second && i < half; i += TLR_TOP_BLOCK) {
        q->s->kernels.add(est + i, est + half + i, n);
        q->s->kernels.add(dev + i, dev + half + i, n);
    }
}

/* upper = est + 8 dev; the largest, by lanes as the compiler likes it. */
static float bound_above(float *upper, const float *est, const float *dev,
                         int n)
{
    float most[16];
    for (int j = 0; j < 16; j++) {
        most[j] = -INFINITY;
    }
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 16; j++) {
            float u = est[i + j] + SIGMAS * dev[i + j];
            upper[i + j] = u;
            most[j] = u > most[j] ? u : most[j];
        }
    }
    for (; i < n; i++) {
        upper[i] = est[i] + SIGMAS * dev[i];
        most[0] = upper[i] > most[0] ? upper[i] : most[0];
    }
    for (int j = 1; j < 16; j++) {
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    return most[0];
}

/* The upper bounds of a block's rows and their largest; lower bounds that may
 * be among the k best. */
static void bound_rows(struct search *q, int block, int state,
                       struct tlr_best *best, const float *est,
                       const float *dev)
{
    int row = block * TLR_TOP_BLOCK, n = block_rows(q, block);
    float most = bound_above(scores_of(q, state, block), est, dev, n);
    q->s->top.tops[state * n_blocks(q) + block] = most;
    if (most <= bar(best, q->k)) {
        return;
    }
    for (int i = 0; i < n; i++) {
        float lower = est[i] - SIGMAS * dev[i];
        if (lower > bar(best, q->k)) {
            insert(best, q->k, (struct tlr_candidate){lower, row + i});
        }
    }
}

static void bound_block(void *ctx, int block, int thread)
{
    struct search *q = ctx;
    float est[MAX_PARTS * TLR_TOP_BLOCK], dev[MAX_PARTS * TLR_TOP_BLOCK];
    score_block(q, block, est, dev);
    for (int state = 0; state < q->n_states; state++) {
        size_t at = (size_t)state * TLR_TOP_BLOCK;
        bound_rows(q, block, state, best_of(q, thread, state), est + at,
                   dev + at);
    }
}

/* Marks the bands of 16 rows of a block with a row that may win for the state,
 * one bit each. */
static uint32_t mark_bands(struct search *q, int block, int state, float least)
{
    if (!(q->s->top.tops[state * n_blocks(q) + block] >= least)) {
        return 0;
    }
    const float *upper = scores_of(q, state, block);
    uint32_t marks = 0;
    for (int i = 0; i < block_rows(q, block); i++) {
        if (upper[i] >= least) {
            q->s->top.counts.n_survivors++;
            marks |= (uint32_t)1 << i / TLR_TILE_ROWS;
        }
    }
    return marks;
}

/* Bands with a row that may win for any state; -1: too many, or no bound. */
static int find_bands(struct search *q)
{
    struct tlr_top_work *top = &q->s->top;
    uint32_t max_bands = tlr_top_max_bands(q->w->n_rows), n = 0;
    for (int state = 0; state < q->n_states; state++) {
        if (best_of(q, 0, state)->n < q->k) {
            return -1;
        }
    }
    for (int block = 0; block < n_blocks(q); block++) {
        uint32_t marks = 0;
        for (int state = 0; state < q->n_states; state++) {
            marks |= mark_bands(q, block, state,
                                bar(best_of(q, 0, state), q->k));
        }
        for (int band = 0; marks >> band; band++) {
            if (!(marks >> band & 1)) {
                continue;
            }
            if (n == max_bands) {
                return -1;
            }
            top->bands[n++] = block * (TLR_TOP_BLOCK / TLR_TILE_ROWS) + band;
        }
    }
    return (int)n;
}

static void exact_band(void *ctx, int item, int thread)
{
    struct search *q = ctx;
    const struct tlr_kernels *k = &q->s->kernels;
    const struct tlr_acts *acts = &q->in.acts;
    float y[MAX_PARTS][TLR_TILE_ROWS];
    int row = q->s->top.bands[item] * TLR_TILE_ROWS;
    int left = (int)q->n_ids - row, n_cols = (int)q->w->n_cols;
    int n = left < TLR_TILE_ROWS ? left : TLR_TILE_ROWS, n_tok = q->n_states;
    tlr_matmul_fn *matmul = k->matmul[TLR_Q8P - TLR_Q8];
    matmul(y[0], TLR_TILE_ROWS, q->w->data, row, acts->first,
           acts->is_paired ? 2 * n_tok : n_tok, n, n_cols);
    if (acts->second && !acts->is_paired) {
        matmul(y[n_tok], TLR_TILE_ROWS, q->w->data, row, acts->second, n_tok, n,
               n_cols);
    }
    for (int t = 0; t < n_tok; t++) {
        if (acts->second) {
            k->add(y[t], y[n_tok + t], n);
        }
        for (int i = 0; i < n; i++) {
            insert(best_of(q, thread, t), q->k,
                   (struct tlr_candidate){y[t][i], row + i});
        }
    }
}

static void search_planes(struct search *q)
{
    clear_best(q);
    tlr_pool_run(q->s->pool, bound_block, q, n_blocks(q));
    merge_best(q);
    int n = find_bands(q);
    if (n < 0) {
        full_pass(q);
        return;
    }
    clear_best(q);
    tlr_pool_run(q->s->pool, exact_band, q, n);
    merge_best(q);
}

/* ---- calls ---- */

static int check_k(const struct tlr_session *s, int k, struct tlr_err *err)
{
    uint32_t n_ids = s->model->n_ids;
    int most = n_ids < TLR_TOP_MAX ? (int)n_ids : TLR_TOP_MAX;
    if (k < 1 || k > most) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "best ids: expected 1 to %d, found %d", most, k);
    }
    return 0;
}

/* The k best for n_states states, left in the first thread's results.  scores
 * [n_states][n_vocab]: their logits, or (has_logits false) room for them. */
static void run_top(struct tlr_session *s, float *hidden, int n_states,
                    float *scores, bool has_logits, int k)
{
    struct search q = {.s = s, .w = s->model->head, .scores = scores,
                       .n_ids = s->model->n_ids, .k = k, .n_states = n_states};
    q.in = tlr_forward_rows(s, hidden, q.w->n_cols, n_states);
    tlr_profile_begin(s);
    s->top.counts.n_calls += (uint64_t)n_states;
    if (has_logits) {
        select_all(&q);
    } else {
        tlr_linear_round(&s->linear, &q.in);
        (q.w->type == TLR_Q8P ? search_planes : full_pass)(&q);
    }
    tlr_profile_mark(s, s->model->config->n_layers, TLR_PROFILE_HEAD);
}

static void give_out(const struct tlr_best *best, int k, int32_t *ids,
                     float *logits)
{
    for (int i = 0; i < k; i++) {
        ids[i] = best->c[i].id;
        logits[i] = best->c[i].logit;
    }
}

int tlr_top_check(const struct tlr_session *s, int k, struct tlr_err *err)
{
    int rc = check_k(s, k, err);
    if (!rc && !s->has_hidden) {
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "LM head: there is no hidden state (no step yet, or "
                         "rewound); decode a token first");
    }
    return rc;
}

int tlr_top(struct tlr_session *s, int k, int32_t *ids, float *logits,
            struct tlr_err *err)
{
    int rc = tlr_top_check(s, k, err);
    if (rc) {
        return rc;
    }
    const struct tlr_best *best = &s->found;
    if (best->n < k) {
        run_top(s, s->hidden, 1, s->has_logits ? s->logits : s->top.scores,
                s->has_logits, k);
        best = &s->top.best[0];
    }
    give_out(best, k, ids, logits);
    return 0;
}

void tlr_top_rows(struct tlr_session *s, int n, int k,
                  struct tlr_best *const *found)
{
    run_top(s, s->row_hidden, n, s->row_logits, false, k);
    for (int i = 0; i < n; i++) {
        *found[i] = s->top.best[i];
    }
}

int tlr_branch_top(struct tlr_session *s, int k, int32_t *ids, float *logits,
                   struct tlr_err *err)
{
    int rc = check_k(s, k, err);
    if (!rc && s->n_live == 0) {
        rc = tlr_err_set(err, TLR_EUSAGE,
                         "LM head: there are no branches; decode a token of "
                         "each first");
    }
    if (!rc) {
        run_top(s, s->row_hidden, s->n_live, s->row_logits,
                s->branch_has_logits, k);
    }
    for (int i = 0; i < s->n_live && !rc; i++) {
        give_out(&s->top.best[i], k, ids + i * k, logits + i * k);
    }
    return rc;
}

struct tlr_top_counts tlr_top_read(const struct tlr_session *s)
{
    return s->top.counts;
}
