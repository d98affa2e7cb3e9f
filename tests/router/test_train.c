/* test_train.c - a whole training run: bits, stops, refusals, calibration. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "router/citer.h"
#include "router/train.h"
#include "router/train_data.h"
#include "tests/router/rows.h"

struct outcome {
    struct tlr_router_weights w;
    struct tlr_calibration calibration;
    struct tlr_train_report report;
};

static void small_options(struct tlr_train_options *o, enum tlr_policy_kind kind)
{
    tlr_train_defaults(o, kind);
    o->batch = 64;
    o->epochs = 6;
    o->patience = 6;
    o->lr = 5e-3;
    o->valid = 0.3;
}

static int train_on(const char *path, const struct tlr_train_options *o,
                    struct outcome *out, struct tlr_err *err)
{
    struct tlr_dataset *d;
    ck_assert_msg(!tlr_dataset_open(&d, path, err), "%s", err->text);
    int rc = tlr_train(d, o, &out->w, &out->calibration, &out->report, err);
    tlr_dataset_free(d);
    return rc;
}

static void train_well(const struct tlr_train_options *o, struct outcome *out)
{
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_msg(!train_on(rows_write("train.tlrd", ROWS_SOUND), o, out, &err),
                  "%s", err.text);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    size_t n_in = a->w.dim + a->w.n_features;
    ck_assert_uint_eq(a->w.n_hidden, b->w.n_hidden);
    ck_assert_mem_eq(a->w.w1, b->w.w1, a->w.n_hidden * n_in * 4);
    ck_assert_mem_eq(a->w.b1, b->w.b1, a->w.n_hidden * 4);
    ck_assert_mem_eq(a->w.w2, b->w.w2,
                     (a->w.n_hidden ? a->w.n_hidden : n_in) * 4);
    ck_assert(a->w.b2 == b->w.b2 && a->w.temperature == b->w.temperature);
    ck_assert_mem_eq(&a->calibration, &b->calibration, sizeof a->calibration);
}

static const enum tlr_policy_kind kinds[] = { TLR_POLICY_MLP, TLR_POLICY_MLP_PLUS,
                                              TLR_POLICY_DEFERRAL };

START_TEST(same_seed_same_bits_on_any_threads)
{
    for (int k = 0; k < 3; k++) {
        struct tlr_train_options o;
        struct outcome first, again;
        small_options(&o, kinds[k]);
        train_well(&o, &first);
        for (o.n_threads = 1; o.n_threads <= 4; o.n_threads++) {
            train_well(&o, &again);
            assert_same(&first, &again);
            tlr_router_weights_clear(&again.w);
        }
        o.n_threads = 1;
        o.seed = 2;
        train_well(&o, &again);
        ck_assert(first.w.b2 != again.w.b2);
        tlr_router_weights_clear(&again.w);
        tlr_router_weights_clear(&first.w);
    }
}
END_TEST

/* Stops in the middle of an epoch, as a kill does: nothing is saved after. */
static int stop_later(void *ctx, const struct tlr_train_progress *p)
{
    return p->rows_done >= *(uint64_t *)ctx;
}

START_TEST(a_stopped_run_goes_on_to_the_same_bits)
{
    static char checkpoint[600];
    struct tlr_train_options o;
    struct outcome whole, parts;
    small_options(&o, TLR_POLICY_MLP_PLUS);
    train_well(&o, &whole);
    snprintf(checkpoint, sizeof checkpoint, "%s/run.ckpt", tlr_test_tmpdir());
    remove(checkpoint);
    o.checkpoint = checkpoint;
    o.progress = stop_later;
    uint64_t per_epoch = whole.report.n_train / o.batch * o.batch;
    uint64_t stop_at[] = { per_epoch / 2, per_epoch * 3 / 2, per_epoch * 9 / 2 };
    for (int i = 0; i < 3; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        o.ctx = &stop_at[i];
        ck_assert_int_eq(train_on(rows_write("train.tlrd", ROWS_SOUND), &o, &parts,
                                  &err), TLR_ECANCELLED);
        ck_assert_int_eq(access(checkpoint, F_OK) == 0, i > 0);
    }
    o.progress = NULL;
    train_well(&o, &parts);
    ck_assert_uint_eq(parts.report.resumed_at, 4);
    assert_same(&whole, &parts);
    tlr_router_weights_clear(&parts.w);
    train_well(&o, &parts); /* killed behind the last epoch */
    ck_assert_uint_eq(parts.report.resumed_at, 6);
    assert_same(&whole, &parts);
    tlr_router_weights_clear(&parts.w);
    tlr_router_weights_clear(&whole.w);

    struct tlr_err err = TLR_ERR_INIT;
    o.lr = 1e-3;
    ck_assert_int_eq(train_on(rows_write("train.tlrd", ROWS_SOUND), &o, &parts,
                              &err), TLR_EMISMATCH);
    ck_assert_msg(strstr(err.text, "another run") != NULL, "%s", err.text);
    tlr_err_clear(&err);
    ck_assert_int_eq(truncate(checkpoint, 3000), 0);
    o.lr = 5e-3;
    ck_assert_int_eq(train_on(rows_write("train.tlrd", ROWS_SOUND), &o, &parts,
                              &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "damaged") != NULL, "%s", err.text);
}
END_TEST

