/* test_sabotage_int.c - crimes of integer products: what a kernel that was
 * written in a hurry gets wrong.
 *
 * The slots are written a second time here, plainly and from kernels.h, with
 * one line for each crime; without a crime they must pass, which also checks
 * ref.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/sabotage.h"

enum crime {
    HONEST,
    /* quantise */
    ROUNDS_AWAY,
    TRUNCATES,
    SCALE_OF_TOKEN,
    TWO_ROUNDINGS,
    NO_SUMS,
    SUMS_MAGNITUDES,
    NO_THRESHOLD,
    DIVIDES,
    IGNORES_STRIDE,
    NO_REST,
    END_OF_QUANTISE,
    /* matmul; the first of them score too */
    DROPS_LAST_BLOCK = END_OF_QUANTISE,
    IGNORES_ROW,
    DROPS_TAIL_ROWS,
    WRITES_PADDING,
    NEIGHBOUR_SCALE,
    NO_CORRECTION,
    BLOCKS_BACKWARDS,
    NO_FMA,
    IGNORES_BORDER,
    TOKENS_SWAPPED,
    SCALE_OF_NEXT_TOKEN,
    ONE_CORRECTION,
    END_OF_SCORE,
    SATURATES_PAIRS = END_OF_SCORE,
    IGNORES_LAST_GROUP,
    SCALES_APART,
    ONE_SIGN_OFF,
    NO_MINIMUM,
    NO_LOW_PLANE,
    END_OF_MATMUL,
    /* score */
    NO_SQUARES = END_OF_MATMUL,
    VARIANCE_OF_16,
    MIDDLE_OF_8,
    NO_VARIANCE,
    VARIANCE_OF_FIRST_TOKEN,
    NO_ROOT,
    PACKED_SCORES,
    N_CRIMES
};

static enum crime crime;

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* ---- quantise ---- */

static float biggest(const float *x, int n)
{
    float a = 0;
    for (int c = 0; c < n; c++)
        a = fmaxf(a, fabsf(x[c]));
    return a;
}

static void bad_quantise(void *act, float *rest, const float *x,
                         size_t x_stride, int n_tok, int n_cols)
{
    size_t stride = crime == IGNORES_STRIDE ? (size_t)n_cols : x_stride;
    for (int i = 0; i < n_tok * (n_cols / 32); i++) {
        int t = i % n_tok, b = i / n_tok;
        const float *in = x + (size_t)t * stride + 32 * b;
        float a = crime == SCALE_OF_TOKEN
                      ? biggest(x + (size_t)t * stride, n_cols)
                      : biggest(in, 32);
        bool zero = crime == NO_THRESHOLD ? a == 0 : a < 0x1p-100f;
        struct act_block out = {.d = zero ? 0 : a / 127};
        for (int c = 0; c < 32; c++) {
            float v = zero ? 0 : in[c] * (127 / a);
            if (crime == DIVIDES && !zero)
                v = in[c] / out.d;
            v = crime == ROUNDS_AWAY ? roundf(v)
                : crime == TRUNCATES ? truncf(v)
                                     : nearbyintf(v);
            out.q[c] = (int8_t)fmaxf(-127, fminf(127, v));
            out.sum += crime == SUMS_MAGNITUDES ? abs(out.q[c]) : out.q[c];
            float product = out.d * out.q[c];
            float left = fmaf(-out.d, out.q[c], in[c]);
            if (rest && crime != NO_REST)
                rest[(size_t)t * (size_t)n_cols + (size_t)(32 * b + c)] =
                    crime == TWO_ROUNDINGS ? in[c] - product : left;
        }
        out.sum = crime == NO_SUMS ? 0 : out.sum;
        act_put(act, n_tok, n_cols, t, b, &out);
    }
}

/* ---- weights ---- */

struct numbers {
    int n[32], high[32];
    float d, m;
};

static float f16_of(const uint8_t *scales, int lane)
{
    return tlr_f16_to_f32(
        (uint16_t)(scales[2 * lane] | scales[2 * lane + 1] << 8));
}

static int nibble_of(const uint8_t *bytes, int lane, int c)
{
    int byte = bytes[c / 8 * 64 + 4 * lane + c % 4];
    return c % 8 < 4 ? byte % 16 : byte / 16;
}

