/* attend_avx512vnni.c - attention to a stretch of an f16 cache in int16.
 *
 * Queries, keys and values are rounded to integers, each query and position by
 * its own largest element, and multiplied by vpdpwssd, two elements at a time;
 * a weight is rounded once the sum of its row is known.  The sums are exact, so
 * the bits of a row depend on nothing but what it sees.  How many levels there
 * are follows from int32 not overflowing: head_dim * LEVELS^2 for a score,
 * VALUE_LEVELS times the sum of the weights for a result.
 *
 * One stream of addresses, and in bursts, is what memory serves worst.  So the
 * next stretch's keys and values are fetched into the second cache side by
 * side, a few lines at each step of all that is done to this one.
 */
#include <math.h>
#include <string.h>

#define TLR_FN(name) tlr_##name##_avx512vnni
#include "kernels/variants_decl.h"
#include "kernels/vec/unroll.h"
#include "kernels/x86/vec_avx512.h"

typedef __m512i vi;

enum {
    VALUE_LEVELS = 4095,
    WEIGHT_LEVELS = 32767,
    /* what the weights of a row may sum up to, less 1/2 for each */
    WEIGHT_SUM = INT32_MAX / VALUE_LEVELS - TLR_KV_STRETCH,
    MOST_ROWS = 14,
    /* odd numbers of cache lines, so that rows do not fall on one set */
    SCORE_STRIDE = TLR_KV_STRETCH + 16,
    WEIGHT_STRIDE = TLR_KV_STRETCH + 32,  /* int16 */
    QUERY_STRIDE = TLR_MAX_HEAD_DIM + 32, /* int16 */
    LINE_BYTES = 64,
    FETCH_STEPS = 4 /* vectors that are rounded between two fetches */
};

/* What is fetched meanwhile: so much of it is under way. */
struct ahead {
    const char *k, *v;
    size_t at, n_bytes;
};

/* The stretch and a tile of queries, in the scratch. */
struct work {
    int32_t *keys;   /* [16 blocks][head_dim / 2][16], pairs of dimensions */
    int32_t *values; /* [128][value_stride], pairs of positions */
    float *key_scale, *value_scale; /* [256] */
    float *scores;                  /* [rows][SCORE_STRIDE] */
    int16_t *weights;               /* [rows][WEIGHT_STRIDE] */
    int16_t *queries;               /* [rows][QUERY_STRIDE] */
    float query_scale[MOST_ROWS], unit[MOST_ROWS];
    int head_dim, value_stride;
    float levels; /* of queries and keys */
    struct ahead next;
};

/* Lanes of a * scale, rounded, in the low 16 bits. */
TLR_INLINE vi round16(vf a, vf scale)
{
    return _mm512_castps_si512(vf_fma(a, scale, vf_set1(0x1.8p23f)));
}

/* a in the low halves of the lanes, b's low halves in the high ones. */
TLR_INLINE vi pair16(vi a, vi b)
{
    const vi low = _mm512_set1_epi32(0x01000100);
    const vi at = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    return _mm512_mask_shuffle_epi8(a, 0xcccccccccccccccc, b,
                                    _mm512_or_si512(low, at));
}

/* levels / a, or 0 where a is 0. */
TLR_INLINE vf scale_for(vf a, vf levels)
{
    __mmask16 some = _mm512_cmp_ps_mask(a, vf_zero(), _CMP_NEQ_UQ);
    return _mm512_maskz_div_ps(some, levels, a);
}

/* 2^x for x <= 0, a polynomial of degree 4: relative error below 2^-18.  What
 * is below 2^-126 becomes 2^-126; what is not seen 0. */
TLR_INLINE vf power_of_two(__mmask16 seen, vf x)
{
    vf v = vf_max(vf_set1(-126.0f), x);
    vf n = vf_round(v);
    vf r = vf_sub(v, n);
    vf p = vf_set1(0x1.3997d2p-7f);
    p = vf_fma(p, r, vf_set1(0x1.ca1444p-5f));
    p = vf_fma(p, r, vf_set1(0x1.ec06dap-3f));
    p = vf_fma(p, r, vf_set1(0x1.62e0dcp-1f));
    p = vf_fma(p, r, vf_set1(0x1.ffffe8p-1f));
    return _mm512_maskz_scalef_ps(seen, p, n);
}

