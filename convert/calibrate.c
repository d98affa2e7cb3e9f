/* calibrate.c - runs a text through the source's model and sums x x'.
 *
 * The model that runs is the source in q8, whose inputs are those of the source
 * to half a percent.  The sums are made by two kinds of thread in turn: the
 * session's compute a chunk, then ours add it, tile by tile of the upper
 * triangle, so the order of every sum is fixed.
 */
#include "convert/calibrate.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "engine/tlr.h"

enum {
    WINDOW = 512, /* ids that are read together */
    MAX_THREADS = 16,
    TILE = 256 /* rows and columns of a sum that one thread adds at once */
};

static const uint64_t default_memory = UINT64_C(640) << 20;

struct sum {
    float *h; /* [n, n], upper triangle */
    uint32_t n;
};

struct tlr_calibration {
    FILE *file;
    struct tlr_model *model;
    struct tlr_session *session;
    struct tlr_pool *pool;
    struct tlr_ids ids;
    size_t n_windows;
    uint32_t first, n_layers, per_pass; /* layers whose sums are there */
    struct sum (*sums)[TLR_N_INPUTS]; /* [per_pass] */
    struct tlr_factor factor;
    uint32_t factor_layer;
    enum tlr_input factor_input;
    uint64_t done;
    int (*on_window)(void *ctx, uint64_t done);
    void *on_window_ctx;
};

/* ---- sums ---- */

struct addition {
    const struct sum *sum;
    const float *x;
    size_t x_stride;
    int n_tok;
};

static void add_tile(void *ctx, int item, int thread)
{
    (void)thread;
    const struct addition *a = ctx;
    uint32_t row = 0, n = a->sum->n, n_tiles = (n + TILE - 1) / TILE;
    uint32_t left = (uint32_t)item;
    while (left >= n_tiles - row) {
        left -= n_tiles - row;
        row++;
    }
    uint32_t i = row * TILE, j = (row + left) * TILE;
    uint32_t n_i = n - i < TILE ? n - i : TILE;
    uint32_t n_j = n - j < TILE ? n - j : TILE;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_i, (int)n_j,
                a->n_tok, 1.0f, a->x + i, (int)a->x_stride, a->x + j,
                (int)a->x_stride, 1.0f, a->sum->h + (size_t)i * n + j, (int)n);
}

static void observe(void *ctx, uint32_t layer, enum tlr_input input,
                    const float *x, size_t x_stride, int n_tok, uint32_t n_cols)
{
    struct tlr_calibration *c = ctx;
    if (input == TLR_INPUT_HEAD || layer < c->first ||
        layer >= c->first + c->n_layers) {
        return;
    }
    const struct sum *sum = &c->sums[layer - c->first][input];
    struct addition a = {sum, x, x_stride, n_tok};
    uint32_t n_tiles = (n_cols + TILE - 1) / TILE;
    tlr_pool_run(c->pool, add_tile, &a, (int)(n_tiles * (n_tiles + 1) / 2));
}

static uint32_t width_of(const struct tlr_config *config, int input)
{
    return input == TLR_INPUT_O      ? config->n_heads * config->head_dim
           : input == TLR_INPUT_DOWN ? config->ffn_dim
                                     : config->dim;
}

/* Reads the text for the layers from `first` on. */
static int gather(struct tlr_calibration *c, uint32_t first,
                  struct tlr_err *err)
{
    const struct tlr_config *config = tlr_model_config(c->model);
    uint32_t left = config->n_layers - first;
    c->first = first;
    c->n_layers = left < c->per_pass ? left : c->per_pass;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        for (int i = 0; i < TLR_INPUT_HEAD; i++) {
            struct sum *s = &c->sums[l][i];
            memset(s->h, 0, (size_t)s->n * s->n * sizeof *s->h);
        }
    }
    int rc = tlr_session_observe(c->session, observe, c, err);
    for (size_t w = 0; w < c->n_windows && !rc; w++) {
        rc = tlr_rewind(c->session, 0, err);
        if (!rc) {
            rc = tlr_prefill(c->session, c->ids.ids + w * WINDOW, WINDOW, 0,
                             err);
        }
        c->done++;
        if (!rc && c->on_window && c->on_window(c->on_window_ctx, c->done)) {
            rc = tlr_err_set(err, TLR_ECANCELLED,
                             "calibration: stopped; nothing was written");
        }
    }
    tlr_session_observe(c->session, NULL, NULL, NULL);
    return rc;
}

/* ---- factors ---- */

/* Layer and input of our i-th tensor; false when it has none. */
static bool place_of(const struct tlr_config *config, uint32_t i,
                     uint32_t *layer, enum tlr_input *input)
{
    static const struct {
        const char *role;
        enum tlr_input input;
    } roles[] = {{"q", TLR_INPUT_QKV},       {"k", TLR_INPUT_QKV},
                 {"v", TLR_INPUT_QKV},       {"o", TLR_INPUT_O},
                 {"gate", TLR_INPUT_GATE_UP}, {"up", TLR_INPUT_GATE_UP},
                 {"down", TLR_INPUT_DOWN}};
    struct tlr_tensor_want want;
    char role[sizeof want.name];
    tlr_config_tensor(config, i, &want);
    if (sscanf(want.name, "blk.%u.%47s", layer, role) != 2) {
        return false;
    }
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
        if (strcmp(role, roles[k].role) == 0) {
            *input = roles[k].input;
            return true;
        }
    }
    return false;
}

