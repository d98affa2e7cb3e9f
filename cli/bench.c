/* bench.c - `tlr bench`: the speed of a model on this machine, in llama-bench's
 * terms (pp, tg, depth), and the door to `tlr bench --kernels`. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "base/clock.h"
#include "bench/engine_bench.h"
#include "bench/stream.h"
#include "cli/bench_kernels.h"
#include "cli/cli.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/profile.h"
#include "convert/convert.h"
#include "kernels/kernels.h"

/* Tokens of the first prompt, whose answer's first token is timed from the
 * start of the process. */
enum { FIRST_TOKENS = 16 };

struct bench_args {
    const char *model, *random, *type;
    struct cli_session_args session;
    struct cli_kernels_args only;
    int64_t n_prompt, n_gen, depth, n_reps, n_branches, n_sessions;
    bool json, profile, kernels;
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
      .help = "tokens of the prefill; 0: none", .fallback = "512", .min = 0,
      .max = 1048576 },
    { .name = "gen-tokens", .letter = 'n', .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_gen), .value = "N",
      .help = "tokens to decode one by one; 0: none", .fallback = "128", .min = 0,
      .max = 1048576 },
    { .name = "depth", .letter = 'd', .kind = CLI_INT,
      .at = offsetof(struct bench_args, depth), .value = "N",
      .help = "tokens that are in the context before either begins",
      .fallback = "0", .min = 0, .max = 1048576 },
    { .name = "reps", .letter = 'r', .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_reps), .value = "N",
      .help = "repetitions, after one that is not counted", .fallback = "5",
      .min = 1, .max = 1000 },
    { .name = "branches", .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_branches), .value = "K",
      .help = "also measure K branches that are decoded side by side",
      .fallback = "0", .min = 0, .max = TLR_MAX_BRANCHES },
    { .name = "sessions", .kind = CLI_INT,
      .at = offsetof(struct bench_args, n_sessions), .value = "K",
      .help = "also measure 1, 2, 4, ... K sessions that are decoded together",
      .fallback = "0", .min = 0, .max = TLR_MAX_TOGETHER },
    CLI_CTX_OPTION(struct bench_args, session.ctx,
                   "positions to make room for (when not given: as many as are "
                   "used)"),
    CLI_THREAD_OPTIONS(struct bench_args, session),
    CLI_KV_OPTION(struct bench_args, session),
    CLI_ACT_OPTION(struct bench_args, session),
    { .name = "profile", .kind = CLI_FLAG,
      .at = offsetof(struct bench_args, profile),
      .help = "also print where the time goes, by operation and by layer" },
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct bench_args, json),
      .help = "print one JSON object" },
    { .name = "kernels", .kind = CLI_FLAG,
      .at = offsetof(struct bench_args, kernels),
      .help = "measure each kernel by itself instead of a model" },
    { .name = "op", .kind = CLI_TEXT, .at = offsetof(struct bench_args, only.op),
      .value = "NAME", .help = "with --kernels: only slots that begin so" },
    { .name = "list", .kind = CLI_FLAG,
      .at = offsetof(struct bench_args, only.list),
      .help = "with --kernels: only say which variant fills each slot here" },
    { .name = "seconds", .kind = CLI_REAL,
      .at = offsetof(struct bench_args, only.seconds), .value = "S",
      .help = "with --kernels: time to take in all", .unset = "45", .min = 0.1,
      .max = 86400 },
    { .name = "csv", .kind = CLI_FLAG,
      .at = offsetof(struct bench_args, only.csv),
      .help = "with --kernels: print comma-separated values" },
    { .name = "md", .kind = CLI_FLAG, .at = offsetof(struct bench_args, only.md),
      .help = "with --kernels: print a Markdown table" },
    { .name = "svg", .kind = CLI_FILE,
      .at = offsetof(struct bench_args, only.svg), .value = "FILE",
      .help = "with --kernels: also draw the roofline plot" },
};

