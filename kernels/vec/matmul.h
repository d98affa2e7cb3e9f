/* matmul.h - matmul_* over an integer vocabulary (x86/int_*.h), which the
 * including file has included before.
 *
 * Up to TLR_ACT_GROUP tokens stream through the weights as they lie, and that
 * must be as fast as the memory; more tokens go through gemm.h.
 */
#include "kernels/variants_decl.h"
#include "kernels/vec/tile.h"

struct matmul_call {
    float *y;
    size_t y_stride;
    const void *w;
    int row, n_rows, n_cols;
};

TLR_INLINE float load_float(const void *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

TLR_INLINE int load_int(const void *p)
{
    int i;
    memcpy(&i, p, sizeof i);
    return i;
}

#include "kernels/vec/gemm.h"

/* One tile for the n_tok tokens of a group's block. */
TLR_INLINE void add_tile(vf acc[PARTS][TLR_ACT_GROUP], const struct band *b,
                         const uint8_t *act, vi table, const int n_tok,
                         const enum tlr_type type)
{
    const uint8_t *sum = act + 36 * n_tok;
    act = n_tok > 1 ? read_again(act) : act;
    const uint8_t *d = act + 32 * n_tok;
    TLR_UNROLL
    for (int part = 0; part < PARTS; part++) {
        vi w[WORDS];
        load_words(w, b, part, table, type);
        vf dw = load_scales(b, part), mw = vf_zero();
        if (type == TLR_Q4M)
            mw = load_minima(b, part);
        TLR_UNROLL
        for (int t = 0; t < n_tok; t++) {
            int sum_t = load_int(sum + 4 * t);
            float d_t = load_float(d + 4 * t);
            vi i = vi_dot(w, act + 32 * t, vi_set1(-bias_of(type) * sum_t),
                          has_nibbles(type));
            vf *a = &acc[part][t];
            *a = vf_fma(vi_to_vf(i), vf_mul(dw, vf_set1(d_t)), *a);
            if (type == TLR_Q4M)
                *a = vf_fma(mw, vf_set1(d_t * (float)sum_t), *a);
        }
    }
}

/* The rows [row, row + n_rows) of up to STREAM_BANDS bands, their tiles in
 * turn; meanwhile the bytes behind them, which the same thread wants next. */
TLR_INLINE void stream_bands(const struct matmul_call *m, const uint8_t *act,
                             int row, int n_bands, const int n_tok,
                             const enum tlr_type type)
{
    vi table = vi_table(tlr_q4n_levels, BYTE_BIAS);
    vf acc[STREAM_BANDS][PARTS][TLR_ACT_GROUP];
    struct band bands[STREAM_BANDS];
    int n_blocks = m->n_cols / TLR_TILE_COLS;
    for (int j = 0; j < n_bands; j++) {
        bands[j] = band_at(m->w, m->row + row + j * TLR_TILE_ROWS, m->n_cols,
                           type);
        TLR_UNROLL
        for (int part = 0; part < PARTS; part++) {
            TLR_UNROLL
            for (int t = 0; t < n_tok; t++)
                acc[j][part][t] = vf_zero();
        }
    }
    struct band ahead = bands[n_bands - 1];
    skip_tiles(&ahead, n_blocks, type);
    for (int i = 0; i < n_blocks; i++) {
        for (int j = 0; j < n_bands; j++) {
            prefetch_tile(&ahead, type);
            add_tile(acc[j], &bands[j], act, table, n_tok, type);
            skip_tiles(&bands[j], 1, type);
            skip_tiles(&ahead, 1, type);
        }
        act += n_tok * TLR_ACT_BYTES;
    }
    for (int j = 0; j < n_bands; j++) {
        float *y = m->y + row + j * TLR_TILE_ROWS;
        int n_rows = m->n_rows - row - j * TLR_TILE_ROWS;
        TLR_UNROLL
        for (int part = 0; part < PARTS; part++) {
            TLR_UNROLL
            for (int t = 0; t < n_tok; t++)
                vf_store_n(y + (size_t)t * m->y_stride + part * LANES,
                           acc[j][part][t], lanes_of(n_rows, part));
        }
    }
}

TLR_INLINE void stream(const struct matmul_call *m, const uint8_t *act,
                       const int n_tok, const enum tlr_type type)
{
    int n = bands_at_once(m->n_cols, type);
    int all = (m->n_rows + TLR_TILE_ROWS - 1) / TLR_TILE_ROWS;
    for (int i = 0; i < all; i += n)
        stream_bands(m, act, i * TLR_TILE_ROWS, all - i < n ? all - i : n,
                     n_tok, type);
}

TLR_INLINE void matmul(struct matmul_call *m, const uint8_t *act, int n_tok,
                       const enum tlr_type type)
{
    if (n_tok > TLR_ACT_GROUP) {
        int n_groups = n_tok / TLR_ACT_GROUP;
        size_t n = (size_t)n_groups * TLR_ACT_GROUP;
        gemm(m, act, n_groups, type);
        act += tlr_act_bytes(n, (size_t)m->n_cols);
        m->y += n * m->y_stride;
        n_tok -= (int)n;
    }
    if (n_tok == 0)
        return;
#define STREAM(n) stream(m, act, n, type)
    TLR_CALL_1_TO_8(n_tok, STREAM)
#undef STREAM
}

#define DEFINE(name, type)                                                     \
    void TLR_FN(matmul_##name)(float *y, size_t y_stride, const void *w,       \
                               int row, const void *act, int n_tok,            \
                               int n_rows, int n_cols)                         \
    {                                                                          \
        struct matmul_call m = {y, y_stride, w, row, n_rows, n_cols};          \
        matmul(&m, act, n_tok, type);                                          \
    }

DEFINE(q8, TLR_Q8)
DEFINE(q4, TLR_Q4)
DEFINE(q4m, TLR_Q4M)
DEFINE(q4n, TLR_Q4N)
DEFINE(q8p, TLR_Q8P)
#undef DEFINE
