/* kernel_cases.c - see kernel_cases.h.
 *
 * The shapes are those of Qwen2.5-0.5B (dim 896, ffn 4864, 14 and 2 heads of
 * 64, vocabulary 151936).  Operations of the vector slots are nominal: what the
 * formula in kernels.h says with an exponential, a root or a rounding as one.
 */
#include "bench/kernel_cases.h"

enum { DIM = 896, FFN = 4864, HEAD_DIM = 64, HEADS = 14, VOCAB = 151936 };
enum { KV_HEADS = 2, GROUP = HEADS / KV_HEADS }; /* queries of a KV head */
enum { PREFILL = 256, ATTEND_TOK = 64 };

static const struct tlr_case cases[] = {
    { TLR_OP_MATVEC, DIM, DIM, 1 },
    { TLR_OP_MATVEC, FFN, DIM, 1 },
    { TLR_OP_MATVEC, DIM, FFN, 1 },
    { TLR_OP_MATVEC, VOCAB, DIM, 1 },
    { TLR_OP_DEQUANT, FFN, DIM, 1 },
    { TLR_OP_QUANTISE, 0, DIM, TLR_ACT_GROUP },
    { TLR_OP_QUANTISE, 0, FFN, 1 },
    { TLR_OP_MATMUL, DIM, DIM, 1 },
    { TLR_OP_MATMUL, FFN, DIM, 1 },
    { TLR_OP_MATMUL, DIM, FFN, 1 },
    { TLR_OP_MATMUL, VOCAB, DIM, 1 },
    { TLR_OP_MATMUL, DIM, DIM, PREFILL },
    { TLR_OP_MATMUL, FFN, DIM, PREFILL },
    { TLR_OP_MATMUL, DIM, FFN, PREFILL },
    { TLR_OP_SCORE, VOCAB, DIM, 1 },
    { TLR_OP_SCORE, VOCAB, DIM, 4 }, /* branches */
    { TLR_OP_RMSNORM, 0, DIM, 1 },
    { TLR_OP_ROPE, 0, HEADS * HEAD_DIM, 1 },
    { TLR_OP_SWIGLU, 0, FFN, 1 },
    { TLR_OP_ADD, 0, DIM, 1 },
    { TLR_OP_TO_F16, 0, 4096, 1 },
    { TLR_OP_FROM_F16, 0, 4096, 1 },
    /* rows are positions, and the queries are those of one KV head */
    { TLR_OP_ATTEND_F32, TLR_KV_STRETCH, HEAD_DIM, 1 },
    { TLR_OP_ATTEND_F32, TLR_KV_STRETCH, HEAD_DIM, ATTEND_TOK },
    { TLR_OP_ATTEND_F16, TLR_KV_STRETCH, HEAD_DIM, 1 },
    { TLR_OP_ATTEND_F16, TLR_KV_STRETCH, HEAD_DIM, ATTEND_TOK },
    { TLR_OP_ATTEND_Q8, TLR_KV_STRETCH, HEAD_DIM, 1 },
    { TLR_OP_ATTEND_Q8, TLR_KV_STRETCH, HEAD_DIM, ATTEND_TOK },
    { TLR_OP_ATTEND_MERGE, HEADS, HEAD_DIM, 1 },
};

const struct tlr_case *tlr_kernel_cases(size_t *n)
{
    *n = sizeof cases / sizeof *cases;
    return cases;
}

static struct tlr_case_size matrix_size(const struct tlr_case *c,
                                        enum tlr_type type)
{
    double rows = c->n_rows, cols = c->n_cols, tok = c->n_tok;
    size_t w = tlr_matrix_bytes(type, (uint64_t)c->n_rows,
                                (uint64_t)c->n_cols);
    double read = (double)w;
    if (c->op == TLR_OP_SCORE) /* the high planes alone */
        read = read * TLR_HIGH_BYTES / (TLR_HIGH_BYTES + TLR_LOW_BYTES);
    double in = c->op == TLR_OP_MATVEC    ? 4 * cols
                : c->op == TLR_OP_DEQUANT ? 0
                                          : cols / 32 * TLR_ACT_BYTES * tok;
    double written = c->op == TLR_OP_DEQUANT ? 4 * rows * cols
                     : c->op == TLR_OP_SCORE ? 8 * rows * tok
                                             : 4 * rows * tok;
    double ops = c->op == TLR_OP_DEQUANT ? rows * cols : 2 * rows * cols * tok;
    return (struct tlr_case_size){
        .item_bytes = w, .n_bytes = read + in + written, .n_ops = ops,
        .is_int = c->op == TLR_OP_MATMUL || c->op == TLR_OP_SCORE,
    };
}

