/* verify.c - reads source and model again and holds every element of one
 * against the other.
 *
 * It shares no arithmetic with the conversion: the model is decoded by the
 * definition in kernels/quant.h, the source by its own blocks, and the allowed
 * distance follows from the largest value of a block of 32.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "convert/convert.h"
#include "convert/plan.h"

enum { DROP_BYTES = 32 << 20 }; /* source pages kept before they go back */

/* Smallest step of f16: what rounding a tiny scale may cost a quant. */
static const double f16_min_step = 1.0 / 16777216.0;

/* How far a value may have moved when its block x[n] was rounded to type. */
static double allowed(enum tlr_type type, const float *x, uint32_t n)
{
    double min = (double)x[0], max = min;
    for (uint32_t c = 1; c < n; c++) {
        /* not fmin, fmax: GCC 12.2 for Arm fails on them here */
        min = (double)x[c] < min ? (double)x[c] : min;
        max = (double)x[c] > max ? (double)x[c] : max;
    }
    double extreme = fmax(fabs(min), fabs(max));
    switch (type) {
    case TLR_Q8P:
    case TLR_Q8: /* half a step; the scale itself is rounded to 11 bits */
        return extreme / 127.0 * 0.57 + 64.0 * f16_min_step;
    case TLR_Q4: /* -8..7: the side opposite to the extreme loses a step */
        return extreme / 8.0 * 1.01 + 8.0 * f16_min_step;
    case TLR_Q4N: /* the widest gap of the levels, or what is clipped when the
                    scale is the smallest that is tried */
        return extreme * 0.27 + 128.0 * f16_min_step;
    case TLR_Q4M: /* the minimum is rounded too */
        return (max - min) / 15.0 * 0.51 + extreme / 1024.0 +
               16.0 * f16_min_step;
    default: return 0.0;
    }
}

static int differs(const struct tlr_plan_tensor *t, const char *model,
                   uint32_t row, uint32_t col, float expected, float found,
                   double limit, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EMISMATCH,
                       "%s: tensor %s (%s of the source): row %u, column %u: "
                       "expected %.9g within %.3g, found %.9g; convert the "
                       "model again",
                       model, t->want.name, t->from.src_name, row, col,
                       (double)expected, limit, (double)found);
}

/* A calibrated row moves its numbers on purpose, each for the errors of others:
 * what stays is that it is still that row. */
static int compare_calibrated(const struct tlr_plan_tensor *t,
                              const char *model, uint32_t row, const float *x,
                              const float *y, struct tlr_err *err)
{
    double error = 0, size = 0, worst = 0;
    uint32_t at = 0;
    for (uint32_t c = 0; c < t->want.n_cols; c++) {
        double e = fabs((double)x[c] - (double)y[c]);
        at = e > worst ? c : at;
        worst = fmax(worst, e);
        error += e * e;
        size += (double)x[c] * (double)x[c];
    }
    double limit = sqrt(size) + t->want.n_cols * 128.0 * f16_min_step;
    return sqrt(error) <= limit
               ? 0
               : differs(t, model, row, at, x[at], y[at], limit, err);
}

static int compare_row(const struct tlr_plan_tensor *t, const char *model,
                       uint32_t row, const float *x, const float *y,
                       struct tlr_err *err)
{
    uint32_t n_cols = t->want.n_cols;
    bool is_exact = t->is_carried || t->type == TLR_F32;
    if (t->is_calibrated) {
        return compare_calibrated(t, model, row, x, y, err);
    }
    for (uint32_t c = 0; c < n_cols; c++) {
        if (is_exact || t->type == TLR_BF16) {
            /* bf16 keeps 8 bits: half a unit in the last place. */
            double limit = is_exact ? 0.0 : fabs((double)x[c]) / 256.0 + 1e-38;
            if (!(fabs((double)x[c] - (double)y[c]) <= limit)) {
                return differs(t, model, row, c, x[c], y[c], limit, err);
            }
            continue;
        }
        uint32_t n = n_cols - c < TLR_TILE_COLS ? n_cols - c : TLR_TILE_COLS;
        double limit = allowed(t->type, x + c, n);
        for (uint32_t end = c + n; c < end; c++) {
            if (!(fabs((double)x[c] - (double)y[c]) <= limit)) {
                return differs(t, model, row, c, x[c], y[c], limit, err);
            }
        }
        c--;
    }
    return 0;
}