static struct numbers planes_of(const uint8_t *w, int row, int b, int n_blocks)
{
    struct numbers out = {.m = 0};
    int group = crime == IGNORES_BORDER ? 0 : row / TLR_PLANES_ROWS;
    int band = (row - group * TLR_PLANES_ROWS) / 16, lane = row % 16;
    if (band >= TLR_PLANES_ROWS / 16)
        band = TLR_PLANES_ROWS / 16 - 1;
    size_t tiles = (size_t)(TLR_PLANES_ROWS / 16 * n_blocks);
    size_t at = (size_t)(band * n_blocks + b);
    const uint8_t *high = w + (size_t)group * tiles * 544 + at * TLR_HIGH_BYTES;
    const uint8_t *low = w + (size_t)group * tiles * 544 +
                         tiles * TLR_HIGH_BYTES + at * TLR_LOW_BYTES;
    out.d = f16_of(high, crime == NEIGHBOUR_SCALE ? lane ^ 1 : lane);
    for (int c = 0; c < 32; c++) {
        out.high[c] = nibble_of(high + 32, lane, c);
        int l = crime == NO_LOW_PLANE ? 0 : nibble_of(low, lane, c);
        out.n[c] = 16 * out.high[c] + l - 128;
    }
    return out;
}

static struct numbers numbers_of(enum tlr_type type, const uint8_t *w, int row,
                                 int b, int n_cols)
{
    if (type == TLR_Q8P)
        return planes_of(w, row, b, n_cols / 32);
    struct numbers out = {.m = 0};
    int lane = row % 16, scale_lane = crime == NEIGHBOUR_SCALE ? lane ^ 1 : lane;
    const uint8_t *tile =
        w + (size_t)(row / 16 * (n_cols / 32) + b) * tlr_tile_bytes(type);
    out.d = f16_of(tile, scale_lane);
    if (type == TLR_Q4M)
        out.m = f16_of(tile + 32, scale_lane);
    const uint8_t *body = tile + (type == TLR_Q4M ? 64 : 32);
    for (int c = 0; c < 32; c++) {
        if (type == TLR_Q8) {
            out.n[c] = (int8_t)body[c / 4 * 64 + 4 * lane + c % 4];
            continue;
        }
        int n = nibble_of(body, lane, c);
        out.n[c] = type == TLR_Q4    ? n - 8
                   : type == TLR_Q4N ? tlr_q4n_levels[n]
                                     : n;
    }
    return out;
}

/* ---- products ---- */

/* As with vpmaddubsw: unsigned weights, pairs that saturate, a correction. */
static int saturating(const int *n, const int8_t *x, int offset)
{
    int sum = 0;
    for (int c = 0; c < 32; c += 2) {
        int pair = (n[c] + offset) * x[c] + (n[c + 1] + offset) * x[c + 1];
        pair = pair < -32768 ? -32768 : least(pair, 32767);
        sum += pair - offset * (x[c] + x[c + 1]);
    }
    return sum;
}

/* What makes the weights of a type unsigned. */
static int offset_of(enum tlr_type type)
{
    return type == TLR_Q4M ? 0 : type == TLR_Q4 ? 8 : 128;
}

static int block_product(enum tlr_type type, const struct numbers *w,
                         const struct act_block *x, int first_sum)
{
    int sum = 0, offset = offset_of(type);
    if (crime == SATURATES_PAIRS)
        return saturating(w->n, x->q, offset);
    for (int c = 0; c < 32; c++)
        sum += (w->n[c] + offset) * x->q[c];
    if (crime == ONE_SIGN_OFF) /* sign(x, w) of -128 stays negative */
        sum -= w->n[0] == -128 ? 2 * w->n[0] * x->q[0] : 0;
    return sum - offset * (crime == ONE_CORRECTION  ? first_sum
                           : crime == NO_CORRECTION ? 0
                                                    : x->sum);
}

static float add_block(enum tlr_type type, float acc, const struct numbers *w,
                       const struct act_block *x, int first_sum)
{
    float i = (float)block_product(type, w, x, first_sum);
    if (crime == NO_FMA)
        acc += i * (w->d * x->d);
    else if (crime == SCALES_APART)
        acc = fmaf(i * w->d, x->d, acc);
    else
        acc = fmaf(i, w->d * x->d, acc);
    if (type != TLR_Q4M || crime == NO_MINIMUM)
        return acc;
    int sum = crime == NO_CORRECTION ? 0 : x->sum;
    sum = crime == ONE_CORRECTION ? first_sum : sum;
    return fmaf(w->m, x->d * (float)sum, acc);
}

