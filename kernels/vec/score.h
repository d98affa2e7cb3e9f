/* score.h - score_q8p over an integer vocabulary (x86/int_*.h), which the
 * including file has included before.
 *
 * What depends on x alone is worked out once for PANEL_BLOCKS blocks; y and dev
 * hold the partial sums between panels.
 */
#include "kernels/variants_decl.h"
#include "kernels/vec/tile.h"

enum { PANEL_BLOCKS = 64 };

struct score_block {
    float mean; /* 7.53125 * sum(x) */
    float d;    /* 16 * d_x */
    float v;    /* d_x^2 * sum(x^2) */
};

/* out [n_blocks][n_tok] */
TLR_INLINE void score_blocks(struct score_block *out, const uint8_t *act,
                             int n_blocks, int n_tok)
{
    for (int i = 0; i < n_blocks; i++, act += n_tok * TLR_ACT_BYTES) {
        for (int t = 0; t < n_tok; t++, out++) {
            const uint8_t *q = act + 32 * t;
            int32_t squares = 0, sum;
            float d;
            for (int c = 0; c < 32; c++)
                squares += (int8_t)q[c] * (int8_t)q[c];
            memcpy(&d, act + 32 * n_tok + 4 * t, sizeof d);
            memcpy(&sum, act + 36 * n_tok + 4 * t, sizeof sum);
            *out = (struct score_block){7.53125f * (float)sum, 16 * d,
                                        d * d * (float)squares};
        }
    }
}

/* One call of score_q8p on a panel of columns. */
struct score_call {
    float *y, *dev; /* v before the last panel's end */
    size_t stride;
    const void *w;
    const uint8_t *act;
    const struct score_block *x; /* [n_blocks][n_tok] */
    int row, n_rows, n_cols, first, n_blocks;
    bool is_first, is_last;
};

struct score_sums {
    vf y[PARTS][TLR_ACT_GROUP], v[PARTS][TLR_ACT_GROUP];
};

TLR_INLINE void score_begin(struct score_sums *out, const struct score_call *s,
                            int row, const int n_tok)
{
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(s->n_rows - row, p);
        TLR_UNROLL
        for (int t = 0; t < n_tok; t++) {
            size_t at = (size_t)t * s->stride + (size_t)(row + p * LANES);
            out->y[p][t] = out->v[p][t] = vf_zero();
            if (!s->is_first) {
                out->y[p][t] = vf_load_n(s->y + at, n);
                out->v[p][t] = vf_load_n(s->dev + at, n);
            }
        }
    }
}

TLR_INLINE void score_tile(struct score_sums *out, const struct band *b,
                           const uint8_t *act, const struct score_block *x,
                           const int n_tok)
{
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        vi w[WORDS];
        load_words(w, b, p, vi_set1(0), TLR_Q4);
        vf d = load_scales(b, p), d2 = vf_mul(d, d);
        const uint8_t *q = n_tok > 1 ? read_again(act) : act;
        TLR_UNROLL
        for (int t = 0; t < n_tok; t++) {
            vf sum = vi_to_vf(vi_dot(w, q + 32 * t, vi_set1(0), true));
            sum = vf_sub(sum, vf_set1(x[t].mean));
            vf *y = &out->y[p][t], *v = &out->v[p][t];
            *y = vf_fma(sum, vf_mul(d, vf_set1(x[t].d)), *y);
            *v = vf_fma(d2, vf_set1(x[t].v), *v);
        }
    }
}

TLR_INLINE void score_end(const struct score_call *s, int row,
                          const struct score_sums *sums, const int n_tok)
{
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(s->n_rows - row, p);
        TLR_UNROLL
        for (int t = 0; t < n_tok; t++) {
            size_t at = (size_t)t * s->stride + (size_t)(row + p * LANES);
            vf v = sums->v[p][t];
            if (s->is_last)
                v = vf_sqrt(vf_mul(v, vf_set1(21.25f)));
            vf_store_n(s->y + at, sums->y[p][t], n);
            vf_store_n(s->dev + at, v, n);
        }
    }
}

/* The high tiles of a band, from the panel's first block on. */
TLR_INLINE struct band score_band_at(const struct score_call *s, int row)
{
    struct band b = band_at(s->w, s->row + row, s->n_cols, TLR_Q8P);
    b.tile += (size_t)s->first * TLR_HIGH_BYTES;
    return b;
}

/* n_bands bands side by side, and the tiles behind them on their way, as in
 * matmul.h. */
TLR_INLINE void score_bands(const struct score_call *s, int row,
                            const int n_bands, const int n_tok)
{
    struct score_sums sums[STREAM_BANDS];
    struct band bands[STREAM_BANDS];
    for (int j = 0; j < n_bands; j++) {
        bands[j] = score_band_at(s, row + j * TLR_TILE_ROWS);
        score_begin(&sums[j], s, row + j * TLR_TILE_ROWS, n_tok);
    }
    struct band ahead = score_band_at(s, row + n_bands * TLR_TILE_ROWS);
    const uint8_t *act = s->act;
    const struct score_block *x = s->x;
    for (int i = 0; i < s->n_blocks; i++) {
        for (int j = 0; j < n_bands; j++) {
            prefetch_tile(&ahead, TLR_Q4);
            score_tile(&sums[j], &bands[j], act, x, n_tok);
            skip_tiles(&bands[j], 1, TLR_Q4);
            skip_tiles(&ahead, 1, TLR_Q4);
        }
        act += n_tok * TLR_ACT_BYTES;
        x += n_tok;
    }
    for (int j = 0; j < n_bands; j++)
        score_end(s, row + j * TLR_TILE_ROWS, &sums[j], n_tok);
}

TLR_INLINE void score_rows(const struct score_call *s, const int n_tok)
{
    int r = 0, step = STREAM_BANDS * TLR_TILE_ROWS;
    if (n_tok <= 2 && bands_at_once(s->n_cols, TLR_Q4) == STREAM_BANDS) {
        for (; s->n_rows - r > step - TLR_TILE_ROWS; r += step)
            score_bands(s, r, STREAM_BANDS, n_tok);
    }
    for (; r < s->n_rows; r += TLR_TILE_ROWS)
        score_bands(s, r, 1, n_tok);
}

void TLR_FN(score_q8p)(float *y, float *dev, size_t stride, const void *w,
                       int row, const void *act, int n_tok, int n_rows,
                       int n_cols)
{
    struct score_block x[PANEL_BLOCKS * TLR_ACT_GROUP];
    int all = n_cols / TLR_TILE_COLS;
    for (int first = 0; first == 0 || first < all; first += PANEL_BLOCKS) {
        int n = all - first < PANEL_BLOCKS ? all - first : PANEL_BLOCKS;
        struct score_call s = {
            y, dev, stride, w,
            (const uint8_t *)act + (size_t)(first * n_tok) * TLR_ACT_BYTES, x,
            row, n_rows, n_cols, first, n, first == 0, first + n == all};
        score_blocks(x, s.act, n, n_tok);
#define SCORE(n) score_rows(&s, n)
        TLR_CALL_1_TO_8(n_tok, SCORE)
#undef SCORE
    }
}