static int verify_tensor(struct tlr_source *src, uint32_t i,
                         const struct tlr_plan_tensor *t,
                         const struct tlr_file *file, float *x, float *y,
                         struct tlr_err *err)
{
    const struct tlr_tensor *have = tlr_file_tensor_at(file, i);
    const char *model = tlr_file_label(file);
    if (have->type != t->type) {
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: tensor %s: expected type %s, found %s; verify "
                           "with the --type of the conversion",
                           model, t->want.name, tlr_type_name(t->type),
                           tlr_type_name(have->type));
    }
    uint32_t n_cols = t->want.n_cols;
    uint64_t kept = 0;
    for (uint32_t row = 0; row < t->want.n_rows; row += TLR_TILE_ROWS) {
        uint32_t n = t->want.n_rows - row;
        n = n < TLR_TILE_ROWS ? n : TLR_TILE_ROWS;
        int rc = src->ops->read_rows(src, i, row, n, x, err);
        for (uint32_t r = 0; rc == 0 && r < n; r++) {
            tlr_row_decode(have->type, y, have->data, row + r, (int)n_cols);
            rc = compare_row(t, model, row + r, x + (size_t)r * n_cols, y, err);
        }
        if (rc) {
            return rc;
        }
        kept += t->from.src_bytes / t->want.n_rows * n;
        if (src->ops->drop_rows &&
            (kept >= DROP_BYTES || row + n == t->want.n_rows)) {
            src->ops->drop_rows(src, i, row + n);
            kept = 0;
        }
    }
    return 0;
}

/* Same shapes: the tensors of both then stand in the same order. */
static int compare_config(const struct tlr_source *src,
                          const struct tlr_file *file, struct tlr_err *err)
{
    const struct tlr_config *a = &src->config, *b = tlr_file_config(file);
    if (a->family == b->family && a->flags == b->flags && a->dim == b->dim &&
        a->ffn_dim == b->ffn_dim && a->n_layers == b->n_layers &&
        a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
        a->head_dim == b->head_dim && a->n_vocab == b->n_vocab &&
        a->max_ctx == b->max_ctx && a->rms_eps == b->rms_eps &&
        a->rope_theta == b->rope_theta) {
        return 0;
    }
    return tlr_err_set(err, TLR_EMISMATCH,
                       "%s: expected the configuration of the source (%u "
                       "layers of %u), found another (%u of %u); the model was "
                       "made from another source",
                       tlr_file_label(file), a->n_layers, a->dim, b->n_layers,
                       b->dim);
}

/* Closes file. */
static int verify(struct tlr_source *src, struct tlr_file *file,
                  const struct tlr_convert_options *options,
                  struct tlr_err *err)
{
    struct tlr_plan plan = {0};
    float *x = NULL, *y = NULL;
    const char *model = tlr_file_label(file);
    uint64_t done = 0;
    int rc = tlr_file_verify(file, NULL, NULL, err);
    if (rc || (rc = compare_config(src, file, err)) ||
        (rc = tlr_plan_make(&plan, src, options, err))) {
        goto fail;
    }
    size_t row_bytes = plan.max_cols * sizeof(float);
    x = tlr_alloc_aligned(TLR_TILE_ROWS * row_bytes);
    y = tlr_alloc_aligned(row_bytes);
    if (!x || !y) {
        rc = tlr_err_nomem(err, model, TLR_TILE_ROWS * row_bytes);
        goto fail;
    }
    /* Of a conversion that verifies this is the second half. */
    uint64_t total = options && options->verify
                         ? tlr_plan_total(&plan, options)
                         : plan.src_bytes;
    uint64_t before = total - plan.src_bytes;
    for (uint32_t i = 0; rc == 0 && i < plan.n; i++) {
        const struct tlr_plan_tensor *t = &plan.tensors[i];
        if (options && options->progress &&
            options->progress(options->progress_ctx, before + done,
                              total, t->want.name) != 0) {
            rc = tlr_err_set(err, TLR_ECANCELLED,
                             "%s: the verification was stopped; nothing was "
                             "written",
                             model);
            break;
        }
        rc = verify_tensor(src, i, t, file, x, y, err);
        done += t->from.src_bytes;
    }
fail:
    tlr_free(x);
    tlr_free(y);
    tlr_plan_clear(&plan);
    tlr_file_close(file);
    return rc;
}

static const struct tlr_file_options no_populate = {.populate = false};

int tlr_convert_verify(struct tlr_source *src, const char *model_path,
                       const struct tlr_convert_options *options,
                       struct tlr_err *err)
{
    struct tlr_file *file;
    int rc = tlr_file_open(&file, model_path, &no_populate, err);
    return rc ? rc : verify(src, file, options, err);
}

int tlr_convert_verify_fd(struct tlr_source *src, int fd, const char *label,
                          const struct tlr_convert_options *options,
                          struct tlr_err *err)
{
    struct tlr_file *file;
    int rc = tlr_file_open_fd(&file, fd, label, &no_populate, err);
    return rc ? rc : verify(src, file, options, err);
}
