/* bench.c - `tlr bench`: the speed of a model on this machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "base/clock.h"
#include "bench/engine_bench.h"
#include "bench/stream.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "convert/convert.h"
#include "kernels/kernels.h"

struct bench_args {
    const char *model, *random, *type;
    struct cli_session_args session;
    int64_t n_prompt, n_gen, depth, n_reps, n_branches;
    bool json;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE, .optional = true,
      .at = offsetof(struct bench_args, model),
      .help = "a file that tlr convert made; or give --random" },
};

static const struct cli_option options[] = {
    { .name = "random", .kind = CLI_TEXT,
      .at = offsetof(struct bench_args, random), .value = "NAME",
      .help = "measure a shape with seeded random weights instead of a model: "
              "qwen2.5-0.5b, smollm2-135m and others" },
    { .name = "type", .kind = CLI_CHOICE,
      .at = offsetof(struct bench_args, type), .value = TLR_CONVERT_TYPES,
      .help = "number type of the random weights", .unset = "q8" },
    { .name = "prompt-tokens", .letter = 'p', .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_prompt), .value = "N",
      .help = "tokens of the prefill", .fallback = "512", .min = 1,
      .max = 1048576 },
    { .name = "gen-tokens", .letter = 'n', .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_gen), .value = "N",
      .help = "tokens to decode one by one", .fallback = "64", .min = 1,
      .max = 1048576 },
    { .name = "depth", .letter = 'd', .kind = CLI_INT,
      .at = offsetof(struct bench_args, depth), .value = "N",
      .help = "tokens that are in the context before either begins",
      .fallback = "0", .min = 0, .max = 1048576 },
    { .name = "reps", .letter = 'r', .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_reps), .value = "N",
      .help = "repetitions", .fallback = "3", .min = 1, .max = 1000 },
    { .name = "branches", .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_branches), .value = "K",
      .help = "also measure K branches that are decoded side by side",
      .fallback = "0", .min = 0, .max = TLR_MAX_BRANCHES },
    CLI_THREAD_OPTIONS(struct bench_args, session),
    CLI_KV_OPTION(struct bench_args, session),
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct bench_args, json),
      .help = "print one JSON object" },
};

static const char *const examples[] = {
    "tlr bench model.bin", "Speed of a model beside the memory's.",
    "tlr bench --random qwen2.5-0.5b --type q8 --json",
    "The same for a shape, without any model file.",
    NULL
};

static int on_progress(void *ctx, uint64_t done, uint64_t total,
                       const char *tensor)
{
    cli_progress_set(ctx, done, total, tensor);
    return cli_interrupted();
}

static int interrupted(void)
{
    return cli_interrupted();
}

/* A file without a name; in memory where the system has such a thing, so that
 * no disk is written. */
static int open_scratch(FILE **out, struct tlr_err *err)
{
#ifdef __linux__
    int fd = memfd_create("tlr-random", MFD_CLOEXEC);
    *out = fd >= 0 ? fdopen(fd, "w+b") : tmpfile();
#else
    *out = tmpfile();
#endif
    if (!*out)
        return tlr_err_set_errno(err, TLR_EIO, errno,
                                 "temporary file for random weights");
    return 0;
}

static int make_random(const struct bench_args *a, int fd, struct tlr_err *err)
{
    char path[128];
    struct tlr_source *src = NULL;
    struct cli_progress p;
    struct tlr_convert_report report;
    int type = TLR_RECIPE_Q8;
    snprintf(path, sizeof path, "random:%s", a->random);
    if (a->type)
        tlr_convert_type_parse(a->type, &type);
    struct tlr_convert_options o = { .type = type,
                                     .progress = on_progress,
                                     .progress_ctx = &p };
    int rc = tlr_source_open(&src, path, err);
    if (rc)
        return rc;
    cli_progress_begin(&p, "random weights", true);
    rc = tlr_convert_fd(src, fd, path, &o, &report, err);
    cli_progress_end(&p);
    tlr_source_close(src);
    return rc;
}

