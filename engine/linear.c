/* linear.c - matrix times tokens, split into items over the thread pool.
 *
 * The one decision: an item is a fixed number of rows that follows from the
 * matrices alone, never from the number of threads, so the bits of a result do
 * not either.  Tiled weights meet rounded activations in one integer kernel for
 * any number of tokens.  f32 and bf16 weights stream through a matvec kernel
 * for few tokens and, a panel of rows at a time, through SGEMM for many.
 */
#include "engine/linear.h"

#include <cblas.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum {
    /* Few tokens: memory is the limit.  Items long enough to stream, so many
     * that threads end together. */
    STREAM_ITEMS = 64,
    STREAM_ITEM_BYTES = 16384, /* at least */
    STREAM_ITEM_ROWS = 256,    /* at most */
    /* Many tokens. */
    GEMM_ROWS = 64,
    PANEL_ELEMENTS = 262144, /* 1 MiB of f32: stays in L2 */
    PANEL_ROWS_MAX = 128,
    ROUND_COLS = 256, /* of one piece of int16 rounding, a multiple of 32 */
    BLAS_BUFFER_BYTES = 128 << 20 /* what OpenBLAS maps for AVX-512 */
};

struct region {
    const struct tlr_linear_env *env;
    const struct tlr_rows *in;
    const struct tlr_linear *jobs;
    int n_jobs;
    const struct tlr_rows *out; /* of jobs[0] and jobs[1], which share an item;
                                    else NULL */
    int item_rows;
};

/* ---- rounding ---- */

/* n_tok rows and their rests as one group of twice as many. */
static void round_pairs(const struct tlr_kernels *k, const struct tlr_rows *in,
                        uint32_t col, uint32_t n, const float *x,
                        size_t x_stride)
{
    uint8_t act[TLR_PAIRED_TOK * ROUND_COLS / 32 * TLR_ACT_BYTES];
    float both[2 * TLR_PAIRED_TOK * ROUND_COLS];
    for (uint32_t done = 0; done < n; done += ROUND_COLS) {
        size_t part = n - done < ROUND_COLS ? n - done : ROUND_COLS;
        float *rest = both + (size_t)in->n_tok * part;
        for (size_t t = 0; t < (size_t)in->n_tok; t++) {
            memcpy(both + t * part, x + t * x_stride + done,
                   part * sizeof *both);
        }
        k->quantise(act, rest, both, part, in->n_tok, (int)part);
        k->quantise(in->acts.first +
                        tlr_act_bytes(2 * (size_t)in->n_tok, col + done),
                    NULL, both, part, 2 * in->n_tok, (int)part);
    }
}

void tlr_linear_round_part(const struct tlr_kernels *k,
                           const struct tlr_rows *in, int tok, uint32_t col,
                           uint32_t n, const float *x, size_t x_stride)
{
    if (in->acts.is_paired) {
        round_pairs(k, in, col, n, x, x_stride);
        return;
    }
    int left = in->n_tok - tok;
    int n_tok = left < TLR_ACT_GROUP ? left : TLR_ACT_GROUP;
    size_t at = tlr_act_bytes((size_t)tok, in->n_cols) +
                tlr_act_bytes((size_t)n_tok, col);
    if (!in->acts.second) {
        k->quantise(in->acts.first + at, NULL, x, x_stride, n_tok, (int)n);
        return;
    }
    float rest[TLR_ACT_GROUP * ROUND_COLS];
    for (uint32_t done = 0; done < n; done += ROUND_COLS) {
        int part = (int)(n - done < ROUND_COLS ? n - done : ROUND_COLS);
        k->quantise(in->acts.first + at, rest, x + done, x_stride, n_tok, part);
        k->quantise(in->acts.second + at, NULL, rest, (size_t)part, n_tok,
                    part);
        at += tlr_act_bytes((size_t)n_tok, (size_t)part);
    }
}

static void round_group(void *ctx, int item, int thread)
{
    (void)thread;
    const struct region *r = ctx;
    int tok = item * TLR_ACT_GROUP;
    tlr_linear_round_part(r->env->kernels, r->in, tok, 0, r->in->n_cols,
                          r->in->x + (size_t)tok * r->in->x_stride,
                          r->in->x_stride);
}

void tlr_linear_round(const struct tlr_linear_env *env,
                      const struct tlr_rows *in)
{
    if (!in->acts.first) {
        return;
    }
    struct region r = {.env = env, .in = in};
    tlr_pool_run(env->pool, round_group, &r,
                 (in->n_tok + TLR_ACT_GROUP - 1) / TLR_ACT_GROUP);
}

