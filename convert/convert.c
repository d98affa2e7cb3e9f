/* convert.c - streams a source into a model file, 16 rows ("a band") at a time.
 *
 * A batch of bands is read and rounded by all threads, then written in order;
 * sums of errors are added in order too, so neither the bytes nor the report
 * depend on the number of threads.  Memory: one batch, whatever the model.
 * A block format that fits is copied quant by quant and never becomes f32.
 */
#include "convert/calibrate.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/version.h"
#include "convert/plan.h"
#include "convert/provenance.h"
#include "engine/json.h"

enum {
    MAX_BATCH = 32,
    MAX_THREADS = 16,
    BATCH_BYTES = 48 << 20,
    DROP_BYTES = 32 << 20 /* source pages kept before they are given back */
};

/* One band in work. */
struct band {
    uint32_t row, n_rows;
    float *rows;    /* [16, max_cols] */
    uint8_t *out;   /* 16 * max_cols * 4 bytes */
    float *decoded; /* [max_cols] */
    float *scratch, *spare; /* [16, max_cols] each, with calibration only */
    size_t out_len;
    double err2, ref2; /* sums of squares: error, weights */
    struct tlr_err err;
};

struct job {
    struct tlr_source *src;
    struct tlr_writer *writer;
    const struct tlr_convert_options *options;
    struct tlr_convert_report *report;
    struct tlr_plan plan;
    struct tlr_pool *pool;
    struct band *bands;
    uint32_t n_bands;
    uint64_t done_bytes, windows_done;
    struct tlr_calibration *calibration; /* or NULL */
    const struct tlr_factor *factor;     /* of the tensor in turn, or NULL */
    uint8_t *group; /* one group of q8p rows of the widest such tensor */
    uint32_t group_row; /* its first row */
    /* the tensor in turn */
    uint32_t tensor;
};

/* ---- one band ---- */

/* Largest magnitude whose scale (and minimum) still fits f16. */
static double largest_of(enum tlr_type type)
{
    const double f16_max = 65504.0;
    switch (type) {
    case TLR_Q8: return f16_max * 127.0;
    case TLR_Q4: return f16_max * 8.0;
    case TLR_Q4N: return f16_max * 113.0;
    case TLR_Q4M: return f16_max;
    default: return HUGE_VAL;
    }
}

/* What rounding did to the band. */
static int measure(struct band *b, const struct tlr_plan_tensor *t)
{
    uint32_t n_cols = t->want.n_cols;
    for (uint32_t r = 0; r < b->n_rows; r++) {
        const float *x = b->rows + (size_t)r * n_cols;
        tlr_row_decode(t->coded, b->decoded, b->out, r, (int)n_cols);
        double err2 = 0.0, ref2 = 0.0, largest = 0.0;
        for (uint32_t c = 0; c < n_cols; c++) {
            largest = fmax(largest, fabs((double)x[c]));
            double e = (double)b->decoded[c] - (double)x[c];
            err2 += e * e;
            ref2 += (double)x[c] * (double)x[c];
        }
        if (!isfinite(err2) || largest > largest_of(t->coded)) {
            return tlr_err_set(&b->err, TLR_EFORMAT,
                               "tensor %s: row %u: values are too large for "
                               "type %s; use --type f32",
                               t->from.src_name, b->row + r,
                               tlr_type_name(t->type));
        }
        b->err2 += err2;
        b->ref2 += ref2;
    }
    return 0;
}

