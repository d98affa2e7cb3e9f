/* train.c - `tlr train`: a labelled dataset in, a router out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "router/citer.h"
#include "router/train.h"

struct train_args {
    const char *dataset, *out, *policy, *loss, *model, *pos_weight;
    double lr, decay, dropout, tie_weight, unlikely, valid;
    int64_t batch, epochs, patience, hidden, seed, threads;
    bool raw, fresh, json;
};

static const struct cli_operand operands[] = {
    { .name = "DATASET", .kind = CLI_FILE,
      .at = offsetof(struct train_args, dataset),
      .help = "labelled positions that tlr label wrote" },
};

#define AT(member) .at = offsetof(struct train_args, member)
static const struct cli_option options[] = {
    { .name = "out", .letter = 'o', .required = true, .kind = CLI_FILE, AT(out),
      .value = "OUT", .help = "the router to write" },
    { .name = "policy", .kind = CLI_CHOICE, AT(policy),
      .value = "mlp|mlp+|deferral", .fallback = "mlp",
      .help = "mlp reads the hidden state, mlp+ the best logits too, deferral "
              "is Co-LLM's linear head" },
    { .name = "loss", .kind = CLI_CHOICE, AT(loss), .value = "bce|bt",
      .help = "cross-entropy, or Bradley-Terry preference of kept positions "
              "over asked ones", .unset = "bce; deferral has its own" },
    { .name = "for", .kind = CLI_FILE, AT(model), .value = "MODEL",
      .help = "make sure that the dataset was labelled with this model file" },
    { .name = "epochs", .kind = CLI_INT, AT(epochs), .value = "N",
      .help = "most passes over the rows", .fallback = "12", .min = 1,
      .max = 100000 },
    { .name = "patience", .kind = CLI_INT, AT(patience), .value = "N",
      .help = "stop after N epochs without a better validation loss; the best "
              "weights are kept", .fallback = "3", .min = 1, .max = 100000 },
    { .name = "batch", .kind = CLI_INT, AT(batch), .value = "N",
      .help = "rows of a step", .fallback = "512", .min = 2, .max = 65536 },
    { .name = "lr", .kind = CLI_REAL, AT(lr), .value = "R",
      .help = "learning rate of AdamW at its highest", .fallback = "0.001",
      .min = 1e-9, .max = 10 },
    { .name = "decay", .kind = CLI_REAL, AT(decay), .value = "D",
      .help = "decoupled weight decay", .fallback = "0.01", .min = 0,
      .max = 100 },
    { .name = "dropout", .kind = CLI_REAL, AT(dropout), .value = "P",
      .help = "share of units left out of a step", .fallback = "0.1", .min = 0,
      .max = 0.95 },
    { .name = "hidden", .kind = CLI_INT, AT(hidden), .value = "N",
      .help = "hidden units", .unset = "twice the width of the states",
      .min = 1, .max = 65536 },
    { .name = "pos-weight", .kind = CLI_TEXT, AT(pos_weight), .value = "auto|W",
      .help = "weight of the positions to keep; auto makes both classes weigh "
              "the same", .fallback = "1" },
    { .name = "tie-weight", .kind = CLI_REAL, AT(tie_weight), .value = "W",
      .help = "weight of the positions of mixed chains where asking changes "
              "nothing, beside 1 of the others: what a question costs",
      .fallback = "0.1", .min = 0, .max = 1e6 },
    { .name = "unlikely", .kind = CLI_REAL, AT(unlikely), .value = "P",
      .help = "of mixed chains: ask where the large model gives the small "
              "one's token less than the probability P; 0: the labels of the "
              "dataset", .fallback = "0", .min = 0, .max = 1 },
    { .name = "valid", .kind = CLI_REAL, AT(valid), .value = "SHARE",
      .help = "share of the questions held out", .fallback = "0.15",
      .min = 0.001, .max = 0.999 },
    { .name = "raw-inputs", .kind = CLI_FLAG, AT(raw),
      .help = "leave the hidden states as they are, as CITER does, instead of "
              "bringing each element to mean 0 and variance 1" },
    { .name = "seed", .kind = CLI_INT, AT(seed), .value = "N",
      .help = "of split, order, weights and dropout; the same seed makes the "
              "same bits", .fallback = "1", .min = 0, .max = 9e15 },
    { .name = "threads", .letter = 't', .kind = CLI_INT, AT(threads),
      .value = "N", .help = "threads to compute with; they do not change the "
      "result", .unset = "physical performance cores that this process may use",
      .min = 1, .max = 4096 },
    { .name = "fresh", .kind = CLI_FLAG, AT(fresh),
      .help = "begin anew where a stopped run left OUT.ckpt" },
    { .name = "json", .kind = CLI_FLAG, AT(json),
      .help = "print one JSON object" },
};

static const char *const examples[] = {
    "tlr train train.tlrd -o router.bin",
    "Train a router; the same command takes up a run that was stopped.",
    "tlr train train.tlrd -o router.bin --policy mlp+ --for model.bin --json",
    "With logit features, and with a report for programs.",
    NULL
};

/* ---- options ----------------------------------------------------------------------- */

