/* attend.h - attention to a stretch of the KV cache over a vector vocabulary
 * (x86/vec_*.h), which the including file has included before.
 *
 * A tile of up to ATTEND_WIDE queries goes over the whole stretch: dot products
 * with 16 or 32 positions at a time, lanes being positions; powers of two;
 * weighted sum of the values, lanes being dimensions.  Each (query, position)
 * and (query, dimension) has its own accumulator and adds in one order, so the
 * bits depend on nothing else.  One tile alone reads the cache as it is; for
 * several tiles the first one unpacks it to f32 scratch, which changes no value.
 */
#include <math.h>
#include <string.h>

#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"

enum element { ELEMENT_F32, ELEMENT_F16, ELEMENT_Q8 };

enum {
    BLOCK_VECTORS = TLR_KV_BLOCK / LANES,
    /* blocks that a dot product takes at once: two vectors at least */
    PAIR = BLOCK_VECTORS == 1 ? 2 : 1,
    DOT_VECTORS = PAIR * BLOCK_VECTORS,
    VALUE_VECTORS = DOT_VECTORS, /* at most 32 dimensions: one scale of q8 */
    CHUNK = 4 * TLR_KV_BLOCK,    /* positions that stay in the first cache */
    /* odd numbers of cache lines, so that rows do not fall on one set */
    SCORE_STRIDE = TLR_KV_STRETCH + 16,
    QUERY_STRIDE = TLR_MAX_HEAD_DIM + 16
};

/* 2^x for x <= 0: n + r with |r| <= 1/2, a polynomial of degree 6 for 2^r
 * (minimax in relative error, 2^-27), times 2^n.  Relative error below 2^-22;
 * below -126 the result is 0.  NaN stays NaN. */
TLR_INLINE vf power_of_two(vf x)
{
    vf limit = vf_set1(-126.0f);
    vf v = vf_max(limit, x);
    vf n = vf_round(v);
    vf r = vf_sub(v, n);
    vf p = vf_set1(0x1.41fb88p-13f);
    p = vf_fma(p, r, vf_set1(0x1.5f3e50p-10f));
    p = vf_fma(p, r, vf_set1(0x1.3b2d4ep-7f));
    p = vf_fma(p, r, vf_set1(0x1.c6aee8p-5f));
    p = vf_fma(p, r, vf_set1(0x1.ebfbdcp-3f));
    p = vf_fma(p, r, vf_set1(0x1.62e430p-1f));
    p = vf_fma(p, r, vf_set1(1.0f));
    return vf_where_less(x, limit, vf_mul(p, vf_exp2i(n)), vf_zero());
}

/* ---- the cache ---- */

TLR_INLINE size_t block_bytes(int head_dim, const enum element type)
{
    size_t n = (size_t)head_dim * TLR_KV_BLOCK;
    size_t n_scales = (size_t)(head_dim + 31) / 32 * TLR_KV_BLOCK;
    return type == ELEMENT_F32   ? n * 4
           : type == ELEMENT_F16 ? n * 2
                                 : n + n_scales * 2;
}

/* Elements [at, at + n) of a block, without a scale. */
TLR_INLINE vf load_elements(const char *block, size_t at, int n, int head_dim,
                            const enum element type)
{
    if (type == ELEMENT_F32) {
        const float *p = (const float *)(const void *)block + at;
        return n == LANES ? vf_load(p) : vf_load_n(p, n);
    }
    if (type == ELEMENT_F16) {
        const uint16_t *p = (const uint16_t *)(const void *)block + at;
        return n == LANES ? vf_load_f16(p) : vf_load_f16_n(p, n);
    }
    const char *q = block + (size_t)(head_dim + 31) / 32 * TLR_KV_BLOCK * 2;
    const int8_t *p = (const int8_t *)(const void *)q + at;
    return n == LANES ? vf_load_i8(p) : vf_load_i8_n(p, n);
}

/* Vector v of the 16 scales of dimensions [32 m, 32 m + 32). */
TLR_INLINE vf load_scales(const char *block, int m, int v)
{
    const uint16_t *d = (const uint16_t *)(const void *)block;
    return vf_load_f16(d + m * TLR_KV_BLOCK + v * LANES);
}