int tlr_calibration_factor(struct tlr_calibration *c, uint32_t i,
                           const struct tlr_factor **out, struct tlr_err *err)
{
    uint32_t layer;
    enum tlr_input input;
    *out = &c->factor;
    if (!place_of(tlr_model_config(c->model), i, &layer, &input)) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "tensor number %u is no matrix of a layer", i);
    }
    if (c->factor.u && c->factor_layer == layer && c->factor_input == input) {
        return 0;
    }
    int rc = 0;
    if (layer < c->first || layer >= c->first + c->n_layers) {
        tlr_factor_clear(&c->factor);
        rc = gather(c, layer, err);
    }
    if (rc) {
        return rc;
    }
    tlr_factor_clear(&c->factor);
    const struct sum *s = &c->sums[layer - c->first][input];
    c->factor_layer = layer;
    c->factor_input = input;
    return tlr_factor_make(&c->factor, s->h, s->n, err);
}

/* ---- begin and end ---- */

/* As many layers' as fit, at least one's. */
static int make_sums(struct tlr_calibration *c, uint64_t memory,
                     struct tlr_err *err)
{
    const struct tlr_config *config = tlr_model_config(c->model);
    uint64_t layer = 0;
    for (int i = 0; i < TLR_INPUT_HEAD; i++) {
        uint64_t n = width_of(config, i);
        layer += n * n * sizeof(float);
    }
    uint64_t fit = (memory ? memory : default_memory) / layer;
    c->per_pass = fit < 1                  ? 1
                  : fit > config->n_layers ? config->n_layers
                                           : (uint32_t)fit;
    c->sums = tlr_calloc(c->per_pass, sizeof *c->sums);
    for (uint32_t l = 0; c->sums && l < c->per_pass; l++) {
        for (int i = 0; i < TLR_INPUT_HEAD; i++) {
            size_t n = width_of(config, i);
            c->sums[l][i].n = (uint32_t)n;
            c->sums[l][i].h = tlr_alloc_aligned(n * n * sizeof(float));
            if (!c->sums[l][i].h) {
                return tlr_err_nomem(err, "calibration", n * n * sizeof(float));
            }
        }
    }
    return c->sums ? 0 : tlr_err_nomem(err, "calibration", 0);
}

static int cut_text(struct tlr_calibration *c,
                    const struct tlr_convert_options *o, struct tlr_err *err)
{
    int rc = tlr_encode(tlr_model_tokenizer(c->model), o->calibration_text,
                        o->calibration_bytes, TLR_ENCODE_BOS, &c->ids, err);
    if (rc) {
        return rc;
    }
    size_t n = c->ids.n < o->calibration_tok ? c->ids.n : o->calibration_tok;
    c->n_windows = n / WINDOW;
    if (c->n_windows == 0) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "calibration text: expected %d tokens or more, "
                           "found %zu; give a longer text",
                           WINDOW, n);
    }
    return 0;
}

static int open_model(struct tlr_calibration *c, struct tlr_source *src,
                      struct tlr_err *err)
{
    static const char label[] = "calibration model";
    struct tlr_convert_options q8 = {.type = TLR_RECIPE_Q8};
    struct tlr_file *file;
    struct tlr_convert_report report;
    c->file = tmpfile();
    if (!c->file) {
        return tlr_err_set(err, TLR_EIO,
                           "calibration: no temporary file; free space in the "
                           "folder for such files");
    }
    int rc = tlr_convert_fd(src, fileno(c->file), label, &q8, &report, err);
    if (rc || (rc = tlr_file_open_fd(&file, fileno(c->file), label, NULL,
                                     err)) ||
        (rc = tlr_model_from_file(&c->model, file, err))) {
        return rc;
    }
    if (!tlr_model_tokenizer(c->model)) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "calibration: this source has no tokenizer, so it "
                           "cannot read a text");
    }
    return 0;
}

int tlr_calibration_new(struct tlr_calibration **out, struct tlr_source *src,
                        const struct tlr_convert_options *options,
                        struct tlr_err *err)
{
    *out = NULL;
    struct tlr_calibration *c = tlr_calloc(1, sizeof *c);
    if (!c) {
        return tlr_err_nomem(err, "calibration", sizeof *c);
    }
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    o.n_ctx = o.n_batch = WINDOW;
    int n_threads = tlr_default_threads();
    int rc = open_model(c, src, err);
    if (rc || (rc = cut_text(c, options, err)) ||
        (rc = tlr_session_new(&c->session, c->model, &o, err)) ||
        (rc = tlr_pool_new(&c->pool,
                           n_threads > MAX_THREADS ? MAX_THREADS : n_threads,
                           err)) ||
        (rc = make_sums(c, options->calibration_memory, err))) {
        tlr_calibration_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void tlr_calibration_free(struct tlr_calibration *c)
{
    if (!c) {
        return;
    }
    for (uint32_t l = 0; c->sums && l < c->per_pass; l++) {
        for (int i = 0; i < TLR_INPUT_HEAD; i++) {
            tlr_free(c->sums[l][i].h);
        }
    }
    tlr_free(c->sums);
    tlr_factor_clear(&c->factor);
    tlr_session_free(c->session);
    tlr_pool_free(c->pool);
    tlr_ids_clear(&c->ids);
    tlr_model_close(c->model);
    if (c->file) {
        fclose(c->file);
    }
    tlr_free(c);
}

uint64_t tlr_calibration_tokens(const struct tlr_calibration *c)
{
    return (uint64_t)c->n_windows * WINDOW;
}

uint64_t tlr_calibration_units(const struct tlr_calibration *c)
{
    uint32_t n_layers = tlr_model_config(c->model)->n_layers;
    uint64_t n_passes = (n_layers + c->per_pass - 1) / c->per_pass;
    return n_passes * c->n_windows;
}

void tlr_calibration_on_window(struct tlr_calibration *c,
                               int (*fn)(void *ctx, uint64_t done), void *ctx)
{
    c->on_window = fn;
    c->on_window_ctx = ctx;
}