static const char *const examples[] = {
    "tlr bench model.bin", "Speed of a model beside the memory's.",
    "tlr bench --random qwen2.5-0.5b --type q8 --json",
    "The same for a shape, without any model file.",
    "tlr bench --kernels --op matmul --svg roofline.svg",
    "Every variant of the integer products, and a picture.",
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

struct outcome {
    struct tlr_bench_result engine;
    struct tlr_stream stream;
    double load_ms;
    uint64_t bytes_per_token, peak_rss;
    double read_gb_s;
    double first_token_ms; /* since the process began, or since the random
                              weights were there */
    uint64_t ready_ns;     /* when they were */
};

static int open_model(const struct bench_args *a, struct tlr_model **out,
                      struct outcome *r, struct tlr_err *err)
{
    FILE *scratch = NULL;
    struct tlr_file *file = NULL;
    int rc = 0;
    if (a->random) {
        rc = open_scratch(&scratch, err);
        if (!rc)
            rc = make_random(a, fileno(scratch), err);
    }
    r->ready_ns = tlr_now_ns();
    if (!rc && a->random)
        rc = tlr_file_open_fd(&file, fileno(scratch), a->random, NULL, err);
    else if (!rc)
        rc = tlr_file_open(&file, a->model, NULL, err);
    if (!rc)
        rc = tlr_model_from_file(out, file, err);
    r->load_ms = tlr_ms_between(r->ready_ns, tlr_now_ns());
    if (scratch)
        fclose(scratch);
    return rc;
}

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

/* A number that is null where nothing was measured. */
static void put_measured(json_t *j, const char *key, bool is_measured,
                         double value)
{
    cli_json_put(j, key, is_measured ? cli_json_real(value) : json_null());
}

/* NAME_tok_s is the mean. */
static void put_rate(json_t *j, const char *name, bool is_measured,
                     const struct tlr_bench_rate *rate)
{
    const struct {
        const char *end;
        double value;
    } parts[] = {
        { "tok_s", rate->mean },    { "sd", rate->sd },
        { "median", rate->median }, { "min", rate->min },
        { "max", rate->max },
    };
    char key[32];
    for (size_t i = 0; i < CLI_COUNT(parts); i++) {
        snprintf(key, sizeof key, "%s_%s", name, parts[i].end);
        put_measured(j, key, is_measured, parts[i].value);
    }
}

/* [{"sessions", "tok_s" of all together, ...}] */
static json_t *sessions_json(const struct tlr_bench_result *r)
{
    json_t *rows = json_array();
    for (int i = 0; i < r->n_together; i++) {
        json_t *row = json_object();
        cli_json_put(row, "sessions",
                     json_integer(r->together[i].n_sessions));
        put_rate(row, "decode", true, &r->together[i].rate);
        json_array_append_new(rows, row);
    }
    return rows;
}

static double read_share(const struct outcome *r)
{
    return r->stream.gb_s > 0 ? r->read_gb_s / r->stream.gb_s : 0;
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
    cli_json_put(j, "kv", json_string(cli_kv_name(o->kv)));
    cli_json_put(j, "act", json_string(cli_act_name(o->act)));
    cli_json_put(j, "ctx", json_integer(o->n_ctx));
    bool has_pp = a->n_prompt > 0, has_tg = a->n_gen > 0;
    put_rate(j, "prefill", has_pp, &r->engine.prefill);
    put_rate(j, "decode", has_tg, &r->engine.decode);
    cli_json_put(j, "weight_bytes_per_token",
                 json_integer((json_int_t)r->bytes_per_token));
    put_measured(j, "read_gb_s", has_tg, r->read_gb_s);
    cli_json_put(j, "stream_gb_s", cli_json_real(r->stream.gb_s));
    put_measured(j, "read_share", has_tg, read_share(r));
    cli_json_put(j, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss));
    cli_json_put(j, "load_ms", cli_json_real(r->load_ms));
    put_measured(j, "ttft_ms", has_pp, r->engine.ttft_ms);
    cli_json_put(j, "first_token_ms", cli_json_real(r->first_token_ms));
    if (a->profile) {
        const struct tlr_profile *p = r->engine.profiles;
        cli_json_put(j, "prefill_profile",
                     has_pp ? cli_profile_json(p + TLR_BENCH_PREFILL)
                            : json_null());
        cli_json_put(j, "decode_profile",
                     has_tg ? cli_profile_json(p + TLR_BENCH_DECODE)
                            : json_null());
        cli_json_put(j, "branch_profile",
                     a->n_branches > 0
                         ? cli_profile_json(p + TLR_BENCH_BRANCHES)
                         : json_null());
    }
    if (a->n_branches > 0) {
        cli_json_put(j, "branches", json_integer(a->n_branches));
        cli_json_put(j, "branch_ratio", cli_json_real(r->engine.branch_ratio));
    }
    if (a->n_sessions > 0)
        cli_json_put(j, "sessions", sessions_json(&r->engine));
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
    cli_printf("  %-16s %10.2f +- %.2f tok/s (median %.2f, %.2f to %.2f)\n",
               name, rate->mean, rate->sd, rate->median, rate->min, rate->max);
}

