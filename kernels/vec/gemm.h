/* gemm.h - the many-token path of matmul.h: GEMM_GROUP tokens at a time against
 * weights that are unpacked once.
 *
 * GEMM_VECTORS vectors of rows and GEMM_BLOCKS blocks of their columns are
 * turned into words for vi_dot on the stack, where they stay in the nearest
 * cache while all tokens pass; y holds the sums between stretches of columns,
 * which is exact, so the order of additions is that of the specification.
 */
enum {
    GEMM_VECTORS = 2,
    GEMM_BLOCKS = 28, /* 896 columns: 28 KiB of words in 512 bits */
    GEMM_ROWS = GEMM_VECTORS * LANES
};

struct panel {
    uint8_t words[GEMM_BLOCKS][WORDS][GEMM_VECTORS][4 * LANES];
    float d[GEMM_BLOCKS][GEMM_VECTORS][LANES];
    float m[GEMM_BLOCKS][GEMM_VECTORS][LANES]; /* q4m only */
};

/* Blocks [first, first + n) of the rows from row on. */
TLR_INLINE void unpack(struct panel *p, const struct matmul_call *m, int row,
                       int first, int n, const int n_v,
                       const enum tlr_type type)
{
    vi table = vi_table(tlr_q4n_levels, BYTE_BIAS);
    TLR_UNROLL
    for (int v = 0; v < n_v; v++) {
        struct band b = band_at(m->w, m->row + row + v / PARTS * TLR_TILE_ROWS,
                                m->n_cols, type);
        skip_tiles(&b, first, type);
        for (int i = 0; i < n; i++) {
            vi w[WORDS];
            load_words(w, &b, v % PARTS, table, type);
            TLR_UNROLL
            for (int g = 0; g < WORDS; g++)
                vi_store(p->words[i][g][v], w[g]);
            vf_store(p->d[i][v], load_scales(&b, v % PARTS));
            if (type == TLR_Q4M)
                vf_store(p->m[i][v], load_minima(&b, v % PARTS));
            skip_tiles(&b, 1, type);
        }
    }
}

/* sums[v][t] += words . x of one block. */
TLR_INLINE void dots(vi sums[GEMM_VECTORS][GEMM_TOKENS],
                     uint8_t words[WORDS][GEMM_VECTORS][4 * LANES],
                     const uint8_t *x, const int n_v,
                     const enum tlr_type type)
{
#ifdef TLR_VNNI
    (void)type;
    TLR_UNROLL
    for (int g = 0; g < WORDS; g++) {
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++) {
            vi xt = vi_load_dword(x + 32 * t + 4 * g);
            TLR_UNROLL
            for (int v = 0; v < n_v; v++)
                sums[v][t] = vi_mac(sums[v][t], vi_load(words[g][v]), xt);
        }
    }
#else
    TLR_UNROLL
    for (int v = 0; v < n_v; v++) {
        vi w[WORDS];
        TLR_UNROLL
        for (int g = 0; g < WORDS; g++)
            w[g] = vi_load(words[g][v]);
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++)
            sums[v][t] = vi_dot(w, x + 32 * t, sums[v][t], has_nibbles(type));
    }
#endif
}

/* One stretch for GEMM_TOKENS tokens of a whole group; act is their part of its
 * first block.  Meanwhile a tile of *ahead is fetched for each block, unless it is
 * NULL. */