static void round_band(struct job *j, struct band *b)
{
    const struct tlr_plan_tensor *t = &j->plan.tensors[j->tensor];
    const struct tlr_source_ops *ops = j->src->ops;
    uint32_t n_cols = t->want.n_cols;
    b->err2 = b->ref2 = 0.0;
    b->out_len = (size_t)(tlr_type_is_tiled(t->coded)
                              ? tlr_band_bytes(t->coded, n_cols)
                              : tlr_matrix_bytes(t->coded, b->n_rows, n_cols));
    if (t->is_carried) {
        ops->read_band_exact(j->src, j->tensor, b->row, b->n_rows, b->out,
                             &b->err);
        return;
    }
    if (ops->read_rows(j->src, j->tensor, b->row, b->n_rows, b->rows,
                       &b->err) != 0) {
        return;
    }
    if (j->factor) {
        size_t n = (size_t)b->n_rows * n_cols;
        memcpy(b->scratch, b->rows, n * sizeof *b->rows);
        tlr_compensate_band(j->factor, b->out, b->scratch, b->spare,
                            b->n_rows);
        tlr_refine_band(j->factor, b->out, b->rows, b->scratch, b->spare,
                        b->n_rows);
    } else {
        tlr_band_encode(t->coded, b->out, b->rows, (int)b->n_rows,
                        (int)n_cols);
    }
    if (t->coded != TLR_F32) {
        measure(b, t);
    }
}

static void convert_band(void *ctx, int item, int thread)
{
    (void)thread;
    struct job *j = ctx;
    struct band *b = &j->bands[item];
    const struct tlr_plan_tensor *t = &j->plan.tensors[j->tensor];
    round_band(j, b);
    if (t->type == TLR_Q8P && !b->err.code) {
        tlr_planes_put_band(j->group, (int)(b->row - j->group_row), b->out,
                            (int)b->n_rows, (int)t->want.n_cols);
    }
}

/* ---- one tensor ---- */

static int tell_progress(struct job *j, const struct tlr_plan_tensor *t,
                         uint64_t done, struct tlr_err *err)
{
    const struct tlr_convert_options *o = j->options;
    uint64_t total = tlr_plan_total(&j->plan, o);
    if (o && o->progress &&
        o->progress(o->progress_ctx, done, total, t->want.name) != 0) {
        return tlr_err_set(err, TLR_ECANCELLED,
                           "tensor %s: the conversion was stopped; nothing was "
                           "written",
                           t->want.name);
    }
    return 0;
}

/* Bands of q8p lie in its group and are written with it. */
static int write_bands(struct job *j, const struct tlr_plan_tensor *t,
                       uint32_t n, uint32_t row, struct tlr_err *err)
{
    if (t->type != TLR_Q8P) {
        for (uint32_t i = 0; i < n; i++) {
            const struct band *b = &j->bands[i];
            int rc = tlr_writer_data(j->writer, b->out, b->out_len, err);
            if (rc) {
                return rc;
            }
        }
        return 0;
    }
    if (row < t->want.n_rows && row - j->group_row < TLR_PLANES_ROWS) {
        return 0;
    }
    size_t len = (size_t)tlr_matrix_bytes(TLR_Q8P, TLR_PLANES_ROWS,
                                          t->want.n_cols);
    int rc = tlr_writer_data(j->writer, j->group, len, err);
    memset(j->group, 0, len);
    j->group_row = row;
    return rc;
}

/* Reads, rounds and writes bands from `row` on; *row moves behind them. */
static int convert_batch(struct job *j, const struct tlr_plan_tensor *t,
                         uint32_t *row, double *err2, double *ref2,
                         struct tlr_err *err)
{
    uint32_t n = 0, end = t->want.n_rows;
    if (t->type == TLR_Q8P && end - j->group_row > TLR_PLANES_ROWS) {
        end = j->group_row + TLR_PLANES_ROWS;
    }
    for (; n < j->n_bands && *row < end; n++) {
        uint32_t left = end - *row;
        j->bands[n].row = *row;
        j->bands[n].n_rows = left < TLR_TILE_ROWS ? left : TLR_TILE_ROWS;
        *row += j->bands[n].n_rows;
    }
    tlr_pool_run(j->pool, convert_band, j, (int)n);
    for (uint32_t i = 0; i < n; i++) {
        const struct band *b = &j->bands[i];
        if (b->err.code) {
            return tlr_err_set(err, b->err.code, "%s", b->err.text);
        }
        *err2 += b->err2;
        *ref2 += b->ref2;
    }
    return write_bands(j, t, n, *row, err);
}

