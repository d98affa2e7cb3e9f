/* test_label.c - labels of one question, held to a naive second making.
 *
 * The second making decodes token by token in a session of its own; q8's numbers
 * do not depend on how many tokens come at once, so most of it compares bits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "tests/router/label_setting.h"
#include "tests/support/tlr_check.h"

enum { N_VOCAB_MAX = 512 };

struct naive {
    const struct tlr_model *m;
    const struct tlr_label_options *o;
    int32_t ids[600];
    uint32_t n, n_prompt;
};

static void naive_ids(struct naive *v, const struct tlr_item *item)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_ids ids = {0};
    char text[600];
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(v->m);
    snprintf(text, sizeof text,
             "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
             item->prompt);
    must(tlr_encode(tok, text, strlen(text), TLR_ENCODE_SPECIAL, &ids, &err),
         &err);
    v->n_prompt = (uint32_t)ids.n;
    snprintf(text, sizeof text, "%s", item->chain + strspn(item->chain, " \n"));
    text[strlen(text) - 2] = '\0'; /* the blank and line end that all have */
    must(tlr_encode(tok, text, strlen(text), 0, &ids, &err), &err);
    must(tlr_ids_push(&ids, tlr_token_find(tok, "<|im_end|>", 10), &err), &err);
    v->n = (uint32_t)ids.n;
    ck_assert_uint_lt(v->n, 600);
    memcpy(v->ids, ids.ids, ids.n * sizeof *ids.ids);
    tlr_ids_clear(&ids);
}

/* A session that has decoded ids[0..n), one by one. */
static struct tlr_session *naive_session(const struct naive *v, uint32_t n)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = open_session(v->m);
    for (uint32_t i = 0; i < n; i++) {
        must(tlr_decode(s, v->ids[i], TLR_STEP_LOGITS, &err), &err);
    }
    return s;
}

static bool naive_completes(const struct naive *v, const struct tlr_item *item,
                            uint32_t pos, int32_t own)
{
    struct tlr_err err = TLR_ERR_INIT;
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(v->m);
    struct tlr_session *s = naive_session(v, pos);
    int32_t end = tlr_token_find(tok, "<|im_end|>", 10);
    char text[8192];
    size_t len = 0;
    int32_t all[1024];
    uint32_t n = 0;
    for (uint32_t i = v->n_prompt; i < pos; i++) {
        all[n++] = v->ids[i];
    }
    for (uint32_t made = 0; own != end && made <= v->o->completion_tok;
         made++) {
        all[n++] = own;
        must(tlr_decode(s, own, TLR_STEP_LOGITS, &err), &err);
        own = tlr_argmax(tlr_logits(s), tlr_model_n_ids(v->m));
    }
    for (uint32_t i = 0; i < n; i++) {
        struct tlr_bytes b = tlr_token_bytes(tok, all[i]);
        if (!tlr_token_is_special(tok, all[i])) {
            memcpy(text + len, b.ptr, b.len);
            len += b.len;
        }
    }
    tlr_session_free(s);
    return tlr_item_right(item, v->o->task, text, len, false);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Signals and features by their definitions. */
static void check_signals(const struct tlr_row *row, const float *logits,
                          uint32_t n)
{
    float sorted[N_VOCAB_MAX];
    double sum = 0, entropy = 0, sum_top = 0;
    ck_assert_uint_le(n, N_VOCAB_MAX);
    memcpy(sorted, logits, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - (double)sorted[0]);
    }
    for (uint32_t i = 0; i < n; i++) {
        double p = exp((double)logits[i] - (double)sorted[0]) / sum;
        entropy -= p * log(p);
    }
    for (int i = 0; i < TLR_SIGNAL_TOP; i++) {
        sum_top += exp((double)sorted[i] - (double)sorted[0]);
        double want = i ? (double)sorted[0] - (double)sorted[i]
                        : (double)sorted[0];
        ck_assert_double_eq_tol((double)row->features[i], want, 1e-5);
    }
    double second = exp((double)sorted[1] - (double)sorted[0]);
    ck_assert_double_eq_tol((double)row->features[17], 1 / sum_top, 1e-6);
    ck_assert_double_eq_tol((double)row->signals.entropy, entropy, 1e-5);
    ck_assert_double_eq_tol((double)row->signals.max_prob, 1 / sum, 1e-6);
    ck_assert_double_eq_tol((double)row->signals.margin, (1 - second) / sum,
                            1e-6);
    ck_assert_float_eq(row->signals.max_logit, sorted[0]);
    ck_assert_double_eq_tol((double)row->p_slm,
                            exp((double)logits[row->gold] -
                                (double)sorted[0]) / sum, 1e-6);
}