/* ---- the stretch becomes integers ---- */

/* A line of the next stretch's keys and one of its values, while there are. */
TLR_INLINE void fetch_lines(struct ahead *next)
{
    if (next->at < next->n_bytes) {
        _mm_prefetch(next->k + next->at, _MM_HINT_T1);
        _mm_prefetch(next->v + next->at, _MM_HINT_T1);
        next->at += LINE_BYTES;
    }
}

/* A block of 16 positions. */
static void round_keys(int32_t *dst, float *scale, const uint16_t *block,
                       int n_pairs, vf levels, struct ahead *next)
{
    vi sign = _mm512_set1_epi16((short)0x8000), top = _mm512_setzero_si512();
    for (int i = 0; i < n_pairs; i++) {
        const uint16_t *p = block + i * 2 * TLR_KV_BLOCK;
        top = _mm512_max_epu16(
            top, _mm512_andnot_si512(sign, _mm512_loadu_si512(p)));
    }
    vf a = _mm512_cvtph_ps(_mm256_max_epu16(
        _mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1)));
    vf up = scale_for(a, levels);
    vf_store(scale, vf_div(a, levels));
    for (int i = 0; i < n_pairs; i++, block += 2 * TLR_KV_BLOCK) {
        if (i % FETCH_STEPS == 0)
            fetch_lines(next);
        vi even = round16(vf_load_f16(block), up);
        vi odd = round16(vf_load_f16(block + TLR_KV_BLOCK), up);
        _mm512_storeu_si512(dst + i * LANES, pair16(even, odd));
    }
}

/* Lanes of 16 halves: the largest magnitude of each of 16 vectors of 32. */
TLR_INLINE __m256i largest_of_each(vi x[TLR_KV_BLOCK])
{
    const vi order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12,
                                       14, 13, 15);
    /* a vector is halved at each step and shares the rest with another */
    TLR_UNROLL
    for (int p = 0; p < 8; p++)
        x[p] = _mm512_max_epu16(_mm512_shuffle_i64x2(x[p], x[p + 8], 0x44),
                                _mm512_shuffle_i64x2(x[p], x[p + 8], 0xee));
    TLR_UNROLL
    for (int p = 0; p < 4; p++)
        x[p] = _mm512_max_epu16(_mm512_shuffle_i64x2(x[p], x[p + 4], 0x88),
                                _mm512_shuffle_i64x2(x[p], x[p + 4], 0xdd));
    TLR_UNROLL
    for (int p = 0; p < 2; p++)
        x[p] = _mm512_max_epu16(_mm512_unpacklo_epi64(x[p], x[p + 2]),
                                _mm512_unpackhi_epi64(x[p], x[p + 2]));
    __m512 a = _mm512_castsi512_ps(x[0]), b = _mm512_castsi512_ps(x[1]);
    vi all = _mm512_max_epu16(
        _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
        _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
    all = _mm512_max_epu16(all, _mm512_srli_epi32(all, 16));
    return _mm512_cvtepi32_epi16(_mm512_permutexvar_epi32(order, all));
}

/* The largest magnitudes of a block's 16 positions. */
TLR_INLINE vf largest_values(const uint16_t *block, int head_dim)
{
    vi sign = _mm512_set1_epi16((short)0x8000), top[TLR_KV_BLOCK];
    int n_first = head_dim < 32 ? head_dim : 32;
    __mmask32 first = n_first < 32 ? (1u << n_first) - 1 : 0xffffffff;
    TLR_UNROLL
    for (int p = 0; p < TLR_KV_BLOCK; p++)
        top[p] = _mm512_andnot_si512(
            sign, _mm512_maskz_loadu_epi16(first, block + p * head_dim));
    for (int i = 32; i < head_dim; i += 32) {
        int n = head_dim - i;
        __mmask32 mask = n < 32 ? (1u << n) - 1 : 0xffffffff;
        TLR_UNROLL
        for (int p = 0; p < TLR_KV_BLOCK; p++) {
            vi x = _mm512_maskz_loadu_epi16(mask, block + p * head_dim + i);
            top[p] = _mm512_max_epu16(top[p], _mm512_andnot_si512(sign, x));
        }
    }
    return _mm512_cvtph_ps(largest_of_each(top));
}