static void count(struct job *j, const struct tlr_plan_tensor *t, double err2,
                  double ref2)
{
    struct tlr_convert_report *r = j->report;
    r->n_tensors++;
    r->n_by_type[t->type]++;
    r->n_fallback += t->is_fallback;
    if (err2 == 0.0) {
        r->n_exact++;
        return;
    }
    r->n_rounded++;
    double rel = sqrt(err2 / ref2);
    if (rel > r->max_rel_rms) {
        r->max_rel_rms = rel;
        strncpy(r->worst, t->want.name, sizeof r->worst - 1);
    }
}

static int convert_tensor(struct job *j, uint32_t i, struct tlr_err *err)
{
    const struct tlr_plan_tensor *t = &j->plan.tensors[i];
    uint64_t row_bytes = t->from.src_bytes / t->want.n_rows;
    uint64_t kept = 0;
    double err2 = 0.0, ref2 = 0.0;
    j->tensor = i;
    j->group_row = 0;
    j->factor = NULL;
    if (t->is_calibrated) {
        int rc = tlr_calibration_factor(j->calibration, i, &j->factor, err);
        if (rc) {
            return rc;
        }
    }
    for (uint32_t row = 0; row < t->want.n_rows;) {
        uint32_t start = row;
        int rc = tell_progress(j, t, j->done_bytes + row_bytes * start, err);
        if (rc || (rc = convert_batch(j, t, &row, &err2, &ref2, err))) {
            return rc;
        }
        kept += row_bytes * (row - start);
        if (j->src->ops->drop_rows &&
            (kept >= DROP_BYTES || row == t->want.n_rows)) {
            j->src->ops->drop_rows(j->src, i, row);
            kept = 0;
        }
    }
    j->done_bytes += t->from.src_bytes;
    count(j, t, err2, ref2);
    return tell_progress(j, t, j->done_bytes, err);
}

/* ---- calibration ---- */

static int on_window(void *ctx, uint64_t done)
{
    struct job *j = ctx;
    const struct tlr_convert_options *o = j->options;
    double share = (double)(done - j->windows_done) /
                   (double)tlr_calibration_units(j->calibration);
    j->windows_done = done;
    j->done_bytes += (uint64_t)(share * TLR_PLAN_CALIBRATION_SHARE *
                                (double)j->plan.src_bytes);
    return o->progress ? o->progress(o->progress_ctx, j->done_bytes,
                                     tlr_plan_total(&j->plan, o), "calibration")
                       : 0;
}

static int begin_calibration(struct job *j, struct tlr_err *err)
{
    if (!j->options || !j->options->calibration_text) {
        return 0;
    }
    int rc = tlr_calibration_new(&j->calibration, j->src, j->options, err);
    if (!rc) {
        tlr_calibration_on_window(j->calibration, on_window, j);
    }
    return rc;
}

/* ---- sections ---- */

static int add_section(struct job *j, enum tlr_section section, void *data,
                       size_t len, struct tlr_err *err)
{
    int rc = tlr_writer_section(j->writer, section, data, len, err);
    tlr_free(data);
    return rc;
}

/* The text is not in the model; its checksum says which one it was. */
static int put_calibration(const struct job *j, json_t *options,
                           struct tlr_err *err)
{
    const struct tlr_convert_options *o = j->options;
    struct tlr_sha256 *sha = NULL;
    char hex[65];
    int rc = tlr_sha256_begin(&sha, err);
    if (rc) {
        return rc;
    }
    rc = tlr_sha256_add(sha, o->calibration_text, o->calibration_bytes, err);
    if (rc) {
        tlr_sha256_drop(sha);
        return rc;
    }
    if ((rc = tlr_sha256_end(sha, hex, err))) {
        return rc;
    }
    json_t *c = json_object();
    json_int_t tokens = (json_int_t)tlr_calibration_tokens(j->calibration);
    if (!c || json_object_set_new(c, "tokens", json_integer(tokens)) ||
        json_object_set_new(c, "text_sha256", json_string(hex))) {
        json_decref(c);
        return tlr_err_nomem(err, "provenance", sizeof hex);
    }
    return json_object_set_new(options, "calibration", c)
               ? tlr_err_nomem(err, "provenance", sizeof hex)
               : 0;
}

