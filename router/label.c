/* label.c - see label.h: the rows of one item. */
#include "router/label.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/label_internal.h"

enum tlr_label_case tlr_label_decide(const struct tlr_generation *generation,
                                     int32_t gold, int32_t slm, int32_t llm,
                                     uint8_t *label)
{
    bool gold_ends = generation && tlr_generation_is_eos(generation, gold);
    *label = 0;
    if (slm == gold || (gold_ends && tlr_generation_is_eos(generation, slm))) {
        *label = 1;
        return TLR_CASE_SLM_RIGHT;
    }
    if (llm == gold || (gold_ends && tlr_generation_is_eos(generation, llm))) {
        return TLR_CASE_LLM_RIGHT;
    }
    return TLR_CASE_OPEN;
}

void tlr_label_rows_clear(struct tlr_label_rows *rows)
{
    tlr_free(rows->rows);
    tlr_free(rows->hidden);
    memset(rows, 0, sizeof *rows);
}

void tlr_labeller_clear(struct tlr_labeller *l)
{
    tlr_ids_clear(&l->ids);
    tlr_ids_clear(&l->reply);
    tlr_free(l->llm);
    tlr_free(l->want);
    tlr_free(l->p_llm);
    tlr_free(l->text);
    l->llm = l->want = NULL;
    l->p_llm = NULL;
    l->text = NULL;
    l->cap = l->text_cap = 0;
}

static int make_room(struct tlr_labeller *l, struct tlr_label_rows *out,
                     size_t n, struct tlr_err *err)
{
    uint32_t dim = tlr_model_config(l->slm)->dim;
    if (n > l->cap) {
        tlr_free(l->llm);
        tlr_free(l->p_llm);
        l->cap = 0;
        l->llm = tlr_calloc(n, sizeof *l->llm);
        tlr_free(l->want);
        l->want = tlr_calloc(n, sizeof *l->want);
        l->p_llm = tlr_calloc(n, sizeof *l->p_llm);
        if (!l->llm || !l->want || !l->p_llm) {
            return tlr_err_nomem(err, "labels", n * sizeof *l->llm);
        }
        l->cap = n;
    }
    if (n > out->cap) {
        tlr_label_rows_clear(out);
        out->rows = tlr_calloc(n, sizeof *out->rows);
        out->hidden = tlr_calloc(n, dim * sizeof *out->hidden);
        if (!out->rows || !out->hidden) {
            tlr_label_rows_clear(out);
            return tlr_err_nomem(err, "labels", n * dim * sizeof(float));
        }
        out->cap = (uint32_t)n;
    }
    out->n = (uint32_t)n;
    out->n_completion_tok = 0;
    return 0;
}

/* ---- what the small model says ---- */

struct look {
    const struct tlr_labeller *l;
    struct tlr_label_rows *out;
    uint32_t group, dim, n_ids;
};

static int look_at(void *ctx, size_t index, const float *hidden,
                   const float *logits)
{
    const struct look *k = ctx;
    struct tlr_row *row = &k->out->rows[index];
    float top[TLR_SIGNAL_TOP];
    memset(row, 0, sizeof *row);
    row->group = k->group;
    row->pos = (uint32_t)(k->l->n_prompt + index);
    row->gold = k->l->ids.ids[row->pos];
    row->llm = -1;
    row->weight = 1;
    tlr_signals_of(logits, k->n_ids, &row->signals);
    row->slm = row->signals.best;
    if (!isfinite(row->signals.max_logit)) {
        return 1;
    }
    tlr_top_logits(logits, k->n_ids, top);
    tlr_features(top, row->features);
    row->p_slm = (float)((double)row->signals.max_prob *
                         exp((double)logits[row->gold] -
                             (double)row->signals.max_logit));
    memcpy(k->out->hidden + index * k->dim, hidden, k->dim * sizeof *hidden);
    return 0;
}

