/* walk.c - see walk.h.
 *
 * The tree lives in three growing arrays (nodes, their trusts, their texts'
 * history) that are emptied, not freed, from question to question.
 */
#include "router/walk.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "router/guess.h"
#include "router/trusts.h"

enum { NONE = -1, ROOT = 0, REPLAY_MOST = 16 };

/* The prefix "prompt and the ids on the way from the root". */
struct node {
    int32_t id;              /* of the root: NONE */
    int32_t child, sibling;  /* newest child first */
    int32_t parent;
    int32_t slm, llm;        /* next tokens; NONE: not known */
};

struct tlr_walk {
    struct tlr_walk_options opt;
    const struct tlr_model *model;
    struct tlr_session *session;
    struct tlr_expert *llm;
    uint32_t n_ids;
    bool is_tiled; /* bits do not depend on a step's company */
    struct tlr_trusts trusts_at;

    struct node *nodes;
    float *trusts; /* [n_nodes, TLR_N_POLICIES] */
    int32_t n_nodes, cap_nodes;

    int32_t *ids;   /* [max_prompt + max_tok + ahead] prompt, then the text */
    size_t n_prompt;
    int32_t *path;  /* [max_tok] nodes of the text: ids[n_prompt + i] was
                       decided at path[i] */
    uint32_t n_path;
    int32_t *replies; /* [like ids] of ask_each */
    int32_t *asked;   /* [like ids] what the expert saw last */
    size_t n_asked;
    struct tlr_guess guess;
    struct tlr_walk_counts counts;
};

/* ---- the tree ---- */

static int add_node(struct tlr_walk *w, int32_t parent, int32_t id,
                    int32_t *out, struct tlr_err *err)
{
    if (w->n_nodes == w->cap_nodes) {
        int32_t cap = w->cap_nodes ? 2 * w->cap_nodes : 4096;
        struct node *nodes = tlr_realloc(w->nodes, (size_t)cap, sizeof *nodes);
        if (nodes)
            w->nodes = nodes;
        float *trusts = !nodes ? NULL
                               : tlr_realloc(w->trusts,
                                             (size_t)cap * TLR_N_POLICIES,
                                             sizeof *trusts);
        if (!trusts)
            return tlr_err_nomem(err, "tree of prefixes",
                                 (size_t)cap * sizeof *nodes);
        w->trusts = trusts;
        w->cap_nodes = cap;
    }
    struct node *n = &w->nodes[w->n_nodes];
    *n = (struct node){.id = id, .child = NONE, .sibling = NONE,
                       .parent = parent, .slm = NONE, .llm = NONE};
    if (parent != NONE) {
        n->sibling = w->nodes[parent].child;
        w->nodes[parent].child = w->n_nodes;
    }
    *out = w->n_nodes++;
    return 0;
}

static int child_of(struct tlr_walk *w, int32_t parent, int32_t id,
                    int32_t *out, struct tlr_err *err)
{
    for (int32_t c = w->nodes[parent].child; c != NONE; c = w->nodes[c].sibling)
        if (w->nodes[c].id == id) {
            *out = c;
            return 0;
        }
    return add_node(w, parent, id, out, err);
}

static bool is_end(const struct tlr_walk *w, int32_t id)
{
    const struct tlr_generation *g = tlr_model_generation(w->model);
    return g && tlr_generation_is_eos(g, id);
}

/* ---- the small model ---- */

/* What a step showed at the prefix of n ids becomes the node's. */
static int take(struct tlr_walk *w, int32_t node, size_t n,
                const float *hidden, const float *logits, struct tlr_err *err)
{
    if (w->nodes[node].slm != NONE)
        return 0;
    return tlr_trusts_at(&w->trusts_at, hidden, logits, (uint32_t)n,
                         &w->trusts[(size_t)node * TLR_N_POLICIES],
                         &w->nodes[node].slm, err);
}

/* One step's rows on their way into the tree. */
struct rows {
    struct tlr_walk *w;
    const int32_t *nodes; /* of each row, NONE: already known */
    size_t first;         /* ids before and including row 0 */
    int rc;
    struct tlr_err *err;
};

static int take_row(void *ctx, size_t index, const float *hidden,
                    const float *logits)
{
    struct rows *r = ctx;
    if (r->nodes[index] != NONE)
        r->rc = take(r->w, r->nodes[index], r->first + index, hidden, logits,
                     r->err);
    return r->rc;
}

/* How many ids of the session's timeline are those wanted. */
static size_t common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

/* f32 and bf16: the calls that the joint loop itself would make, so that the
 * numbers are its to the bit. */