static void round_values(int32_t *dst, float *scale, const uint16_t *block,
                         int head_dim, int stride, struct ahead *next)
{
    float up[TLR_KV_BLOCK];
    vf a = largest_values(block, head_dim);
    vf levels = vf_set1((float)VALUE_LEVELS);
    vf_store(up, scale_for(a, levels));
    vf_store(scale, vf_div(a, levels));
    for (int p = 0; p < TLR_KV_BLOCK; p += 2, dst += stride) {
        const uint16_t *x = block + p * head_dim;
        vf up0 = vf_set1(up[p]), up1 = vf_set1(up[p + 1]);
        int i = 0;
        for (; i + LANES <= head_dim; i += LANES) {
            if (i % (FETCH_STEPS * LANES) == 0)
                fetch_lines(next);
            _mm512_storeu_si512(
                dst + i, pair16(round16(vf_load_f16(x + i), up0),
                                round16(vf_load_f16(x + head_dim + i), up1)));
        }
        int n = head_dim - i;
        if (n)
            _mm512_storeu_si512(
                dst + i,
                pair16(round16(vf_load_f16_n(x + i, n), up0),
                       round16(vf_load_f16_n(x + head_dim + i, n), up1)));
    }
}

static void round_stretch(struct work *w, const struct tlr_attend *job,
                          int n_most)
{
    size_t block = (size_t)w->head_dim * TLR_KV_BLOCK;
    for (int s = 0, at = 0; at < n_most; at += job->spans[s++].n_pos) {
        const uint16_t *k = job->spans[s].k, *v = job->spans[s].v;
        int n_pos = job->spans[s].n_pos;
        n_pos = n_most - at < n_pos ? n_most - at : n_pos;
        for (int p = at; p < at + n_pos; p += TLR_KV_BLOCK, k += block)
            round_keys(w->keys + (size_t)p * (size_t)w->head_dim / 2,
                       w->key_scale + p, k, w->head_dim / 2,
                       vf_set1(w->levels), &w->next);
        for (int p = at; p < at + n_pos; p += TLR_KV_BLOCK, v += block)
            round_values(w->values + (size_t)p * (size_t)w->value_stride / 2,
                         w->value_scale + p, v, w->head_dim, w->value_stride,
                         &w->next);
    }
}

/* ---- a tile of queries ---- */

static void round_query(const struct work *w, int16_t *dst, float *scale,
                        const float *q, vf factor)
{
    vf top = vf_zero();
    for (int i = 0; i < w->head_dim; i += LANES) {
        int n = w->head_dim - i < LANES ? w->head_dim - i : LANES;
        top = vf_max(top, vf_abs(vf_mul(vf_load_n(q + i, n), factor)));
    }
    float a = vf_largest(top);
    *scale = a / w->levels;
    /* under 2^-100 the levels would not fit into f32, and no score is left */
    vf up = vf_set1(a < 0x1p-100f ? 0 : w->levels / a);
    for (int i = 0; i < w->head_dim; i += LANES) {
        int n = w->head_dim - i < LANES ? w->head_dim - i : LANES;
        vi x = round16(vf_mul(vf_load_n(q + i, n), factor), up);
        _mm256_storeu_si256((__m256i *)(void *)(dst + i),
                            _mm512_cvtepi32_epi16(x));
    }
}

/* sum + both products of each pair.  In assembly because gcc 12, given the
 * intrinsic, copies accumulators around and spills them. */
TLR_INLINE vi add_products(vi sum, vi x, vi y)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
    return sum;
}

TLR_INLINE vi pair_at(const int16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}

