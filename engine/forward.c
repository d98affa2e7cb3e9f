/* forward.c - embedding, pre-norm decoder blocks, final norm, LM head.
 *
 * One function for decode (one row), branches (one row each) and prefill (a
 * chunk): what differs is the row count and where attention looks.  Row-wise
 * work goes by groups of TLR_ACT_GROUP rows, which end rounded for the matrix
 * that reads them; one group runs on the calling thread.  The families (llama,
 * qwen2, qwen3) differ only in which optional tensors a layer has.  Touvron et
 * al. 2023 (arXiv 2302.13971), section 2.2.
 */
#include "engine/forward.h"

#include "engine/attention.h"
#include "engine/profile.h"

struct row_work {
    struct tlr_session *s;
    const int32_t *ids;
    const float *weight; /* of the norm */
    const struct tlr_rows *out; /* its x gets the norm, its acts the rounding */
    int first, n;
    bool add; /* x += xn before the norm */
};

/* fn runs for each group of the n rows. */
static void run_groups(struct row_work *r, tlr_pool_fn fn)
{
    tlr_pool_run(r->s->pool, fn, r,
                 (r->n + TLR_ACT_GROUP - 1) / TLR_ACT_GROUP);
}

static int group_end(const struct row_work *r, int group)
{
    int end = (group + 1) * TLR_ACT_GROUP;
    return end < r->n ? end : r->n;
}

static void embed_group(void *ctx, int group, int thread)
{
    (void)thread;
    const struct row_work *r = ctx;
    const struct tlr_tensor *e = r->s->model->embed;
    for (int t = group * TLR_ACT_GROUP; t < group_end(r, group); t++) {
        tlr_row_decode(e->type, r->s->w.x + (size_t)t * e->n_cols, e->data,
                       (uint64_t)r->ids[t], (int)e->n_cols);
    }
}

static void norm_group(void *ctx, int group, int thread)
{
    (void)thread;
    const struct row_work *r = ctx;
    struct tlr_session *s = r->s;
    const struct tlr_config *c = s->model->config;
    int begin = group * TLR_ACT_GROUP;
    for (int t = begin; t < group_end(r, group); t++) {
        float *x = s->w.x + (size_t)(r->first + t) * c->dim;
        if (r->add) {
            s->kernels.add(x, s->w.xn + (size_t)t * c->dim, (int)c->dim);
        }
        if (r->out) {
            s->kernels.rmsnorm(r->out->x + (size_t)t * c->dim, x, r->weight,
                               (int)c->dim, c->rms_eps);
        }
    }
    if (r->out && r->out->acts.first) {
        tlr_linear_round_part(&s->kernels, r->out, begin, 0, c->dim,
                              r->out->x + (size_t)begin * c->dim, c->dim);
    }
}

static void observe(struct tlr_session *s, uint32_t layer, enum tlr_input which,
                    const struct tlr_rows *in)
{
    if (s->observer.fn) {
        s->observer.fn(s->observer.ctx, layer, which, in->x, in->x_stride,
                       in->n_tok, in->n_cols);
    }
}

static struct tlr_acts acts_for(struct tlr_acts acts, int n)
{
    acts.is_paired = acts.second && n <= TLR_PAIRED_TOK;
    return acts;
}

struct tlr_rows tlr_forward_rows(const struct tlr_session *s, float *x,
                                 uint32_t n_cols, int n)
{
    return (struct tlr_rows){.x = x, .x_stride = n_cols,
                             .acts = acts_for(s->w.acts, n), .n_tok = n,
                             .n_cols = n_cols};
}

/* x += xn (add), then norm(x) into xn and its rounding, for rows [first, n). */
static struct tlr_rows norm_rows(struct tlr_session *s, const float *weight,
                                 bool add, int first, int n)
{
    struct tlr_rows out =
        tlr_forward_rows(s, s->w.xn, s->model->config->dim, n - first);
    struct row_work r = {.s = s, .weight = weight, .out = weight ? &out : NULL,
                         .first = first, .n = n - first, .add = add};
    run_groups(&r, norm_group);
    return out;
}

/* What `down` reads: rounded rows or f32 ones. */
static struct tlr_rows glu_rows(const struct tlr_session *s,
                                const struct tlr_layer *l, int n)
{
    struct tlr_rows r = {.x = s->observer.fn ? s->observer.down : NULL,
                         .x_stride = l->down->n_cols, .n_tok = n,
                         .n_cols = l->down->n_cols};
    if (tlr_type_is_tiled(l->down->type)) {
        r.acts = acts_for(s->w.glu_acts, n);
    } else {
        r.x = s->w.glu;
    }
    return r;
}

/* From the attention's output to what the block's feed-forward part adds to x,
 * in xn, for rows [first, n). */