static int parse_pos_weight(const char *text, double *out, struct tlr_err *err)
{
    char *end;
    if (strcmp(text, "auto") == 0) {
        *out = 0;
        return 0;
    }
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= 1e-6 && *out <= 1e6))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--pos-weight: expected auto or a number from 1e-6 "
                           "to 1e6, found '%s'", text);
    return 0;
}

static int fill_options(struct tlr_train_options *o, const struct train_args *a,
                        struct tlr_err *err)
{
    enum tlr_policy_kind kind = (enum tlr_policy_kind)tlr_policy_find(a->policy);
    tlr_train_defaults(o, kind);
    if (a->loss && kind == TLR_POLICY_DEFERRAL)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--loss: the deferral head has a loss of its own");
    if (a->loss)
        o->loss = strcmp(a->loss, "bt") == 0 ? TLR_LOSS_BT : TLR_LOSS_BCE;
    o->epochs = (uint32_t)a->epochs;
    o->patience = (uint32_t)a->patience;
    o->batch = (uint32_t)a->batch;
    o->lr = a->lr;
    o->decay = a->decay;
    o->dropout = a->dropout;
    o->n_hidden = a->hidden != CLI_NO_INT ? (uint32_t)a->hidden : 0;
    o->tie_weight = a->tie_weight;
    o->unlikely = a->unlikely;
    o->valid = a->valid;
    o->standardise = !a->raw;
    o->seed = (uint64_t)a->seed;
    o->fresh = a->fresh;
    o->n_threads = tlr_default_threads();
    if (a->threads != CLI_NO_INT) {
        int most = tlr_max_threads();
        if (a->threads > most)
            return tlr_err_set(err, TLR_EUSAGE,
                               "--threads: this process may use %d logical "
                               "processors, found %lld", most,
                               (long long)a->threads);
        o->n_threads = (int)a->threads;
    }
    return parse_pos_weight(a->pos_weight, &o->pos_weight, err);
}

static int check_model(const struct tlr_dataset *d, const struct train_args *a,
                       struct tlr_err *err)
{
    struct tlr_file_options lazy = { .populate = false };
    struct tlr_file *file;
    uint64_t want = tlr_dataset_info(d)->fingerprint;
    if (!a->model)
        return 0;
    int rc = tlr_file_open(&file, a->model, &lazy, err);
    if (rc)
        return rc;
    uint64_t found = tlr_file_fingerprint(file);
    tlr_file_close(file);
    if (found == want)
        return 0;
    return tlr_err_set(err, TLR_EMISMATCH,
                       "%s: labelled with the model of fingerprint %016" PRIx64
                       ", but %s has %016" PRIx64 "; label again with it",
                       a->dataset, want, a->model, found);
}

/* ---- what it says ------------------------------------------------------------------- */