TLR_INLINE void unpack_keys(float *dst, const char *block, int head_dim,
                            const enum element type)
{
    for (int i = 0; i < head_dim; i++) {
        for (int v = 0; v < BLOCK_VECTORS; v++) {
            size_t at = (size_t)(i * TLR_KV_BLOCK + v * LANES);
            vf k = load_elements(block, at, LANES, head_dim, type);
            if (type == ELEMENT_Q8)
                k = vf_mul(k, load_scales(block, i / 32, v));
            vf_store(dst + at, k);
        }
    }
}

TLR_INLINE void unpack_values(float *dst, const char *block, int head_dim,
                              const enum element type)
{
    float d[TLR_MAX_HEAD_DIM / 32 * TLR_KV_BLOCK];
    for (int m = 0; type == ELEMENT_Q8 && m * 32 < head_dim; m++) {
        for (int v = 0; v < BLOCK_VECTORS; v++)
            vf_store(d + m * TLR_KV_BLOCK + v * LANES,
                     load_scales(block, m, v));
    }
    for (int p = 0; p < TLR_KV_BLOCK; p++) {
        for (int i = 0; i < head_dim; i += LANES) {
            int n = head_dim - i < LANES ? head_dim - i : LANES;
            size_t at = (size_t)(p * head_dim + i);
            vf x = load_elements(block, at, n, head_dim, type);
            if (type == ELEMENT_Q8)
                x = vf_mul(x, vf_set1(d[i / 32 * TLR_KV_BLOCK + p]));
            vf_store_n(dst + at, x, n);
        }
    }
}

/* ---- scores ---- */

/* n queries times n_blocks (a constant, PAIR or 1) blocks of keys. */
TLR_INLINE void dot_blocks(float *scores, const float *queries,
                           const char *block, int head_dim, const int n,
                           const int n_blocks, const enum element type)
{
    const int n_vf = n_blocks * BLOCK_VECTORS;
    size_t bytes = block_bytes(head_dim, type);
    vf acc[ATTEND_WIDE][DOT_VECTORS], scale[DOT_VECTORS], k[DOT_VECTORS];
    TLR_UNROLL
    for (int i = 0; i < n; i++) {
        TLR_UNROLL
        for (int j = 0; j < n_vf; j++)
            acc[i][j] = vf_zero();
    }
    for (int first = 0; first < head_dim; first += 32) {
        int last = first + 32 < head_dim ? first + 32 : head_dim;
        TLR_UNROLL
        for (int j = 0; type == ELEMENT_Q8 && j < n_vf; j++)
            scale[j] = load_scales(block + j / BLOCK_VECTORS * bytes,
                                   first / 32, j % BLOCK_VECTORS);
        for (int d = first; d < last; d++) {
            TLR_UNROLL
            for (int j = 0; j < n_vf; j++) {
                size_t at = (size_t)(d * TLR_KV_BLOCK +
                                     j % BLOCK_VECTORS * LANES);
                k[j] = load_elements(block + j / BLOCK_VECTORS * bytes, at,
                                     LANES, head_dim, type);
                if (type == ELEMENT_Q8)
                    k[j] = vf_mul(k[j], scale[j]);
            }
            TLR_UNROLL
            for (int i = 0; i < n; i++) {
                vf q = vf_set1(queries[i * QUERY_STRIDE + d]);
                TLR_UNROLL
                for (int j = 0; j < n_vf; j++)
                    acc[i][j] = vf_fma(k[j], q, acc[i][j]);
            }
        }
    }
    TLR_UNROLL
    for (int i = 0; i < n; i++) {
        TLR_UNROLL
        for (int j = 0; j < n_vf; j++)
            vf_store(scores + i * SCORE_STRIDE + j * LANES, acc[i][j]);
    }
}

TLR_INLINE void dot_span(float *scores, const float *queries, const char *keys,
                         int n_pos, int head_dim, const int n,
                         const enum element type)
{
    size_t bytes = block_bytes(head_dim, type);
    int p = 0;
    for (; p + (PAIR - 1) * TLR_KV_BLOCK < n_pos; p += PAIR * TLR_KV_BLOCK)
        dot_blocks(scores + p, queries, keys + p / TLR_KV_BLOCK * bytes,
                   head_dim, n, PAIR, type);
    if (p < n_pos)
        dot_blocks(scores + p, queries, keys + p / TLR_KV_BLOCK * bytes,
                   head_dim, n, 1, type);
}

