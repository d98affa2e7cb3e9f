/* prove_matmul.c - matmul_* and score_q8p: the same bits as ref.
 *
 * The slots are specified to the bit, so there is no bound.  Weights are raw
 * tiles: rows of random bytes beside rows of one value (the ends of int8 and of
 * a nibble, which saturate what may saturate), scales of every size and sign.
 * Whether ref itself is right, test_matmul.c asks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

struct shape {
    int n_rows, n_cols, n_tok, row;
    enum input kind;
};

/* ---- activations ---- */

static uint8_t *block_at(void *act, int n_tok, int n_cols, int t, int b,
                         size_t *n, size_t *i)
{
    int first = t / TLR_ACT_GROUP * TLR_ACT_GROUP, left = n_tok - first;
    *n = (size_t)(left < TLR_ACT_GROUP ? left : TLR_ACT_GROUP);
    *i = (size_t)(t - first);
    return (uint8_t *)act + tlr_act_bytes((size_t)first, (size_t)n_cols) +
           (size_t)b * *n * TLR_ACT_BYTES;
}

void act_put(void *act, int n_tok, int n_cols, int t, int b,
             const struct act_block *x)
{
    size_t n, i;
    uint8_t *p = block_at(act, n_tok, n_cols, t, b, &n, &i);
    memcpy(p + 32 * i, x->q, 32);
    memcpy(p + 32 * n + 4 * i, &x->d, 4);
    memcpy(p + 36 * n + 4 * i, &x->sum, 4);
}

void act_get(const void *act, int n_tok, int n_cols, int t, int b,
             struct act_block *x)
{
    size_t n, i;
    uint8_t *p = block_at((void *)(uintptr_t)act, n_tok, n_cols, t, b, &n, &i);
    memcpy(x->q, p + 32 * i, 32);
    memcpy(&x->d, p + 32 * n + 4 * i, 4);
    memcpy(&x->sum, p + 36 * n + 4 * i, 4);
}

/* A number of the kind at column c of the block, hot the column of one-hot. */
static int8_t act_number(struct tlr_rng *rng, enum input kind, int c, int hot,
                         int sign)
{
    switch (kind) {
    case IN_ZERO: return 0;
    case IN_EXTREME: return (int8_t)(127 * sign);
    case IN_ALTERNATING: return (int8_t)(c % 2 ? -127 * sign : 127 * sign);
    case IN_ONE_HOT: return c == hot ? 127 : 0;
    default: return (int8_t)((int)(tlr_rng_u64(rng) % 255) - 127);
    }
}

static float act_scale(struct tlr_rng *rng, enum input kind)
{
    double size = 1 + (double)(tlr_rng_u64(rng) >> 40) * 0x1p-24;
    int power = (int)(tlr_rng_u64(rng) % 8) - 8;
    if (kind == IN_ZERO)
        return 0;
    if (kind == IN_EXTREME)
        power = (int)(tlr_rng_u64(rng) % 120) - 60;
    if (kind == IN_DENORMAL)
        power = (int)(tlr_rng_u64(rng) % 40) - 145;
    for (; power < 0; power++)
        size /= 2;
    for (; power > 0; power--)
        size *= 2;
    return (float)size;
}

void fill_acts(struct tlr_rng *rng, void *act, int n_tok, int n_cols,
               enum input kind)
{
    for (int t = 0; t < n_tok; t++) {
        int hot = (int)(tlr_rng_u64(rng) % (uint64_t)n_cols);
        for (int b = 0; b < n_cols / 32; b++) {
            struct act_block x = {.d = act_scale(rng, kind)};
            int sign = tlr_rng_u64(rng) % 2 ? 1 : -1;
            for (int c = 0; c < 32; c++) {
                x.q[c] = act_number(rng, kind, c, hot - 32 * b, sign);
                x.sum += x.q[c];
            }
            act_put(act, n_tok, n_cols, t, b, &x);
        }
    }
}

/* ---- weights ---- */

/* A finite f16: mostly of a weight's size, sometimes any. */
static uint16_t any_scale(struct tlr_rng *rng)
{
    uint64_t u = tlr_rng_u64(rng);
    uint16_t bits = (uint16_t)(u >> 16);
    if (u % 4)
        bits = (uint16_t)((bits & 0x83ff) | (5 + u / 4 % 10) << 10);
    if ((bits & 0x7c00) == 0x7c00)
        bits ^= 0x4000; /* neither infinity nor NaN */
    return bits;
}