static void run_rest(struct tlr_session *s, uint32_t i, int first, int n)
{
    const struct tlr_layer *l = &s->model->layers[i];
    const struct tlr_config *c = s->model->config;
    uint32_t q_dim = l->o->n_cols;
    struct tlr_rows att = tlr_forward_rows(
        s, s->w.att + (size_t)first * q_dim, q_dim, n - first);
    observe(s, i, TLR_INPUT_O, &att);
    tlr_linear_round(&s->linear, &att);
    struct tlr_linear o = {l->o, s->w.xn, c->dim};
    tlr_linear_run(&s->linear, &o, 1, &att);
    tlr_profile_mark(s, i, TLR_PROFILE_O);
    struct tlr_rows xn = norm_rows(s, l->ffn_norm, true, first, n);
    observe(s, i, TLR_INPUT_GATE_UP, &xn);
    tlr_profile_mark(s, i, TLR_PROFILE_NORM);
    struct tlr_rows glu = glu_rows(s, l, n - first);
    tlr_linear_run_glu(&s->linear, l->gate, l->up, &xn, &glu);
    observe(s, i, TLR_INPUT_DOWN, &glu);
    tlr_profile_mark(s, i, TLR_PROFILE_GATE_UP);
    struct tlr_linear down = {l->down, s->w.xn, c->dim};
    tlr_linear_run(&s->linear, &down, 1, &glu);
    tlr_profile_mark(s, i, TLR_PROFILE_DOWN);
}

static void run_block(struct tlr_session *s, uint32_t i,
                      const struct tlr_batch *b)
{
    const struct tlr_layer *l = &s->model->layers[i];
    struct tlr_work *w = &s->w;
    struct tlr_rows xn = norm_rows(s, l->attn_norm, i > 0, 0, b->n);
    observe(s, i, TLR_INPUT_QKV, &xn);
    tlr_profile_mark(s, i, TLR_PROFILE_NORM);
    struct tlr_linear qkv[3] = {{l->q, w->q, l->q->n_rows},
                                {l->k, w->k, l->k->n_rows},
                                {l->v, w->v, l->v->n_rows}};
    tlr_linear_run(&s->linear, qkv, 3, &xn);
    tlr_profile_mark(s, i, TLR_PROFILE_QKV);
    tlr_attention(s, i, b);
    tlr_profile_mark(s, i, TLR_PROFILE_ATTEND);
    bool is_last = i + 1 == s->model->config->n_layers;
    int first = is_last && !s->observer.fn ? b->first_wanted : 0;
    if (first < b->n) {
        run_rest(s, i, first, b->n);
    }
    if (is_last) {
        norm_rows(s, NULL, true, first, b->n);
    }
}

/* The head's input for every row, as nobody else computes it for all. */
static void observe_head(struct tlr_session *s, int n)
{
    const struct tlr_config *c = s->model->config;
    struct tlr_rows all = tlr_forward_rows(s, s->w.xn, c->dim, n);
    tlr_forward_hidden(s, 0, n, all.x);
    observe(s, c->n_layers, TLR_INPUT_HEAD, &all);
}

void tlr_forward(struct tlr_session *s, const struct tlr_batch *b)
{
    uint32_t n_layers = s->model->config->n_layers;
    tlr_profile_begin(s);
    tlr_profile_step(s, b->n);
    struct row_work embed = {.s = s, .ids = b->ids, .n = b->n};
    run_groups(&embed, embed_group);
    tlr_profile_mark(s, n_layers, TLR_PROFILE_EMBED);
    for (uint32_t i = 0; i < n_layers; i++) {
        run_block(s, i, b);
    }
    if (s->observer.fn) {
        observe_head(s, b->n);
    }
    tlr_profile_mark(s, n_layers, TLR_PROFILE_NORM);
}

void tlr_forward_hidden(struct tlr_session *s, int row, int n, float *hidden)
{
    struct tlr_rows out =
        tlr_forward_rows(s, hidden, s->model->config->dim, n);
    out.acts = (struct tlr_acts){.first = NULL};
    struct row_work r = {.s = s, .weight = s->model->final_norm, .out = &out,
                         .first = row, .n = n};
    run_groups(&r, norm_group);
}

void tlr_forward_head(struct tlr_session *s, float *hidden, int n,
                      float *logits)
{
    const struct tlr_config *c = s->model->config;
    tlr_profile_begin(s);
    struct tlr_rows in = tlr_forward_rows(s, hidden, c->dim, n);
    struct tlr_linear head = {s->model->head, logits, c->n_vocab};
    tlr_linear_round(&s->linear, &in);
    tlr_linear_run(&s->linear, &head, 1, &in);
    tlr_profile_mark(s, c->n_layers, TLR_PROFILE_HEAD);
}