static json_t *shares_json(const struct tlr_train_report *r)
{
    json_t *list = json_array();
    for (int i = 0; i < TLR_TRAIN_SHARES; i++) {
        const struct tlr_share_row *s = &r->shares[i];
        json_t *row = json_object();
        cli_json_put(row, "share", cli_json_real(s->share));
        cli_json_put(row, "tau", cli_json_real((double)s->tau));
        cli_json_put(row, "attained", cli_json_real(s->attained));
        cli_json_put(row, "recall", cli_json_real(s->recall));
        cli_json_put(row, "precision", cli_json_real(s->precision));
        cli_json_push(list, row);
    }
    return list;
}

static json_t *signals_json(const struct tlr_train_report *r)
{
    json_t *signals = json_object();
    for (int i = 0; i < TLR_TRAIN_SIGNALS; i++) {
        json_t *row = json_object();
        cli_json_put(row, "auroc", cli_json_real(r->signal_auroc[i]));
        cli_json_put(row, "auprc", cli_json_real(r->signal_auprc[i]));
        cli_json_put(signals, tlr_policy_name(r->signal[i]), row);
    }
    return signals;
}

static json_t *report_json(const struct tlr_train_options *o,
                           const struct tlr_train_report *r)
{
    static const char *const losses[] = { "bce", "bt", "deferral" };
    json_t *j = json_object();
    cli_json_put(j, "policy", json_string(tlr_policy_name(o->kind)));
    cli_json_put(j, "loss", json_string(losses[o->loss]));
#define INTEGER(key, value) cli_json_put(j, key, json_integer((json_int_t)(value)))
#define REAL(key, value) cli_json_put(j, key, cli_json_real(value))
    INTEGER("rows", r->n_rows);
    INTEGER("rows_trained", r->n_train);
    INTEGER("rows_held_out", r->n_valid);
    INTEGER("questions", r->n_groups);
    INTEGER("questions_held_out", r->n_groups_valid);
    INTEGER("parameters", r->n_parameters);
    INTEGER("seed", o->seed);
    REAL("lr", o->lr);
    REAL("decay", o->decay);
    REAL("dropout", o->dropout);
    INTEGER("batch", o->batch);
    REAL("pos_weight", r->pos_weight);
    INTEGER("epochs", r->epochs);
    INTEGER("best_epoch", r->best_epoch);
    REAL("train_loss", r->train_loss);
    REAL("valid_loss", r->valid_loss);
    REAL("temperature", r->temperature);
    REAL("share_ask", r->share_ask);
    REAL("auroc", r->auroc);
    REAL("auprc", r->auprc);
    REAL("ece_before", r->ece_before);
    REAL("ece_after", r->ece_after);
#undef INTEGER
#undef REAL
    cli_json_put(j, "signals", signals_json(r));
    cli_json_put(j, "shares", shares_json(r));
    return j;
}

static void print_report(const struct tlr_train_options *o,
                         const struct tlr_train_report *r)
{
    cli_printf("%" PRIu64 " rows trained on, %" PRIu64 " of %u questions held "
               "out (%.1f %% of them to ask)\n", r->n_train, r->n_valid,
               r->n_groups_valid, 100 * r->share_ask);
    cli_printf("%u epochs, the best was %u: loss %.4f, held out %.4f\n\n",
               r->epochs, r->best_epoch, r->train_loss, r->valid_loss);
    cli_printf("held out    AUROC   AUPRC\n%-10s %6.4f  %6.4f\n",
               tlr_policy_name(o->kind), r->auroc, r->auprc);
    for (int i = 0; i < TLR_TRAIN_SIGNALS; i++)
        cli_printf("%-10s %6.4f  %6.4f\n", tlr_policy_name(r->signal[i]),
                   r->signal_auroc[i], r->signal_auprc[i]);
    cli_printf("\ncalibration error %.4f, %.4f with temperature %.3f\n\n"
               "share      tau  of those to ask  asked rightly\n",
               r->ece_before, r->ece_after, r->temperature);
    for (int i = 0; i < TLR_TRAIN_SHARES; i++) {
        const struct tlr_share_row *s = &r->shares[i];
        cli_printf("%4.1f %%  %6.4f  %13.1f %%  %11.1f %%\n",
                   100 * s->attained, (double)s->tau, 100 * s->recall,
                   100 * s->precision);
    }
}