/* Bytes read and written, and operations, of one element of a vector. */
static struct tlr_case_size vector_size(const struct tlr_case *c)
{
    static const struct {
        double in, out, other, ops; /* other: an operand that stays */
    } per[TLR_N_OPS] = {
        [TLR_OP_QUANTISE] = { 4, 0, 1.25, 4 },
        [TLR_OP_RMSNORM] = { 4, 0, 8, 4 },
        [TLR_OP_ROPE] = { 0, 4, 4.0 / HEADS, 3 },
        [TLR_OP_SWIGLU] = { 4, 0, 8, 5 },
        [TLR_OP_ADD] = { 4, 4, 0, 1 },
        [TLR_OP_TO_F16] = { 4, 0, 2, 1 },
        [TLR_OP_FROM_F16] = { 2, 0, 4, 1 },
    };
    double n = (double)c->n_cols * c->n_tok;
    double written = per[c->op].out > 0 ? 2 * per[c->op].out : 0;
    return (struct tlr_case_size){
        .item_bytes = (size_t)(n * per[c->op].in),
        .out_bytes = (size_t)(n * per[c->op].out),
        .n_bytes = n * (per[c->op].in + written + per[c->op].other),
        .n_ops = n * per[c->op].ops,
    };
}

/* Keys alone, or values alone. */
static size_t kv_bytes(const struct tlr_case *c)
{
    size_t n = (size_t)c->n_rows * (size_t)c->n_cols;
    if (c->op == TLR_OP_ATTEND_Q8)
        return n + n / 32 * 2;
    return n * (c->op == TLR_OP_ATTEND_F16 ? 2 : 4);
}

/* Two products of every query with a position: its score, its value's share. */
static struct tlr_case_size attend_size(const struct tlr_case *c)
{
    double queries = (double)c->n_tok * GROUP, dim = c->n_cols;
    size_t w = 2 * kv_bytes(c);
    return (struct tlr_case_size){
        .item_bytes = w,
        .n_bytes = (double)w + queries * 4 * (dim + dim + 2),
        .n_ops = 4 * queries * c->n_rows * dim,
    };
}

static struct tlr_case_size merge_size(const struct tlr_case *c)
{
    size_t n = (size_t)c->n_rows * TLR_PART_FLOATS(c->n_cols) * sizeof(float);
    double used = (double)c->n_rows * (c->n_cols + 2);
    return (struct tlr_case_size){ .item_bytes = n, .out_bytes = n,
                                   .n_bytes = 12 * used, .n_ops = 3 * used };
}

struct tlr_case_size tlr_case_size(const struct tlr_case *c,
                                   enum tlr_type type)
{
    if (c->op == TLR_OP_ATTEND_MERGE)
        return merge_size(c);
    if (c->op >= TLR_OP_ATTEND_F32 && c->op <= TLR_OP_ATTEND_Q8)
        return attend_size(c);
    return c->n_rows > 0 ? matrix_size(c, type) : vector_size(c);
}

static void call_matvec(tlr_any_fn *fn, const struct tlr_case *c,
                        const struct tlr_operands *o)
{
    ((tlr_matvec_fn *)fn)(o->y, (size_t)c->n_rows, o->item, o->x,
                          (size_t)c->n_cols, c->n_tok, c->n_rows, c->n_cols);
}

static void call_dequant(tlr_any_fn *fn, const struct tlr_case *c,
                         const struct tlr_operands *o)
{
    ((tlr_dequant_fn *)fn)(o->y, o->item, c->n_rows, c->n_cols);
}

static void call_quantise(tlr_any_fn *fn, const struct tlr_case *c,
                          const struct tlr_operands *o)
{
    ((tlr_quantise_fn *)fn)(o->act, NULL, o->item, (size_t)c->n_cols, c->n_tok,
                            c->n_cols);
}