START_TEST(it_learns_and_says_how_well)
{
    for (int k = 0; k < 2; k++) {
        for (int loss = TLR_LOSS_BCE; loss <= TLR_LOSS_BT; loss++) {
            struct tlr_train_options o;
            struct outcome out;
            small_options(&o, kinds[k]);
            o.loss = (enum tlr_loss_kind)loss;
            o.epochs = 30;
            train_well(&o, &out);
            const struct tlr_train_report *r = &out.report;
            /* Maxprob gives the label away (rows.c); entropy half of it. */
            ck_assert(r->signal_auroc[2] == 1 && r->signal[2] == TLR_POLICY_MAXPROB);
            ck_assert_msg(r->auroc > (k ? 0.85 : 0.8), "AUROC %g", r->auroc);
            ck_assert_msg(r->ece_after < 0.12, "ECE %g", r->ece_after);
            ck_assert(r->auprc > r->share_ask + 0.2 && r->share_ask > 0.1);
            ck_assert(r->n_train + r->n_valid ==
                      ROWS_GROUPS * (ROWS_IN_GROUP - 3));
            ck_assert_uint_eq(r->n_groups_valid, 12);
            ck_assert(tlr_calibration_has(&out.calibration, kinds[k]));
            ck_assert(tlr_calibration_has(&out.calibration, TLR_POLICY_MARGIN));
            tlr_router_weights_clear(&out.w);
        }
    }
}
END_TEST

/* A class that weighs more must not move the probabilities that come out: the
 * two routers agree on how many positions are to be kept. */
START_TEST(class_weights_leave_probabilities_calibrated)
{
    const double weights[] = { 1, 0, 8 };
    for (int i = 0; i < 3; i++) {
        struct tlr_train_options o;
        struct outcome out;
        small_options(&o, TLR_POLICY_MLP);
        o.pos_weight = weights[i];
        o.epochs = 30;
        train_well(&o, &out);
        ck_assert_msg(out.report.ece_before < 0.2, "weight %g: %g", weights[i],
                      out.report.ece_before);
        ck_assert(i != 1 || (out.report.pos_weight < 1 && out.report.pos_weight > 0));
        tlr_router_weights_clear(&out.w);
    }
}
END_TEST

/* The best epoch's weights come out, not the last one's: with a rate that tears
 * the network apart after a good start the report says so, and fewer epochs with
 * the same schedule make the same weights. */
START_TEST(the_best_weights_are_restored)
{
    struct tlr_train_options o;
    struct outcome longer, shorter;
    small_options(&o, TLR_POLICY_MLP);
    o.constant_lr = true;
    o.lr = 2e-2;
    o.epochs = 40;
    o.patience = 40;
    train_well(&o, &longer);
    ck_assert_uint_lt(longer.report.best_epoch, 40);
    o.epochs = longer.report.best_epoch;
    train_well(&o, &shorter);
    assert_same(&longer, &shorter);
    ck_assert(longer.report.valid_loss == shorter.report.valid_loss);
    tlr_router_weights_clear(&longer.w);
    o.epochs = 40;
    o.patience = 2;
    train_well(&o, &longer);
    ck_assert_uint_eq(longer.report.epochs, longer.report.best_epoch + 2);
    tlr_router_weights_clear(&longer.w);
    tlr_router_weights_clear(&shorter.w);
}
END_TEST

/* Ties weigh what they are told; labels are made anew of likelihoods. */
START_TEST(labels_and_weights_are_made_as_told)
{
    static const enum rows_flaw pairs[][2] = {
        { ROWS_TIES, ROWS_TIES_TOLD }, { ROWS_UNLIKELY, ROWS_UNLIKELY_TOLD } };
    for (int p = 0; p < 2; p++) {
        struct tlr_train_options o;
        struct outcome out[3];
        small_options(&o, TLR_POLICY_MLP);
        o.tie_weight = 0.25;
        for (int i = 0; i < 3; i++) {
            struct tlr_err err = TLR_ERR_INIT;
            enum rows_flaw flaw = i < 2 ? pairs[p][i] : pairs[p][0];
            o.unlikely = p == 1 && i == 0 ? 0.01 : 0;
            if (i == 2)
                o.tie_weight = 1;
            ck_assert_msg(!train_on(rows_write("told.tlrd", flaw), &o, &out[i],
                                    &err), "%s", err.text);
        }
        assert_same(&out[0], &out[1]);
        ck_assert(out[0].report.auroc == out[1].report.auroc);
        ck_assert(out[0].w.b2 != out[2].w.b2); /* both options matter */
        for (int i = 0; i < 3; i++)
            tlr_router_weights_clear(&out[i].w);
    }
}
END_TEST

