/* tlr.h - libtlr, the whole public interface of the engine.
 *
 * Two opaque handles.  A *model* is an open model file: read-only, shareable by
 * any number of threads.  A *session* is one mutable timeline of tokens over a
 * model: its KV cache, its threads, its scratch; one thread uses it at a time,
 * and two sessions run in two threads.  No globals, no output, no exit.
 *
 *     tlr_model_open -> tlr_session_new -> tlr_prefill(prompt)
 *       -> loop { pick an id from tlr_logits -> tlr_decode(id) }
 *
 * The engine knows nothing of routers and networks, but has the verbs they
 * need: the hidden state before the LM head is paid for, rewind, branches that
 * are tried side by side, snapshots.
 */
#ifndef TLR_ENGINE_TLR_H
#define TLR_ENGINE_TLR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/chat.h"
#include "engine/generation.h"
#include "engine/tokenizer.h"
#include "kernels/cpu.h"
#include "weights/model_file.h"

struct tlr_model;
struct tlr_session;

/* ---- model ---- */

int tlr_model_open(struct tlr_model **out, const char *path,
                   struct tlr_err *err);
/* From an already open file (tlr bench --random); takes it over, also on
 * failure. */
int tlr_model_from_file(struct tlr_model **out, struct tlr_file *file,
                        struct tlr_err *err);
void tlr_model_close(struct tlr_model *m); /* NULL is allowed */

const struct tlr_config *tlr_model_config(const struct tlr_model *m);
const struct tlr_file *tlr_model_file(const struct tlr_model *m);
/* NULL when the file has none (a random model). */
const struct tlr_tokenizer *tlr_model_tokenizer(const struct tlr_model *m);
const struct tlr_chat *tlr_model_chat(const struct tlr_model *m);
const struct tlr_generation *tlr_model_generation(const struct tlr_model *m);
/* Ids that exist: rows of the embedding table that the tokenizer can name; all
 * rows without a tokenizer.  Logits beyond it are padding. */
uint32_t tlr_model_n_ids(const struct tlr_model *m);
/* Bytes of weights that one decoded token reads (head included, embedding row
 * not). */
uint64_t tlr_model_bytes_per_token(const struct tlr_model *m);
/* The same where tlr_top picks the token: of a head in two planes, the high one
 * (what is looked at again in the low one is left out). */
uint64_t tlr_model_bytes_per_top(const struct tlr_model *m);

/* ---- session ---- */

enum tlr_kv_type {
    TLR_KV_AUTO = 0,
    TLR_KV_F32 = 1,
    TLR_KV_F16 = 2,
    TLR_KV_Q8 = 3 /* int8 in blocks of 32 elements with an f16 scale each */
};

/* How a tiled weight matrix sees its input.  int8: rounded in blocks of 32.
 * int16: what int8 leaves is rounded again (15 bits in all), at twice the
 * arithmetic and, for few tokens, the same memory traffic. */
enum tlr_act { TLR_ACT_AUTO = 0, TLR_ACT_INT8 = 1, TLR_ACT_INT16 = 2 };

struct tlr_session_options {
    uint32_t n_ctx;       /* positions; 0: min(model's max_ctx, 4096) */
    int n_threads;        /* 0: tlr_default_threads() */
    int cpu_level;        /* enum tlr_cpu_level; -1: best of the machine */
    enum tlr_kv_type kv;  /* AUTO: f32 for an f32 model, else f16 */
    enum tlr_act act;     /* AUTO: int8 for q4n models, else int16 */
    uint32_t n_batch;     /* tokens of one prefill chunk; 0: 256 */
    uint32_t n_branches;  /* most candidate branches, 0..8; 0: no branches */
    uint32_t branch_tok;  /* most tokens of one branch; 0: 32 */
    /* A session of the same model that lends its threads and scratch, so that
     * this one costs its KV cache and results only; it must live longer, the two
     * may not be used at the same time, n_ctx is at most the lender's, and
     * n_threads, cpu_level, act and n_batch are.  NULL: its own. */
    const struct tlr_session *lender;
};

/* All defaults; a zeroed struct would ask for the reference kernels. */
#define TLR_SESSION_OPTIONS_INIT                                               \
    {                                                                          \
        .cpu_level = -1                                                        \
    }

/* What a session needs, before any of it is allocated. */
struct tlr_memory {
    uint64_t weights_bytes, kv_bytes, scratch_bytes, total_bytes;
};
int tlr_session_estimate(const struct tlr_model *m,
                         const struct tlr_session_options *options,
                         struct tlr_memory *out, struct tlr_err *err);

