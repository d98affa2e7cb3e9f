/* kernels.h - the table of micro-kernels: one slot per operation.
 *
 * Pure functions on arrays: no memory, no threads, no I/O, and they cannot
 * fail; what a slot asks of its arguments is asserted in ref/ and guaranteed by
 * engine/.  Which variants exist stands in kernel_list.inc and nowhere else.
 *
 * For every slot: a result for one row (one head, one vector) is the same bits
 * whatever the number of rows, vectors or threads in the call; between variants
 * it differs by rounding only, within the bound that kernel_list.inc's test
 * derives.  Arrays need no alignment unless said otherwise; inputs may end at
 * an unreadable page; outputs must not overlap inputs unless said otherwise.
 */
#ifndef TLR_KERNELS_KERNELS_H
#define TLR_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu.h"
#include "kernels/quant.h"

/* Up to this many vectors go through one matrix in one decode step. */
enum { TLR_MAX_BRANCHES = 8 };

/* y[b*y_stride + r] = sum over c of W[r,c] * x[b*x_stride + c]
 * W [n_rows, n_cols] f32 or bf16; x f32 [n_x, n_cols]; y f32 [n_x, n_rows];
 * 1 <= n_x <= TLR_MAX_BRANCHES. */
typedef void tlr_matvec_fn(float *y, size_t y_stride, const void *w,
                           const float *x, size_t x_stride, int n_x, int n_rows,
                           int n_cols);

/* Activations of the integer products: x is rounded to int8 in blocks of 32
 * columns.  n_tok tokens (any number) lie in groups of TLR_ACT_GROUP, the last
 * one smaller; a group of n tokens, block b of its columns, 40 * n bytes:
 *
 *   0       q[n][32] int8     column 32*b + c of token t at 32*t + c
 *   32*n    d[n]     f32      x is about d * q
 *   36*n    sum[n]   int32    sum of q over the block
 *
 * Blocks of a group follow one another; then comes the next group. */
enum { TLR_ACT_GROUP = 8, TLR_ACT_BYTES = 40 };

/* Bytes of n_tok tokens of n_cols columns (a multiple of 32). */
static inline size_t tlr_act_bytes(size_t n_tok, size_t n_cols)
{
    return n_tok * (n_cols / 32) * TLR_ACT_BYTES;
}

/* One group: x f32 [n_tok <= TLR_ACT_GROUP, x_stride], all finite, into act.
 * To the bit, for every block: a = max abs(x); a < 2^-100: d = 0 and q = 0;
 * else d = a / 127, q = x * (127 / a) rounded to nearest even, within
 * [-127, 127].  rest, unless NULL: f32 [n_tok, n_cols], x - d * q in one
 * rounding (fma): quantised again it gives 15 bits in all. */
typedef void tlr_quantise_fn(void *act, float *rest, const float *x,
                             size_t x_stride, int n_tok, int n_cols);

/* y[t*y_stride + r - row] for r in [row, row + n_rows), t in [0, n_tok):
 * rows of W [.., n_cols], a tiled type, times the tokens of act.  w is the start
 * of the matrix, row a multiple of 16; n_tok >= 1.  Padding rows are not
 * written.
 *
 * Specified to the bit, the same for every variant, n_tok and n_rows: with I_b
 * the exact integer sum over block b of weight and activation numbers,
 *   acc = 0;  for b = 0, 1, ...:  acc = fma(I_b, d_w * d_x, acc)
 * in f32, where the product of the scales is rounded; q4m has, after each such
 * step, acc = fma(m_w, d_x * sum, acc).  Numbers: q8 and q8p q, q4 n - 8, q4m n,
 * q4n tlr_q4n_levels[n]. */
typedef void tlr_matmul_fn(float *y, size_t y_stride, const void *w, int row,
                           const void *act, int n_tok, int n_rows, int n_cols);

