/* tile.h - the tiled weights of quant.h as words for vi_dot, over an integer
 * vocabulary (x86/int_*.h), which the including file has included before.
 *
 * Lane r of a word is row r of a tile (or of its half, where a word has 8
 * lanes), so sums stay in their lanes and the scales of a tile are a vector.
 */
#ifndef TLR_KERNELS_VEC_TILE_H
#define TLR_KERNELS_VEC_TILE_H

enum {
    PARTS = TLR_TILE_ROWS / LANES,
    WORDS = 8,                 /* of 4 columns in a tile */
    STREAM_BANDS = 4,          /* read side by side: memory serves several
                                  streams faster than one */
    STREAM_AHEAD_BYTES = 65536 /* but not so many that what is fetched ahead
                                  falls out of the second cache */
};

#ifdef TLR_VNNI
/* init + w . x over the 32 columns of a block; w are 8 words, x 32 bytes.  Where
 * there is no vi_mac, the vocabulary has its own. */
TLR_INLINE vi vi_dot(const vi w[WORDS], const uint8_t *x, vi init,
                     const bool is_nibbles)
{
    (void)is_nibbles;
    TLR_UNROLL
    for (int g = 0; g < WORDS; g++)
        init = vi_mac(init, w[g], vi_load_dword(x + 4 * g));
    return init;
}
#endif

/* 16 rows of a matrix: their first tile, and of q8p the first low tile. */
struct band {
    const uint8_t *tile, *low;
};

TLR_INLINE size_t tile_bytes_of(const enum tlr_type type)
{
    return type == TLR_Q8    ? 544
           : type == TLR_Q4M ? 320
                             : 288; /* q8p: TLR_HIGH_BYTES */
}

TLR_INLINE bool has_nibbles(const enum tlr_type type)
{
    return type == TLR_Q4 || type == TLR_Q4M;
}

/* What vi_dot's words have too much, times the sum of x. */
TLR_INLINE int bias_of(const enum tlr_type type)
{
    return type == TLR_Q4 ? 8 : type == TLR_Q4M ? 0 : BYTE_BIAS;
}

TLR_INLINE struct band band_at(const void *w, int row, int n_cols,
                               const enum tlr_type type)
{
    size_t n_blocks = (size_t)n_cols / TLR_TILE_COLS;
    size_t index = (size_t)row / TLR_TILE_ROWS;
    struct band out = {w, NULL};
    if (type != TLR_Q8P) {
        out.tile += index * n_blocks * tile_bytes_of(type);
        return out;
    }
    const size_t bands = TLR_PLANES_ROWS / TLR_TILE_ROWS;
    out.tile += index / bands * bands * n_blocks *
                (TLR_HIGH_BYTES + TLR_LOW_BYTES);
    out.low = out.tile + bands * n_blocks * TLR_HIGH_BYTES +
              index % bands * n_blocks * TLR_LOW_BYTES;
    out.tile += index % bands * n_blocks * TLR_HIGH_BYTES;
    return out;
}

TLR_INLINE void skip_tiles(struct band *b, int n, const enum tlr_type type)
{
    b->tile += (size_t)n * tile_bytes_of(type);
    if (type == TLR_Q8P)
        b->low += (size_t)n * TLR_LOW_BYTES;
}

TLR_INLINE int bands_at_once(int n_cols, const enum tlr_type type)
{
    size_t bytes = (size_t)(n_cols / TLR_TILE_COLS) * tile_bytes_of(type);
    size_t n = bytes ? STREAM_AHEAD_BYTES / bytes : 1;
    return n < 1 ? 1 : n < STREAM_BANDS ? (int)n : STREAM_BANDS;
}

TLR_INLINE void prefetch_tile(const struct band *b, const enum tlr_type type)
{
    TLR_UNROLL
    for (size_t i = 0; i < tile_bytes_of(type); i += 64)
        __builtin_prefetch(b->tile + i, 0, 2);
    if (type == TLR_Q8P) {
        TLR_UNROLL
        for (int i = 0; i < TLR_LOW_BYTES; i += 64)
            __builtin_prefetch(b->low + i, 0, 2);
    }
}

/* p, for loads that are to be done once more: a dot product takes a dword of x
 * from memory for nothing, but out of a register that the compiler has kept it
 * in, the broadcast costs as much as the product. */
TLR_INLINE const uint8_t *read_again(const uint8_t *p)
{
    __asm__("" : "+r"(p));
    return p;
}

/* How many of n_rows rows vector v of LANES rows holds. */
TLR_INLINE int lanes_of(int n_rows, int v)
{
    int left = n_rows - v * LANES;
    return left < 0 ? 0 : left < LANES ? left : LANES;
}

TLR_INLINE vf load_scales(const struct band *b, int part)
{
    return vf_load_f16((const uint16_t *)(const void *)b->tile + part * LANES);
}

TLR_INLINE vf load_minima(const struct band *b, int part)
{
    return vf_load_f16((const uint16_t *)(const void *)b->tile +
                       TLR_TILE_ROWS + part * LANES);
}

/* table: vi_table of the levels of q4n. */
TLR_INLINE void load_words(vi w[WORDS], const struct band *b, int part,
                           vi table, const enum tlr_type type)
{
    const uint8_t *n =
        b->tile + (type == TLR_Q4M ? 64 : 32) + part * 4 * LANES;
    TLR_UNROLL
    for (int i = 0; i < WORDS; i += 2) {
        if (type == TLR_Q8) {
            w[i] = vi_load(n + i * 64);
            w[i + 1] = vi_load(n + i * 64 + 64);
        } else if (type == TLR_Q8P) {
            vi h = vi_load(n + i * 32);
            vi l = vi_load(b->low + part * 4 * LANES + i * 32);
            w[i] = vi_join_low(h, l);
            w[i + 1] = vi_join_high(h, l);
        } else {
            vi both = vi_load(n + i * 32);
            w[i] = vi_low_nibbles(both);
            w[i + 1] = vi_high_nibbles(both);
        }
        if (type == TLR_Q4N) {
            w[i] = vi_look_up(table, w[i]);
            w[i + 1] = vi_look_up(table, w[i + 1]);
        }
        if ((type == TLR_Q8 && BYTE_BIAS != 0) ||
            (type == TLR_Q8P && BYTE_BIAS == 0)) {
            w[i] = vi_flip_sign(w[i]);
            w[i + 1] = vi_flip_sign(w[i + 1]);
        }
    }
}

#endif