/* ---- one item ---- */

static bool is_few(const struct tlr_rows *in)
{
    return in->n_tok <= TLR_MAX_BRANCHES;
}

static int panel_rows(uint32_t n_cols)
{
    int rows = (int)(PANEL_ELEMENTS / n_cols) / TLR_TILE_COLS * TLR_TILE_COLS;
    return rows < GEMM_ROWS ? GEMM_ROWS
                            : rows > PANEL_ROWS_MAX ? PANEL_ROWS_MAX : rows;
}

void tlr_linear_size(struct tlr_linear_env *env, uint32_t n_tok,
                     uint32_t widest_bf16)
{
    size_t few = (size_t)TLR_MAX_BRANCHES * STREAM_ITEM_ROWS;
    size_t many = (size_t)n_tok * PANEL_ROWS_MAX;
    env->item_floats = few > many ? few : many;
    size_t panel =
        widest_bf16 ? (size_t)panel_rows(widest_bf16) * widest_bf16 : 0;
    env->scratch_floats = (3 * env->item_floats + panel + 15) & ~(size_t)15;
}

struct item {
    int row, n;
    float *scratch; /* of the thread */
};

static void run_tiled(const struct region *r, const struct tlr_tensor *w,
                      const struct item *it, float *y, size_t y_stride)
{
    tlr_matmul_fn *matmul = r->env->kernels->matmul[w->type - TLR_Q8];
    const struct tlr_rows *in = r->in;
    int n_cols = (int)w->n_cols;
    float *rest = it->scratch + 2 * r->env->item_floats;
    size_t n = (size_t)it->n;
    if (in->acts.is_paired) {
        matmul(rest, n, w->data, it->row, in->acts.first, 2 * in->n_tok, it->n,
               n_cols);
        for (size_t t = 0; t < (size_t)in->n_tok; t++) {
            float *out = y + t * y_stride;
            memcpy(out, rest + t * n, n * sizeof *out);
            r->env->kernels->add(out, rest + ((size_t)in->n_tok + t) * n,
                                 it->n);
        }
        return;
    }
    matmul(y, y_stride, w->data, it->row, in->acts.first, in->n_tok, it->n,
           n_cols);
    if (!in->acts.second) {
        return;
    }
    matmul(rest, n, w->data, it->row, in->acts.second, in->n_tok, it->n, n_cols);
    for (size_t t = 0; t < (size_t)in->n_tok; t++) {
        r->env->kernels->add(y + t * y_stride, rest + t * n, it->n);
    }
}

/* f32 or bf16. */
static void run_plain(const struct region *r, const struct tlr_tensor *w,
                      const struct item *it, float *y, size_t y_stride)
{
    const struct tlr_kernels *k = r->env->kernels;
    const struct tlr_rows *in = r->in;
    int n_cols = (int)w->n_cols;
    size_t elem = w->type == TLR_F32 ? 4 : 2;
    const void *data =
        (const uint8_t *)w->data + (size_t)it->row * w->n_cols * elem;
    if (is_few(in)) {
        k->matvec[w->type](y, y_stride, data, in->x, in->x_stride, in->n_tok,
                           it->n, n_cols);
        return;
    }
    const float *panel = data;
    if (w->type != TLR_F32) {
        float *rows = it->scratch + 3 * r->env->item_floats;
        k->dequant[w->type](rows, data, it->n, n_cols);
        panel = rows;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, in->n_tok, it->n,
                n_cols, 1.0f, in->x, (int)in->x_stride, panel, n_cols, 0.0f, y,
                (int)y_stride);
}

static void run_rows(const struct region *r, const struct tlr_tensor *w,
                     const struct item *it, float *y, size_t y_stride)
{
    if (tlr_type_is_tiled(w->type)) {
        run_tiled(r, w, it, y, y_stride);
    } else {
        run_plain(r, w, it, y, y_stride);
    }
}