static int step_alone(struct tlr_walk *w, size_t n, int32_t node,
                      struct tlr_err *err)
{
    struct tlr_session *s = w->session;
    size_t keep = common(tlr_ids_of(s), tlr_pos(s), w->ids, n - 1);
    keep = keep < w->n_prompt ? 0 : keep;
    int rc = keep < tlr_pos(s) ? tlr_rewind(s, (uint32_t)keep, err) : 0;
    if (!rc && keep == 0) {
        keep = w->n_prompt;
        rc = tlr_prefill(s, w->ids, keep, TLR_STEP_LOGITS, err);
    }
    for (; keep < n && !rc; keep++)
        rc = tlr_decode(s, w->ids[keep], TLR_STEP_LOGITS, err);
    w->counts.n_steps++;
    w->counts.n_step_tok++;
    return rc ? rc : take(w, node, n, tlr_hidden(s), tlr_logits(s), err);
}

/* Runs ids[.. n + n_ahead) through the session, as far as they are not there;
 * rows from the n-th id on fill nodes. */
static int step(struct tlr_walk *w, size_t n, int n_ahead,
                const int32_t *nodes, struct tlr_err *err)
{
    struct tlr_session *s = w->session;
    size_t keep = common(tlr_ids_of(s), tlr_pos(s), w->ids, n - 1);
    int rc = keep < tlr_pos(s) ? tlr_rewind(s, (uint32_t)keep, err) : 0;
    size_t first = n - 1;
    if (first - keep <= REPLAY_MOST)
        first = keep; /* more rows in one step cost less than a second one */
    else if (!rc)
        rc = tlr_prefill(s, w->ids + keep, first - keep, 0, err);
    if (rc)
        return rc;
    size_t n_rows = n + (size_t)n_ahead - first;
    w->counts.n_steps++;
    w->counts.n_step_tok += n_rows;
    if (n_rows == 1) {
        rc = tlr_decode(s, w->ids[first], TLR_STEP_LOGITS, err);
        return rc ? rc
                  : take(w, nodes[0], n, tlr_hidden(s), tlr_logits(s), err);
    }
    int32_t of_row[REPLAY_MOST + TLR_WALK_AHEAD_MAX + 1];
    size_t n_known = n - 1 - first;
    for (size_t i = 0; i < n_rows; i++)
        of_row[i] = i < n_known ? NONE : nodes[i - n_known];
    struct rows rows = {w, of_row, first + 1, 0, err};
    rc = tlr_prefill_each(s, w->ids + first, n_rows, take_row, &rows, err);
    return rows.rc ? rows.rc : rc;
}

/* Makes node, at depth ids of text, known, and what is guessed to follow. */
static int look(struct tlr_walk *w, int32_t node, uint32_t depth,
                struct tlr_err *err)
{
    int32_t nodes[TLR_WALK_AHEAD_MAX + 1] = {node};
    size_t n = w->n_prompt + depth;
    int n_ahead = 0, rc = 0;
    if (w->opt.is_stopped && w->opt.is_stopped(w->opt.ctx))
        return TLR_ECANCELLED;
    uint32_t room = w->opt.max_tok - depth - 1; /* the last id needs no step */
    int most = (uint32_t)w->opt.n_ahead < room ? w->opt.n_ahead : (int)room;
    if (most > 0)
        n_ahead = tlr_guess_next(&w->guess, w->ids, n, most, w->ids + n);
    for (int i = 0; i < n_ahead && !rc; i++) {
        if (is_end(w, w->ids[n + (size_t)i]))
            n_ahead = i;
        else
            rc = child_of(w, nodes[i], w->ids[n + (size_t)i], &nodes[i + 1],
                          err);
    }
    uint64_t begun = tlr_now_ns();
    if (!rc)
        rc = w->is_tiled ? step(w, n, n_ahead, nodes, err)
                         : step_alone(w, n, node, err);
    w->counts.slm_ns += tlr_now_ns() - begun;
    return rc;
}

/* ---- the large model ---- */

/* Remembers what the expert's own cache holds now. */
static void note_asked(struct tlr_walk *w, size_t n)
{
    memcpy(w->asked, w->ids, n * sizeof *w->ids);
    w->n_asked = n;
}

static int ask_one(struct tlr_walk *w, int32_t node, size_t n,
                   struct tlr_err *err)
{
    struct tlr_expert_reply reply;
    int rc = tlr_expert_ask(w->llm, w->ids, n, 1, w->n_ids, &reply, err);
    if (!rc) {
        w->nodes[node].llm = reply.ids[0];
        w->counts.n_ask_tok++;
    }
    return rc;
}

/* The large model's token at the text's position `at`.  An expert that can
 * answers for every position that it has to read anyway. */