/* The source's provenance, what was asked for and who did it. */
static int provenance_text(const struct job *j, char **out,
                           struct tlr_err *err)
{
    const char *text = j->src->provenance_json;
    json_t *root = json_loads(text ? text : "{}", JSON_REJECT_DUPLICATES, NULL);
    json_t *options = json_object();
    const char *asked =
        tlr_convert_type_name(j->options ? j->options->type : TLR_RECIPE_KEEP);
    const char *type = asked ? asked : "keep";
    int rc;
    if (!root || !options ||
        json_object_set_new(options, "type", json_string(type)) ||
        json_object_set(root, "options", options) ||
        json_object_set_new(root, "tlr", json_string(TLR_VERSION))) {
        rc = tlr_err_nomem(err, "provenance", 0);
    } else {
        size_t len;
        rc = j->calibration ? put_calibration(j, options, err) : 0;
        rc = rc ? rc : tlr_json_dump(root, out, &len, err);
    }
    json_decref(options);
    json_decref(root);
    return rc;
}

static int write_sections(struct job *j, struct tlr_err *err)
{
    const struct tlr_source *s = j->src;
    uint8_t *packed;
    char *text;
    size_t len;
    int rc = 0;
    if (s->vocab.n_tokens > 0 &&
        ((rc = tlr_vocab_pack(&s->vocab, &packed, &len, err)) ||
         (rc = add_section(j, TLR_SECTION_TOKENIZER, packed, len, err)))) {
        return rc;
    }
    if (s->chat.name &&
        ((rc = tlr_chat_to_json(&s->chat, &text, &len, err)) ||
         (rc = add_section(j, TLR_SECTION_CHAT, text, len, err)))) {
        return rc;
    }
    if ((rc = tlr_generation_to_json(&s->generation, &text, &len, err)) ||
        (rc = add_section(j, TLR_SECTION_GENERATION, text, len, err))) {
        return rc;
    }
    rc = provenance_text(j, &text, err);
    return rc ? rc
              : add_section(j, TLR_SECTION_PROVENANCE, text, strlen(text),
                            err);
}

/* ---- the whole ---- */

static int make_bands(struct job *j, struct tlr_err *err)
{
    size_t rows = (size_t)TLR_TILE_ROWS * j->plan.max_cols * sizeof(float);
    size_t row = (size_t)j->plan.max_cols * sizeof(float);
    size_t n = BATCH_BYTES / (2 * rows + row);
    j->n_bands = n < 1 ? 1 : n > MAX_BATCH ? MAX_BATCH : (uint32_t)n;
    j->bands = tlr_calloc(j->n_bands, sizeof *j->bands);
    if (!j->bands) {
        return tlr_err_nomem(err, "bands", j->n_bands * sizeof *j->bands);
    }
    for (uint32_t i = 0; i < j->n_bands; i++) {
        struct band *b = &j->bands[i];
        b->rows = tlr_alloc_aligned(rows);
        b->out = tlr_alloc_aligned(rows);
        b->decoded = tlr_alloc_aligned(row);
        if (!b->rows || !b->out || !b->decoded) {
            return tlr_err_nomem(err, "bands", 2 * rows + row);
        }
        if (!j->calibration) {
            continue;
        }
        b->scratch = tlr_alloc_aligned(rows);
        b->spare = tlr_alloc_aligned(rows);
        if (!b->scratch || !b->spare) {
            return tlr_err_nomem(err, "bands", 2 * rows);
        }
    }
    size_t group = 0;
    for (uint32_t i = 0; i < j->plan.n; i++) {
        const struct tlr_plan_tensor *t = &j->plan.tensors[i];
        uint64_t len = t->type != TLR_Q8P ? 0
                                          : tlr_matrix_bytes(TLR_Q8P,
                                                             TLR_PLANES_ROWS,
                                                             t->want.n_cols);
        group = len > group ? (size_t)len : group;
    }
    j->group = tlr_calloc(group, 1);
    if (!j->group) {
        return tlr_err_nomem(err, "group of rows", group);
    }
    int n_threads = tlr_default_threads();
    return tlr_pool_new(&j->pool,
                        n_threads > MAX_THREADS ? MAX_THREADS : n_threads, err);
}