/* ---- softmax ---- */

/* Scores of one query become weights; those it does not see, up to n_most (the
 * tile's), become 0.  Leaves M and L in max_sum. */
static void weigh(float *scores, int n, int n_most, float *max_sum)
{
    int n_whole = (n + LANES - 1) / LANES * LANES;
    for (int p = n; p < n_whole; p++)
        scores[p] = -INFINITY;
    vf top = vf_set1(-INFINITY), sum = vf_zero();
    for (int p = 0; p < n_whole; p += LANES)
        top = vf_max(top, vf_load(scores + p));
    float lanes[LANES], max = -INFINITY;
    vf_store(lanes, top);
    for (int i = 0; i < LANES; i++)
        max = lanes[i] > max ? lanes[i] : max;
    top = vf_set1(max);
    for (int p = 0; p < n_whole; p += LANES) {
        vf w = power_of_two(vf_sub(vf_load(scores + p), top));
        vf_store(scores + p, w);
        sum = vf_add(sum, w);
    }
    for (int p = n_whole; p < n_most; p++)
        scores[p] = 0;
    max_sum[0] = max;
    max_sum[1] = vf_sum(sum);
}

/* ---- values ---- */

/* n_vf vectors, the last of n_last elements, of the dimensions from i on: n
 * rows of acc (TLR_PART_FLOATS apart) += weights * values of n_pos positions. */
TLR_INLINE void add_values(float *acc, const float *weights, const char *block,
                           int n_pos, int i, int n_last, int head_dim,
                           const int n, const int n_vf, const enum element type)
{
    size_t bytes = block_bytes(head_dim, type);
    size_t stride = TLR_PART_FLOATS(head_dim);
    vf sum[ATTEND_WIDE][VALUE_VECTORS], x[VALUE_VECTORS];
    TLR_UNROLL
    for (int r = 0; r < n; r++) {
        TLR_UNROLL
        for (int j = 0; j < n_vf; j++)
            sum[r][j] = vf_load_n(acc + (size_t)r * stride + j * LANES,
                                  j + 1 < n_vf ? LANES : n_last);
    }
    for (; n_pos > 0; n_pos -= TLR_KV_BLOCK, block += bytes) {
        float d[TLR_KV_BLOCK];
        for (int v = 0; type == ELEMENT_Q8 && v < BLOCK_VECTORS; v++)
            vf_store(d + v * LANES, load_scales(block, i / 32, v));
        int n_here = n_pos < TLR_KV_BLOCK ? n_pos : TLR_KV_BLOCK;
        for (int p = 0; p < n_here; p++, weights++) {
            TLR_UNROLL
            for (int j = 0; j < n_vf; j++) {
                size_t at = (size_t)(p * head_dim + i + j * LANES);
                x[j] = load_elements(block, at, j + 1 < n_vf ? LANES : n_last,
                                     head_dim, type);
                if (type == ELEMENT_Q8)
                    x[j] = vf_mul(x[j], vf_set1(d[p]));
            }
            TLR_UNROLL
            for (int r = 0; r < n; r++) {
                vf w = vf_set1(weights[r * SCORE_STRIDE]);
                TLR_UNROLL
                for (int j = 0; j < n_vf; j++)
                    sum[r][j] = vf_fma(x[j], w, sum[r][j]);
            }
        }
    }
    TLR_UNROLL
    for (int r = 0; r < n; r++) {
        TLR_UNROLL
        for (int j = 0; j < n_vf; j++)
            vf_store_n(acc + (size_t)r * stride + j * LANES, sum[r][j],
                       j + 1 < n_vf ? LANES : n_last);
    }
}

TLR_INLINE void value_span(float *acc, const float *weights, const char *values,
                           int n_pos, int head_dim, const int n,
                           const enum element type)
{
    int i = 0;
    for (; i + VALUE_VECTORS * LANES <= head_dim; i += VALUE_VECTORS * LANES)
        add_values(acc + i, weights, values, n_pos, i, LANES, head_dim, n,
                   VALUE_VECTORS, type);
    for (; i < head_dim; i += LANES) {
        int n_last = head_dim - i < LANES ? head_dim - i : LANES;
        add_values(acc + i, weights, values, n_pos, i, n_last, head_dim, n, 1,
                   type);
    }
}