static void fill_tile(struct tlr_rng *rng, uint8_t *tile, unsigned bytes,
                      unsigned n_scales)
{
    static const uint8_t same[] = {0x80, 0x7f, 0x00, 0xff, 0x88, 0xf7};
    for (unsigned i = 0; i < n_scales; i++) {
        uint16_t h = any_scale(rng);
        tile[2 * i] = (uint8_t)h;
        tile[2 * i + 1] = (uint8_t)(h >> 8);
    }
    uint64_t like = tlr_rng_u64(rng); /* four bits a row */
    for (unsigned at = 2 * n_scales; at < bytes; at += 4) {
        unsigned pattern = like >> (at - 2 * n_scales) / 4 % 16 * 4 & 15;
        uint64_t u = tlr_rng_u64(rng);
        if (pattern < sizeof same)
            memset(tile + at, same[pattern], 4);
        else if (pattern == sizeof same)
            memcpy(tile + at, "\x7f\x80\x7f\x80", 4);
        else
            memcpy(tile + at, &u, 4);
    }
}

void fill_matrix(struct tlr_rng *rng, enum tlr_type type, void *w, int n_rows,
                 int n_cols)
{
    uint8_t *p = w;
    uint64_t left = tlr_matrix_bytes(type, (uint64_t)n_rows, (uint64_t)n_cols);
    unsigned tile = tlr_tile_bytes(type);
    uint64_t half = (uint64_t)TLR_PLANES_ROWS / 16 * (uint64_t)(n_cols / 32);
    for (uint64_t i = 0; left > 0; i++) {
        unsigned bytes = tile, n_scales = type == TLR_Q4M ? 32 : 16;
        if (type == TLR_Q8P) {
            bool low = i / half % 2;
            bytes = low ? TLR_LOW_BYTES : TLR_HIGH_BYTES;
            n_scales = low ? 0 : 16;
        }
        fill_tile(rng, p, bytes, n_scales);
        p += bytes;
        left -= bytes;
    }
}

/* ---- judgement ---- */

static bool same_row(struct proof *p, const char *what, int t, int n,
                     const float *got, const float *want)
{
    if (memcmp(got, want, (size_t)n * sizeof *got) == 0)
        return true;
    for (int r = 0; r < n; r++) {
        if (memcmp(got + r, want + r, sizeof *got) != 0)
            return fails(p, "%s: token %d row %d: expected %a, found %a", what,
                         t, r, (double)want[r], (double)got[r]);
    }
    return true;
}

static float *row_of(const struct output *y, int t)
{
    return (float *)(void *)y->first + (size_t)t * y->stride;
}

/* Tokens [t0, t0 + n_tok) and rows [skip, n_rows) of the case in a call of their
 * own must have the bits that they had in company. */
static bool same_alone(struct proof *p, const struct shape *s, const void *w,
                       const void *act, const struct output *all, int t0,
                       int n_tok, int skip)
{
    int n_rows = s->n_rows - skip;
    struct guarded part =
        guard(tlr_act_bytes((size_t)n_tok, (size_t)s->n_cols));
    for (int t = 0; t < n_tok; t++) {
        for (int b = 0; b < s->n_cols / 32; b++) {
            struct act_block x;
            act_get(act, s->n_tok, s->n_cols, t0 + t, b, &x);
            act_put(part.ptr, n_tok, s->n_cols, t, b, &x);
        }
    }
    size_t rows = (size_t)n_rows;
    struct output y = output_new(4, rows, rows + 1, (size_t)n_tok);
    ((tlr_matmul_fn *)p->fn)(row_of(&y, 0), y.stride, w, s->row + skip,
                             part.ptr, n_tok, n_rows, s->n_cols);
    bool ok = output_intact(&y) || fails(p, "wrote outside y");
    for (int t = 0; ok && t < n_tok; t++)
        ok = same_row(p, "in a smaller call", t0 + t, n_rows, row_of(&y, t),
                      row_of(all, t0 + t) + skip);
    output_free(&y);
    unguard(&part);
    return ok;
}