static int ask(struct tlr_walk *w, uint32_t at, struct tlr_err *err)
{
    size_t n = w->n_prompt + at;
    uint32_t first = at;
    int rc;
    if (w->opt.is_stopped && w->opt.is_stopped(w->opt.ctx))
        return TLR_ECANCELLED;
    uint64_t begun = tlr_now_ns();
    w->counts.n_asks++;
    if (!w->llm->ops->ask_each) {
        rc = ask_one(w, w->path[at], n, err);
    } else {
        size_t kept = common(w->asked, w->n_asked, w->ids, n);
        while (first > 0 && w->n_prompt + first > kept &&
               w->nodes[w->path[first - 1]].llm == NONE)
            first--;
        rc = tlr_expert_ask_each(w->llm, w->ids, n, w->n_prompt + first - 1,
                                 w->n_ids, w->replies, err);
        for (uint32_t i = first; i <= at && !rc; i++)
            w->nodes[w->path[i]].llm = w->replies[i - first];
        w->counts.n_ask_tok += at + 1 - first;
    }
    note_asked(w, rc ? 0 : n);
    w->counts.llm_ns += tlr_now_ns() - begun;
    return rc;
}

/* The large model's answer from position `at` on, as nodes whose llm is known:
 * whole stretches, so that an expert behind a network is asked rarely. */
static int ask_ahead(struct tlr_walk *w, uint32_t at, struct tlr_err *err)
{
    struct tlr_expert_reply reply;
    uint32_t room = w->opt.max_tok - at;
    int n_tok = room < TLR_EXPERT_TOK_MAX ? (int)room : TLR_EXPERT_TOK_MAX;
    if (w->opt.is_stopped && w->opt.is_stopped(w->opt.ctx))
        return TLR_ECANCELLED;
    uint64_t begun = tlr_now_ns();
    int rc = tlr_expert_ask(w->llm, w->ids, w->n_prompt + at, n_tok, w->n_ids,
                            &reply, err);
    int32_t node = w->path[at];
    w->counts.n_asks++;
    for (int i = 0; i < reply.n_tok && !rc; i++) {
        w->nodes[node].llm = reply.ids[i];
        w->counts.n_ask_tok++;
        rc = child_of(w, node, reply.ids[i], &node, err);
    }
    note_asked(w, rc ? 0 : w->n_prompt + at);
    w->counts.llm_ns += tlr_now_ns() - begun;
    return rc;
}

/* ---- a run ---- */

/* The id that a run writes at position at. */
static int decide(struct tlr_walk *w, const struct tlr_policy *p, uint32_t at,
                  bool *asks, int32_t *id, struct tlr_err *err)
{
    int32_t node = w->path[at];
    int rc = 0;
    if (p->kind == TLR_POLICY_ALWAYS) {
        *asks = true;
        if (w->nodes[node].llm == NONE)
            rc = ask_ahead(w, at, err);
    } else {
        if (w->nodes[node].slm == NONE)
            rc = look(w, node, at, err);
        *asks = !rc && p->kind != TLR_POLICY_NEVER &&
                tlr_policy_asks(p, tlr_walk_trust(w, p->kind, at));
        if (*asks && w->nodes[node].llm == NONE)
            rc = ask(w, at, err);
    }
    *id = *asks ? w->nodes[node].llm : w->nodes[node].slm;
    return rc;
}

/* Where the text and the large model's tokens agree.  Its last positions are
 * asked for if all are wanted. */
static int compare(struct tlr_walk *w, struct tlr_walk_path *out,
                   struct tlr_err *err)
{
    int rc = 0;
    if (w->opt.agreement && w->llm && w->llm->ops->ask_each)
        for (uint32_t i = out->n_tok; i-- > 0 && !rc;)
            if (w->nodes[w->path[i]].llm == NONE)
                rc = ask(w, i, err);
    for (uint32_t i = 0; i < out->n_tok; i++) {
        int32_t llm = w->nodes[w->path[i]].llm;
        out->n_known += llm != NONE;
        out->n_agree += llm == out->ids[i];
    }
    return rc;
}