/* ---- tiles ---- */

/* Up to ATTEND_WIDE consecutive rows of a job and their scratch. */
struct tile {
    float *part;    /* its first row */
    float *queries; /* [n][QUERY_STRIDE], times scale * log2(e) */
    float *scores;  /* [n][SCORE_STRIDE] */
    int first_row;
};

static void take_queries(const struct tile *t, const struct tlr_attend *job,
                             int n)
{
    vf factor = vf_set1(job->scale * 0x1.715476p+0f);
    for (int r = 0; r < n; r++) {
        int row = t->first_row + r;
        const float *q = job->q +
                         (size_t)(row / job->n_heads) * job->q_stride +
                         (size_t)(row % job->n_heads) * (size_t)job->head_dim;
        for (int i = 0; i < job->head_dim; i += LANES) {
            int n_left = job->head_dim - i < LANES ? job->head_dim - i : LANES;
            vf_store_n(t->queries + r * QUERY_STRIDE + i,
                       vf_mul(vf_load_n(q + i, n_left), factor), n_left);
        }
    }
}

/* A sum that underflowed to -0 becomes the 0 that it would be with more zero
 * weights behind it. */
static void finish_rows(float *part, int n, int head_dim)
{
    for (int r = 0; r < n; r++, part += TLR_PART_FLOATS(head_dim)) {
        for (int i = 0; i < head_dim; i++)
            part[i] += 0.0f;
    }
}

/* One tile of n queries, a constant, over the stretch. */
TLR_INLINE void run_tile(const struct tile *t, const struct tlr_attend *job,
                         const int n, const enum element type)
{
    int head_dim = job->head_dim;
    size_t bytes = block_bytes(head_dim, type);
    size_t stride = TLR_PART_FLOATS(head_dim);
    /* tokens come in the order of their positions, or of branches */
    int n_most = 0;
    for (int r = 0; r < n; r++) {
        int seen = job->n_seen[(t->first_row + r) / job->n_heads];
        n_most = seen > n_most ? seen : n_most;
    }
    take_queries(t, job, n);
    for (int s = 0, at = 0; at < n_most; at += job->spans[s++].n_pos) {
        const struct tlr_kv_span *span = job->spans + s;
        int n_pos = n_most - at < span->n_pos ? n_most - at : span->n_pos;
        dot_span(t->scores + at, t->queries, span->k, n_pos, head_dim, n, type);
    }
    for (int r = 0; r < n; r++) {
        float *row = t->part + (size_t)r * stride;
        memset(row, 0, (size_t)head_dim * sizeof *row);
        weigh(t->scores + r * SCORE_STRIDE,
              job->n_seen[(t->first_row + r) / job->n_heads], n_most,
              row + head_dim);
    }
    for (int s = 0, at = 0; at < n_most; at += job->spans[s++].n_pos) {
        const struct tlr_kv_span *span = job->spans + s;
        int n_pos = n_most - at < span->n_pos ? n_most - at : span->n_pos;
        for (int p = 0; p < n_pos; p += CHUNK) {
            const char *v = (const char *)span->v +
                            (size_t)(p / TLR_KV_BLOCK) * bytes;
            value_span(t->part, t->scores + at + p, v,
                       n_pos - p < CHUNK ? n_pos - p : CHUNK, head_dim, n,
                       type);
        }
    }
    finish_rows(t->part, n, head_dim);
}

/* How many queries the next tile takes of n_left: there is code for these. */
static int tile_rows(int n_left)
{
    static const int sizes[] = {ATTEND_WIDE, ATTEND_NARROW, 7, 4, 3, 2};
    for (int i = 0; i < 6; i++) {
        if (sizes[i] <= n_left && sizes[i] <= ATTEND_WIDE)
            return sizes[i];
    }
    return 1;
}