static bool same_apart(struct proof *p, const struct shape *s, const void *w,
                       const void *act, const struct output *all)
{
    int last = s->n_tok - 1, skip = s->n_rows > 16 ? 16 : 0;
    if (last == 0 && skip == 0)
        return true;
    return same_alone(p, s, w, act, all, 0, 1, skip) &&
           same_alone(p, s, w, act, all, last, 1, 0) &&
           same_alone(p, s, w, act, all, last / 2, last - last / 2 + 1, skip);
}

static bool matmul_case(struct proof *p, const struct shape *s)
{
    size_t n_rows = (size_t)s->n_rows, n_tok = (size_t)s->n_tok;
    int end = s->row + s->n_rows;
    struct guarded w = guard(
        tlr_matrix_bytes(p->type, (uint64_t)end, (uint64_t)s->n_cols));
    struct guarded act = guard(tlr_act_bytes(n_tok, (size_t)s->n_cols));
    fill_matrix(&p->rng, p->type, w.ptr, end, s->n_cols);
    fill_acts(&p->rng, act.ptr, s->n_tok, s->n_cols, s->kind);
    struct output want = output_new(4, n_rows, n_rows, n_tok);
    struct output y = output_new(4, n_rows, n_rows + 3, n_tok);
    ((tlr_matmul_fn *)p->ref)(row_of(&want, 0), n_rows, w.ptr, s->row, act.ptr,
                              s->n_tok, s->n_rows, s->n_cols);
    ((tlr_matmul_fn *)p->fn)(row_of(&y, 0), y.stride, w.ptr, s->row, act.ptr,
                             s->n_tok, s->n_rows, s->n_cols);
    p->n_cases++;
    bool ok = output_intact(&y) || fails(p, "wrote outside y");
    for (int t = 0; ok && t < s->n_tok; t++)
        ok = same_row(p, "not ref's bits", t, s->n_rows, row_of(&y, t),
                      row_of(&want, t));
    ok = ok && same_apart(p, s, w.ptr, act.ptr, &y);
    output_free(&y);
    output_free(&want);
    unguard(&act);
    unguard(&w);
    return ok;
}

/* The rows of `all` from row `skip` on, of one token in a call of its own. */
static bool same_score_alone(struct proof *p, const struct shape *s,
                             const void *w, const void *act,
                             const struct output *y, const struct output *dev,
                             int t, int skip)
{
    size_t n = (size_t)(s->n_rows - skip);
    struct guarded one = guard(tlr_act_bytes(1, (size_t)s->n_cols));
    for (int b = 0; b < s->n_cols / 32; b++) {
        struct act_block x;
        act_get(act, s->n_tok, s->n_cols, t, b, &x);
        act_put(one.ptr, 1, s->n_cols, 0, b, &x);
    }
    struct output got = output_new(4, n, n, 2);
    ((tlr_score_fn *)p->fn)(row_of(&got, 0), row_of(&got, 1), n, w,
                            s->row + skip, one.ptr, 1, (int)n, s->n_cols);
    bool ok = same_row(p, "y alone", t, (int)n, row_of(&got, 0),
                       row_of(y, t) + skip) &&
              same_row(p, "dev alone", t, (int)n, row_of(&got, 1),
                       row_of(dev, t) + skip);
    output_free(&got);
    unguard(&one);
    return ok;
}

