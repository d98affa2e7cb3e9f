/* linear.c - matrix times tokens, split into items over the thread pool.
 *
 * The one decision: an item is a fixed number of rows that follows from the
 * matrix alone, never from the number of threads, so the bits of a result do
 * not either.  Few tokens stream the stored weights through a matvec kernel;
 * many tokens dequantise a panel of rows into the thread's scratch and hand it
 * to SGEMM (f32 weights are used in place).
 */
#include "engine/linear.h"

#include <cblas.h>
#include <pthread.h>
#include <sys/mman.h>

enum {
    MATVEC_ITEM_ELEMENTS = 65536, /* some microseconds of streaming */
    MATVEC_ITEM_ROWS = 256,       /* at most */
    PANEL_ELEMENTS = 262144,      /* 1 MiB of f32: stays in L2 */
    PANEL_ROWS_MIN = 64,
    PANEL_ROWS_MAX = 128,
    BLAS_BUFFER_BYTES = 128 << 20 /* what OpenBLAS maps for AVX-512 */
};

struct region {
    const struct tlr_linear_env *env;
    const struct tlr_linear *jobs;
    int n_jobs;
    bool glu; /* jobs[0] and jobs[1] share an item */
    const float *x;
    size_t x_stride;
    int n_tok;
    int item_rows;
};

static int clamp_rows(uint32_t elements, uint32_t n_cols, int lo, int hi)
{
    int rows = (int)(elements / n_cols) / TLR_TILE_ROWS * TLR_TILE_ROWS;
    return rows < lo ? lo : rows > hi ? hi : rows;
}

static int panel_rows(uint32_t n_cols)
{
    return clamp_rows(PANEL_ELEMENTS, n_cols, PANEL_ROWS_MIN, PANEL_ROWS_MAX);
}

size_t tlr_linear_panel_floats(uint32_t n_cols)
{
    return (size_t)panel_rows(n_cols) * n_cols;
}

static bool uses_matvec(const struct region *r)
{
    return r->n_tok <= TLR_MAX_BRANCHES;
}

static int n_items(const struct region *r, const struct tlr_linear *job)
{
    return (int)((job->w->n_rows + (uint32_t)r->item_rows - 1) /
                 (uint32_t)r->item_rows);
}

/* Rows [row, row + n) of one job for all tokens. */
static void run_rows(const struct region *r, const struct tlr_linear *job,
                     int row, int n, int thread)
{
    const struct tlr_kernels *k = r->env->kernels;
    const struct tlr_tensor *w = job->w;
    const void *data =
        (const uint8_t *)w->data +
        (uint64_t)(row / TLR_TILE_ROWS) * tlr_band_bytes(w->type, w->n_cols);
    float *y = job->y + row;
    int n_cols = (int)w->n_cols;
    if (uses_matvec(r)) {
        k->matvec[w->type](y, job->y_stride, data, r->x, r->x_stride, r->n_tok,
                           n, n_cols);
        return;
    }
    const float *panel = data;
    if (w->type != TLR_F32) {
        float *scratch = r->env->panels + (size_t)thread * r->env->panel_floats;
        k->dequant[w->type](scratch, data, n, n_cols);
        panel = scratch;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r->n_tok, n, n_cols,
                1.0f, r->x, (int)r->x_stride, panel, n_cols, 0.0f, y,
                (int)job->y_stride);
}

static void run_item(void *ctx, int item, int thread)
{
    const struct region *r = ctx;
    const struct tlr_linear *job = r->jobs;
    while (!r->glu && item >= n_items(r, job)) {
        item -= n_items(r, job);
        job++;
    }
    int row = item * r->item_rows;
    int left = (int)job->w->n_rows - row;
    int n = left < r->item_rows ? left : r->item_rows;
    run_rows(r, job, row, n, thread);
    if (!r->glu) {
        return;
    }
    const struct tlr_linear *up = job + 1;
    run_rows(r, up, row, n, thread);
    for (int t = 0; t < r->n_tok; t++) {
        float *g = job->y + (size_t)t * job->y_stride + row;
        r->env->kernels->swiglu(g, g, up->y + (size_t)t * up->y_stride + row,
                                n);
    }
}

static void run_region(struct region *r)
{
    uint32_t n_cols = r->jobs[0].w->n_cols;
    r->item_rows = uses_matvec(r)
                       ? clamp_rows(MATVEC_ITEM_ELEMENTS, n_cols, TLR_TILE_ROWS,
                                    MATVEC_ITEM_ROWS)
                       : panel_rows(n_cols);
    int total = 0;
    for (int i = 0; i < (r->glu ? 1 : r->n_jobs); i++) {
        total += n_items(r, &r->jobs[i]);
    }
    tlr_pool_run(r->env->pool, run_item, r, total);
}

void tlr_linear_run(const struct tlr_linear_env *env,
                    const struct tlr_linear *jobs, int n_jobs, const float *x,
                    size_t x_stride, int n_tok)
{
    struct region r = {.env = env, .jobs = jobs, .n_jobs = n_jobs, .x = x,
                       .x_stride = x_stride, .n_tok = n_tok};
    run_region(&r);
}

void tlr_linear_run_glu(const struct tlr_linear_env *env,
                        const struct tlr_linear *gate,
                        const struct tlr_linear *up, const float *x,
                        size_t x_stride, int n_tok)
{
    struct tlr_linear jobs[2] = {*gate, *up};
    struct region r = {.env = env, .jobs = jobs, .n_jobs = 2, .glu = true,
                       .x = x, .x_stride = x_stride, .n_tok = n_tok};
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