/* The same for one group of act (1 <= n_tok <= TLR_ACT_GROUP) and the high plane
 * of a q8p matrix alone: an estimate, and the standard deviation of what the low
 * plane would add if its nibbles were independent and uniform, at y and dev
 * [t*stride + r - row].  The low plane's mean is 7.5, so a number is
 * 16 * (n - 7.53125) in the mean, n its high nibble, and its variance
 * 21.25 = (16^2 - 1) / 12.  To the bit, in f32, with x the activation numbers of
 * block b:
 *   y = fma(sum(n x) - 7.53125 * sum(x), d_w * (16 * d_x), y)
 *   v = fma(d_w * d_w, (d_x * d_x) * sum(x^2), v);  dev = sqrt(21.25 * v)
 * The first factor is exact. */
typedef void tlr_score_fn(float *y, float *dev, size_t stride, const void *w,
                          int row, const void *act, int n_tok, int n_rows,
                          int n_cols);

/* W f32 or bf16 [n_rows, n_cols] to f32, exactly the values of
 * tlr_row_decode. */
typedef void tlr_dequant_fn(float *dst, const void *w, int n_rows, int n_cols);

/* y[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i], i < n; y may be x.
 * The sum of squares of x must be finite in f32.
 * Zhang & Sennrich 2019 (arXiv 1910.07467), eq. 4. */
typedef void tlr_rmsnorm_fn(float *y, const float *x, const float *weight,
                            int n, float eps);

/* Rotary embedding in place, halves convention (GPT-NeoX, Hugging Face): for
 * each head h and i < head_dim/2, with a = x[h][i], b = x[h][i + head_dim/2]:
 * x[h][i] = a*cos[i] - b*sin[i],  x[h][i + head_dim/2] = b*cos[i] + a*sin[i].
 * x f32 [n_heads, head_dim]; cos, sin f32 [head_dim/2] of the position.
 * Su et al. 2021 (arXiv 2104.09864), eq. 34. */
typedef void tlr_rope_fn(float *x, const float *cos, const float *sin,
                         int n_heads, int head_dim);

/* y[i] = gate[i] / (1 + exp(-gate[i])) * up[i], i < n; y may be gate or up.
 * Shazeer 2020 (arXiv 2002.05202), eq. 6 with SiLU. */
typedef void tlr_swiglu_fn(float *y, const float *gate, const float *up, int n);

/* y[i] += x[i], i < n. */
typedef void tlr_add_fn(float *y, const float *x, int n);

/* IEEE binary16 <-> binary32, round to nearest even. */
typedef void tlr_to_f16_fn(uint16_t *dst, const float *src, int n);
typedef void tlr_from_f16_fn(float *dst, const uint16_t *src, int n);

/* The cache of one KV head is a row of blocks of TLR_KV_BLOCK positions.  A
 * block holds its keys dimension by dimension, so that neighbouring lanes are
 * neighbouring positions, and its values position by position; n = head_dim,
 * m = n / 32 rounded up:
 *
 *   f32, f16   keys [n][16]                      values [16][n]
 *   q8         d f16 [m][16], q int8 [n][16]     d f16 [m][16], q int8 [16][n]
 *
 * q8: dimension i of position p is d[i / 32][p] * q, exact in f32.  The
 * positions of a timeline fall into blocks by their number, p / 16. */
enum { TLR_KV_BLOCK = 16 };

/* Positions that share one softmax before the results are merged: stretch s of
 * a timeline is positions [256 s, 256 s + 256). */
enum { TLR_KV_STRETCH = 256 };

/* Consecutive blocks; n_pos is a multiple of TLR_KV_BLOCK in every span of a
 * stretch but its last. */
struct tlr_kv_span {
    const void *k;
    const void *v;
    int n_pos;
};

/* Queries of one KV head and a stretch of its cache: head h of token t at
 * q + t * q_stride + h * head_dim, f32, sees the first n_seen[t] positions of
 * the spans, which hold TLR_KV_STRETCH at most; n_seen may be 0. */
