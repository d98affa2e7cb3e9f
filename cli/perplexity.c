/* perplexity.c - `tlr perplexity`: how well a model predicts a text.
 *
 * The definition is llama.cpp's, so that the numbers compare: the text's ids
 * (with bos in front where the model wants one) are cut into windows of ctx
 * ids; what does not fill a window is left out.  Where the model wants bos, it
 * replaces the first id of each window.  In a window the ids from position
 * ctx/2 + 1 on (with --all from 1 on) are predicted, each from all before it
 * in the window:
 *
 *     nll = mean of -log p(id | ids before),   ppl = exp(nll)
 *     standard error of ppl = ppl * sqrt(var(-log p) / (count - 1))
 *
 * p is a softmax over all rows of the LM head, as in the peers.
 *
 * --logits writes what was predicted, for comparisons with another model
 * (bench/quality): for each id the id as i32, then f32 [n_vocab] logits.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"

enum { MAX_TEXT_BYTES = 1 << 30 };

struct perplexity_args {
    const char *model, *file, *logits;
    struct cli_session_args session;
    int64_t chunks;
    bool all, json;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE,
      .at = offsetof(struct perplexity_args, model),
      .help = "a file that tlr convert made" },
    { .name = "FILE", .kind = CLI_FILE,
      .at = offsetof(struct perplexity_args, file),
      .help = "the text; - reads standard input" },
};

static const struct cli_option options[] = {
    { .name = "ctx", .letter = 'c', .kind = CLI_INT,
      .at = offsetof(struct perplexity_args, session.ctx), .value = "N",
      .help = "ids in one window", .fallback = "512", .min = 4,
      .max = 1048576 },
    { .name = "chunks", .kind = CLI_INT,
      .at = offsetof(struct perplexity_args, chunks), .value = "N",
      .help = "stop after N windows", .unset = "all of the text", .min = 1,
      .max = 1e9 },
    { .name = "all", .kind = CLI_FLAG,
      .at = offsetof(struct perplexity_args, all),
      .help = "predict all of a window but its first token, not only the "
              "second half" },
    { .name = "logits", .kind = CLI_FILE,
      .at = offsetof(struct perplexity_args, logits), .value = "OUT",
      .help = "also write each predicted id (i32) and the logits it was "
              "predicted from (f32, all rows of the vocabulary)" },
    CLI_THREAD_OPTIONS(struct perplexity_args, session),
    CLI_KV_OPTION(struct perplexity_args, session),
    CLI_ACT_OPTION(struct perplexity_args, session),
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct perplexity_args, json),
      .help = "print one JSON object" },
};

static const char *const examples[] = {
    "tlr perplexity model.bin english.txt", "Measure a model on a text.",
    NULL
};

/* Sums over all predicted ids, and where in the text the window stands. */
struct tally {
    const int32_t *next; /* next[i]: the id after the i-th of this call */
    uint32_t n_vocab;
    struct tlr_out *logits; /* or NULL */
    struct tlr_err *err;
    int rc; /* of the last write */
    size_t count;
    double sum, sum_squares;
};

static int score(void *ctx, size_t index, const float *hidden,
                 const float *logits)
{
    struct tally *t = ctx;
    (void)hidden;
    double nll = tlr_log_sum_exp(logits, t->n_vocab) -
                 (double)logits[t->next[index]];
    t->sum += nll;
    t->sum_squares += nll * nll;
    t->count++;
    if (t->logits) {
        t->rc = tlr_out_write(t->logits, &t->next[index], sizeof *t->next,
                              t->err);
        if (!t->rc)
            t->rc = tlr_out_write(t->logits, logits,
                                  t->n_vocab * sizeof *logits, t->err);
    }
    return t->rc || cli_interrupted();
}

/* The ids after the first `given` + 1 of a window are predicted. */
static int window(struct tlr_session *s, int32_t *ids, size_t n_ctx,
                  size_t given, int32_t bos, struct tally *t,
                  struct tlr_err *err)
{
    int32_t first = ids[0];
    if (bos >= 0)
        ids[0] = bos;
    int rc = tlr_rewind(s, 0, err);
    if (!rc && given > 0)
        rc = tlr_prefill(s, ids, given, 0, err);
    t->next = ids + given + 1;
    if (!rc)
        rc = tlr_prefill_each(s, ids + given, n_ctx - given - 1, score, t,
                              err);
    ids[0] = first;
    if (t->rc) {
        *err = *t->err;
        rc = t->rc;
    }
    return rc;
}

static int encode_file(const struct perplexity_args *a,
                       const struct tlr_model *m, struct tlr_ids *ids,
                       struct tlr_err *err)
{
    char *text;
    size_t len;
    int rc = tlr_read_file(&text, &len, a->file, MAX_TEXT_BYTES, err);
    if (rc)
        return rc;
    rc = tlr_encode(tlr_model_tokenizer(m), text, len, TLR_ENCODE_BOS, ids, err);
    tlr_free(text);
    if (!rc && ids->n < (size_t)a->session.ctx)
        rc = tlr_err_set(err, TLR_ELIMIT,
                         "%s: has %zu tokens, and one window takes %lld; give "
                         "a longer text or a smaller --ctx", a->file, ids->n,
                         (long long)a->session.ctx);
    return rc;
}

