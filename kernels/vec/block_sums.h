/* block_sums.h - the minimum of a q4m block multiplies the plain sum of its 32
 * x, the same for all rows: summed once per call and panel of PANEL_TILES. */
#ifndef TLR_KERNELS_VEC_BLOCK_SUMS_H
#define TLR_KERNELS_VEC_BLOCK_SUMS_H

enum { PANEL_TILES = 256 };

/* sums[t][b] = sum of x[b][32t .. 32t+32). */
TLR_INLINE void block_sums(float sums[][TLR_MAX_BRANCHES], const float *x,
                           size_t x_stride, int n_x, int n_tiles)
{
    for (int b = 0; b < n_x; b++) {
        for (int t = 0; t < n_tiles; t++) {
            const float *p = x + (size_t)b * x_stride + t * TLR_TILE_COLS;
            vf sum = vf_load(p);
            for (int i = LANES; i < TLR_TILE_COLS; i += LANES)
                sum = vf_add(sum, vf_load(p + i));
            sums[t][b] = vf_sum(sum);
        }
    }
}

#endif
