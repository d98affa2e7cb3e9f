/* forward.c - embedding, pre-norm decoder blocks, final norm, LM head.
 *
 * One function for decode (one row), branches (one row each) and prefill (a
 * chunk): what differs is which linear path the row count selects and where
 * attention looks.  Four thread regions per block and row-wise work between
 * them, serial for one row.  The families (llama, qwen2, qwen3) differ only in
 * which optional tensors a layer has.  Touvron et al. 2023 (arXiv 2302.13971),
 * section 2.2.
 */
#include "engine/forward.h"

#include "engine/attention.h"

struct rows {
    struct tlr_session *s;
    const int32_t *ids;
    const float *weight; /* of the norm */
    float *out;
    int first;
    bool add; /* x += xn before the norm */
};

static void run_rows(struct tlr_session *s, tlr_pool_fn fn, struct rows *r,
                     int n)
{
    if (n == 1) {
        fn(r, 0, 0);
    } else {
        tlr_pool_run(s->pool, fn, r, n);
    }
}

static void embed_row(void *ctx, int t, int thread)
{
    (void)thread;
    const struct rows *r = ctx;
    const struct tlr_tensor *e = r->s->model->embed;
    tlr_row_decode(e->type, r->s->w.x + (size_t)t * e->n_cols, e->data,
                   (uint64_t)r->ids[t], (int)e->n_cols);
}

static void norm_row(void *ctx, int t, int thread)
{
    (void)thread;
    const struct rows *r = ctx;
    struct tlr_session *s = r->s;
    const struct tlr_config *c = s->model->config;
    float *x = s->w.x + (size_t)(r->first + t) * c->dim;
    if (r->add) {
        s->kernels.add(x, s->w.xn + (size_t)t * c->dim, (int)c->dim);
    }
    if (r->weight) {
        s->kernels.rmsnorm(r->out + (size_t)t * c->dim, x, r->weight,
                           (int)c->dim, c->rms_eps);
    }
}

/* x += xn (add); xn = norm(x), unless weight is NULL. */
static void norm_rows(struct tlr_session *s, const float *weight, bool add,
                      int n)
{
    struct rows r = {.s = s, .weight = weight, .out = s->w.xn, .add = add};
    run_rows(s, norm_row, &r, n);
}

static void run_block(struct tlr_session *s, uint32_t i,
                      const struct tlr_batch *b)
{
    const struct tlr_layer *l = &s->model->layers[i];
    const struct tlr_config *c = s->model->config;
    struct tlr_work *w = &s->w;
    struct tlr_linear qkv[3] = {{l->q, w->q, l->q->n_rows},
                                {l->k, w->k, l->k->n_rows},
                                {l->v, w->v, l->v->n_rows}};
    tlr_linear_run(&s->linear, qkv, 3, w->xn, c->dim, b->n);
    tlr_attention(s, i, b);
    struct tlr_linear o = {l->o, w->xn, c->dim};
    tlr_linear_run(&s->linear, &o, 1, w->att, l->o->n_cols, b->n);
    norm_rows(s, l->ffn_norm, true, b->n);
    struct tlr_linear gate = {l->gate, w->gate, c->ffn_dim};
    struct tlr_linear up = {l->up, w->up, c->ffn_dim};
    tlr_linear_run_glu(&s->linear, &gate, &up, w->xn, c->dim, b->n);
    struct tlr_linear down = {l->down, w->xn, c->dim};
    tlr_linear_run(&s->linear, &down, 1, w->gate, c->ffn_dim, b->n);
}

void tlr_forward(struct tlr_session *s, const struct tlr_batch *b)
{
    const struct tlr_model *m = s->model;
    struct rows embed = {.s = s, .ids = b->ids};
    run_rows(s, embed_row, &embed, b->n);
    for (uint32_t i = 0; i < m->config->n_layers; i++) {
        norm_rows(s, m->layers[i].attn_norm, i > 0, b->n);
        run_block(s, i, b);
    }
    norm_rows(s, NULL, true, b->n);
}

void tlr_forward_hidden(struct tlr_session *s, int row, int n, float *hidden)
{
    struct rows r = {.s = s, .weight = s->model->final_norm, .out = hidden,
                     .first = row};
    run_rows(s, norm_row, &r, n);
}

void tlr_forward_head(struct tlr_session *s, const float *hidden, int n,
                      float *logits)
{
    const struct tlr_config *c = s->model->config;
    struct tlr_linear head = {s->model->head, logits, c->n_vocab};
    tlr_linear_run(&s->linear, &head, 1, hidden, c->dim, n);
}