/* One row, and its case before completions. */
static int check_row(const struct naive *v, struct tlr_session *s,
                     const struct tlr_row *row, const float *hidden,
                     uint32_t pos)
{
    int32_t gold = v->ids[pos];
    int32_t slm = tlr_argmax(tlr_logits(s), tlr_model_n_ids(v->m));
    int32_t llm = table_says(v->ids, pos, gold);
    ck_assert_uint_eq(row->pos, pos);
    ck_assert_int_eq(row->gold, gold);
    ck_assert_int_eq(row->slm, slm);
    ck_assert_int_eq(row->llm, llm);
    ck_assert_float_eq(row->p_llm, 0.25f);
    check_signals(row, tlr_logits(s), tlr_model_n_ids(v->m));
    ck_assert_mem_eq(hidden, tlr_hidden(s),
                     tlr_model_config(v->m)->dim * sizeof *hidden);
    if (slm == gold) {
        ck_assert_int_eq(row->what, TLR_CASE_SLM_RIGHT);
        ck_assert_int_eq(row->label, 1);
        ck_assert_float_eq(row->weight, 1);
        return 1;
    }
    if (llm == gold) {
        ck_assert_int_eq(row->what, TLR_CASE_LLM_RIGHT);
        ck_assert_int_eq(row->label, 0);
        ck_assert_float_eq(row->weight, 1);
        return 2;
    }
    return 3;
}

struct ranked {
    uint64_t hash;
    uint32_t row;
};

static int by_hash(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static void check_open(const struct naive *v, const struct tlr_item *item,
                       uint32_t group, const struct tlr_label_rows *rows,
                       struct ranked *open, uint32_t n_open,
                       uint64_t *n_by_label)
{
    qsort(open, n_open, sizeof *open, by_hash);
    uint32_t n = v->o->n_completions < n_open ? v->o->n_completions : n_open;
    for (uint32_t i = 0; i < n_open; i++) {
        const struct tlr_row *row = &rows->rows[open[i].row];
        if (i >= n) {
            ck_assert_int_eq(row->what, TLR_CASE_OPEN);
            ck_assert_int_eq(row->label, 0);
            ck_assert_float_eq(row->weight, 0);
            continue;
        }
        bool right = naive_completes(v, item, row->pos, row->slm);
        ck_assert_int_eq(row->what, TLR_CASE_OUTCOME);
        ck_assert_msg(row->label == right, "group %u position %u: %d", group,
                      row->pos, row->label);
        ck_assert_float_eq(row->weight, (float)n_open / (float)n);
        n_by_label[right]++;
    }
}

START_TEST(cases_equal_a_naive_making)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct setting t;
    struct tlr_label_rows rows = {0};
    uint64_t n_case[4] = {0}, n_by_label[2] = {0};
    setting_begin(&t);
    t.o.n_completions = 6;
    t.o.completion_tok = 20;
    uint32_t dim = tlr_model_config(t.m)->dim;
    for (uint32_t g = 0; g < N_ITEMS; g++) {
        struct naive v = {.m = t.m, .o = &t.o};
        struct ranked open[600];
        uint32_t n_open = 0;
        naive_ids(&v, &t.q->items[g]);
        must(tlr_label_item(&t.labellers[0], &t.q->items[g], g, &rows, &err), &err);
        ck_assert_uint_eq(rows.n, v.n - v.n_prompt);
        struct tlr_session *s = naive_session(&v, v.n_prompt);
        for (uint32_t i = 0; i < rows.n; i++) {
            const struct tlr_row *row = &rows.rows[i];
            uint32_t pos = v.n_prompt + i;
            int what = check_row(&v, s, row, rows.hidden + i * dim, pos);
            n_case[what]++;
            if (what == 3) {
                open[n_open++] = (struct ranked){
                    tlr_hash_u64(tlr_hash_u64(t.o.seed, g), pos), i};
            }
            must(tlr_decode(s, v.ids[pos], TLR_STEP_LOGITS, &err), &err);
        }
        tlr_session_free(s);
        check_open(&v, &t.q->items[g], g, &rows, open, n_open, n_by_label);
    }
    /* The questions lead to all that can happen. */
    ck_assert_uint_gt(n_case[1], 10);
    ck_assert_uint_gt(n_case[2], 50);
    ck_assert_uint_gt(n_case[3], 50);
    ck_assert_uint_gt(n_by_label[0], 3);
    ck_assert_uint_gt(n_by_label[1], 3);
    tlr_label_rows_clear(&rows);
    setting_end(&t);
}
END_TEST