static void print_together(const struct tlr_bench_result *r)
{
    double one = r->n_together > 0 ? r->together[0].rate.median : 0;
    for (int i = 0; i < r->n_together; i++)
        cli_printf("  %u session%s together %.2f tok/s, %.2f times one\n",
                   r->together[i].n_sessions,
                   r->together[i].n_sessions > 1 ? "s" : " ",
                   r->together[i].rate.median,
                   one > 0 ? r->together[i].rate.median / one : 0);
}

static void print_human(const struct bench_args *a, const struct tlr_model *m,
                        const struct tlr_session_options *o,
                        const struct outcome *r)
{
    char brand[49], text[2][24];
    tlr_cpu_brand(brand);
    cli_printf("%s, %s, %d threads, %s kernels, KV %s, inputs %s, %s\n",
               a->random ? a->random : a->model, main_type(tlr_model_file(m)),
               o->n_threads,
               tlr_cpu_level_name((enum tlr_cpu_level)o->cpu_level),
               cli_kv_name(o->kv), cli_act_name(o->act), brand);
    if (a->n_prompt > 0)
        print_rate("pp", a->n_prompt, a->depth, &r->engine.prefill);
    if (a->n_gen > 0)
        print_rate("tg", a->n_gen, a->depth, &r->engine.decode);
    if (a->n_branches > 0)
        cli_printf("  %lld branches cost %.2f times one\n",
                   (long long)a->n_branches, r->engine.branch_ratio);
    print_together(&r->engine);
    if (a->n_gen > 0)
        cli_printf("  reads %s of weights per token: %.2f GB/s of %.2f GB/s "
                   "that memory gives (%.0f %%)\n",
                   cli_bytes(text[0], sizeof text[0], r->bytes_per_token),
                   r->read_gb_s, r->stream.gb_s, read_share(r) * 100);
    cli_printf("  load %.0f ms, first token of a prompt of %d %.0f ms after the "
               "%s, peak %s\n", r->load_ms, FIRST_TOKENS, r->first_token_ms,
               a->random ? "weights were made" : "process began",
               cli_bytes(text[1], sizeof text[1], r->peak_rss));
    if (a->profile && a->n_prompt > 0)
        cli_print_profile(&r->engine.profiles[TLR_BENCH_PREFILL], "prefill",
                          false);
    if (a->profile && a->n_gen > 0)
        cli_print_profile(&r->engine.profiles[TLR_BENCH_DECODE], "decode",
                          false);
    if (a->profile && a->n_branches > 0)
        cli_print_profile(&r->engine.profiles[TLR_BENCH_BRANCHES], "branches",
                          false);
}