TLR_INLINE void run_tiles(float *part, const struct tlr_attend *job,
                          float *scratch, const enum element type)
{
    int n_rows = job->n_tok * job->n_heads;
    struct tile t = {.queries = scratch,
                     .scores = scratch + 16 * QUERY_STRIDE};
    for (int n = 0; t.first_row < n_rows; t.first_row += n) {
        n = tile_rows(n_rows - t.first_row);
        t.part = part + (size_t)t.first_row * TLR_PART_FLOATS(job->head_dim);
        switch (n) {
        case 1: run_tile(&t, job, 1, type); break;
        case 2: run_tile(&t, job, 2, type); break;
        case 3: run_tile(&t, job, 3, type); break;
        case 4: run_tile(&t, job, 4, type); break;
#if ATTEND_NARROW == 8
        case 7: run_tile(&t, job, 7, type); break;
        case 8: run_tile(&t, job, 8, type); break;
#endif
        default:
            if (type == ELEMENT_F32 || ATTEND_WIDE == ATTEND_NARROW)
                run_tile(&t, job, ATTEND_WIDE, type);
            break;
        }
    }
}

static void attend_f32(float *part, const struct tlr_attend *job,
                       float *scratch)
{
    run_tiles(part, job, scratch, ELEMENT_F32);
}

TLR_INLINE void attend(float *part, const struct tlr_attend *job,
                       float *scratch, const enum element type)
{
    int n_rows = job->n_tok * job->n_heads, head_dim = job->head_dim;
    if (n_rows <= ATTEND_NARROW) { /* one tile, read once */
        run_tiles(part, job, scratch, type);
        return;
    }
    float *keys = scratch + 16 * (SCORE_STRIDE + QUERY_STRIDE);
    float *values = keys + TLR_KV_STRETCH * head_dim;
    struct tlr_kv_span all = {keys, values, 0};
    int n_most = 0;
    for (int t = 0; t < job->n_tok; t++)
        n_most = job->n_seen[t] > n_most ? job->n_seen[t] : n_most;
    size_t bytes = block_bytes(head_dim, type);
    for (int s = 0; all.n_pos < n_most; s++) {
        const char *k = job->spans[s].k, *v = job->spans[s].v;
        for (int p = 0; p < job->spans[s].n_pos && all.n_pos + p < n_most;
             p += TLR_KV_BLOCK, k += bytes, v += bytes) {
            size_t at = (size_t)(all.n_pos + p) * (size_t)head_dim;
            unpack_keys(keys + at, k, head_dim, type);
            unpack_values(values + at, v, head_dim, type);
        }
        all.n_pos += job->spans[s].n_pos;
    }
    struct tlr_attend unpacked = *job;
    unpacked.spans = &all;
    unpacked.n_spans = 1;
    attend_f32(part, &unpacked, scratch);
}

void TLR_FN(attend_f32)(float *part, const struct tlr_attend *job,
                        float *scratch)
{
    attend_f32(part, job, scratch);
}

void TLR_FN(attend_f16)(float *part, const struct tlr_attend *job,
                        float *scratch)
{
    attend(part, job, scratch, ELEMENT_F16);
}

void TLR_FN(attend_q8)(float *part, const struct tlr_attend *job,
                       float *scratch)
{
    attend(part, job, scratch, ELEMENT_Q8);
}

void TLR_FN(attend_merge)(float *into, const float *part, int n_rows,
                          int head_dim)
{
    for (int r = 0; r < n_rows; r++, into += TLR_PART_FLOATS(head_dim),
             part += TLR_PART_FLOATS(head_dim)) {
        if (!(part[head_dim + 1] > 0))
            continue;
        float m[2] = {into[head_dim], part[head_dim]};
        float max = m[0] > m[1] ? m[0] : m[1];
        float lanes[LANES] = {m[0] - max, m[1] - max};
        vf_store(lanes, power_of_two(vf_load(lanes)));
        vf keep = vf_set1(lanes[0]), take = vf_set1(lanes[1]);
        for (int i = 0; i < head_dim; i += LANES) {
            int n = head_dim - i < LANES ? head_dim - i : LANES;
            vf old = vf_mul(keep, vf_load_n(into + i, n));
            vf_store_n(into + i, vf_fma(take, vf_load_n(part + i, n), old), n);
        }
        into[head_dim] = max;
        into[head_dim + 1] =
            lanes[0] * into[head_dim + 1] + lanes[1] * part[head_dim + 1];
    }
}
