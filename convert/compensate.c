/* compensate.c - GPTQ for q4n: factor of H, and rounding of 16 rows with it. */
#include "convert/compensate.h"

#include <cblas.h>
#include <f77blas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/quant.h"

enum { BLOCK = TLR_TILE_COLS, TRIES = 16 };

/* Added to the diagonal, of its mean: keeps H invertible when there are fewer
 * tokens than columns, and errors from running away. */
static const double damping = 0.01;

struct strength {
    double value;
    uint32_t index;
};

/* Strong first; ties in place, so that the order is one. */
static int compare_strength(const void *a, const void *b)
{
    const struct strength *x = a, *y = b;
    if (x->value != y->value) {
        return x->value > y->value ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

/* Blocks by the sum of their diagonal, columns of a block by their own. */
static int choose_order(struct tlr_factor *f, const float *h,
                        struct tlr_err *err)
{
    uint32_t n = f->n, n_blocks = n / BLOCK;
    struct strength *blocks = tlr_calloc(n_blocks, sizeof *blocks);
    if (!blocks) {
        return tlr_err_nomem(err, "order of columns", n * sizeof *blocks);
    }
    for (uint32_t b = 0; b < n_blocks; b++) {
        blocks[b].index = b;
        for (uint32_t c = b * BLOCK; c < (b + 1) * BLOCK; c++) {
            blocks[b].value += (double)h[(size_t)c * n + c];
        }
    }
    qsort(blocks, n_blocks, sizeof *blocks, compare_strength);
    for (uint32_t b = 0; b < n_blocks; b++) {
        struct strength columns[BLOCK];
        for (uint32_t c = 0; c < BLOCK; c++) {
            uint32_t at = blocks[b].index * BLOCK + c;
            columns[c] = (struct strength){(double)h[(size_t)at * n + at], at};
        }
        qsort(columns, BLOCK, sizeof *columns, compare_strength);
        for (uint32_t c = 0; c < BLOCK; c++) {
            f->order[b * BLOCK + c] = columns[c].index;
        }
    }
    tlr_free(blocks);
    return 0;
}

static void reverse(float *x, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        float t = x[i];
        x[i] = x[n - 1 - i];
        x[n - 1 - i] = t;
    }
}

/* u: with the columns in reversed order H = L L', L lower; the inverse of L,
 * reversed again, is the u wanted.  LAPACK counts by columns, so its upper
 * triangle is the lower one of our rows. */
static int factorise(float *u, const struct tlr_factor *f, const float *h,
                     double add, struct tlr_err *err)
{
    uint32_t n = f->n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = f->order[n - 1 - i];
        float *row = u + (size_t)i * n;
        for (uint32_t j = 0; j <= i; j++) {
            uint32_t b = f->order[n - 1 - j];
            row[j] = a < b ? h[(size_t)a * n + b] : h[(size_t)b * n + a];
        }
        row[i] = row[i] > 0 ? row[i] + (float)add : (float)(add / damping);
        memset(row + i + 1, 0, (n - 1 - i) * sizeof *row);
    }
    char upper = 'U', plain = 'N';
    blasint size = (blasint)n, info = 0;
    spotrf_(&upper, &size, u, &size, &info);
    if (info == 0) {
        strtri_(&upper, &plain, &size, u, &size, &info);
    }
    if (info != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "calibration: the inputs of a matrix of %u columns "
                           "do not give a positive definite form; use a longer "
                           "text",
                           n);
    }
    reverse(u, (size_t)n * n);
    return 0;
}

/* What is added to the diagonal belongs to H from here on. */
static void mirror(float *out, const float *h, uint32_t n, double add)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = i; j < n; j++) {
            float v = h[(size_t)i * n + j];
            out[(size_t)i * n + j] = out[(size_t)j * n + i] = v;
        }
        float *d = &out[(size_t)i * n + i];
        *d = *d > 0 ? *d + (float)add : (float)(add / damping);
    }
}

int tlr_factor_make(struct tlr_factor *out, const float *h, uint32_t n,
                    struct tlr_err *err)
{
    *out = (struct tlr_factor){.n = n};
    double trace = 0;
    for (uint32_t i = 0; i < n; i++) {
        trace += (double)h[(size_t)i * n + i];
    }
    size_t bytes = (size_t)n * n * sizeof(float);
    out->order = tlr_calloc(n, sizeof *out->order);
    out->u = tlr_alloc_aligned(bytes);
    out->h = tlr_alloc_aligned(bytes);
    int rc = out->order && out->u && out->h
                 ? choose_order(out, h, err)
                 : tlr_err_nomem(err, "calibration", bytes);
    if (!rc) {
        double mean = trace > 0 ? trace / n : 1;
        mirror(out->h, h, n, damping * mean);
        rc = factorise(out->u, out, h, damping * mean, err);
    }
    if (rc) {
        tlr_factor_clear(out);
    }
    return rc;
}

