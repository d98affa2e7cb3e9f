/* session.c - one timeline: its memory, its steps, its limits.
 *
 * All memory is one arena whose layout is computed by one function, run once to
 * count (tlr_session_estimate) and once to place, so the estimate cannot drift
 * from the truth and a step allocates nothing.  Prefill takes chunks of
 * n_batch.  With tiled weights a token's linear parts are the same bits in any
 * chunk; f32 and bf16 weights use SGEMM for more than TLR_MAX_BRANCHES tokens
 * (equal up to f32 rounding).
 */
#include "engine/session.h"

#include <string.h>

#include "base/mem.h"
#include "engine/attention.h"
#include "engine/forward.h"

enum { HEAD_BYTES = 16 << 20 };

/* ---- memory ---- */

/* Hands out aligned pieces of base; with base NULL it only counts. */
struct carve {
    uint8_t *base;
    uint64_t used;
    bool overflow;
};

static void *take(struct carve *c, uint64_t n, uint64_t size)
{
    uint64_t n_bytes = 0, end = 0;
    if (!tlr_mul_u64(n, size, &n_bytes) ||
        !tlr_add_u64(n_bytes, 63, &n_bytes) ||
        !tlr_add_u64(c->used, n_bytes & ~(uint64_t)63, &end)) {
        c->overflow = true;
        return NULL;
    }
    uint8_t *p = c->base ? c->base + c->used : NULL;
    c->used = end;
    return p;
}

static float *take_f32(struct carve *c, uint64_t rows, uint64_t cols)
{
    return take(c, rows * cols, sizeof(float));
}

static void place_kv(struct carve *c, struct tlr_session *s)
{
    struct tlr_kv *kv = &s->kv;
    const struct tlr_config *cfg = s->model->config;
    kv->n_layers = cfg->n_layers;
    kv->n_kv_heads = cfg->n_kv_heads;
    kv->head_dim = cfg->head_dim;
    kv->type = s->opt.kv;
    tlr_kv_layout(kv, s->opt.n_ctx, s->opt.n_branches, s->opt.branch_tok);
    uint64_t timeline = 0, branches = 0;
    if (!tlr_kv_bytes(kv, &timeline, &branches)) {
        c->overflow = true;
        return;
    }
    kv->k = take(c, timeline, 1);
    kv->v = take(c, timeline, 1);
    kv->branch_k = take(c, branches, 1);
    kv->branch_v = take(c, branches, 1);
}

size_t tlr_session_rows(const struct tlr_session *s)
{
    uint32_t n = s->opt.n_batch;
    return n < TLR_MAX_BRANCHES ? TLR_MAX_BRANCHES : n;
}

static struct tlr_acts take_acts(struct carve *c, const struct tlr_session *s,
                                 uint64_t n_cols)
{
    uint64_t n_bytes = tlr_act_bytes(tlr_session_rows(s), n_cols);
    struct tlr_acts acts = {.first = take(c, n_bytes, 1)};
    if (s->opt.act == TLR_ACT_INT16) {
        acts.second = take(c, n_bytes, 1);
    }
    return acts;
}

static void place_work(struct carve *c, struct tlr_session *s)
{
    const struct tlr_model *m = s->model;
    const struct tlr_config *cfg = m->config;
    uint64_t rows = tlr_session_rows(s);
    uint64_t q_dim = (uint64_t)cfg->n_heads * cfg->head_dim;
    uint64_t kv_dim = (uint64_t)cfg->n_kv_heads * cfg->head_dim;
    struct tlr_work *w = &s->w;
    if (s->opt.lender) {
        *w = s->opt.lender->w;
        s->linear = s->opt.lender->linear;
        return;
    }
    w->x = take_f32(c, rows, cfg->dim);
    w->xn = take_f32(c, rows, cfg->dim);
    w->q = take_f32(c, rows, q_dim);
    w->k = take_f32(c, rows, kv_dim);
    w->v = take_f32(c, rows, kv_dim);
    w->att = take_f32(c, rows, q_dim);
    if (m->has_plain) {
        w->glu = take_f32(c, rows, cfg->ffn_dim);
    }
    if (m->has_tiled) {
        w->acts = take_acts(c, s, cfg->dim > q_dim ? cfg->dim : q_dim);
        w->glu_acts = take_acts(c, s, cfg->ffn_dim);
    }
    w->attend_stride = (tlr_attention_thread_floats(cfg) + 15) & ~(size_t)15;
    w->attend = take_f32(c, (uint64_t)s->opt.n_threads, w->attend_stride);
    w->parts = take_f32(c, 1, tlr_attention_part_floats(cfg, s->opt.n_ctx));
    w->unmerged = take(c, (uint64_t)TLR_MAX_BRANCHES * cfg->n_kv_heads,
                       sizeof *w->unmerged);
    tlr_linear_size(&s->linear, (uint32_t)rows, m->widest_bf16);
    s->linear.scratch = take_f32(c, (uint64_t)s->opt.n_threads,
                                 s->linear.scratch_floats);
}

