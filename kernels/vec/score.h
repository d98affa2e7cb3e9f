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

TLR_INLINE void score_band(float *y, float *var, struct band b,
                           const uint8_t *act, const struct score_block *x,
                           int n_blocks, int n_rows, const bool first,
                           const bool last)
{
    vf acc[PARTS], v[PARTS];
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(n_rows, p);
        acc[p] = first ? vf_zero() : vf_load_n(y + p * LANES, n);
        v[p] = first ? vf_zero() : vf_load_n(var + p * LANES, n);
    }
    for (int i = 0; i < n_blocks; i++, act += TLR_ACT_BYTES) {
        TLR_UNROLL
        for (int p = 0; p < PARTS; p++) {
            vi w[WORDS];
            load_words(w, &b, p, vi_set1(0), TLR_Q4);
            vi sum = vi_dot(w, act, vi_set1(0), true);
            sum = vi_add(vi_shift_left(sum, 5), vi_set1(x[i].offset));
            vf s = vf_mul(load_scales(&b, p), vf_set1(x[i].d));
            acc[p] = vf_fma(vi_to_vf(sum), vf_mul(s, vf_set1(0.5f)), acc[p]);
            v[p] = vf_fma(vf_set1(x[i].squares), vf_mul(s, s), v[p]);
        }
        skip_tiles(&b, 1, TLR_Q4);
    }
    TLR_UNROLL
    for (int p = 0; p < PARTS; p++) {
        int n = lanes_of(n_rows, p);
        if (last)
            v[p] = vf_mul(v[p], vf_set1(21.25f));
        vf_store_n(y + p * LANES, acc[p], n);
        vf_store_n(var + p * LANES, v[p], n);
    }
}

void TLR_FN(score_q8p)(float *y, float *var, const void *w, int row,
                       const void *act, int n_rows, int n_cols)
{
    struct score_block x[PANEL_BLOCKS];
    int all = n_cols / TLR_TILE_COLS;
    for (int first = 0; first == 0 || first < all; first += PANEL_BLOCKS) {
        int n = all - first < PANEL_BLOCKS ? all - first : PANEL_BLOCKS;
        const uint8_t *panel =
            (const uint8_t *)act + (size_t)first * TLR_ACT_BYTES;
        score_blocks(x, panel, n);
        for (int r = 0; r < n_rows; r += TLR_TILE_ROWS) {
            struct band b = band_at(w, row + r, n_cols, TLR_Q8P);
            b.tile += (size_t)first * TLR_HIGH_BYTES;
            score_band(y + r, var + r, b, panel, x, n, n_rows - r, first == 0,
                       first + n == all);
        }
    }
}