static int look_everywhere(struct tlr_labeller *l, uint32_t group,
                           struct tlr_label_rows *out, struct tlr_err *err)
{
    struct look k = {l, out, group, tlr_model_config(l->slm)->dim,
                     tlr_model_n_ids(l->slm)};
    size_t before = l->n_prompt - 1; /* the first proposal is made behind it */
    int rc = tlr_label_hold(l, before, err);
    if (!rc) {
        rc = tlr_prefill_each(l->session, l->ids.ids + before, out->n, look_at,
                              &k, err);
    }
    if (rc == TLR_ECANCELLED) {
        tlr_err_clear(err);
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: question %" PRIu32 ": expected finite logits, "
                         "found NaN or infinity; is the model file sound (tlr "
                         "inspect --verify)?",
                         tlr_file_label(tlr_model_file(l->slm)), group + 1);
    }
    return rc;
}

/* ---- the cases ---- */

static int ask_everywhere(struct tlr_labeller *l, struct tlr_label_rows *out,
                          struct tlr_err *err)
{
    const int32_t *ids = l->ids.ids;
    size_t first = l->n_prompt - 1;
    for (uint32_t i = 0; i < out->n; i++) {
        struct tlr_row *row = &out->rows[i];
        /* Nothing is gold in a mixed chain: there the small model's own token is
         * the one whose likelihood says something. */
        if (l->options->mixed_chains) {
            row->p_slm = row->signals.max_prob;
        }
        l->want[i] = l->options->mixed_chains ? row->slm : row->gold;
    }
    int rc = tlr_expert_score_each(l->expert, ids, l->ids.n - 1, first,
                                   tlr_model_n_ids(l->slm), l->want, l->llm,
                                   l->p_llm, err);
    for (uint32_t i = 0; i < out->n && !rc; i++) {
        out->rows[i].llm = l->llm[i];
        out->rows[i].p_llm = l->p_llm[i];
    }
    return rc;
}

uint32_t tlr_label_choose(const struct tlr_label_options *o, uint32_t group,
                          struct tlr_label_rows *out)
{
    uint32_t n_open = 0, n_chosen = 0;
    for (uint32_t i = 0; i < out->n; i++) {
        n_open += out->rows[i].what == TLR_CASE_OPEN;
    }
    for (; n_chosen < o->n_completions && n_chosen < n_open; n_chosen++) {
        struct tlr_row *least = NULL;
        uint64_t least_hash = 0;
        for (uint32_t i = 0; i < out->n; i++) {
            struct tlr_row *row = &out->rows[i];
            uint64_t hash = tlr_hash_u64(tlr_hash_u64(o->seed, group), row->pos);
            if (row->what == TLR_CASE_OPEN && (!least || hash < least_hash)) {
                least = row;
                least_hash = hash;
            }
        }
        least->what = TLR_CASE_OUTCOME;
    }
    for (uint32_t i = 0; i < out->n; i++) {
        struct tlr_row *row = &out->rows[i];
        if (row->what == TLR_CASE_OPEN) {
            row->weight = 0;
        } else if (row->what == TLR_CASE_OUTCOME) {
            row->weight = (float)n_open / (float)n_chosen;
        }
    }
    return n_open;
}

/* From the last position to the first: what a completion writes over in the
 * cache, none of the later ones needs. */
static int complete_all(struct tlr_labeller *l, const struct tlr_item *item,
                        struct tlr_label_rows *out, struct tlr_err *err)
{
    int rc = 0;
    for (uint32_t i = out->n; i-- > 0 && !rc;) {
        struct tlr_row *row = &out->rows[i];
        bool is_right = false;
        if (row->what == TLR_CASE_OUTCOME) {
            rc = tlr_label_complete(l, item, row->pos, row->slm, &is_right,
                                    &out->n_completion_tok, err);
            row->label = is_right;
        }
    }
    return rc;
}