/* Rows that the head makes at once for prefill_each: the more, the fewer times
 * its weights are read, within what their logits may take. */
static int head_rows(const struct tlr_session *s)
{
    uint64_t most = HEAD_BYTES / 4 / s->model->config->n_vocab;
    uint64_t rows = s->opt.lender ? TLR_MAX_BRANCHES : tlr_session_rows(s);
    most = most < rows ? most : rows;
    return most < TLR_MAX_BRANCHES ? TLR_MAX_BRANCHES : (int)most;
}

/* For as many states as there may be branches: a borrower may have more of them
 * than its lender. */
static void place_top(struct carve *c, struct tlr_session *s)
{
    uint32_t n_vocab = s->model->config->n_vocab;
    s->top.scores = take_f32(c, 1, n_vocab);
    s->top.best = take(c, (uint64_t)s->opt.n_threads * TLR_MAX_BRANCHES,
                       sizeof *s->top.best);
    s->top.tops = take_f32(c, TLR_MAX_BRANCHES, n_vocab / TLR_TOP_BLOCK + 1);
    s->top.bands = take(c, tlr_top_max_bands(n_vocab), sizeof *s->top.bands);
}

static void place_results(struct carve *c, struct tlr_session *s)
{
    const struct tlr_config *cfg = s->model->config;
    const struct tlr_session_options *o = &s->opt;
    if (o->lender) {
        s->rope_cos = o->lender->rope_cos;
        s->rope_sin = o->lender->rope_sin;
        s->top = o->lender->top;
        s->top.counts = (struct tlr_top_counts){0};
    } else {
        s->rope_cos = take_f32(c, o->n_ctx, cfg->head_dim / 2);
        s->rope_sin = take_f32(c, o->n_ctx, cfg->head_dim / 2);
        place_top(c, s);
    }
    s->ids = take(c, o->n_ctx, sizeof *s->ids);
    s->hidden = take_f32(c, 1, cfg->dim);
    s->logits = take_f32(c, 1, cfg->n_vocab);
    s->n_head_rows = head_rows(s);
    s->row_hidden = take_f32(c, (uint64_t)s->n_head_rows, cfg->dim);
    s->row_logits = take_f32(c, (uint64_t)s->n_head_rows, cfg->n_vocab);
    s->branch_ids = take(c, (uint64_t)o->n_branches * o->branch_tok,
                         sizeof *s->branch_ids);
}

/* Places everything at base (NULL: counts) and says how much it is. */
static int place(struct tlr_session *s, uint8_t *base, struct tlr_memory *out,
                 struct tlr_err *err)
{
    struct carve c = {.base = base};
    place_kv(&c, s);
    out->kv_bytes = c.used;
    place_work(&c, s);
    place_results(&c, s);
    out->scratch_bytes = c.used - out->kv_bytes;
    out->weights_bytes = tlr_file_bytes(s->model->file);
    if (c.overflow || c.used > SIZE_MAX ||
        !tlr_add_u64(c.used, out->weights_bytes, &out->total_bytes)) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "session: memory of %u positions does not fit the "
                           "address space; ask for a shorter context",
                           (unsigned)s->opt.n_ctx);
    }
    return 0;
}

static void init_options(struct tlr_session *s, const struct tlr_model *m,
                         const struct tlr_session_options *options)
{
    const struct tlr_session_options defaults = {.cpu_level = -1};
    s->model = m;
    s->opt = options ? *options : defaults;
}

int tlr_session_estimate(const struct tlr_model *m,
                         const struct tlr_session_options *options,
                         struct tlr_memory *out, struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    struct tlr_session s = {0};
    init_options(&s, m, options);
    int rc = tlr_session_resolve(&s.opt, m, err);
    return rc ? rc : place(&s, NULL, out, err);
}