static void clear_job(struct job *j)
{
    for (uint32_t i = 0; j->bands && i < j->n_bands; i++) {
        tlr_free(j->bands[i].rows);
        tlr_free(j->bands[i].out);
        tlr_free(j->bands[i].decoded);
        tlr_free(j->bands[i].scratch);
        tlr_free(j->bands[i].spare);
    }
    tlr_free(j->bands);
    tlr_free(j->group);
    tlr_calibration_free(j->calibration);
    tlr_pool_free(j->pool);
    tlr_plan_clear(&j->plan);
}

/* path NULL: into fd. */
static int begin(struct job *j, const char *path, int fd, const char *label,
                 struct tlr_err *err)
{
    enum tlr_type *types = tlr_calloc(j->plan.n, sizeof *types);
    if (!types) {
        return tlr_err_nomem(err, label, j->plan.n * sizeof *types);
    }
    for (uint32_t i = 0; i < j->plan.n; i++) {
        types[i] = j->plan.tensors[i].type;
    }
    const struct tlr_config *config = &j->src->config;
    int rc = path ? tlr_writer_begin(&j->writer, path, config, types, err)
                  : tlr_writer_begin_fd(&j->writer, fd, label, config, types,
                                        err);
    tlr_free(types);
    return rc;
}

/* Size of what was written; 0 when the system will not say. */
static uint64_t file_bytes(const char *path, int fd)
{
    struct stat st;
    int rc = path ? stat(path, &st) : fstat(fd, &st);
    return rc == 0 ? (uint64_t)st.st_size : 0;
}

/* The temporary against the source, while the old model is still there. */
static int verify(struct job *j, const char *label, struct tlr_err *err)
{
    int fd;
    int rc = tlr_writer_finish(j->writer, &fd, err);
    return rc ? rc : tlr_convert_verify_fd(j->src, fd, label, j->options, err);
}

static int convert(struct tlr_source *src, const char *path, int fd,
                   const char *label, const struct tlr_convert_options *options,
                   struct tlr_convert_report *report, struct tlr_err *err)
{
    struct tlr_convert_report ignored;
    struct job j = {.src = src, .options = options,
                    .report = report ? report : &ignored};
    memset(j.report, 0, sizeof *j.report);
    int rc;
    if ((rc = tlr_plan_make(&j.plan, src, options, err)) ||
        (rc = begin_calibration(&j, err)) || (rc = make_bands(&j, err)) ||
        (rc = begin(&j, path, fd, label, err)) ||
        (rc = write_sections(&j, err))) {
        goto fail;
    }
    for (uint32_t i = 0; i < j.plan.n; i++) {
        if ((rc = convert_tensor(&j, i, err))) {
            goto fail;
        }
    }
    if (options && options->verify && (rc = verify(&j, label, err))) {
        goto fail;
    }
    rc = tlr_writer_commit(j.writer, err);
    j.writer = NULL;
    j.report->out_bytes = file_bytes(path, fd);
fail:
    tlr_writer_abort(j.writer);
    clear_job(&j);
    return rc;
}

int tlr_convert(struct tlr_source *src, const char *out_path,
                const struct tlr_convert_options *options,
                struct tlr_convert_report *report, struct tlr_err *err)
{
    return convert(src, out_path, -1, out_path, options, report, err);
}

int tlr_convert_fd(struct tlr_source *src, int fd, const char *label,
                   const struct tlr_convert_options *options,
                   struct tlr_convert_report *report, struct tlr_err *err)
{
    return convert(src, NULL, fd, label, options, report, err);
}