static int open_model(const struct bench_args *a, struct tlr_model **out,
                      double *load_ms, struct tlr_err *err)
{
    FILE *scratch = NULL;
    struct tlr_file *file = NULL;
    int rc = 0;
    if (a->random) {
        rc = open_scratch(&scratch, err);
        if (!rc)
            rc = make_random(a, fileno(scratch), err);
    }
    uint64_t begun = tlr_now_ns();
    if (!rc && a->random)
        rc = tlr_file_open_fd(&file, fileno(scratch), a->random, NULL, err);
    else if (!rc)
        rc = tlr_file_open(&file, a->model, NULL, err);
    if (!rc)
        rc = tlr_model_from_file(out, file, err);
    *load_ms = tlr_ms_between(begun, tlr_now_ns());
    if (scratch)
        fclose(scratch);
    return rc;
}

struct outcome {
    struct tlr_bench_result engine;
    struct tlr_stream stream;
    double load_ms;
    uint64_t bytes_per_token, peak_rss;
    double read_gb_s;
};

/* The type that most bytes of the weights have. */
static const char *main_type(const struct tlr_file *f)
{
    uint64_t bytes[TLR_N_TYPES] = { 0 };
    unsigned best = 0;
    for (uint32_t i = 0; i < tlr_file_n_tensors(f); i++) {
        const struct tlr_tensor *t = tlr_file_tensor_at(f, i);
        bytes[t->type] += t->n_bytes;
    }
    for (unsigned t = 1; t < TLR_N_TYPES; t++)
        if (bytes[t] > bytes[best])
            best = t;
    return tlr_type_name(best);
}

static int print_json(const struct bench_args *a, const struct tlr_model *m,
                      const struct tlr_session_options *o,
                      const struct outcome *r, struct tlr_err *err)
{
    const char *name = a->random ? a->random : a->model;
    char brand[49];
    tlr_cpu_brand(brand);
    json_t *j = json_object();
    cli_json_put(j, "model", cli_json_text(name, strlen(name)));
    cli_json_put(j, "type", json_string(main_type(tlr_model_file(m))));
    cli_json_put(j, "processor", cli_json_text(brand, strlen(brand)));
    cli_json_put(j, "threads", json_integer(o->n_threads));
    cli_json_put(j, "cpu", json_string(tlr_cpu_level_name(
                               (enum tlr_cpu_level)o->cpu_level)));
    cli_json_put(j, "n_prompt", json_integer(a->n_prompt));
    cli_json_put(j, "n_gen", json_integer(a->n_gen));
    cli_json_put(j, "depth", json_integer(a->depth));
    cli_json_put(j, "reps", json_integer(a->n_reps));
    cli_json_put(j, "prefill_tok_s", cli_json_real(r->engine.prefill.mean));
    cli_json_put(j, "prefill_sd", cli_json_real(r->engine.prefill.sd));
    cli_json_put(j, "decode_tok_s", cli_json_real(r->engine.decode.mean));
    cli_json_put(j, "decode_sd", cli_json_real(r->engine.decode.sd));
    cli_json_put(j, "weight_bytes_per_token",
                 json_integer((json_int_t)r->bytes_per_token));
    cli_json_put(j, "read_gb_s", cli_json_real(r->read_gb_s));
    cli_json_put(j, "stream_gb_s", cli_json_real(r->stream.gb_s));
    cli_json_put(j, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss));
    cli_json_put(j, "load_ms", cli_json_real(r->load_ms));
    cli_json_put(j, "ttft_ms", cli_json_real(r->engine.ttft_ms));
    if (a->n_branches > 0) {
        cli_json_put(j, "branches", json_integer(a->n_branches));
        cli_json_put(j, "branch_ratio", cli_json_real(r->engine.branch_ratio));
    }
    return cli_json_print(j, err);
}

static void print_rate(const char *what, long long n, long long depth,
                       const struct tlr_bench_rate *rate)
{
    char name[48];
    if (depth > 0)
        snprintf(name, sizeof name, "%s%lld @ d%lld", what, n, depth);
    else
        snprintf(name, sizeof name, "%s%lld", what, n);
    cli_printf("  %-16s %10.2f +- %.2f tok/s\n", name, rate->mean, rate->sd);
}