static int session_init(struct tlr_session *s, struct tlr_err *err)
{
    int rc = tlr_session_resolve(&s->opt, s->model, err);
    struct tlr_memory need;
    if (!rc) {
        rc = place(s, NULL, &need, err);
    }
    if (rc) {
        return rc;
    }
    uint64_t n_bytes = need.kv_bytes + need.scratch_bytes;
    s->arena = tlr_alloc_aligned((size_t)n_bytes);
    if (!s->arena) {
        return tlr_err_nomem(err, "session", n_bytes);
    }
    rc = place(s, s->arena, &need, err);
    if (rc) {
        return rc;
    }
    if (s->opt.lender) {
        s->kernels = s->opt.lender->kernels;
        s->pool = s->opt.lender->pool;
        return 0;
    }
    if (s->model->has_plain) {
        rc = tlr_linear_setup(s->opt.n_threads, err);
    }
    if (!rc) {
        rc = tlr_pool_new(&s->pool, s->opt.n_threads, err);
    }
    if (rc) {
        return rc;
    }
    const struct tlr_config *c = s->model->config;
    tlr_kernels_init(&s->kernels, (enum tlr_cpu_level)s->opt.cpu_level);
    s->linear.kernels = &s->kernels;
    s->linear.pool = s->pool;
    tlr_rope_tables(s->rope_cos, s->rope_sin, s->opt.n_ctx, c->head_dim,
                    c->rope_theta, s->model->rope_factors);
    return 0;
}

int tlr_session_new(struct tlr_session **out, const struct tlr_model *m,
                    const struct tlr_session_options *options,
                    struct tlr_err *err)
{
    *out = NULL;
    struct tlr_session *s = tlr_calloc(1, sizeof *s);
    if (!s) {
        return tlr_err_nomem(err, "session", sizeof *s);
    }
    init_options(s, m, options);
    int rc = session_init(s, err);
    if (rc) {
        tlr_session_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void tlr_session_free(struct tlr_session *s)
{
    if (!s) {
        return;
    }
    if (!s->opt.lender) {
        tlr_pool_free(s->pool);
    }
    tlr_free(s->arena);
    tlr_free(s->profile.ns);
    tlr_free(s->observer.down);
    tlr_free(s);
}

struct tlr_pool *tlr_session_pool(const struct tlr_session *s)
{
    return s->pool;
}

/* ---- steps ---- */

int tlr_session_check_ids(const struct tlr_session *s, const int32_t *ids,
                          size_t n, struct tlr_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= s->model->n_ids) {
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: token %zu: expected an id from 0 to %u, "
                               "found %d", tlr_file_label(s->model->file), i,
                               (unsigned)(s->model->n_ids - 1), (int)ids[i]);
        }
    }
    return 0;
}

int tlr_session_check_room(const struct tlr_session *s, uint64_t n_more,
                           struct tlr_err *err)
{
    uint64_t left = s->opt.n_ctx - s->pos;
    if (n_more <= left) {
        return 0;
    }
    return tlr_err_set(err, TLR_ELIMIT,
                       "context: expected at most %u positions, found %llu (%u "
                       "in use and %llu more); use a longer context (the model "
                       "has up to %u) or a shorter text",
                       (unsigned)s->opt.n_ctx,
                       (unsigned long long)s->pos + n_more, (unsigned)s->pos,
                       (unsigned long long)n_more,
                       (unsigned)s->model->config->max_ctx);
}

static int check_step(const struct tlr_session *s, const int32_t *ids, size_t n,
                      unsigned flags, struct tlr_err *err)
{
    if (n == 0) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "prefill: expected at least one token, found none");
    }
    if (flags & ~(unsigned)TLR_STEP_LOGITS) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "step flags: expected 0 or TLR_STEP_LOGITS, found "
                           "%u; logits of every token come from "
                           "tlr_prefill_each", flags);
    }
    int rc = tlr_session_check_room(s, n, err);
    return rc ? rc : tlr_session_check_ids(s, ids, n, err);
}

void tlr_session_made(struct tlr_session *s, bool has_hidden, bool has_logits)
{
    s->has_hidden = has_hidden;
    s->has_logits = has_logits;
    s->found.n = 0;
}

/* Row `row` of the last pass becomes the session's result. */
static void finish_step(struct tlr_session *s, int row, unsigned flags)
{
    tlr_forward_hidden(s, row, 1, s->hidden);
    tlr_session_made(s, true, flags & TLR_STEP_LOGITS);
    if (s->has_logits) {
        tlr_forward_head(s, s->hidden, 1, s->logits);
    }
}

/* Size of the next chunk of n_left tokens. */
static int chunk_tok(const struct tlr_session *s, size_t n_left)
{
    return (int)(n_left < s->opt.n_batch ? n_left : s->opt.n_batch);
}