static int label_anew(struct tlr_labeller *l, const struct tlr_item *item,
                      uint32_t group, struct tlr_label_rows *out,
                      struct tlr_err *err)
{
    int rc = make_room(l, out, l->ids.n - l->n_prompt, err);
    if (!rc) {
        rc = look_everywhere(l, group, out, err);
    }
    if (!rc) {
        rc = ask_everywhere(l, out, err);
    }
    if (rc) {
        return rc;
    }
    if (l->options->mixed_chains) {
        return tlr_label_mixed(l, item, group, out, err);
    }
    const struct tlr_generation *g = tlr_model_generation(l->slm);
    for (uint32_t i = 0; i < out->n; i++) {
        struct tlr_row *row = &out->rows[i];
        if (l->options->llm_chains) {
            row->llm = row->gold; /* it wrote it */
        }
        row->what = (uint8_t)tlr_label_decide(g, row->gold, row->slm, row->llm,
                                              &row->label);
    }
    tlr_label_choose(l->options, group, out);
    return complete_all(l, item, out, err);
}

/* ---- later rounds ---- */

/* Rows of a group stand together, in order of groups. */
static uint64_t first_row(const struct tlr_dataset *d, uint32_t group)
{
    uint64_t low = 0, high = tlr_dataset_info(d)->n_rows;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        struct tlr_row row;
        tlr_dataset_row(d, mid, &row);
        if (row.group < group) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static int label_again(struct tlr_labeller *l, const struct tlr_item *item,
                       uint32_t group, struct tlr_label_rows *out,
                       struct tlr_err *err)
{
    uint32_t dim = tlr_model_config(l->slm)->dim;
    uint64_t first = first_row(l->previous, group);
    uint64_t end = first_row(l->previous, group + 1);
    int rc = make_room(l, out, (size_t)(end - first), err);
    for (uint32_t i = 0; i < out->n && !rc; i++) {
        struct tlr_row *row = &out->rows[i];
        tlr_dataset_row(l->previous, first + i, row);
        tlr_dataset_hidden(l->previous, first + i, out->hidden + i * dim);
        if (row->pos < l->n_prompt || row->pos >= l->ids.n ||
            l->ids.ids[row->pos] != row->gold) {
            rc = tlr_err_set(err, TLR_EMISMATCH,
                             "%s: line %zu: position %" PRIu32
                             ": the labels of the round before are of another "
                             "text or chat template; label from the first "
                             "round on",
                             l->options->path, item->line, row->pos);
        } else if (row->what == TLR_CASE_OUTCOME) {
            row->round = l->options->round;
        }
    }
    if (!rc) {
        rc = tlr_label_hold(l, l->ids.n - 1, err);
    }
    return rc ? rc : complete_all(l, item, out, err);
}

int tlr_label_check(const struct tlr_items *items,
                    const struct tlr_label_options *options,
                    struct tlr_err *err)
{
    for (size_t i = 0; i < items->n && !options->llm_chains && !options->mixed_chains;
         i++) {
        if (!items->items[i].chain) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: line %zu: cot: expected a gold chain of "
                               "thought, found nothing; the large model can "
                               "write them (--chains llm)",
                               options->path, items->items[i].line);
        }
    }
    return 0;
}

uint64_t tlr_label_source(const struct tlr_labeller *l,
                          const struct tlr_items *items, uint64_t who)
{
    const struct tlr_label_options *o = l->options;
    const struct tlr_session_options *s = tlr_session_options_used(l->session);
    const uint64_t parts[] = {
        items->hash, who, o->task, o->raw, (uint64_t)o->n_shots, o->llm_chains,
        o->n_completions,
        o->n_completions ? o->completion_tok : 0,
        o->llm_chains || o->mixed_chains ? o->chain_tok : 0, o->mixed_chains,
        o->mixed_chains ? (uint64_t)(o->mix * 1e9) : 0, o->seed, o->round, s->n_ctx,
        (uint64_t)s->kv, (uint64_t)s->act};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        h = tlr_hash_u64(h, parts[i]);
    }
    return h;
}

int tlr_label_item(struct tlr_labeller *l, const struct tlr_item *item,
                   uint32_t group, struct tlr_label_rows *out,
                   struct tlr_err *err)
{
    out->n = 0;
    int rc = tlr_label_encode(l, item, group, err);
    if (rc) {
        return rc;
    }
    return l->previous ? label_again(l, item, group, out, err)
                       : label_anew(l, item, group, out, err);
}