/* options NULL: all defaults.  n_ctx above the model's max_ctx is TLR_ELIMIT.
 * The model must outlive the session. */
int tlr_session_new(struct tlr_session **out, const struct tlr_model *m,
                    const struct tlr_session_options *options,
                    struct tlr_err *err);
void tlr_session_free(struct tlr_session *s); /* NULL is allowed */

/* What was chosen: n_ctx, threads, level, kv with the defaults filled in. */
const struct tlr_session_options *
tlr_session_options_used(const struct tlr_session *s);

/* The session's threads, for whoever computes something from a step before the
 * next one (base/pool.h); never during a step. */
struct tlr_pool *tlr_session_pool(const struct tlr_session *s);

/* Which results a step must make; the hidden state is always there. */
enum tlr_step_flags {
    TLR_STEP_LOGITS = 1 << 0 /* run the LM head for the last token */
};

/* Appends n ids to the timeline.  Afterwards tlr_hidden (and tlr_logits, if
 * asked for) are those of the last one.  More than n_ctx positions: TLR_ELIMIT
 * and nothing appended; an id out of range: TLR_EUSAGE.  Chunks of n_batch; the
 * results depend on no thread count. */
int tlr_prefill(struct tlr_session *s, const int32_t *ids, size_t n,
                unsigned flags, struct tlr_err *err);

/* The same, calling each(ctx, index, hidden [dim], logits [n_vocab]) for every
 * token in order: perplexity, labels.  A non-zero return stops
 * (TLR_ECANCELLED) with the timeline as long as before. */
typedef int (*tlr_each_fn)(void *ctx, size_t index, const float *hidden,
                           const float *logits);
int tlr_prefill_each(struct tlr_session *s, const int32_t *ids, size_t n,
                     tlr_each_fn each, void *ctx, struct tlr_err *err);

/* Appends one id; the fast path.  Allocates nothing. */
int tlr_decode(struct tlr_session *s, int32_t id, unsigned flags,
               struct tlr_err *err);

/* Appends one id to each of n different sessions of one model in one pass over
 * the weights: what n calls of tlr_decode would do, to the bit.  1 <= n <=
 * TLR_MAX_TOGETHER; equal cpu_level and act (TLR_EUSAGE).  Threads, scratch and
 * profile are those of the session with the longest context (the first of
 * these).  An error changes no session.  Allocates nothing. */
enum { TLR_MAX_TOGETHER = 8 };
int tlr_decode_together(struct tlr_session *const *sessions, const int32_t *ids,
                        int n, unsigned flags, struct tlr_err *err);

/* Finds the k best ids of each of n sessions' last hidden state in one pass over
 * the head's weights, and keeps them: tlr_top of as many or fewer then costs
 * nothing until the session's next step.  Sessions as in tlr_decode_together, each
 * with a hidden state and no live branches (TLR_EUSAGE); k as in tlr_top.  Counted
 * (tlr_top_read) in the session whose scratch it took. */
int tlr_top_together(struct tlr_session *const *sessions, int n, int k,
                     struct tlr_err *err);

/* Runs the LM head on the hidden state of the last step (of every branch, while
 * there are any), for callers that skipped it and changed their mind. */
int tlr_run_head(struct tlr_session *s, struct tlr_err *err);

/* f32 [dim]: final-norm output of the last token, the LM head's input. */
const float *tlr_hidden(const struct tlr_session *s);
/* f32 [n_vocab] of the last token; NULL when the last step skipped the head. */
const float *tlr_logits(const struct tlr_session *s);

/* The k best ids of the LM head for the last hidden state, best first (of equal
 * logits the lower id), with their logits: the same bits as tlr_logits has.
 * Where the head lies in two planes (q8p), the low plane is read only for rows
 * that can still win, so this costs about half of tlr_run_head.  Padding rows
 * are left out.  1 <= k <= TLR_TOP_MAX.  Does not touch tlr_logits. */
enum { TLR_TOP_MAX = 64 };
int tlr_top(struct tlr_session *s, int k, int32_t *ids, float *logits,
            struct tlr_err *err);

/* States so far (tlr_branch_top: as many as branches), rows that the search of
 * two planes looked at again, and states that took the full pass. */
struct tlr_top_counts {
    uint64_t n_calls, n_survivors, n_full;
};
struct tlr_top_counts tlr_top_read(const struct tlr_session *s);

uint32_t tlr_pos(const struct tlr_session *s);          /* tokens so far */
const int32_t *tlr_ids_of(const struct tlr_session *s); /* [tlr_pos] */