/* Block b of token t as a criminal sees it. */
static struct act_block token_block(const void *act, int n_tok, int t, int b,
                                    int n_cols)
{
    struct act_block x, next;
    int partner = (t ^ 1) < n_tok ? t ^ 1 : t;
    bool in_last = t / TLR_ACT_GROUP == (n_tok - 1) / TLR_ACT_GROUP;
    /* every group taken for a whole one, as far as the memory goes */
    bool wrong = crime == IGNORES_LAST_GROUP && in_last && n_tok > 8;
    act_get(act, wrong ? n_tok / 8 * 8 : n_tok, n_cols,
            crime == TOKENS_SWAPPED ? partner : wrong ? t % 8 : t, b, &x);
    if (crime == SCALE_OF_NEXT_TOKEN) {
        act_get(act, n_tok, n_cols, partner, b, &next);
        x.d = next.d;
    }
    return x;
}

static void bad_product(enum tlr_type type, float *y, size_t y_stride,
                        const void *w, int row, const void *act, int n_tok,
                        int n_rows, int n_cols)
{
    int blocks = n_cols / 32 - (crime == DROPS_LAST_BLOCK), rows = n_rows;
    if (crime == DROPS_TAIL_ROWS)
        rows -= rows % 16;
    if (crime == WRITES_PADDING)
        rows = (rows + 15) / 16 * 16;
    for (int t = 0; t < n_tok; t++) {
        for (int r = 0; r < rows; r++) {
            float acc = 0;
            for (int i = 0; i < blocks; i++) {
                int b = crime == BLOCKS_BACKWARDS ? blocks - 1 - i : i;
                struct act_block x = token_block(act, n_tok, t, b, n_cols);
                struct act_block first =
                    token_block(act, n_tok, t / 8 * 8, b, n_cols);
                struct numbers n =
                    numbers_of(type, w, crime == IGNORES_ROW ? r : row + r, b,
                               n_cols);
                acc = add_block(type, acc, &n, &x, first.sum);
            }
            y[(size_t)t * y_stride + (size_t)r] = acc;
        }
    }
}

#define DEFINE(name, type)                                                     \
    static void bad_##name(float *y, size_t y_stride, const void *w, int row,  \
                           const void *act, int n_tok, int n_rows, int n_cols) \
    {                                                                          \
        bad_product(type, y, y_stride, w, row, act, n_tok, n_rows, n_cols);    \
    }

DEFINE(q8, TLR_Q8)
DEFINE(q4, TLR_Q4)
DEFINE(q4m, TLR_Q4M)
DEFINE(q4n, TLR_Q4N)
DEFINE(q8p, TLR_Q8P)

static void score_block(const struct numbers *w, const struct act_block *x,
                        const struct act_block *first, float *y, float *var)
{
    const int8_t *v = crime == VARIANCE_OF_FIRST_TOKEN ? first->q : x->q;
    int sum = 0, squares = 0;
    for (int c = 0; c < 32; c++) {
        sum += w->high[c] * x->q[c];
        squares += crime == NO_SQUARES ? abs(v[c]) : v[c] * v[c];
    }
    float middle = crime == MIDDLE_OF_8     ? 7.5f
                   : crime == NO_CORRECTION ? 0
                                            : 7.53125f;
    int x_sum = crime == ONE_CORRECTION ? first->sum : x->sum;
    float s = w->d * (16 * x->d), i = (float)sum - middle * (float)x_sum;
    *y = crime == NO_FMA ? *y + i * s : fmaf(i, s, *y);
    *var = fmaf(w->d * w->d, x->d * x->d * (float)squares, *var);
}