TLR_INLINE void gemm_tile(float *y, size_t y_stride, struct panel *p,
                          const uint8_t *act, int token, int n_blocks,
                          int n_rows, const bool first, struct band *ahead,
                          const int n_v, const enum tlr_type type)
{
    vf acc[GEMM_VECTORS][GEMM_TOKENS];
    TLR_UNROLL
    for (int v = 0; v < n_v; v++) {
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++)
            acc[v][t] = first ? vf_zero()
                              : vf_load_n(y + (size_t)t * y_stride + v * LANES,
                                          lanes_of(n_rows, v));
    }
    for (int i = 0; i < n_blocks; i++) {
        const uint8_t *d = act + 32 * TLR_ACT_GROUP + 4 * token;
        const uint8_t *sum = act + 36 * TLR_ACT_GROUP + 4 * token;
        int32_t start[GEMM_TOKENS];
        if (ahead) {
            prefetch_tile(ahead, type);
            skip_tiles(ahead, 1, type);
        }
        vi sums[GEMM_VECTORS][GEMM_TOKENS];
        memcpy(start, sum, sizeof start);
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++)
            start[t] *= -bias_of(type);
        TLR_UNROLL
        for (int v = 0; v < n_v; v++) {
            TLR_UNROLL
            for (int t = 0; t < GEMM_TOKENS; t++)
                sums[v][t] = vi_load_dword(start + t);
        }
        dots(sums, p->words[i], act + 32 * token, n_v, type);
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++) {
            float d_t = load_float(d + 4 * t);
            TLR_UNROLL
            for (int v = 0; v < n_v; v++) {
                vf s = vf_mul(vf_load(p->d[i][v]), vf_set1(d_t));
                acc[v][t] = vf_fma(vi_to_vf(sums[v][t]), s, acc[v][t]);
                if (type == TLR_Q4M) {
                    float x_sum = d_t * (float)load_int(sum + 4 * t);
                    acc[v][t] = vf_fma(vf_load(p->m[i][v]), vf_set1(x_sum),
                                       acc[v][t]);
                }
            }
        }
        act += TLR_ACT_GROUP * TLR_ACT_BYTES;
    }
    TLR_UNROLL
    for (int v = 0; v < n_v; v++) {
        TLR_UNROLL
        for (int t = 0; t < GEMM_TOKENS; t++)
            vf_store_n(y + (size_t)t * y_stride + v * LANES, acc[v][t],
                       lanes_of(n_rows, v));
    }
}

/* Where band i of the next panel's bytes begin: the next stretch of these rows, or
 * the rows behind them, which the same thread wants next. */
TLR_INLINE struct band next_band(const struct matmul_call *m, int row, int next,
                                 int i, const int n_v, const enum tlr_type type)
{
    bool is_new = next >= m->n_cols / TLR_TILE_COLS;
    struct band b = band_at(m->w, m->row + row + i * TLR_TILE_ROWS +
                            (is_new ? n_v * LANES : 0), m->n_cols, type);
    skip_tiles(&b, is_new ? 0 : next, type);
    return b;
}

TLR_INLINE void gemm_rows(const struct matmul_call *m, const uint8_t *act,
                          int n_groups, int row, const int n_v,
                          const enum tlr_type type)
{
    _Alignas(64) struct panel p;
    int all = m->n_cols / TLR_TILE_COLS;
    size_t group_bytes = tlr_act_bytes(TLR_ACT_GROUP, (size_t)m->n_cols);
    for (int first = 0; first == 0 || first < all; first += GEMM_BLOCKS) {
        int n = all - first < GEMM_BLOCKS ? all - first : GEMM_BLOCKS;
        unpack(&p, m, row, first, n, n_v, type);
        int n_ahead = 0;
        for (int g = 0; g < n_groups; g++) {
            const uint8_t *x = act + (size_t)g * group_bytes +
                               (size_t)first * TLR_ACT_GROUP * TLR_ACT_BYTES;
            for (int t = 0; t < TLR_ACT_GROUP; t += GEMM_TOKENS) {
                struct band ahead = next_band(m, row, first + n, n_ahead, n_v,
                                              type);
                bool is_wanted = n_ahead++ < n_v * LANES / TLR_TILE_ROWS;
                float *y = m->y + row +
                           (size_t)(g * TLR_ACT_GROUP + t) * m->y_stride;
                gemm_tile(y, m->y_stride, &p, x, t, n, m->n_rows - row,
                          first == 0, is_wanted ? &ahead : NULL, n_v, type);
            }
        }
    }
}

/* n_groups whole groups of tokens. */
TLR_INLINE void gemm(const struct matmul_call *m, const uint8_t *act,
                     int n_groups, const enum tlr_type type)
{
    int row = 0;
    for (; m->n_rows - row > GEMM_ROWS - LANES; row += GEMM_ROWS)
        gemm_rows(m, act, n_groups, row, GEMM_VECTORS, type);
    if (row < m->n_rows)
        gemm_rows(m, act, n_groups, row, 1, type);
}