/* ---- the verb ----------------------------------------------------------------------- */

static int on_batch(void *ctx, const struct tlr_train_progress *p)
{
    char what[64];
    snprintf(what, sizeof what, "epoch %u, loss %.4f", p->epoch, p->valid_loss);
    cli_progress_set(ctx, p->rows_done, p->rows_at_most,
                     isnan(p->valid_loss) ? NULL : what);
    return cli_interrupted();
}

static int write_router(const char *path, const struct tlr_dataset *d,
                        const struct tlr_router_weights *w,
                        const struct tlr_calibration *calibration,
                        json_t *report, struct tlr_err *err)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    char *info = json_dumps(report, JSON_COMPACT);
    if (!info)
        return tlr_err_nomem(err, "training report", 4096);
    int rc = tlr_router_pack(&bytes, &len, w, calibration,
                             tlr_dataset_info(d)->fingerprint, info, err);
    free(info);
    if (!rc)
        rc = tlr_write_file(path, bytes, len, err);
    tlr_free(bytes);
    return rc;
}

static int train(const struct train_args *a, struct tlr_train_options *o,
                 const struct tlr_dataset *d, struct tlr_err *err)
{
    struct tlr_router_weights w;
    struct tlr_calibration calibration;
    struct tlr_train_report report;
    struct cli_progress progress;
    cli_progress_begin(&progress, "train", false);
    progress.unit = "rows";
    o->progress = on_batch;
    o->ctx = &progress;
    cli_interrupt_hold();
    uint64_t begun = tlr_now_ns();
    int rc = tlr_train(d, o, &w, &calibration, &report, err);
    double seconds = tlr_ms_between(begun, tlr_now_ns()) / 1000;
    cli_interrupt_release();
    cli_progress_end(&progress);
    if (rc)
        return rc;
    if (report.resumed_at)
        cli_note("took up a stopped run behind epoch %u", report.resumed_at);
    json_t *j = report_json(o, &report);
    rc = write_router(a->out, d, &w, &calibration, j, err);
    tlr_router_weights_clear(&w);
    if (!rc && unlink(o->checkpoint) != 0)
        cli_complain("%s: could not be removed", o->checkpoint);
    if (rc || !a->json) {
        json_decref(j);
        if (!rc)
            print_report(o, &report);
        return rc;
    }
    /* Behind what the router keeps: times differ, its bytes do not. */
    cli_json_put(j, "seconds", cli_json_real(seconds));
    cli_json_put(j, "resumed_at", json_integer(report.resumed_at));
    cli_json_put(j, "out", cli_json_text(a->out, strlen(a->out)));
    return cli_json_print(j, err);
}

static int verb_main(const void *args, struct tlr_err *err)
{
    const struct train_args *a = args;
    struct tlr_train_options o;
    struct tlr_dataset *d = NULL;
    char checkpoint[4096];
    int rc = fill_options(&o, a, err);
    if (!rc && snprintf(checkpoint, sizeof checkpoint, "%s.ckpt", a->out) >=
                   (int)sizeof checkpoint)
        rc = tlr_err_set(err, TLR_EUSAGE, "--out: the name is too long");
    o.checkpoint = checkpoint;
    if (!rc)
        rc = tlr_dataset_open(&d, a->dataset, err);
    if (!rc)
        rc = check_model(d, a, err);
    if (!rc)
        rc = train(a, &o, d, err);
    tlr_dataset_free(d);
    return rc;
}

const struct cli_verb cli_verb_train = {
    .name = "train",
    .summary = "train a router on labelled positions",
    .about =
        "Trains the network that says at each position how far the small model "
        "is to be trusted, from the hidden states that tlr label kept. The "
        "router belongs to the model file that the states come from.\n\n"
        "Questions are held out whole. The weights with the best loss on them "
        "are kept, their probabilities calibrated, and how well they tell "
        "positions apart is reported beside signals that need no training. "
        "After each epoch the state goes to OUT.ckpt; a run that was stopped "
        "goes on from there when the command is given again, to the same bits.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct train_args),
    .main = verb_main,
};