static void print_human(const struct bench_args *a, const struct tlr_model *m,
                        const struct tlr_session_options *o,
                        const struct outcome *r)
{
    char brand[49], text[2][24];
    tlr_cpu_brand(brand);
    cli_printf("%s, %s, %d threads, %s kernels, %s\n",
               a->random ? a->random : a->model, main_type(tlr_model_file(m)),
               o->n_threads,
               tlr_cpu_level_name((enum tlr_cpu_level)o->cpu_level), brand);
    print_rate("pp", a->n_prompt, a->depth, &r->engine.prefill);
    print_rate("tg", a->n_gen, a->depth, &r->engine.decode);
    if (a->n_branches > 0)
        cli_printf("  %lld branches cost %.2f times one\n",
                   (long long)a->n_branches, r->engine.branch_ratio);
    cli_printf("  reads %s of weights per token: %.2f GB/s of %.2f GB/s that "
               "memory gives (%.0f %%)\n",
               cli_bytes(text[0], sizeof text[0], r->bytes_per_token),
               r->read_gb_s, r->stream.gb_s,
               r->stream.gb_s > 0 ? r->read_gb_s / r->stream.gb_s * 100 : 0);
    cli_printf("  load %.0f ms, first token %.0f ms, peak %s\n", r->load_ms,
               r->engine.ttft_ms,
               cli_bytes(text[1], sizeof text[1], r->peak_rss));
}

static int measure(const struct bench_args *a, const struct tlr_model *m,
                   struct tlr_session_options *o, struct outcome *r,
                   struct tlr_err *err)
{
    struct tlr_bench_options b = {
        .n_prompt = (uint32_t)a->n_prompt, .n_gen = (uint32_t)a->n_gen,
        .depth = (uint32_t)a->depth, .n_reps = (uint32_t)a->n_reps,
        .n_branches = (uint32_t)a->n_branches, .cancelled = interrupted,
    };
    struct tlr_session *s = NULL;
    o->n_ctx = tlr_bench_positions(&b);
    o->n_branches = b.n_branches;
    uint64_t begun = tlr_now_ns();
    int rc = tlr_session_new(&s, m, o, err);
    r->load_ms += tlr_ms_between(begun, tlr_now_ns());
    if (!rc)
        rc = tlr_bench_engine(&r->engine, s, m, &b, err);
    if (!rc)
        *o = *tlr_session_options_used(s);
    tlr_session_free(s);
    if (rc)
        return rc;
    r->bytes_per_token = tlr_model_bytes_per_token(m);
    r->read_gb_s = (double)r->bytes_per_token * r->engine.decode.mean / 1e9;
    /* Before the bandwidth buffer, which is no part of the engine. */
    r->peak_rss = tlr_peak_rss_bytes();
    return tlr_stream_measure(&r->stream, o->n_threads, err);
}

static int bench(const void *args, struct tlr_err *err)
{
    const struct bench_args *a = args;
    struct tlr_session_options o;
    struct tlr_model *m = NULL;
    struct outcome r = { 0 };
    if (!a->model == !a->random)
        return tlr_err_set(err, TLR_EUSAGE,
                           "expected a MODEL or --random NAME, found %s",
                           a->model ? "both" : "neither");
    if (a->type && !a->random)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--type goes with --random; a model has its own");
    int rc = cli_session_options(&o, &a->session, err);
    if (rc)
        return rc;
    cli_interrupt_hold();
    rc = open_model(a, &m, &r.load_ms, err);
    if (!rc)
        rc = measure(a, m, &o, &r, err);
    cli_interrupt_release();
    if (!rc && a->json)
        rc = print_json(a, m, &o, &r, err);
    else if (!rc)
        print_human(a, m, &o, &r);
    tlr_model_close(m);
    return rc;
}

const struct cli_verb cli_verb_bench = {
    .name = "bench",
    .summary = "measure the speed of a model on this machine",
    .about = "Measures prefill (pp) and decode (tg) in tokens per second, mean "
             "and standard deviation over the repetitions, after one round "
             "that is not counted. A decoded token reads every weight once, so "
             "the speed of reading memory is the bound; it is measured in the "
             "same run with the same number of threads.\n\n"
             "With --json: prefill_tok_s, decode_tok_s, "
             "weight_bytes_per_token, read_gb_s (weights read per second while "
             "decoding), stream_gb_s (what memory gives), peak_rss_bytes, "
             "load_ms, ttft_ms (the prefill with its logits) and more. "
             "GB are 1e9 bytes.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct bench_args),
    .main = bench,
};