static int report(const struct perplexity_args *a, const struct tally *t,
                  size_t windows, double ms, struct tlr_err *err)
{
    double n = (double)t->count, nll = t->sum / n, ppl = exp(nll);
    double variance = t->sum_squares / n - nll * nll;
    double error = t->count > 1 && variance > 0
                       ? ppl * sqrt(variance / (n - 1)) : 0;
    double rate = (double)windows * (double)a->session.ctx * 1000 / ms;
    if (!a->json) {
        cli_printf("perplexity %.4f +- %.4f (nll %.6f over %zu tokens, %zu "
                   "windows of %lld)\n", ppl, error, nll, t->count, windows,
                   (long long)a->session.ctx);
        cli_note("%.1f s, %.1f tok/s", ms / 1000, rate);
        return 0;
    }
    json_t *j = json_object();
    cli_json_put(j, "ppl", cli_json_real(ppl));
    cli_json_put(j, "ppl_error", cli_json_real(error));
    cli_json_put(j, "nll", cli_json_real(nll));
    cli_json_put(j, "tokens", json_integer((json_int_t)t->count));
    cli_json_put(j, "windows", json_integer((json_int_t)windows));
    cli_json_put(j, "ctx", json_integer(a->session.ctx));
    cli_json_put(j, "all", json_boolean(a->all));
    cli_json_put(j, "tok_s", cli_json_real(rate));
    return cli_json_print(j, err);
}

static int measure(const struct perplexity_args *a, const struct tlr_model *m,
                   struct tlr_session *s, struct tlr_err *err)
{
    const struct tlr_vocab *vocab = tlr_tokenizer_vocab(tlr_model_tokenizer(m));
    int32_t bos = vocab->flags & TLR_VOCAB_ADD_BOS ? vocab->bos_id : -1;
    struct tlr_ids ids = { 0 };
    struct tlr_err write_err = TLR_ERR_INIT;
    struct tally t = { .n_vocab = tlr_model_config(m)->n_vocab,
                       .err = &write_err };
    int rc = encode_file(a, m, &ids, err);
    if (!rc && a->logits)
        rc = tlr_out_begin(&t.logits, a->logits, err);
    if (rc)
        goto out;
    size_t n_ctx = (size_t)a->session.ctx, n = ids.n / n_ctx;
    if (a->chunks != CLI_NO_INT && (size_t)a->chunks < n)
        n = (size_t)a->chunks;
    struct cli_progress p;
    uint64_t begun = tlr_now_ns();
    cli_progress_begin(&p, "perplexity", false);
    cli_interrupt_hold();
    for (size_t i = 0; i < n && !rc; i++) {
        rc = cli_interrupted() ? TLR_ECANCELLED : 0;
        if (!rc)
            rc = window(s, ids.ids + i * n_ctx, n_ctx, a->all ? 0 : n_ctx / 2,
                        bos, &t, err);
        char now[32] = "";
        if (t.count > 0)
            snprintf(now, sizeof now, "ppl %.3f",
                     exp(t.sum / (double)t.count));
        cli_progress_set(&p, (i + 1) * n_ctx, n * n_ctx, now);
    }
    cli_interrupt_release();
    cli_progress_end(&p);
    if (rc == TLR_ECANCELLED)
        tlr_err_clear(err); /* that the engine was stopped is no news */
    if (!rc && t.logits) {
        rc = tlr_out_commit(t.logits, err);
        t.logits = NULL;
    }
    if (!rc)
        rc = report(a, &t, n, tlr_ms_between(begun, tlr_now_ns()), err);
out:
    tlr_out_abort(t.logits);
    tlr_ids_clear(&ids);
    return rc;
}

static int perplexity(const void *args, struct tlr_err *err)
{
    const struct perplexity_args *a = args;
    struct tlr_session_options o;
    struct tlr_model *m = NULL;
    struct tlr_session *s = NULL;
    int rc = cli_session_options(&o, &a->session, err);
    if (!rc)
        rc = cli_model_open(&m, a->model, true, err);
    if (!rc)
        rc = cli_check_can_talk(m, a->model, true, err);
    if (!rc)
        rc = tlr_session_new(&s, m, &o, err);
    if (!rc)
        rc = measure(a, m, s, err);
    tlr_session_free(s);
    tlr_model_close(m);
    return rc;
}

const struct cli_verb cli_verb_perplexity = {
    .name = "perplexity",
    .summary = "measure how well a model predicts a text",
    .about = "The text is cut into windows of --ctx tokens, and the tokens in "
             "the second half of each are predicted from all that stands "
             "before them in the window, as llama.cpp does it. A rest that "
             "fills no window is left out. Prints perplexity, its standard "
             "error and the mean negative log-likelihood. With --all all of a "
             "window but its first token is predicted.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct perplexity_args),
    .main = perplexity,
};