/* n rows of n_steps pairs times n_vec vectors of pairs, far apart: the sums. */
TLR_INLINE void multiply(vi acc[MOST_ROWS][4], const int16_t *rows,
                         int row_stride, const int32_t *columns, int step,
                         size_t apart, int n_steps, const int n,
                         const int n_vec, struct ahead *next)
{
    TLR_UNROLL
    for (int r = 0; r < n; r++) {
        TLR_UNROLL
        for (int j = 0; j < n_vec; j++)
            acc[r][j] = _mm512_setzero_si512();
    }
    for (int i = 0; i < n_steps; i++, columns += step) {
        vi x[4];
        fetch_lines(next);
        TLR_UNROLL
        for (int j = 0; j < n_vec; j++)
            x[j] = _mm512_loadu_si512(columns + (size_t)j * apart);
        TLR_UNROLL
        for (int r = 0; r < n; r++) {
            vi y = pair_at(rows + r * row_stride + 2 * i);
            TLR_UNROLL
            for (int j = 0; j < n_vec; j++)
                acc[r][j] = add_products(acc[r][j], x[j], y);
        }
    }
}

TLR_INLINE void score_blocks(struct work *w, int pos, const int n,
                             const int n_vec)
{
    vi acc[MOST_ROWS][4];
    multiply(acc, w->queries, QUERY_STRIDE,
             w->keys + (size_t)pos * (size_t)w->head_dim / 2, LANES,
             (size_t)w->head_dim / 2 * LANES, w->head_dim / 2, n, n_vec,
             &w->next);
    TLR_UNROLL
    for (int j = 0; j < n_vec; j++) {
        vf scale = vf_load(w->key_scale + pos + j * LANES);
        TLR_UNROLL
        for (int r = 0; r < n; r++) {
            vf s = vf_mul(_mm512_cvtepi32_ps(acc[r][j]), scale);
            vf_store(w->scores + r * SCORE_STRIDE + pos + j * LANES,
                     vf_mul(s, vf_set1(w->query_scale[r])));
        }
    }
}

TLR_INLINE void value_columns(struct work *w, float *part, size_t stride,
                              int dim, int n_pos, const int n, const int n_vec)
{
    vi acc[MOST_ROWS][4];
    multiply(acc, w->weights, WEIGHT_STRIDE, w->values + dim, w->value_stride,
             LANES, (n_pos + 1) / 2, n, n_vec, &w->next);
    TLR_UNROLL
    for (int r = 0; r < n; r++) {
        vf unit = vf_set1(w->unit[r]);
        TLR_UNROLL
        for (int j = 0; j < n_vec; j++) {
            int at = dim + j * LANES, n_left = w->head_dim - at;
            vf_store_n(part + (size_t)r * stride + at,
                       vf_mul(_mm512_cvtepi32_ps(acc[r][j]), unit),
                       n_left < LANES ? n_left : LANES);
        }
    }
}

/* Scores of row r become weights, the values' scales in them; those that it
 * does not see, up to n_most (the tile's), become 0.  Leaves M and L. */
static void weigh(struct work *w, int r, int n, int n_most, float *max_sum)
{
    float *scores = w->scores + r * SCORE_STRIDE;
    int16_t *weights = w->weights + r * WEIGHT_STRIDE;
    int n_whole = (n + LANES - 1) / LANES * LANES;
    for (int p = n; p < n_whole; p++)
        scores[p] = -INFINITY;
    vf top = vf_set1(-INFINITY), sum = vf_zero(), all = vf_zero();
    for (int p = 0; p < n_whole; p += LANES)
        top = vf_max(top, vf_load(scores + p));
    max_sum[0] = vf_largest(top);
    top = vf_set1(max_sum[0]);
    vf largest = vf_zero();
    for (int p = 0; p < n_whole; p += LANES) {
        __mmask16 seen = n - p < LANES ? mask_n(n - p) : 0xffff;
        vf x = power_of_two(seen, vf_sub(vf_load(scores + p), top));
        sum = vf_add(sum, x);
        x = _mm512_maskz_mul_ps(seen, x, vf_load(w->value_scale + p));
        all = vf_add(all, x);
        largest = vf_max(largest, x);
        vf_store(scores + p, x);
    }
    max_sum[1] = vf_sum(sum);
    float unit = vf_largest(largest) / WEIGHT_LEVELS;
    float need = vf_sum(all) / WEIGHT_SUM;
    unit = need > unit ? need : unit;
    w->unit[r] = unit;
    vf up = vf_set1(unit < 0x1p-100f ? 0 : 1 / unit);
    for (int p = 0; p < n_whole; p += LANES)
        _mm256_storeu_si256(
            (__m256i *)(void *)(weights + p),
            _mm512_cvtepi32_epi16(round16(vf_load(scores + p), up)));
    for (int p = n_whole; p < n_most; p += LANES)
        _mm256_storeu_si256((__m256i *)(void *)(weights + p),
                            _mm256_setzero_si256());
}