/* gate and up of some rows, and what `down` will read of them. */
static void run_glu_rows(const struct region *r, const struct item *it)
{
    const struct tlr_kernels *k = r->env->kernels;
    const struct tlr_rows *out = r->out;
    float *gate = it->scratch, *up = gate + r->env->item_floats;
    size_t n = (size_t)it->n;
    run_rows(r, r->jobs[0].w, it, gate, n);
    run_rows(r, r->jobs[1].w, it, up, n);
    for (int t = 0; t < out->n_tok; t++) {
        size_t at = (size_t)t * n;
        k->swiglu(gate + at, gate + at, up + at, it->n);
        if (out->x) {
            memcpy(out->x + (size_t)t * out->x_stride + it->row, gate + at,
                   n * sizeof *gate);
        }
    }
    for (int t = 0; out->acts.first && t < out->n_tok; t += TLR_ACT_GROUP) {
        tlr_linear_round_part(k, out, t, (uint32_t)it->row, (uint32_t)it->n,
                              gate + (size_t)t * n, n);
    }
}

static int n_items(const struct region *r, const struct tlr_linear *job)
{
    return (int)((job->w->n_rows + (uint32_t)r->item_rows - 1) /
                 (uint32_t)r->item_rows);
}

static void run_item(void *ctx, int item, int thread)
{
    const struct region *r = ctx;
    const struct tlr_linear *job = r->jobs;
    while (!r->out && item >= n_items(r, job)) {
        item -= n_items(r, job);
        job++;
    }
    struct item it = {.row = item * r->item_rows,
                      .scratch = r->env->scratch +
                                 (size_t)thread * r->env->scratch_floats};
    int left = (int)job->w->n_rows - it.row;
    it.n = left < r->item_rows ? left : r->item_rows;
    if (r->out) {
        run_glu_rows(r, &it);
    } else {
        run_rows(r, job->w, &it, job->y + it.row, job->y_stride);
    }
}

/* ---- regions ---- */

/* A multiple of 32 rows where one item rounds its outputs. */
static int few_rows(const struct region *r)
{
    uint64_t rows = 0, bytes = 0;
    for (int i = 0; i < r->n_jobs; i++) {
        rows += r->jobs[i].w->n_rows;
        bytes += r->jobs[i].w->n_bytes;
    }
    uint64_t want = bytes / STREAM_ITEMS;
    want = want > STREAM_ITEM_BYTES ? want : STREAM_ITEM_BYTES;
    uint64_t step = r->out ? TLR_TILE_COLS : TLR_TILE_ROWS;
    uint64_t n = want * rows / bytes / (r->out ? 2 : 1) / step * step;
    return (int)(n < step ? step : n > STREAM_ITEM_ROWS ? STREAM_ITEM_ROWS : n);
}

static void run_region(struct region *r)
{
    bool panels = false;
    for (int i = 0; i < r->n_jobs; i++) {
        panels = panels || !tlr_type_is_tiled(r->jobs[i].w->type);
    }
    r->item_rows = is_few(r->in) ? few_rows(r)
                   : panels      ? panel_rows(r->in->n_cols)
                                 : GEMM_ROWS;
    int total = 0;
    for (int i = 0; i < (r->out ? 1 : r->n_jobs); i++) {
        total += n_items(r, &r->jobs[i]);
    }
    tlr_pool_run(r->env->pool, run_item, r, total);
}

void tlr_linear_run(const struct tlr_linear_env *env,
                    const struct tlr_linear *jobs, int n_jobs,
                    const struct tlr_rows *in)
{
    struct region r = {.env = env, .in = in, .jobs = jobs, .n_jobs = n_jobs};
    run_region(&r);
}

void tlr_linear_run_glu(const struct tlr_linear_env *env,
                        const struct tlr_tensor *gate,
                        const struct tlr_tensor *up, const struct tlr_rows *in,
                        const struct tlr_rows *out)
{
    struct tlr_linear jobs[2] = {{.w = gate}, {.w = up}};
    struct region r = {.env = env, .in = in, .jobs = jobs, .n_jobs = 2,
                       .out = out};
    run_region(&r);
}

static void set_blas_threads(void)
{
    openblas_set_num_threads(1);
}

/* OpenBLAS maps a buffer for each calling thread and, refused, tries again for
 * ever; so the room is asked for here, where it can be an error. */
static int check_blas_room(int n_threads, struct tlr_err *err)
{
    size_t n_bytes = (size_t)n_threads * BLAS_BUFFER_BYTES;
    void *room = mmap(NULL, n_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return tlr_err_set(err, TLR_ENOMEM,
                           "session: expected %zu MiB of address space for "
                           "OpenBLAS, found less; raise the limit (ulimit -v) "
                           "or use fewer threads", n_bytes >> 20);
    }
    munmap(room, n_bytes);
    return 0;
}

int tlr_linear_setup(int n_threads, struct tlr_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_blas_threads);
    return check_blas_room(n_threads, err);
}