START_TEST(decisions)
{
    struct tlr_generation g;
    uint8_t label;
    tlr_generation_default(&g);
    g.n_eos = 2;
    g.eos[0] = 8;
    g.eos[1] = 9;
    static const struct {
        int32_t gold, slm, llm;
        enum tlr_label_case what;
        uint8_t label;
    } cases[] = {
        {1, 1, 1, TLR_CASE_SLM_RIGHT, 1}, {1, 1, 2, TLR_CASE_SLM_RIGHT, 1},
        {1, 2, 1, TLR_CASE_LLM_RIGHT, 0}, {1, 2, 2, TLR_CASE_OPEN, 0},
        {1, 2, 3, TLR_CASE_OPEN, 0},      {8, 9, 1, TLR_CASE_SLM_RIGHT, 1},
        {8, 1, 9, TLR_CASE_LLM_RIGHT, 0}, {1, 8, 9, TLR_CASE_OPEN, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_int_eq(tlr_label_decide(&g, cases[i].gold, cases[i].slm,
                                          cases[i].llm, &label),
                         cases[i].what);
        ck_assert_int_eq(label, cases[i].label);
    }
    ck_assert_int_eq(tlr_label_decide(NULL, 8, 9, 9, &label), TLR_CASE_OPEN);
}
END_TEST

/* ---- chains of the large model's own ---- */

START_TEST(chains_by_the_large_model)
{
    struct setting t;
    struct tlr_label_rows rows = {0};
    struct tlr_err err = TLR_ERR_INIT;
    setting_begin(&t);
    t.o.llm_chains = true;
    t.q->items[0].chain = NULL;
    must(tlr_label_item(&t.labellers[0], &t.q->items[0], 0, &rows, &err), &err);
    const struct tlr_labeller *l = &t.labellers[0];
    uint32_t end_at = (uint32_t)l->ids.n - 1;
    ck_assert_int_eq(l->ids.ids[end_at], tlr_model_generation(t.m)->eos[0]);
    ck_assert_uint_eq(end_at, 100);
    ck_assert_uint_eq(rows.n, 101 - l->n_prompt);
    for (uint32_t i = 0; i < rows.n; i++) {
        const struct tlr_row *row = &rows.rows[i];
        ck_assert_int_eq(row->llm, row->gold);
        ck_assert_int_eq(row->what, row->slm == row->gold ? 1 : 2);
        ck_assert_int_eq(row->label, row->slm == row->gold);
    }
    ck_assert_uint_eq(rows.n_completion_tok, 0);
    tlr_label_rows_clear(&rows);
    setting_end(&t);
}
END_TEST

/* ---- chains that both write ---- */

/* Who writes position n: the hash of label_mixed.c, by its words. */
static bool naive_swapped(const struct setting *t, uint32_t group, uint32_t n)
{
    uint64_t h = tlr_hash_u64(tlr_hash_u64(t->o.seed ^ 0x6d6978, group), n);
    return ldexp((double)(h >> 11), -53) < t->o.mix;
}

/* Writes on behind ids[0..n), which s has decoded but for the last one (all of the
 * prompt, when nothing follows it). */
static void naive_write_on(struct naive *v, const struct setting *t,
                           uint32_t group, struct tlr_session *s)
{
    struct tlr_err err = TLR_ERR_INIT;
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(v->m);
    int32_t end = tlr_token_find(tok, "<|im_end|>", 10);
    while (v->n < v->n_prompt + t->o.chain_tok) {
        char letter = (char)('a' + v->n % 26);
        if (v->n > v->n_prompt) {
            if (v->ids[v->n - 1] == end) {
                break;
            }
            must(tlr_decode(s, v->ids[v->n - 1], TLR_STEP_LOGITS, &err), &err);
        }
        int32_t own = tlr_argmax(tlr_logits(s), tlr_model_n_ids(v->m));
        int32_t other = v->n >= 100 ? end : tlr_token_find(tok, &letter, 1);
        v->ids[v->n] = naive_swapped(t, group, v->n) ? other : own;
        v->n++;
    }
}

static void naive_mixed(struct naive *v, const struct setting *t,
                        const struct tlr_item *item, uint32_t group)
{
    naive_ids(v, item);
    v->n = v->n_prompt;
    struct tlr_session *s = naive_session(v, v->n);
    naive_write_on(v, t, group, s);
    tlr_session_free(s);
}

/* Whether the chain up to pos, the token there, and what then comes is right. */
static bool naive_outcome(const struct naive *v, const struct setting *t,
                          const struct tlr_item *item, uint32_t group,
                          uint32_t pos, int32_t token)
{
    struct naive other = *v;
    struct tlr_session *s = naive_session(v, pos);
    char text[8192];
    size_t len = 0;
    other.ids[pos] = token;
    other.n = pos + 1;
    naive_write_on(&other, t, group, s);
    for (uint32_t i = v->n_prompt; i < other.n; i++) {
        const struct tlr_tokenizer *tok = tlr_model_tokenizer(v->m);
        struct tlr_bytes b = tlr_token_bytes(tok, other.ids[i]);
        if (!tlr_token_is_special(tok, other.ids[i])) {
            memcpy(text + len, b.ptr, b.len);
            len += b.len;
        }
    }
    tlr_session_free(s);
    return tlr_item_right(item, v->o->task, text, len, false);
}

/* Labels of the rows where the models differ, in the order of their hashes. */
static void check_worth(const struct naive *v, const struct setting *t,
                        const struct tlr_item *item, uint32_t group,
                        const struct tlr_label_rows *rows, struct ranked *open,
                        uint32_t n_open, uint64_t *n_by_worth)
{
    qsort(open, n_open, sizeof *open, by_hash);
    uint32_t n = v->o->n_completions < n_open ? v->o->n_completions : n_open;
    for (uint32_t i = 0; i < n_open; i++) {
        const struct tlr_row *row = &rows->rows[open[i].row];
        ck_assert_float_eq(row->weight,
                           i < n ? (float)n_open / (float)n : 0);
        if (i >= n) {
            ck_assert_int_eq(row->what, TLR_CASE_OPEN);
            continue;
        }
        bool kept = naive_outcome(v, t, item, group, row->pos, row->slm);
        bool asked = naive_outcome(v, t, item, group, row->pos, row->llm);
        ck_assert_int_eq(row->what, kept == asked ? TLR_CASE_TIE
                                                  : TLR_CASE_OUTCOME);
        ck_assert_int_eq(row->label, kept || !asked);
        n_by_worth[1 + asked - kept]++;
    }
}

START_TEST(mixed_chains_weigh_one_question)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct setting t;
    struct tlr_label_rows rows = {0};
    uint64_t n_by_worth[3] = {0}, n_agree = 0;
    setting_begin(&t);
    t.o.mixed_chains = true;
    t.o.mix = 0.4;
    t.o.n_completions = 20;
    for (uint32_t g = 0; g < N_ITEMS; g++) {
        struct naive v = {.m = t.m, .o = &t.o};
        struct ranked open[600];
        uint32_t n_open = 0;
        naive_mixed(&v, &t, &t.q->items[g], g);
        must(tlr_label_item(&t.labellers[0], &t.q->items[g], g, &rows, &err), &err);
        ck_assert_uint_eq(t.labellers[0].ids.n, v.n);
        ck_assert_mem_eq(t.labellers[0].ids.ids, v.ids, v.n * sizeof *v.ids);
        ck_assert_uint_eq(rows.n, v.n - v.n_prompt);
        for (uint32_t i = 0; i < rows.n; i++) {
            const struct tlr_row *row = &rows.rows[i];
            ck_assert_int_eq(row->gold, v.ids[v.n_prompt + i]);
            if (row->slm != row->llm) {
                open[n_open++] = (struct ranked){
                    tlr_hash_u64(tlr_hash_u64(t.o.seed, g), row->pos), i};
                continue;
            }
            n_agree++;
            ck_assert_int_eq(row->what, TLR_CASE_TIE);
            ck_assert_int_eq(row->label, 1);
        }
        check_worth(&v, &t, &t.q->items[g], g, &rows, open, n_open,
                    n_by_worth);
    }
    ck_assert_uint_gt(n_agree, 10);
    for (int w = 0; w < 3; w++) {
        ck_assert_msg(n_by_worth[w] > 0, "worth %d never occurs", w - 1);
    }
    tlr_label_rows_clear(&rows);
    setting_end(&t);
}
END_TEST

