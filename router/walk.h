/* walk.h - every run of one question, as paths in one tree of token prefixes.
 *
 * A run (policy, tau) is greedy, so what stands at a prefix does not depend on
 * how a run came there: the small model's token, the trust of every policy, the
 * large model's token.  The tree keeps them; a run pays only for prefixes that
 * no run before it has visited.  What it pays for is computed several tokens at
 * a time: a guess at the text ahead (from texts seen before, matched by their
 * last tokens) fills the rows of a step that would cost nearly as much with one.
 * A wrong guess is a branch of the tree that nobody walks; it cannot change a
 * result, because the engine makes the same bits for a token in any company.
 * That holds for tiled weights; with f32 or bf16 matrices nothing is guessed.
 */
#ifndef TLR_ROUTER_WALK_H
#define TLR_ROUTER_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/tlr.h"
#include "router/expert.h"
#include "router/policy.h"

struct tlr_walk;

enum { TLR_WALK_AHEAD_MAX = 31 };

struct tlr_walk_options {
    /* Whose trust is kept; tau is given to each run.  The seed of random is
     * mixed with that of tlr_walk_begin. */
    struct tlr_policy policies[TLR_N_POLICIES];
    int n_policies;
    uint32_t max_prompt, max_tok; /* most ids of a prompt; of an answer */
    int n_ahead;     /* most ids guessed for one step, 0..TLR_WALK_AHEAD_MAX */
    bool agreement;  /* where the expert has ask_each, let it look at every
                        position of every path */
    bool (*is_stopped)(void *ctx); /* NULL: never; asked before every step */
    void *ctx;
};

/* The expert stays the caller's (NULL: only never can run); the session is the
 * walk's own, over `session` with n_ctx set as the options need it. */
int tlr_walk_new(struct tlr_walk **out, const struct tlr_model *slm,
                 const struct tlr_session_options *session,
                 struct tlr_expert *llm, const struct tlr_walk_options *options,
                 struct tlr_err *err);
void tlr_walk_free(struct tlr_walk *w); /* NULL is allowed */

/* Another question: drops the tree.  1 <= n <= max_prompt. */
int tlr_walk_begin(struct tlr_walk *w, const int32_t *prompt, size_t n,
                   uint64_t seed, struct tlr_err *err);

struct tlr_walk_path {
    const int32_t *ids; /* [n_tok], the walk's until its next call; an end of
                           text is the last one */
    uint32_t n_tok, n_asked;
    bool is_ended;      /* else max_tok ended it */
    /* Positions where the large model's token is known, and those of them where
     * the text has it. */
    uint32_t n_known, n_agree;
};

/* One run.  always takes whole answers of the large model and needs no small
 * one. */
int tlr_walk_run(struct tlr_walk *w, enum tlr_policy_kind kind, float tau,
                 struct tlr_walk_path *out, struct tlr_err *err);

/* Trust of a policy at position i of the last path (not of always). */
float tlr_walk_trust(const struct tlr_walk *w, enum tlr_policy_kind kind,
                     uint32_t i);

struct tlr_walk_counts {
    uint64_t n_runs, n_run_tok;     /* what the runs wrote */
    uint64_t n_steps, n_step_tok;   /* of the small model, rows in them */
    uint64_t n_asks, n_ask_tok;     /* of the large one, positions known by them */
    uint64_t slm_ns, llm_ns;
};
struct tlr_walk_counts tlr_walk_read(const struct tlr_walk *w);

#endif
