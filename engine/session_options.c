/* session_options.c - the defaults of a session, and what cannot be had. */
#include "base/pool.h"
#include "engine/session.h"

enum {
    DEFAULT_CTX = 4096,
    DEFAULT_BATCH = 256,
    DEFAULT_BRANCH_TOK = 32,
    MAX_BATCH = 4096,
    MAX_THREADS = 1024
};

static int limit_error(struct tlr_err *err, const char *what,
                       unsigned long long max, unsigned long long found)
{
    return tlr_err_set(err, TLR_ELIMIT,
                       "session: %s: expected at most %llu, found %llu; ask for "
                       "less", what, max, found);
}

/* What a lender decides. */
static int resolve_lender(struct tlr_session_options *o,
                          const struct tlr_model *m, struct tlr_err *err)
{
    const struct tlr_session_options *from = &o->lender->opt;
    if (o->lender->model != m) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "session: lender: expected a session of the same "
                           "model, found one of %s",
                           tlr_file_label(o->lender->model->file));
    }
    if (o->n_ctx > from->n_ctx) {
        return limit_error(err, "context, the lender's", from->n_ctx, o->n_ctx);
    }
    o->n_ctx = o->n_ctx ? o->n_ctx : from->n_ctx;
    o->n_threads = from->n_threads;
    o->cpu_level = from->cpu_level;
    o->act = from->act;
    o->n_batch = from->n_batch;
    return 0;
}

int tlr_session_resolve(struct tlr_session_options *o,
                        const struct tlr_model *m, struct tlr_err *err)
{
    uint32_t max_ctx = m->config->max_ctx;
    int rc = o->lender ? resolve_lender(o, m, err) : 0;
    if (rc) {
        return rc;
    }
    if (o->n_ctx > max_ctx) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: context: expected at most %u positions (what "
                           "the model was trained for), found %u; ask for a "
                           "shorter context", tlr_file_label(m->file),
                           (unsigned)max_ctx, (unsigned)o->n_ctx);
    }
    if (o->n_ctx == 0) {
        o->n_ctx = max_ctx < DEFAULT_CTX ? max_ctx : DEFAULT_CTX;
    }
    if (o->n_threads < 0 || o->n_threads > MAX_THREADS) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "session: threads: expected 0 (default) to %d, found "
                           "%d", MAX_THREADS, o->n_threads);
    }
    if (o->n_threads == 0) {
        o->n_threads = tlr_default_threads();
    }
    int best = (int)tlr_cpu_detect();
    bool is_level = o->cpu_level >= 0 && o->cpu_level < TLR_N_CPU_LEVELS;
    if (o->cpu_level != -1 &&
        !(is_level && tlr_cpu_has((enum tlr_cpu_level)o->cpu_level))) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "session: CPU level: expected at most %s, which is "
                           "what this machine has, found %s",
                           tlr_cpu_level_name((enum tlr_cpu_level)best),
                           is_level
                               ? tlr_cpu_level_name(
                                     (enum tlr_cpu_level)o->cpu_level)
                               : "an unknown one");
    }
    if (o->cpu_level == -1) {
        o->cpu_level = best;
    }
    if ((unsigned)o->kv > TLR_KV_Q8) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "session: KV type: expected auto, f32, f16 or q8, "
                           "found number %u", (unsigned)o->kv);
    }
    if (o->kv == TLR_KV_AUTO) {
        o->kv = m->is_f32 ? TLR_KV_F32 : TLR_KV_F16;
    }
    if ((unsigned)o->act > TLR_ACT_INT16) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "session: activations: expected auto, int8 or int16, "
                           "found number %u", (unsigned)o->act);
    }
    if (o->act == TLR_ACT_AUTO) {
        /* int8 costs SmolLM2-135M 0.4 % of perplexity and some of its greedy
         * choices.  q4n, rounded for speed, loses more than that anyway. */
        o->act = m->layers[0].down->type == TLR_Q4N ? TLR_ACT_INT8
                                                    : TLR_ACT_INT16;
    }
    o->n_batch = o->n_batch ? o->n_batch : DEFAULT_BATCH;
    if (o->n_batch > MAX_BATCH) {
        return limit_error(err, "prefill chunk", MAX_BATCH, o->n_batch);
    }
    if (!o->lender && o->n_batch > o->n_ctx) {
        o->n_batch = o->n_ctx;
    }
    if (o->n_branches > TLR_MAX_BRANCHES) {
        return limit_error(err, "branches", TLR_MAX_BRANCHES, o->n_branches);
    }
    o->branch_tok = o->branch_tok ? o->branch_tok : DEFAULT_BRANCH_TOK;
    o->branch_tok = o->branch_tok < o->n_ctx ? o->branch_tok : o->n_ctx;
    return 0;
}

const struct tlr_session_options *
tlr_session_options_used(const struct tlr_session *s)
{
    return &s->opt;
}