START_TEST(missing_chains_are_named)
{
    struct setting t;
    struct tlr_err err = TLR_ERR_INIT;
    setting_begin(&t);
    ck_assert_int_eq(tlr_label_check(&t.q->list, &t.o, &err), 0);
    t.q->items[3].chain = NULL;
    ck_assert_int_eq(tlr_label_check(&t.q->list, &t.o, &err), TLR_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "q: line 4: cot: expected a gold"));
    tlr_err_clear(&err);
    t.o.llm_chains = true;
    ck_assert_int_eq(tlr_label_check(&t.q->list, &t.o, &err), 0);
    setting_end(&t);
}
END_TEST

START_TEST(memory_may_run_out)
{
    struct setting t;
    setting_begin(&t);
    int rc = 1;
    for (long k = 0; rc; k++) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_labeller l = t.labellers[0];
        struct tlr_label_rows rows = {0};
        tlr_mem_fail_after(k);
        rc = tlr_label_item(&l, &t.q->items[1], 1, &rows, &err);
        tlr_mem_fail_after(-1);
        ck_assert_msg(rc == 0 || rc == TLR_ENOMEM, "%ld: %s", k, err.text);
        ck_assert(k < 500);
        tlr_label_rows_clear(&rows);
        tlr_labeller_clear(&l);
    }
    setting_end(&t);
}
END_TEST

Suite *suite_label(void);

Suite *suite_label(void)
{
    Suite *s = suite_create("label");
    TCase *t = tcase_create("label");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, cases_equal_a_naive_making);
    tcase_add_test(t, decisions);
    tcase_add_test(t, chains_by_the_large_model);
    tcase_add_test(t, mixed_chains_weigh_one_question);
    tcase_add_test(t, missing_chains_are_named);
    tcase_add_test(t, memory_may_run_out);
    suite_add_tcase(s, t);
    return s;
}