static int measure(const struct bench_args *a, const struct tlr_model *m,
                   struct tlr_session_options *o, struct outcome *r,
                   struct tlr_err *err)
{
    struct tlr_bench_options b = {
        .n_prompt = (uint32_t)a->n_prompt, .n_gen = (uint32_t)a->n_gen,
        .depth = (uint32_t)a->depth, .n_reps = (uint32_t)a->n_reps,
        .n_branches = (uint32_t)a->n_branches,
        .n_sessions = (uint32_t)a->n_sessions, .n_first = FIRST_TOKENS,
        .profile = a->profile, .cancelled = interrupted,
    };
    struct tlr_session *s = NULL;
    if (o->n_ctx < tlr_bench_positions(&b))
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
    r->first_token_ms = a->random
                            ? tlr_ms_between(r->ready_ns,
                                             r->engine.first_token_ns)
                            : cli_ms_since_start(r->engine.first_token_ns);
    r->bytes_per_token = tlr_model_bytes_per_top(m); /* decode is greedy */
    r->read_gb_s = (double)r->bytes_per_token * r->engine.decode.mean / 1e9;
    /* Before the bandwidth buffer, which is no part of the engine. */
    r->peak_rss = tlr_peak_rss_bytes();
    return tlr_stream_measure(&r->stream, o->n_threads, err);
}

static int kernels(const struct bench_args *a, struct tlr_err *err)
{
    struct cli_kernels_args only = a->only;
    struct tlr_session_options o;
    only.json = a->json;
    if (isnan(only.seconds))
        only.seconds = 45;
    if (!a->kernels)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--op, --list, --seconds, --csv, --md and --svg go "
                           "with --kernels");
    if (a->model || a->random || a->profile)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--kernels measures no model; leave out %s",
                           a->model ? a->model
                                    : a->random ? "--random" : "--profile");
    if (only.json + only.csv + only.md > 1)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--json, --csv and --md exclude one another");
    if (only.list && (only.csv || only.md || only.svg))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--list goes with --json or nothing: it measures "
                           "nothing");
    int rc = cli_session_options(&o, &a->session, err);
    only.level = o.cpu_level < 0 ? tlr_cpu_detect()
                                 : (enum tlr_cpu_level)o.cpu_level;
    return rc ? rc : cli_bench_kernels(&only, err);
}

static int bench(const void *args, struct tlr_err *err)
{
    const struct bench_args *a = args;
    struct tlr_session_options o;
    struct tlr_model *m = NULL;
    struct outcome r = { 0 };
    if (a->kernels || a->only.op || a->only.list || a->only.csv ||
        a->only.md || a->only.svg || !isnan(a->only.seconds))
        return kernels(a, err);
    if (!a->model == !a->random)
        return tlr_err_set(err, TLR_EUSAGE,
                           "expected a MODEL or --random NAME, found %s",
                           a->model ? "both" : "neither");
    if (a->type && !a->random)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--type goes with --random; a model has its own");
    if (a->n_prompt == 0 && a->n_gen == 0)
        return tlr_err_set(err, TLR_EUSAGE, "-p 0 -n 0 leaves nothing to "
                           "measure; give one of them");
    if ((a->n_branches > 0 || a->n_sessions > 0) && a->n_gen == 0)
        return tlr_err_set(err, TLR_EUSAGE, "--branches and --sessions are "
                           "measured beside decoding; give -n");
    int rc = cli_session_options(&o, &a->session, err);
    if (rc)
        return rc;
    cli_interrupt_hold();
    rc = open_model(a, &m, &r, err);
    if (!rc)
        rc = measure(a, m, &o, &r, err);
    cli_interrupt_release();
    if (!rc && a->json)
        rc = print_json(a, m, &o, &r, err);
    else if (!rc)
        print_human(a, m, &o, &r);
    tlr_bench_result_clear(&r.engine);
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
             "load_ms, ttft_ms (the prefill with its logits), first_token_ms "
             "(from the start of the process, or of loading where the weights "
             "are random, to the choice of a token after a prompt of 16; the "
             "system counts starts in steps of 10 ms) and more; _median, _min "
             "and _max beside each mean. GB are 1e9 bytes.\n\n"
             "With --kernels each variant of each kernel is timed by itself on "
             "one thread, with its operand cold (elsewhere in memory at each "
             "call) and hot (in cache): time, bytes and operations a second, "
             "the share of what memory's bandwidth or the measured arithmetic "
             "peak allow, the ratio to the reference, and the processor's own "
             "counters where it has some and the system gives them out.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct bench_args),
    .main = bench,
};