struct tlr_attend {
    const float *q;
    size_t q_stride;
    const int *n_seen; /* [n_tok] */
    int n_tok, n_heads;
    const struct tlr_kv_span *spans;
    int n_spans;
    struct tlr_kv_span next; /* may be prefetched, never read; n_pos 0: none */
    int head_dim; /* a multiple of 8, at most TLR_MAX_HEAD_DIM */
    float scale;
};
enum { TLR_MAX_HEAD_DIM = 512 };

/* Attention to one stretch as rows of TLR_PART_FLOATS(head_dim) floats, row
 * t * n_heads + h: with s_p = scale * log2(e) * q . k_p and M = max s_p,
 *   acc[head_dim] = sum over p of 2^(s_p - M) v_p,  M,  L = sum 2^(s_p - M);
 * nothing seen: L = 0 and M = -inf.  Keys and values up to the largest n_seen
 * must be finite, and the scores.  scratch: TLR_ATTEND_SCRATCH(head_dim)
 * floats, overwritten.  The element type of the cache is in the slot's name;
 * every element is turned into f32 exactly and then treated alike.
 *
 * attend_f16 may compute in int16 (avx512vnni does).  Then the queries times
 * scale * log2(e), keys and values are rounded first, each vector x to
 * u * round(x / u), u = max |x| / levels: 4095 levels for a value,
 * floor(sqrt((2^31 - 1024) / head_dim)) for a query and a key.  Rows stay the same bits in
 * any company, in decoding as in prefill. */
#define TLR_PART_FLOATS(head_dim) ((size_t)(head_dim) + 16)
#define TLR_ATTEND_SCRATCH(head_dim)                                           \
    ((size_t)(2 * TLR_KV_STRETCH) * (size_t)(head_dim) +                       \
     (size_t)16 * (TLR_KV_STRETCH + TLR_MAX_HEAD_DIM + 32))
typedef void tlr_attend_fn(float *part, const struct tlr_attend *job,
                           float *scratch);

/* n_rows results of a stretch join those of the stretches before it: with
 * M' = max(M, M_into), each side is weighed by 2^(its M - M').  A row with
 * L = 0 changes nothing.  Milakov & Gimelshein 2018 (arXiv 1805.02867),
 * section 3.1. */
typedef void tlr_attend_merge_fn(float *into, const float *part, int n_rows,
                                 int head_dim);

struct tlr_kernels {
    enum tlr_cpu_level level;
    tlr_matvec_fn *matvec[TLR_BF16 + 1];
    tlr_dequant_fn *dequant[TLR_BF16 + 1]; /* [TLR_F32] copies */
    tlr_quantise_fn *quantise;
    tlr_matmul_fn *matmul[TLR_N_TYPES - TLR_Q8]; /* [type - TLR_Q8] */
    tlr_score_fn *score_q8p;
    tlr_rmsnorm_fn *rmsnorm;
    tlr_rope_fn *rope;
    tlr_swiglu_fn *swiglu;
    tlr_add_fn *add;
    tlr_to_f16_fn *to_f16;
    tlr_from_f16_fn *from_f16;
    tlr_attend_fn *attend_f32;
    tlr_attend_fn *attend_f16;
    tlr_attend_fn *attend_q8;
    tlr_attend_merge_fn *attend_merge;
};

/* Fills the table for a level: ref first, then each level up to it overwrites
 * what it has.  tlr_cpu_has(level) must hold. */
void tlr_kernels_init(struct tlr_kernels *k, enum tlr_cpu_level level);

/* Name of the variant that fills a slot at a level ("avx2"), for `tlr bench
 * --kernels --list` and --stats; slot names are those of kernel_list.inc.
 * NULL for an unknown slot. */
const char *tlr_kernels_variant(const char *slot, enum tlr_cpu_level level);

#endif
