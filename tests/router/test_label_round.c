/* test_label_round.c - a later round: case 3 again, the rest carried over.
 *
 * The router is random; the second making steps, scores and asks by hand.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/sampler.h"
#include "router/router.h"
#include "tests/router/label_setting.h"
#include "tests/support/tlr_check.h"

enum { HIDDEN = 32 };

static struct tlr_router *random_router(const struct tlr_model *m)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_rng rng = {.seed = 3};
    struct tlr_router *r = NULL;
    uint32_t dim = tlr_model_config(m)->dim;
    float *w1 = tlr_calloc((size_t)HIDDEN * dim, sizeof *w1);
    float b1[HIDDEN], w2[HIDDEN];
    uint8_t *bytes = NULL;
    size_t len;
    ck_assert(w1 != NULL);
    for (uint32_t i = 0; i < HIDDEN * dim; i++) {
        w1[i] = tlr_rng_normal(&rng) / 8;
    }
    for (int i = 0; i < HIDDEN; i++) {
        b1[i] = tlr_rng_normal(&rng) / 8;
        w2[i] = tlr_rng_normal(&rng);
    }
    struct tlr_router_weights w = {.kind = TLR_POLICY_MLP, .dim = dim,
                                   .n_hidden = HIDDEN, .w1 = w1, .b1 = b1,
                                   .w2 = w2, .temperature = 1};
    must(tlr_router_pack(&bytes, &len, &w, NULL,
                         tlr_file_fingerprint(tlr_model_file(m)), "{}", &err),
         &err);
    must(tlr_router_open(&r, (struct tlr_bytes){bytes, len}, "random", &err),
         &err);
    tlr_free(bytes);
    tlr_free(w1);
    return r;
}

/* The first round's dataset. */
static struct tlr_dataset *first_round(struct setting *t)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_writer *w = NULL;
    struct tlr_dataset *d = NULL;
    struct tlr_label_rows rows = {0};
    struct tlr_dataset_info info = {.dim = tlr_model_config(t->m)->dim};
    uint32_t first;
    char path[600];
    snprintf(path, sizeof path, "%s/first.tlrd", tlr_test_tmpdir());
    must(tlr_dataset_append(&w, path, &info, &first, &err), &err);
    for (uint32_t g = 0; g < N_ITEMS; g++) {
        must(tlr_label_item(&t->labellers[0], &t->q->items[g], g, &rows, &err),
             &err);
        must(tlr_dataset_group(w, g, rows.rows, rows.hidden, rows.n, &err),
             &err);
    }
    must(tlr_dataset_close(w, &err), &err);
    must(tlr_dataset_open(&d, path, &err), &err);
    tlr_label_rows_clear(&rows);
    return d;
}

struct by_hand {
    const struct setting *t;
    const struct tlr_policy *policy;
    float *scratch;
    uint64_t n_asked, n_kept;
};

/* The token that the two models write behind ids[0..n). */
static int32_t next_token(struct by_hand *b, const int32_t *ids, uint32_t n)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = open_session(b->t->m);
    struct tlr_expert_reply reply;
    float trust;
    for (uint32_t i = 0; i < n; i++) {
        must(tlr_decode(s, ids[i], TLR_STEP_LOGITS, &err), &err);
    }
    int32_t id = tlr_argmax(tlr_logits(s), tlr_model_n_ids(b->t->m));
    must(tlr_policy_trust_of(b->policy, tlr_hidden(s), NULL, NULL, n,
                             b->scratch, &trust, &err),
         &err);
    if (trust < b->policy->tau) {
        const struct tlr_expert *e = &b->t->experts[0];
        must(e->ops->ask(e->self, ids, n, 1, &reply, &err), &err);
        id = reply.ids[0];
        b->n_asked++;
    } else {
        b->n_kept++;
    }
    tlr_session_free(s);
    return id;
}

static bool is_right(struct by_hand *b, const struct tlr_item *item,
                     const int32_t *ids, uint32_t n_prompt,
                     const struct tlr_row *row)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(b->t->m);
    int32_t end = tlr_model_generation(b->t->m)->eos[0], id = row->slm;
    int32_t all[1024];
    char text[8192];
    size_t len = 0;
    uint32_t n = row->pos;
    memcpy(all, ids, n * sizeof *ids);
    for (uint32_t made = 0; id != end && made <= b->t->o.completion_tok;
         made++) {
        all[n++] = id;
        if (made < b->t->o.completion_tok) {
            id = next_token(b, all, n);
        }
    }
    for (uint32_t i = n_prompt; i < n; i++) {
        struct tlr_bytes bytes = tlr_token_bytes(tok, all[i]);
        if (!tlr_token_is_special(tok, all[i])) {
            memcpy(text + len, bytes.ptr, bytes.len);
            len += bytes.len;
        }
    }
    return tlr_item_right(item, b->t->o.task, text, len, false);
}

START_TEST(case_three_is_labelled_again)
{
    struct setting t;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_label_rows rows = {0};
    setting_begin(&t);
    struct tlr_dataset *d = first_round(&t);
    struct tlr_router *r = random_router(t.m);
    struct tlr_policy policy = {.kind = TLR_POLICY_MLP, .tau = 0.2f,
                                .router = r};
    struct by_hand b = {.t = &t, .policy = &policy};
    struct tlr_labeller *l = &t.labellers[1];
    uint64_t at = 0, n_again = 0, n_changed = 0, n_right = 0;
    b.scratch = tlr_calloc(tlr_router_scratch(r), sizeof *b.scratch);
    ck_assert(b.scratch != NULL);
    t.o.round = 1;
    l->policy = &policy;
    l->previous = d;
    for (uint32_t g = 0; g < N_ITEMS; g++) {
        must(tlr_label_item(l, &t.q->items[g], g, &rows, &err), &err);
        for (uint32_t i = 0; i < rows.n; i++, at++) {
            struct tlr_row *row = &rows.rows[i], old;
            tlr_dataset_row(d, at, &old);
            ck_assert_uint_eq(old.group, g);
            if (old.what == TLR_CASE_OUTCOME) {
                ck_assert_uint_eq(row->round, 1);
                ck_assert_uint_eq(row->label,
                                  is_right(&b, &t.q->items[g], l->ids.ids,
                                           (uint32_t)l->n_prompt, row));
                n_again++;
                n_changed += row->label != old.label;
                n_right += row->label;
                old.round = 1;
                old.label = row->label;
            }
            ck_assert_mem_eq(&old, row, sizeof old);
        }
    }
    ck_assert_uint_eq(at, tlr_dataset_info(d)->n_rows);
    ck_assert_uint_gt(n_again, 10);
    ck_assert_uint_gt(n_changed, 0);
    ck_assert_uint_gt(n_right, 0);
    ck_assert_uint_gt(b.n_asked, 20);
    ck_assert_uint_gt(b.n_kept, 20);
    t.q->items[2].chain = t.q->items[3].chain;
    ck_assert_int_eq(tlr_label_item(l, &t.q->items[2], 2, &rows, &err),
                     TLR_EMISMATCH);
    ck_assert_ptr_nonnull(strstr(err.text, "q: line 3: position "));
    tlr_free(b.scratch);
    tlr_label_rows_clear(&rows);
    tlr_router_free(r);
    tlr_dataset_free(d);
    setting_end(&t);
}
END_TEST

Suite *suite_label_round(void);

Suite *suite_label_round(void)
{
    Suite *s = suite_create("label_round");
    TCase *t = tcase_create("label_round");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, case_three_is_labelled_again);
    suite_add_tcase(s, t);
    return s;
}