/* Forgets the tokens from position pos on (pos <= tlr_pos); hidden and logits
 * are gone until the next step.  Decoding the same ids again gives the same
 * bits. */
int tlr_rewind(struct tlr_session *s, uint32_t pos, struct tlr_err *err);

/* Makes the timeline of `to` the first n tokens of `from`'s (n <= its tlr_pos), a
 * session of the same model and KV type: keys and values are copied from where
 * the two differ, so what follows has the bits that it has on `from`.  With all of
 * them hidden and logits come along, else they are gone as after a rewind. */
int tlr_adopt(struct tlr_session *to, const struct tlr_session *from,
              uint32_t n, struct tlr_err *err);

/* ---- branches: several continuations of the same prefix, side by side ----
 * A branch is a private suffix on the timeline.  Each tlr_branch_decode adds
 * one token to each of branches 0..n-1 in one pass over the weights; a branch's
 * results are the same bits as if it had been decoded alone. */

int tlr_branch_decode(struct tlr_session *s, const int32_t *ids, int n,
                      unsigned flags, struct tlr_err *err);
const float *tlr_branch_hidden(const struct tlr_session *s, int branch);
const float *tlr_branch_logits(const struct tlr_session *s, int branch);
uint32_t tlr_branch_len(const struct tlr_session *s); /* tokens of each one */
/* tlr_top for every branch in one pass over the head's weights: ids and logits
 * [n][k], branch after branch.  Does not touch tlr_branch_logits. */
int tlr_branch_top(struct tlr_session *s, int k, int32_t *ids, float *logits,
                   struct tlr_err *err);
/* Appends the first n_tok tokens of a branch to the timeline and drops all
 * branches.  If n_tok is the whole branch, its hidden and logits become those
 * of the session. */
int tlr_branch_keep(struct tlr_session *s, int branch, uint32_t n_tok,
                    struct tlr_err *err);
void tlr_branch_drop(struct tlr_session *s);

/* ---- looking inside ---- */

/* Where time goes.  ns [n_layers + 1][TLR_N_PROFILE_OPS], the last row for what
 * lies outside the layers; the entries add up to total_ns. */
#define TLR_PROFILE_OPS(X)                                                     \
    X(EMBED, "embed")                                                          \
    X(NORM, "norm")                                                            \
    X(QKV, "qkv")                                                              \
    X(ATTEND, "attend")                                                        \
    X(O, "o")                                                                  \
    X(GATE_UP, "gate_up")                                                      \
    X(DOWN, "down")                                                            \
    X(HEAD, "head")
#define TLR_PROFILE_OP_ENUM(id, name) TLR_PROFILE_##id,
enum tlr_profile_op { TLR_PROFILE_OPS(TLR_PROFILE_OP_ENUM) TLR_N_PROFILE_OPS };
#undef TLR_PROFILE_OP_ENUM

struct tlr_profile {
    uint32_t n_layers;
    uint64_t n_steps, n_tok, total_ns;
    const uint64_t *ns;
};
/* Starts counting from zero (allocates once); stays on until the session ends. */
int tlr_profile_start(struct tlr_session *s, struct tlr_err *err);
/* Counts so far, owned by the session; ns NULL when not started. */
struct tlr_profile tlr_profile_read(const struct tlr_session *s);

/* The input of every matrix, as the step computes it: x f32 [n_tok, x_stride],
 * n_cols wide, before any rounding; TLR_INPUT_HEAD (layer n_layers) for every
 * token.  For calibration, slower; fn NULL ends it. */
enum tlr_input {
    TLR_INPUT_QKV,
    TLR_INPUT_O,
    TLR_INPUT_GATE_UP,
    TLR_INPUT_DOWN,
    TLR_INPUT_HEAD,
    TLR_N_INPUTS
};
typedef void (*tlr_observe_fn)(void *ctx, uint32_t layer, enum tlr_input input,
                               const float *x, size_t x_stride, int n_tok,
                               uint32_t n_cols);
int tlr_session_observe(struct tlr_session *s, tlr_observe_fn fn, void *ctx,
                        struct tlr_err *err);

/* ---- snapshot: a timeline as bytes (ids and KV), for the same model ---- */

/* Allocated with tlr_calloc; free with tlr_free. */
int tlr_snapshot_save(const struct tlr_session *s, uint8_t **out,
                      size_t *out_len, struct tlr_err *err);
/* Untrusted bytes: another model, KV type, a longer context or a wrong size are
 * refused and the session stays as it was. */
int tlr_snapshot_load(struct tlr_session *s, struct tlr_bytes bytes,
                      struct tlr_err *err);

#endif