/* Rows before first_wanted leave their keys and values only. */
static void run_chunk(struct tlr_session *s, const int32_t *ids, int n,
                      int first_wanted)
{
    struct tlr_batch b = {.ids = ids, .n = n, .first_wanted = first_wanted};
    tlr_forward(s, &b);
    memcpy(s->ids + s->pos, ids, (size_t)n * sizeof *ids);
    s->pos += (uint32_t)n;
}

int tlr_prefill(struct tlr_session *s, const int32_t *ids, size_t n,
                unsigned flags, struct tlr_err *err)
{
    int rc = check_step(s, ids, n, flags, err);
    if (rc) {
        return rc;
    }
    tlr_branch_drop(s);
    int chunk = 0;
    for (size_t done = 0; done < n; done += (size_t)chunk) {
        chunk = chunk_tok(s, n - done);
        bool is_last = done + (size_t)chunk == n;
        run_chunk(s, ids + done, chunk, is_last ? chunk - 1 : chunk);
    }
    finish_step(s, chunk - 1, flags);
    return 0;
}

/* Calls each for the rows of the last chunk; the last row's results stay in
 * row_hidden and row_logits at the returned index, -1 when told to stop. */
static int visit_chunk(struct tlr_session *s, size_t first, int n,
                       tlr_each_fn each, void *ctx)
{
    const struct tlr_config *c = s->model->config;
    int group = 0;
    for (int row = 0; row < n; row += group) {
        group = n - row < s->n_head_rows ? n - row : s->n_head_rows;
        tlr_forward_hidden(s, row, group, s->row_hidden);
        tlr_forward_head(s, s->row_hidden, group, s->row_logits);
        for (int i = 0; i < group; i++) {
            if (each(ctx, first + (size_t)(row + i),
                     s->row_hidden + (size_t)i * c->dim,
                     s->row_logits + (size_t)i * c->n_vocab)) {
                return -1;
            }
        }
    }
    return group - 1;
}

int tlr_prefill_each(struct tlr_session *s, const int32_t *ids, size_t n,
                     tlr_each_fn each, void *ctx, struct tlr_err *err)
{
    int rc = check_step(s, ids, n, 0, err);
    if (rc) {
        return rc;
    }
    tlr_branch_drop(s);
    const struct tlr_config *c = s->model->config;
    uint32_t before = s->pos;
    int last = 0, chunk = 0;
    for (size_t done = 0; done < n; done += (size_t)chunk) {
        chunk = chunk_tok(s, n - done);
        run_chunk(s, ids + done, chunk, 0);
        last = visit_chunk(s, done, chunk, each, ctx);
        if (last < 0) {
            s->pos = before; /* its hidden and logits were not touched */
            return tlr_err_set(err, TLR_ECANCELLED,
                               "prefill: stopped by its caller");
        }
    }
    memcpy(s->hidden, s->row_hidden + (size_t)last * c->dim,
           c->dim * sizeof *s->hidden);
    memcpy(s->logits, s->row_logits + (size_t)last * c->n_vocab,
           c->n_vocab * sizeof *s->logits);
    tlr_session_made(s, true, true);
    return 0;
}

int tlr_decode(struct tlr_session *s, int32_t id, unsigned flags,
               struct tlr_err *err)
{
    return tlr_prefill(s, &id, 1, flags, err);
}

int tlr_run_head(struct tlr_session *s, struct tlr_err *err)
{
    if (s->n_live > 0) {
        tlr_forward_head(s, s->row_hidden, s->n_live, s->row_logits);
        s->branch_has_logits = true;
        return 0;
    }
    if (!s->has_hidden) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "LM head: there is no hidden state (no step yet, or "
                           "rewound); decode a token first");
    }
    if (!s->has_logits) {
        tlr_forward_head(s, s->hidden, 1, s->logits);
        s->has_logits = true;
    }
    return 0;
}

const float *tlr_hidden(const struct tlr_session *s)
{
    return s->has_hidden ? s->hidden : NULL;
}

const float *tlr_logits(const struct tlr_session *s)
{
    return s->has_logits ? s->logits : NULL;
}

uint32_t tlr_pos(const struct tlr_session *s)
{
    return s->pos;
}

const int32_t *tlr_ids_of(const struct tlr_session *s)
{
    return s->ids;
}

int tlr_rewind(struct tlr_session *s, uint32_t pos, struct tlr_err *err)
{
    if (pos > s->pos) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "rewind: expected a position up to %u, found %u",
                           (unsigned)s->pos, (unsigned)pos);
    }
    tlr_branch_drop(s);
    s->pos = pos;
    tlr_session_made(s, false, false);
    return 0;
}