START_TEST(questions_are_split_whole)
{
    struct tlr_train_options o;
    struct tlr_train_data data;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset *d;
    uint8_t side[ROWS_GROUPS] = { 0 };
    small_options(&o, TLR_POLICY_MLP);
    ck_assert(!tlr_dataset_open(&d, rows_write("split.tlrd", ROWS_SOUND), &err));
    ck_assert(!tlr_train_data_new(&data, d, &o, &err));
    for (uint64_t i = 0; i < data.n_train; i++)
        side[data.train[i] / ROWS_IN_GROUP] |= 1;
    for (uint64_t i = 0; i < data.n_held; i++)
        side[data.held[i] / ROWS_IN_GROUP] |= 2;
    for (int g = 0; g < ROWS_GROUPS; g++)
        ck_assert_msg(side[g] == 1 || side[g] == 2, "group %d: %d", g, side[g]);
    ck_assert_uint_eq(data.n_held, 12 * ROWS_IN_GROUP);
    tlr_train_data_clear(&data);
    tlr_dataset_free(d);
}
END_TEST

static void refuse(enum rows_flaw flaw, enum tlr_policy_kind kind,
                   const char *says)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_train_options o;
    struct outcome out;
    small_options(&o, kind);
    ck_assert_int_eq(train_on(rows_write("bad.tlrd", flaw), &o, &out, &err),
                     TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, says) != NULL, "%s", err.text);
}

START_TEST(data_that_cannot_teach_is_refused)
{
    refuse(ROWS_ALL_KEEP, TLR_POLICY_MLP, "have label 1");
    refuse(ROWS_NO_P_LLM, TLR_POLICY_DEFERRAL, "p_llm");
    refuse(ROWS_ONE_GROUP, TLR_POLICY_MLP, "one question");
    refuse(ROWS_ALL_OPEN, TLR_POLICY_MLP, "at least 2 labelled rows");
}
END_TEST

/* Their p_llm is the gold token's: it says nothing about the small model's. */
START_TEST(gold_chains_have_no_unlikely_tokens)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_train_options o;
    struct outcome out;
    small_options(&o, TLR_POLICY_MLP);
    o.unlikely = 0.01;
    ck_assert_int_eq(train_on(rows_write("gold.tlrd", ROWS_SOUND), &o, &out,
                              &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "--chains mixed") != NULL, "%s", err.text);
}
END_TEST

START_TEST(options_out_of_range_are_refused)
{
    struct tlr_train_options o;
    struct outcome out;
    for (int i = 0; i < 3; i++) {
        struct tlr_err err = TLR_ERR_INIT;
        small_options(&o, i == 0 ? TLR_POLICY_ENTROPY : TLR_POLICY_MLP);
        o.loss = i == 1 ? TLR_LOSS_DEFERRAL : TLR_LOSS_BCE;
        o.lr = i == 2 ? 0 : 1e-3;
        ck_assert_int_eq(train_on(rows_write("options.tlrd", ROWS_SOUND), &o, &out,
                                  &err), TLR_EUSAGE);
    }
    struct tlr_err err = TLR_ERR_INIT;
    small_options(&o, TLR_POLICY_MLP);
    o.lr = 1e30;
    ck_assert_int_eq(train_on(rows_write("options.tlrd", ROWS_SOUND), &o, &out,
                              &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "smaller --lr") != NULL, "%s", err.text);
}
END_TEST

/* Every failing allocation comes out as an error, and nothing leaks (asan). */
START_TEST(memory_may_run_out_anywhere)
{
    struct tlr_train_options o;
    struct tlr_dataset *d;
    struct tlr_err err = TLR_ERR_INIT;
    small_options(&o, TLR_POLICY_MLP_PLUS);
    o.epochs = 1;
    ck_assert(!tlr_dataset_open(&d, rows_write("memory.tlrd", ROWS_SOUND), &err));
    for (long k = 0;; k++) {
        struct outcome out;
        tlr_err_clear(&err);
        tlr_mem_fail_after(k);
        int rc = tlr_train(d, &o, &out.w, &out.calibration, &out.report, &err);
        tlr_mem_fail_after(-1);
        if (rc == 0) {
            tlr_router_weights_clear(&out.w);
            ck_assert_int_gt(k, 20);
            break;
        }
        ck_assert_int_eq(rc, TLR_ENOMEM);
    }
    tlr_dataset_free(d);
}
END_TEST

Suite *suite_train(void);
Suite *suite_train(void)
{
    Suite *s = suite_create("train");
    TCase *c = tcase_create("run");
    tcase_add_test(c, same_seed_same_bits_on_any_threads);
    tcase_add_test(c, a_stopped_run_goes_on_to_the_same_bits);
    tcase_add_test(c, it_learns_and_says_how_well);
    tcase_add_test(c, class_weights_leave_probabilities_calibrated);
    tcase_add_test(c, the_best_weights_are_restored);
    tcase_add_test(c, labels_and_weights_are_made_as_told);
    tcase_add_test(c, questions_are_split_whole);
    tcase_add_test(c, data_that_cannot_teach_is_refused);
    tcase_add_test(c, gold_chains_have_no_unlikely_tokens);
    tcase_add_test(c, options_out_of_range_are_refused);
    tcase_add_test(c, memory_may_run_out_anywhere);
    suite_add_tcase(s, c);
    return s;
}