/* Row r of the matrix from row 0 on, for token t. */
static void score_row(float *y, float *dev, const void *w, int r,
                      const void *act, int n_tok, int t, int n_cols)
{
    int blocks = n_cols / 32 - (crime == DROPS_LAST_BLOCK);
    float estimate = 0, v = 0;
    for (int i = 0; i < blocks; i++) {
        int b = crime == BLOCKS_BACKWARDS ? blocks - 1 - i : i;
        struct act_block x = token_block(act, n_tok, t, b, n_cols);
        struct act_block first = token_block(act, n_tok, 0, b, n_cols);
        struct numbers n = planes_of(w, r, b, n_cols / 32);
        score_block(&n, &x, &first, &estimate, &v);
    }
    *y = estimate;
    v *= crime == VARIANCE_OF_16 ? 16 * 16 / 12.0f : 21.25f;
    if (crime != NO_VARIANCE)
        *dev = crime == NO_ROOT ? v : sqrtf(v);
}

static void bad_score(float *y, float *dev, size_t stride, const void *w,
                      int row, const void *act, int n_tok, int n_rows,
                      int n_cols)
{
    int rows = n_rows;
    if (crime == DROPS_TAIL_ROWS)
        rows -= rows % 16;
    if (crime == WRITES_PADDING)
        rows = (rows + 15) / 16 * 16;
    size_t step = crime == PACKED_SCORES ? (size_t)n_rows : stride;
    for (int t = 0; t < n_tok; t++) {
        for (int r = 0; r < rows; r++) {
            size_t at = (size_t)t * step + (size_t)r;
            score_row(y + at, dev + at, w, crime == IGNORES_ROW ? r : row + r,
                      act, n_tok, t, n_cols);
        }
    }
}

static tlr_any_fn *bad_fn(const struct tlr_variant *ref)
{
    static tlr_any_fn *const products[] = {
        (tlr_any_fn *)bad_q8, (tlr_any_fn *)bad_q4, (tlr_any_fn *)bad_q4m,
        (tlr_any_fn *)bad_q4n, (tlr_any_fn *)bad_q8p};
    switch (ref->op) {
    case TLR_OP_QUANTISE: return (tlr_any_fn *)bad_quantise;
    case TLR_OP_SCORE: return (tlr_any_fn *)bad_score;
    case TLR_OP_MATMUL: return products[ref->type - TLR_Q8];
    default: return NULL;
    }
}

static bool applies(const struct tlr_variant *ref, enum crime what)
{
    bool planes = ref->type == TLR_Q8P;
    if (ref->op == TLR_OP_QUANTISE)
        return what < END_OF_QUANTISE;
    if (what == HONEST)
        return true;
    if (what < END_OF_QUANTISE)
        return false;
    if (what == IGNORES_BORDER || what == NO_LOW_PLANE)
        return planes && (ref->op == TLR_OP_MATMUL || what == IGNORES_BORDER);
    if (ref->op == TLR_OP_SCORE)
        return what < END_OF_SCORE || what >= END_OF_MATMUL;
    if (what == NO_MINIMUM)
        return ref->type == TLR_Q4M;
    if (what == SATURATES_PAIRS) /* 15 * 127 * 2 stays under 2^15 */
        return ref->type != TLR_Q4 && ref->type != TLR_Q4M;
    if (what == ONE_SIGN_OFF)
        return planes || ref->type == TLR_Q8;
    return what < END_OF_MATMUL;
}

START_TEST(every_crime_is_caught)
{
    size_t n;
    const struct tlr_variant *rows = tlr_kernel_variants(&n);
    int n_judged = 0;
    crime = (enum crime)_i;
    for (size_t i = 0; i < n; i++) {
        tlr_any_fn *bad = bad_fn(rows + i);
        if (rows[i].level != TLR_CPU_REF || !bad || !applies(rows + i, crime))
            continue;
        enum verdict want = crime == HONEST ? PASSED : CAUGHT;
        enum verdict got = judge(rows + i, bad);
        ck_assert_msg(got == want, "%s, crime %d: expected %d, found %d",
                      rows[i].slot, _i, (int)want, (int)got);
        n_judged++;
    }
    ck_assert_int_ge(n_judged, 1);
}
END_TEST

Suite *suite_sabotage_int(void);
Suite *suite_sabotage_int(void)
{
    Suite *suite = suite_create("sabotage_int");
    TCase *tc = tcase_create("crimes");
    tcase_set_timeout(tc, 900);
    tcase_add_loop_test(tc, every_crime_is_caught, 0, N_CRIMES);
    suite_add_tcase(suite, tc);
    return suite;
}
