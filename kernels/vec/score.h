/* score.h - score_q8p over an integer vocabulary (x86/int_*.h), which the
 * including file has included before.
 *
 * What depends on x alone is worked out once for PANEL_BLOCKS blocks; y and var
 * hold the partial sums between panels.
 */
#include "kernels/variants_decl.h"
#include "kernels/vec/tile.h"

enum { PANEL_BLOCKS = 256 };

struct score_block {
    int32_t offset; /* -241 * sum(x) */
    float squares, d;
};

TLR_INLINE void score_blocks(struct score_block *out, const uint8_t *act,
                             int n_blocks)
{
    for (int i = 0; i < n_blocks; i++, act += TLR_ACT_BYTES) {
        int32_t squares = 0, sum;
        for (int c = 0; c < 32; c++)
            squares += (int8_t)act[c] * (int8_t)act[c];
        memcpy(&out[i].d, act + 32, sizeof out[i].d);
        memcpy(&sum, act + 36, sizeof sum);
        out[i].offset = -241 * sum;
        out[i].squares = (float)squares;
    }
}

/* One call of score_q8p on a panel of columns. */
struct score_call {
    float *y, *var;
    const void *w;
    const uint8_t *act;
    const struct score_block *x;
    int row, n_rows, n_cols, first, n_blocks;
    bool is_first, is_last;
};

struct score_sums {
    vf y[PARTS], var[PARTS];
};

TLR_INLINE struct score_sums score_begin(const struct score_call *s, int row)
{
    struct score_sums out;
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(s->n_rows - row, p);
        out.y[p] = out.var[p] = vf_zero();
        if (!s->is_first) {
            out.y[p] = vf_load_n(s->y + row + p * LANES, n);
            out.var[p] = vf_load_n(s->var + row + p * LANES, n);
        }
    }
    return out;
}

TLR_INLINE void score_tile(struct score_sums *out, const struct band *b,
                           const uint8_t *act, const struct score_block *x)
{
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        vi w[WORDS];
        load_words(w, b, p, vi_set1(0), TLR_Q4);
        vi sum = vi_dot(w, act, vi_set1(0), true);
        sum = vi_add(vi_shift_left(sum, 5), vi_set1(x->offset));
        vf s = vf_mul(load_scales(b, p), vf_set1(x->d));
        out->y[p] = vf_fma(vi_to_vf(sum), vf_mul(s, vf_set1(0.5f)), out->y[p]);
        out->var[p] = vf_fma(vf_set1(x->squares), vf_mul(s, s), out->var[p]);
    }
}

TLR_INLINE void score_end(const struct score_call *s, int row,
                          struct score_sums sums)
{
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(s->n_rows - row, p);
        if (s->is_last)
            sums.var[p] = vf_mul(sums.var[p], vf_set1(21.25f));
        vf_store_n(s->y + row + p * LANES, sums.y[p], n);
        vf_store_n(s->var + row + p * LANES, sums.var[p], n);
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
                            const int n_bands)
{
    struct score_sums sums[STREAM_BANDS];
    struct band bands[STREAM_BANDS];
    for (int j = 0; j < n_bands; j++) {
        bands[j] = score_band_at(s, row + j * TLR_TILE_ROWS);
        sums[j] = score_begin(s, row + j * TLR_TILE_ROWS);
    }
    struct band ahead = score_band_at(s, row + n_bands * TLR_TILE_ROWS);
    const uint8_t *act = s->act;
    for (int i = 0; i < s->n_blocks; i++, act += TLR_ACT_BYTES) {
        for (int j = 0; j < n_bands; j++) {
            prefetch_tile(&ahead, TLR_Q4);
            score_tile(&sums[j], &bands[j], act, s->x + i);
            skip_tiles(&bands[j], 1, TLR_Q4);
            skip_tiles(&ahead, 1, TLR_Q4);
        }
    }
    for (int j = 0; j < n_bands; j++)
        score_end(s, row + j * TLR_TILE_ROWS, sums[j]);
}

void TLR_FN(score_q8p)(float *y, float *var, const void *w, int row,
                       const void *act, int n_rows, int n_cols)
{
    struct score_block x[PANEL_BLOCKS];
    int all = n_cols / TLR_TILE_COLS;
    int at_once = bands_at_once(n_cols, TLR_Q4);
    for (int first = 0; first == 0 || first < all; first += PANEL_BLOCKS) {
        int n = all - first < PANEL_BLOCKS ? all - first : PANEL_BLOCKS;
        struct score_call s = {
            y, var, w, (const uint8_t *)act + (size_t)first * TLR_ACT_BYTES, x,
            row, n_rows, n_cols, first, n, first == 0, first + n == all};
        score_blocks(x, s.act, n);
        int r = 0, step = at_once * TLR_TILE_ROWS;
        for (; at_once == STREAM_BANDS && n_rows - r > step - TLR_TILE_ROWS;
             r += step)
            score_bands(&s, r, STREAM_BANDS);
        for (; r < n_rows; r += TLR_TILE_ROWS)
            score_bands(&s, r, 1);
    }
}