static bool score_case(struct proof *p, const struct shape *s)
{
    size_t n = (size_t)s->n_rows, n_tok = (size_t)s->n_tok;
    int end = s->row + s->n_rows;
    struct guarded w = guard(
        tlr_matrix_bytes(p->type, (uint64_t)end, (uint64_t)s->n_cols));
    struct guarded act = guard(tlr_act_bytes(n_tok, (size_t)s->n_cols));
    fill_matrix(&p->rng, p->type, w.ptr, end, s->n_cols);
    fill_acts(&p->rng, act.ptr, s->n_tok, s->n_cols, s->kind);
    struct output want = output_new(4, n, n, 2 * n_tok);
    struct output y = output_new(4, n, n + 3, n_tok);
    struct output dev = output_new(4, n, n + 3, n_tok);
    ((tlr_score_fn *)p->ref)(row_of(&want, 0), row_of(&want, s->n_tok), n,
                             w.ptr, s->row, act.ptr, s->n_tok, s->n_rows,
                             s->n_cols);
    ((tlr_score_fn *)p->fn)(row_of(&y, 0), row_of(&dev, 0), y.stride, w.ptr,
                            s->row, act.ptr, s->n_tok, s->n_rows, s->n_cols);
    p->n_cases++;
    bool ok = output_intact(&y) || fails(p, "wrote outside y");
    ok = ok && (output_intact(&dev) || fails(p, "wrote outside dev"));
    for (int t = 0; ok && t < s->n_tok; t++)
        ok = same_row(p, "y", t, s->n_rows, row_of(&y, t), row_of(&want, t)) &&
             same_row(p, "dev", t, s->n_rows, row_of(&dev, t),
                      row_of(&want, s->n_tok + t));
    int skip = (s->n_rows - 1) / 16 * 16;
    for (int t = 0; ok && t < s->n_tok; t += s->n_tok > 1 ? s->n_tok - 1 : 1)
        ok = same_score_alone(p, s, w.ptr, act.ptr, &y, &dev, t, skip);
    output_free(&dev);
    output_free(&y);
    output_free(&want);
    unguard(&act);
    unguard(&w);
    return ok;
}

static bool run_case(struct proof *p, const struct shape *s)
{
    bool score = p->op == TLR_OP_SCORE;
    if (score && s->n_tok > TLR_ACT_GROUP)
        return true;
    if (score ? score_case(p, s) : matmul_case(p, s))
        return true;
    char why[sizeof p->what];
    memcpy(why, p->what, sizeof why);
    return fails(p, "[%d+%d,%d] n_tok %d %s: %.400s", s->row, s->n_rows,
                 s->n_cols, s->n_tok, input_name(s->kind), why);
}

static const int edge_rows[] = {1, 15, 16, 17, 31, 33, 64, 65};
static const int edge_cols[] = {32, 64, 96};
static const int edge_toks[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17};
/* The last ones cross the border of q8p's groups. */
static const struct shape real[] = {
    {128, 896, 1, 0, IN_RANDOM},     {128, 896, 8, 64, IN_RANDOM},
    {64, 576, 9, 16, IN_EXTREME},    {33, 1536, 17, 0, IN_ALTERNATING},
    {17, 4864, 3, 16, IN_EXTREME},   {33, 896, 64, 0, IN_RANDOM},
    {17, 96, 261, 32, IN_RANDOM},    {48, 64, 261, 0, IN_EXTREME},
    {128, 128, 33, 0, IN_DENORMAL},  {19, 4864, 5, 0, IN_RANDOM},
    {40, 64, 7, 1008, IN_RANDOM},    {1, 32, 1, 1024, IN_RANDOM},
    {65, 96, 17, 992, IN_EXTREME},   {1073, 32, 2, 1008, IN_RANDOM},
    {1073, 32, 1, 1008, IN_EXTREME}, {40, 576, 1, 1008, IN_RANDOM},
    {97, 2080, 4, 960, IN_RANDOM},
    {17, 928, 9, 0, IN_RANDOM},      {19, 4864, 9, 0, IN_EXTREME}};
static const struct shape whole[] = {{4864, 896, 1, 0, IN_RANDOM},
                                     {896, 4864, 1, 0, IN_EXTREME},
                                     {896, 896, 4, 0, IN_RANDOM},
                                     {2100, 96, 3, 0, IN_RANDOM}};

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

bool prove_matmul(struct proof *p)
{
    int n = 0;
    for (int i = 0; i < COUNT(edge_rows) * COUNT(edge_cols); i++) {
        for (int j = 0; j < COUNT(edge_toks) * N_INPUTS; j++) {
            struct shape s = {edge_rows[i % COUNT(edge_rows)],
                              edge_cols[i / COUNT(edge_rows)],
                              edge_toks[j % COUNT(edge_toks)], n++ % 3 * 16,
                              (enum input)(j / COUNT(edge_toks))};
            if (!run_case(p, &s))
                return false;
        }
    }
    for (int i = 0; i < COUNT(real); i++) {
        if (!run_case(p, real + i))
            return false;
    }
    for (int i = 0; p->large && i < COUNT(whole); i++) {
        if (!run_case(p, whole + i))
            return false;
    }
    return true;
}