/* Rows [first, first + n), n a constant; n_vec vectors of sums for each. */
TLR_INLINE void run_tile(struct work *w, float *part,
                         const struct tlr_attend *job, int first, const int n,
                         const int n_vec)
{
    size_t stride = TLR_PART_FLOATS(w->head_dim);
    vf factor = vf_set1(job->scale * 0x1.715476p+0f);
    int n_most = 0;
    for (int r = 0; r < n; r++) {
        int tok = (first + r) / job->n_heads, head = (first + r) % job->n_heads;
        n_most = job->n_seen[tok] > n_most ? job->n_seen[tok] : n_most;
        round_query(w, w->queries + r * QUERY_STRIDE, w->query_scale + r,
                    job->q + (size_t)tok * job->q_stride +
                        (size_t)head * (size_t)w->head_dim,
                    factor);
    }
    int p = 0, i = 0;
    for (; p + (n_vec - 1) * LANES < n_most; p += n_vec * LANES)
        score_blocks(w, p, n, n_vec);
    for (; p < n_most; p += LANES)
        score_blocks(w, p, n, 1);
    for (int r = 0; r < n; r++)
        weigh(w, r, job->n_seen[(first + r) / job->n_heads], n_most,
              part + (size_t)r * stride + w->head_dim);
    for (; i + (n_vec - 1) * LANES < w->head_dim; i += n_vec * LANES)
        value_columns(w, part, stride, i, n_most, n, n_vec);
    for (; i < w->head_dim; i += LANES)
        value_columns(w, part, stride, i, n_most, n, 1);
}

static struct work work_in(float *scratch, int head_dim)
{
    struct work w = {.head_dim = head_dim,
                     .value_stride = (head_dim + LANES - 1) / LANES * LANES,
                     .levels = floorf(sqrtf(2147482624.0f / (float)head_dim))};
    w.key_scale = scratch;
    w.value_scale = w.key_scale + TLR_KV_STRETCH;
    w.scores = w.value_scale + TLR_KV_STRETCH;
    w.weights = (int16_t *)(w.scores + MOST_ROWS * SCORE_STRIDE);
    w.queries = w.weights + MOST_ROWS * WEIGHT_STRIDE;
    w.keys = (int32_t *)(void *)(w.queries + MOST_ROWS * QUERY_STRIDE);
    w.values = w.keys + TLR_KV_STRETCH / 2 * head_dim;
    return w;
}

void TLR_FN(attend_f16)(float *part, const struct tlr_attend *job,
                        float *scratch)
{
    struct work w = work_in(scratch, job->head_dim);
    w.next = (struct ahead){.k = job->next.k,
                            .v = job->next.v,
                            .n_bytes = (size_t)job->next.n_pos *
                                       (size_t)job->head_dim * 2};
    int n_rows = job->n_tok * job->n_heads, n_most = 0;
    for (int t = 0; t < job->n_tok; t++)
        n_most = job->n_seen[t] > n_most ? job->n_seen[t] : n_most;
    round_stretch(&w, job, n_most);
    size_t stride = TLR_PART_FLOATS(job->head_dim);
    for (int r = 0, n; r < n_rows; r += n, part += (size_t)n * stride) {
        n = n_rows - r;
        if (n >= 14)
            run_tile(&w, part, job, r, n = 14, 2);
        else if (n >= 7)
            run_tile(&w, part, job, r, n = 7, 4);
        else if (n >= 3)
            run_tile(&w, part, job, r, n = 3, 4);
        else
            run_tile(&w, part, job, r, n = 1, 4);
    }
}