static void call_matmul(tlr_any_fn *fn, const struct tlr_case *c,
                        const struct tlr_operands *o)
{
    ((tlr_matmul_fn *)fn)(o->y, (size_t)c->n_rows, o->item, 0, o->act, c->n_tok,
                          c->n_rows, c->n_cols);
}

static void call_score(tlr_any_fn *fn, const struct tlr_case *c,
                       const struct tlr_operands *o)
{
    ((tlr_score_fn *)fn)(o->y, o->y2, (size_t)c->n_rows, o->item, 0, o->act,
                         c->n_tok, c->n_rows, c->n_cols);
}

static void call_rmsnorm(tlr_any_fn *fn, const struct tlr_case *c,
                         const struct tlr_operands *o)
{
    ((tlr_rmsnorm_fn *)fn)(o->y, o->item, o->x, c->n_cols, 1e-6f);
}

static void call_rope(tlr_any_fn *fn, const struct tlr_case *c,
                      const struct tlr_operands *o)
{
    ((tlr_rope_fn *)fn)(o->out, o->x, o->x + HEAD_DIM / 2,
                        c->n_cols / HEAD_DIM, HEAD_DIM);
}

static void call_swiglu(tlr_any_fn *fn, const struct tlr_case *c,
                        const struct tlr_operands *o)
{
    ((tlr_swiglu_fn *)fn)(o->y, o->item, o->x, c->n_cols);
}

static void call_add(tlr_any_fn *fn, const struct tlr_case *c,
                     const struct tlr_operands *o)
{
    ((tlr_add_fn *)fn)(o->out, o->item, c->n_cols);
}

static void call_to_f16(tlr_any_fn *fn, const struct tlr_case *c,
                        const struct tlr_operands *o)
{
    ((tlr_to_f16_fn *)fn)((uint16_t *)(void *)o->y, o->item, c->n_cols);
}

static void call_from_f16(tlr_any_fn *fn, const struct tlr_case *c,
                          const struct tlr_operands *o)
{
    ((tlr_from_f16_fn *)fn)(o->y, o->item, c->n_cols);
}

static void call_attend(tlr_any_fn *fn, const struct tlr_case *c,
                        const struct tlr_operands *o)
{
    struct tlr_kv_span span = {
        o->item, (const char *)o->item + kv_bytes(c), c->n_rows
    };
    int n_seen[ATTEND_TOK];
    for (int t = 0; t < c->n_tok; t++)
        n_seen[t] = c->n_rows;
    struct tlr_attend job = {
        .q = o->x, .q_stride = (size_t)(HEADS * c->n_cols), .n_seen = n_seen,
        .n_tok = c->n_tok, .n_heads = GROUP, .spans = &span, .n_spans = 1,
        .head_dim = c->n_cols, .scale = 0.125f,
    };
    ((tlr_attend_fn *)fn)(o->y, &job, o->y2);
}

static void call_merge(tlr_any_fn *fn, const struct tlr_case *c,
                       const struct tlr_operands *o)
{
    ((tlr_attend_merge_fn *)fn)(o->out, o->item, c->n_rows, c->n_cols);
}

tlr_case_fn *tlr_case_call(enum tlr_kernel_op op)
{
    static tlr_case_fn *const calls[TLR_N_OPS] = {
        [TLR_OP_MATVEC] = call_matvec,     [TLR_OP_DEQUANT] = call_dequant,
        [TLR_OP_QUANTISE] = call_quantise, [TLR_OP_MATMUL] = call_matmul,
        [TLR_OP_SCORE] = call_score,       [TLR_OP_RMSNORM] = call_rmsnorm,
        [TLR_OP_ROPE] = call_rope,         [TLR_OP_SWIGLU] = call_swiglu,
        [TLR_OP_ADD] = call_add,           [TLR_OP_TO_F16] = call_to_f16,
        [TLR_OP_FROM_F16] = call_from_f16, [TLR_OP_ATTEND_F32] = call_attend,
        [TLR_OP_ATTEND_F16] = call_attend, [TLR_OP_ATTEND_Q8] = call_attend,
        [TLR_OP_ATTEND_MERGE] = call_merge,
    };
    return calls[op];
}