int tlr_walk_run(struct tlr_walk *w, enum tlr_policy_kind kind, float tau,
                 struct tlr_walk_path *out, struct tlr_err *err)
{
    struct tlr_policy p = {.kind = kind, .tau = tau};
    int32_t node = ROOT;
    int rc = 0;
    memset(out, 0, sizeof *out);
    out->ids = w->ids + w->n_prompt;
    if (kind != TLR_POLICY_NEVER && !w->llm)
        return tlr_err_set(err, TLR_EUSAGE,
                           "policy %s: needs a large model, found none",
                           tlr_policy_name(kind));
    while (!rc && !out->is_ended && out->n_tok < w->opt.max_tok) {
        bool asks = false;
        int32_t id = NONE;
        w->path[out->n_tok] = node;
        rc = decide(w, &p, out->n_tok, &asks, &id, err);
        if (rc)
            break;
        w->ids[w->n_prompt + out->n_tok] = id;
        out->n_tok++;
        out->n_asked += asks;
        out->is_ended = is_end(w, id);
        if (!out->is_ended)
            rc = child_of(w, node, id, &node, err);
    }
    w->n_path = out->n_tok;
    w->counts.n_runs++;
    w->counts.n_run_tok += out->n_tok;
    if (!rc)
        rc = compare(w, out, err);
    if (!rc && w->opt.n_ahead > 0)
        rc = tlr_guess_learn(&w->guess, out->ids, out->n_tok, err);
    return rc;
}

float tlr_walk_trust(const struct tlr_walk *w, enum tlr_policy_kind kind,
                     uint32_t i)
{
    return w->trusts[(size_t)w->path[i] * TLR_N_POLICIES + kind];
}

struct tlr_walk_counts tlr_walk_read(const struct tlr_walk *w)
{
    return w->counts;
}

int tlr_walk_begin(struct tlr_walk *w, const int32_t *prompt, size_t n,
                   uint64_t seed, struct tlr_err *err)
{
    int32_t root;
    if (n < 1 || n > w->opt.max_prompt)
        return tlr_err_set(err, TLR_ELIMIT,
                           "prompt: expected 1 to %u tokens, found %zu",
                           (unsigned)w->opt.max_prompt, n);
    memcpy(w->ids, prompt, n * sizeof *prompt);
    w->n_prompt = n;
    w->trusts_at.seed = seed;
    w->n_nodes = 0;
    w->n_path = 0;
    return add_node(w, NONE, NONE, &root, err);
}

/* ---- the handle ---- */

static bool all_tiled(const struct tlr_model *m)
{
    const struct tlr_file *f = tlr_model_file(m);
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        if (t->n_rows > 1 && !tlr_type_is_tiled(t->type))
            return false;
    }
    return true;
}

static int allocate(struct tlr_walk *w, struct tlr_err *err)
{
    size_t n = (size_t)w->opt.max_prompt + w->opt.max_tok + TLR_WALK_AHEAD_MAX;
    w->ids = tlr_calloc(n, sizeof *w->ids);
    w->replies = tlr_calloc(n, sizeof *w->replies);
    w->asked = tlr_calloc(n, sizeof *w->asked);
    w->path = tlr_calloc(w->opt.max_tok, sizeof *w->path);
    if (!w->ids || !w->replies || !w->asked || !w->path)
        return tlr_err_nomem(err, "tree of prefixes", 4 * n * sizeof *w->ids);
    return tlr_trusts_init(&w->trusts_at, w->opt.policies, w->opt.n_policies,
                           tlr_file_label(tlr_model_file(w->model)), w->n_ids,
                           err);
}

int tlr_walk_new(struct tlr_walk **out, const struct tlr_model *slm,
                 const struct tlr_session_options *session,
                 struct tlr_expert *llm, const struct tlr_walk_options *options,
                 struct tlr_err *err)
{
    struct tlr_walk *w = tlr_calloc(1, sizeof *w);
    struct tlr_session_options o = TLR_SESSION_OPTIONS_INIT;
    *out = NULL;
    if (!w)
        return tlr_err_nomem(err, "tree of prefixes", sizeof *w);
    w->opt = *options;
    w->model = slm;
    w->llm = llm;
    w->n_ids = tlr_model_n_ids(slm);
    if (w->opt.n_ahead > TLR_WALK_AHEAD_MAX)
        w->opt.n_ahead = TLR_WALK_AHEAD_MAX;
    w->is_tiled = all_tiled(slm);
    if (!w->is_tiled)
        w->opt.n_ahead = 0;
    if (session)
        o = *session;
    o.n_ctx = w->opt.max_prompt + w->opt.max_tok;
    int rc = allocate(w, err);
    if (!rc)
        rc = tlr_session_new(&w->session, slm, &o, err);
    if (rc) {
        tlr_walk_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void tlr_walk_free(struct tlr_walk *w)
{
    if (!w)
        return;
    tlr_session_free(w->session);
    tlr_guess_clear(&w->guess);
    tlr_free(w->nodes);
    tlr_free(w->trusts);
    tlr_free(w->ids);
    tlr_free(w->replies);
    tlr_free(w->asked);
    tlr_free(w->path);
    tlr_trusts_clear(&w->trusts_at);
    tlr_free(w);
}