void tlr_factor_clear(struct tlr_factor *f)
{
    tlr_free(f->order);
    tlr_free(f->u);
    tlr_free(f->h);
    *f = (struct tlr_factor){0};
}

/* One block of one row, tried with TRIES scales side by side: lane t of each
 * array belongs to scale d[t]. */
struct trial {
    float w[BLOCK][TRIES];     /* weights, compensated so far */
    float level[BLOCK][TRIES];
    float error[BLOCK][TRIES]; /* what rounding lost, over the diagonal of u */
    float d[TRIES], inverse[TRIES], loss[TRIES];
};

static void round_column(struct trial *t, int j, float diagonal)
{
    float *level = t->level[j], *error = t->error[j], v[TRIES];
    for (int i = 0; i < TRIES; i++) {
        v[i] = t->w[j][i] * t->inverse[i];
    }
    tlr_q4n_nearest(level, v, TRIES);
    for (int i = 0; i < TRIES; i++) {
        error[i] = (t->w[j][i] - t->d[i] * level[i]) / diagonal;
        t->loss[i] += error[i] * error[i];
    }
}

/* u points at the block's diagonal element, rows n apart. */
static int try_scales(struct trial *t, const float *w, const float *u,
                      uint32_t n)
{
    for (int j = 0; j < BLOCK; j++) {
        for (int i = 0; i < TRIES; i++) {
            t->w[j][i] = w[j];
        }
    }
    memset(t->loss, 0, sizeof t->loss);
    for (int j = 0; j < BLOCK; j++) {
        const float *row = u + (size_t)j * n;
        round_column(t, j, row[j]);
        for (int k = j + 1; k < BLOCK; k++) {
            for (int i = 0; i < TRIES; i++) {
                t->w[k][i] -= t->error[j][i] * row[k];
            }
        }
    }
    int best = 0;
    for (int i = 1; i < TRIES; i++) {
        best = t->loss[i] < t->loss[best] ? i : best;
    }
    return best;
}

/* Scales that put the extreme weight on levels from 100 to 142, of both signs. */
static void choose_scales(struct trial *t, const float *w)
{
    float extreme = 0;
    for (int j = 0; j < BLOCK; j++) {
        extreme = fabsf(w[j]) > fabsf(extreme) ? w[j] : extreme;
    }
    for (int i = 0; i < TRIES; i++) {
        float end = 100 + 6 * (float)(i / 2);
        float d = extreme / (i % 2 ? end : -end);
        d = tlr_f16_to_f32(tlr_f32_to_f16(fmaxf(-65504, fminf(65504, d))));
        t->d[i] = d;
        t->inverse[i] = d != 0 ? 1 / d : 0;
    }
}

/* Rounds block `at` (in our order) of one row into its tile; error [32]. */
static void round_block(const struct tlr_factor *f, uint32_t at, uint8_t *band,
                        uint32_t lane, const float *w, float *error)
{
    struct trial t;
    choose_scales(&t, w);
    int best = try_scales(&t, w, f->u + (size_t)at * f->n + at, f->n);
    uint32_t block = f->order[at] / BLOCK;
    uint8_t numbers[BLOCK];
    for (uint32_t j = 0; j < BLOCK; j++) {
        numbers[f->order[at + j] % BLOCK] = tlr_q4n_number(t.level[j][best]);
        error[j] = t.error[j][best];
    }
    tlr_tile_put_q4(band + (size_t)block * tlr_tile_bytes(TLR_Q4N), (int)lane,
                    tlr_f32_to_f16(t.d[best]), numbers);
}

void tlr_compensate_band(const struct tlr_factor *f, void *band, float *rows,
                         float *scratch, uint32_t n_rows)
{
    uint32_t n = f->n;
    memset(band, 0, (size_t)tlr_band_bytes(TLR_Q4N, n));
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *from = rows + (size_t)r * n;
        for (uint32_t c = 0; c < n; c++) {
            scratch[(size_t)r * n + c] = from[f->order[c]];
        }
    }
    float *error = rows; /* [n_rows, 32] */
    for (uint32_t at = 0; at < n; at += BLOCK) {
        for (uint32_t r = 0; r < n_rows; r++) {
            round_block(f, at, band, r, scratch + (size_t)r * n + at,
                        error + (size_t)r * BLOCK);
        }
        uint32_t next = at + BLOCK;
        if (next < n) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows,
                        (int)(n - next), BLOCK, -1.0f, error, BLOCK,
                        f->u + (size_t)at * n + next, (int)n, 1.0f,
                        scratch + next, (int)n);
        }
    }
}
