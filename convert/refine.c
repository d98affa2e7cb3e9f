/* refine.c - coordinate descent on rounded rows (compensate.h says on what).
 *
 * Sixteen rows go side by side, one a lane.  With g = H (w - q) at hand the best
 * value of one number is q + g/h in the middle of its levels, and the best scale
 * of a block is one division too; both only ever lower the loss.  Behaviour of
 * the method on language models: Behdin et al. 2023 (QuantEase, arXiv
 * 2309.01885), section 3.  Ours: scales take part, and g is brought up to date
 * once a block.
 */
#include "convert/compensate.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "kernels/quant.h"

enum { BLOCK = TLR_TILE_COLS, LANES = TLR_TILE_ROWS, SWEEPS = 4, TURNS = 2 };

/* One block of all lanes. */
struct block {
    float level[BLOCK][LANES], g[BLOCK][LANES];
    float moved[BLOCK][LANES]; /* what q gained since g was exact elsewhere */
    float d[LANES];
    const float *h; /* its diagonal block, rows n apart */
    uint32_t n;
};

static void move(struct block *b, int column, const float *by)
{
    const float *h = b->h + (size_t)column * b->n;
    for (int k = 0; k < BLOCK; k++) {
        for (int i = 0; i < LANES; i++) {
            b->g[k][i] -= h[k] * by[i];
        }
    }
    for (int i = 0; i < LANES; i++) {
        b->moved[column][i] += by[i];
    }
}

static void improve_scales(struct block *b)
{
    float above[LANES] = {0}, below[LANES] = {0}, by[LANES];
    for (int j = 0; j < BLOCK; j++) {
        float sum[LANES] = {0};
        for (int k = 0; k < BLOCK; k++) {
            for (int i = 0; i < LANES; i++) {
                sum[i] += b->h[(size_t)j * b->n + (size_t)k] * b->level[k][i];
            }
        }
        for (int i = 0; i < LANES; i++) {
            above[i] += b->level[j][i] * b->g[j][i];
            below[i] += b->level[j][i] * sum[i];
        }
    }
    float step[LANES];
    for (int i = 0; i < LANES; i++) {
        float d = below[i] > 0 ? b->d[i] + above[i] / below[i] : b->d[i];
        d = fmaxf(-65504, fminf(65504, d));
        d = tlr_f16_to_f32(tlr_f32_to_f16(d));
        step[i] = d - b->d[i];
        b->d[i] = d;
    }
    for (int j = 0; j < BLOCK; j++) {
        for (int i = 0; i < LANES; i++) {
            by[i] = step[i] * b->level[j][i];
        }
        move(b, j, by);
    }
}

static void improve_numbers(struct block *b)
{
    for (int j = 0; j < BLOCK; j++) {
        float h = b->h[(size_t)j * b->n + (size_t)j];
        float v[LANES], level[LANES], by[LANES];
        for (int i = 0; i < LANES; i++) {
            float size = h * b->d[i];
            v[i] = size != 0 ? b->level[j][i] + b->g[j][i] / size
                             : b->level[j][i];
        }
        tlr_q4n_nearest(level, v, LANES);
        for (int i = 0; i < LANES; i++) {
            by[i] = b->d[i] * (level[i] - b->level[j][i]);
            b->level[j][i] = level[i];
        }
        move(b, j, by);
    }
}

static void read_block(struct block *b, const uint8_t *tile)
{
    for (int i = 0; i < LANES; i++) {
        b->d[i] = tlr_f16_to_f32((uint16_t)(tile[2 * i] | tile[2 * i + 1] << 8));
        for (int c = 0; c < BLOCK; c++) {
            unsigned byte = tile[2 * LANES + c / 8 * 64 + i * 4 + c % 4];
            b->level[c][i] = tlr_q4n_levels[c % 8 < 4 ? byte & 15 : byte >> 4];
        }
    }
}

static void write_block(const struct block *b, uint8_t *tile)
{
    for (int i = 0; i < LANES; i++) {
        uint8_t n[BLOCK];
        for (int c = 0; c < BLOCK; c++) {
            n[c] = tlr_q4n_number(b->level[c][i]);
        }
        tlr_tile_put_q4(tile, i, tlr_f32_to_f16(b->d[i]), n);
    }
}

/* g[n, 16] = H (w - q), by way of the errors. */
static void start(const struct tlr_factor *f, const uint8_t *band,
                  const float *rows, float *g, float *error, uint32_t n_rows)
{
    uint32_t n = f->n;
    memset(error, 0, (size_t)n * LANES * sizeof *error);
    for (uint32_t r = 0; r < n_rows; r++) {
        tlr_row_decode(TLR_Q4N, g, band, r, (int)n);
        for (uint32_t c = 0; c < n; c++) {
            error[(size_t)c * LANES + r] = rows[(size_t)r * n + c] - g[c];
        }
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, LANES,
                (int)n, 1.0f, f->h, (int)n, error, LANES, 0.0f, g, LANES);
}

void tlr_refine_band(const struct tlr_factor *f, void *band, const float *rows,
                     float *g, float *error, uint32_t n_rows)
{
    uint32_t n = f->n, n_blocks = n / BLOCK;
    start(f, band, rows, g, error, n_rows);
    for (uint32_t i = 0; i < SWEEPS * n_blocks; i++) {
        uint32_t at = f->order[i % n_blocks * BLOCK] / BLOCK * BLOCK;
        uint8_t *tile = (uint8_t *)band +
                        (size_t)(at / BLOCK) * tlr_tile_bytes(TLR_Q4N);
        struct block b = {.h = f->h + (size_t)at * n + at, .n = n};
        memcpy(b.g, g + (size_t)at * LANES, sizeof b.g);
        read_block(&b, tile);
        for (int turn = 0; turn < TURNS; turn++) {
            improve_scales(&b);
            improve_numbers(&b);
        }
        write_block(&b, tile);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, LANES,
                    BLOCK, -1.0f, f->h + at, (int)n, b.moved[0], LANES, 1.0f, g,
                    LANES);
    }
}
