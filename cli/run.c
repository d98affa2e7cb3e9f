/* run.c - `tlr run`: one prompt, one answer, streamed. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/explain.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/profile.h"
#include "cli/routing.h"

enum { MAX_PROMPT_BYTES = 256 << 20 };

struct run_args {
    const char *model, *prompt, *system;
    struct cli_session_args session;
    struct cli_sampling_args sampling;
    struct cli_routing_args routing;
    struct cli_list stops;
    int64_t max_tokens;
    const char *color;
    bool raw, explain, stats, profile, json, estimate;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE, .at = offsetof(struct run_args, model),
      .help = "a file that tlr convert made" },
    { .name = "PROMPT", .kind = CLI_TEXT, .optional = true,
      .at = offsetof(struct run_args, prompt),
      .help = "the text to answer; - reads standard input" },
};

static const struct cli_option options[] = {
    { .name = "max-tokens", .letter = 'n', .kind = CLI_INT,
      .at = offsetof(struct run_args, max_tokens), .value = "N",
      .help = "make at most N tokens", .fallback = "512", .min = 1,
      .max = 1048576 },
    CLI_SAMPLING_OPTIONS(struct run_args, sampling),
    { .name = "stop", .kind = CLI_LIST, .at = offsetof(struct run_args, stops),
      .value = "TEXT",
      .help = "end before this text; may be given up to 16 times" },
    { .name = "system", .letter = 's', .kind = CLI_TEXT,
      .at = offsetof(struct run_args, system), .value = "TEXT",
      .help = "system message", .unset = "that of the model's template" },
    { .name = "raw", .kind = CLI_FLAG, .at = offsetof(struct run_args, raw),
      .help = "send the prompt as it is, without the chat template; special "
              "tokens spelled out in it count" },
    CLI_ROUTING_OPTIONS(struct run_args, routing),
    { .name = "explain", .kind = CLI_FLAG,
      .at = offsetof(struct run_args, explain),
      .help = "print each token's trust, entropy, both models' candidates and "
              "who wrote it, on standard error; asks the large model at every "
              "position" },
    CLI_COLOR_OPTION(struct run_args, color),
    CLI_CTX_OPTION(struct run_args, session.ctx,
                   "positions for prompt and answer together (when not given: "
                   "the model's own limit, at most 4096)"),
    CLI_THREAD_OPTIONS(struct run_args, session),
    CLI_KV_OPTION(struct run_args, session),
    CLI_ACT_OPTION(struct run_args, session),
    { .name = "stats", .kind = CLI_FLAG, .at = offsetof(struct run_args, stats),
      .help = "print speed, memory and every choice that was made, on standard "
              "error" },
    { .name = "profile", .kind = CLI_FLAG,
      .at = offsetof(struct run_args, profile),
      .help = "print where the time of a step goes, by operation and by layer, "
              "on standard error" },
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct run_args, json),
      .help = "print one JSON object in the end instead of streaming" },
    { .name = "estimate", .kind = CLI_FLAG,
      .at = offsetof(struct run_args, estimate),
      .help = "print the memory it would take, and load nothing" },
};

static const char *const examples[] = {
    "tlr run model.bin \"Why is the sky blue?\"", "Answer with the model's "
    "template and defaults.",
    "tlr run model.bin \"The capital of France is\" --raw --temp 0 -n 8 --json",
    "Continue a text, always with the likeliest token.",
    "git diff | tlr run model.bin - --system \"Review this change.\" --stats",
    "Read the prompt from a pipe.",
    "tlr run small.bin \"Why is the sky blue?\" --llm model:large.bin "
    "--target-routed 7% --stats",
    "Let the large model write the tokens that the small one's router doubts.",
    "tlr run small.bin \"Why is the sky blue?\" --llm "
    "http://127.0.0.1:8000 --audit sent.jsonl --stats",
    "The same with an LLM server, and a record of all that is sent to it.",
    "tlr run small.bin \"Why is the sky blue?\" --explain",
    "Show what the router would ask for, without a large model.",
    NULL
};

/* The prompt's text: the operand or standard input. */
static int read_prompt(const struct run_args *a, char **out, size_t *len,
                       struct tlr_err *err)
{
    if (strcmp(a->prompt, "-") == 0)
        return tlr_read_file(out, len, "-", MAX_PROMPT_BYTES, err);
    *len = strlen(a->prompt);
    *out = tlr_strdup(a->prompt);
    return *out ? 0 : tlr_err_nomem(err, "prompt", *len + 1);
}

static int encode_prompt(const struct run_args *a, const struct tlr_model *m,
                         const char *text, size_t len, struct tlr_ids *ids,
                         struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(m);
    int rc;
    if (a->raw) {
        rc = tlr_encode(tok, text, len, TLR_ENCODE_SPECIAL | TLR_ENCODE_BOS,
                        ids, err);
    } else {
        if (memchr(text, '\0', len))
            return tlr_err_set(err, TLR_EFORMAT,
                               "prompt: has a NUL byte; chat templates take "
                               "text only, use --raw");
        struct tlr_message messages[2] = {
            { TLR_ROLE_SYSTEM, a->system }, { TLR_ROLE_USER, text }
        };
        int skip = a->system ? 0 : 1;
        rc = tlr_chat_encode(tlr_model_chat(m), tok, messages + skip,
                             (size_t)(2 - skip), true, true, ids, err);
    }
    if (!rc && ids->n == 0)
        rc = tlr_err_set(err, TLR_EUSAGE, "the prompt is empty");
    return rc;
}

static json_t *ids_json(const struct tlr_ids *ids)
{
    json_t *array = json_array();
    for (size_t i = 0; i < ids->n; i++)
        cli_json_push(array, json_integer(ids->ids[i]));
    return array;
}

static int print_json(const struct cli_generate *g,
                      const struct cli_routing *routing, double load_ms,
                      const char *template_name, uint64_t seed,
                      struct tlr_err *err)
{
    const struct tlr_session_options *o = tlr_session_options_used(g->session);
    const struct tlr_text *text = &g->text.text;
    json_t *j = json_object();
    cli_json_put(j, "text", cli_json_text(text->bytes ? text->bytes : "",
                                          text->n));
    cli_json_put(j, "ids", ids_json(&g->ids));
    cli_json_put(j, "prompt_tokens", json_integer((json_int_t)g->n_prompt));
    cli_json_put(j, "completion_tokens", json_integer((json_int_t)g->ids.n));
    cli_json_put(j, "finish_reason", json_string(cli_finish_name(g->finish)));
    cli_json_put(j, "load_ms", cli_json_real(load_ms));
    cli_json_put(j, "ttft_ms", cli_json_real(g->ttft_ms));
    cli_json_put(j, "first_token_ms", cli_json_real(g->first_token_ms));
    cli_json_put(j, "prefill_tok_s", cli_json_real(cli_prefill_rate(g)));
    cli_json_put(j, "decode_tok_s", cli_json_real(cli_decode_rate(g)));
    cli_json_put(j, "peak_rss_bytes",
                 json_integer((json_int_t)tlr_peak_rss_bytes()));
    cli_json_put(j, "threads", json_integer(o->n_threads));
    cli_json_put(j, "cpu", json_string(tlr_cpu_level_name(
                               (enum tlr_cpu_level)o->cpu_level)));
    cli_json_put(j, "kv", json_string(cli_kv_name(o->kv)));
    cli_json_put(j, "act", json_string(cli_act_name(o->act)));
    cli_json_put(j, "ctx", json_integer(o->n_ctx));
    cli_json_put(j, "template", cli_json_text(template_name,
                                              strlen(template_name)));
    cli_json_put(j, "seed", json_integer((json_int_t)seed));
    if (g->routing) {
        cli_json_put(j, "routing", cli_routing_json(g, routing));
        cli_json_put(j, "network", cli_llm_json(&routing->llm));
        cli_json_put(j, "tokens", cli_records_json(g));
    }
    if (g->profile) {
        cli_json_put(j, "prefill_profile",
                     cli_profile_json(&g->prefill_profile));
        cli_json_put(j, "decode_profile", cli_profile_json(&g->decode_profile));
    }
    return cli_json_print(j, err);
}

static bool is_routed(const struct run_args *a)
{
    return a->explain || cli_routing_is_on(&a->routing);
}

/* What people see when the text is there. */
static void report(const struct run_args *a, const struct cli_generate *g,
                   const struct cli_routing *routing, double load_ms,
                   const char *template_name, uint64_t seed)
{
    if (g->routing)
        cli_print_failures(g, routing);
    if (a->explain && !a->json)
        cli_print_explain(g, routing);
    if (a->stats || (g->finish == CLI_FINISH_CANCELLED && !cli_out_failed())) {
        cli_print_stats(g, load_ms, template_name, seed);
        if (g->routing)
            cli_print_routing(g, routing);
        cli_print_llm(&routing->llm);
    }
    if (a->profile && !a->json) {
        cli_print_profile(&g->prefill_profile, "prefill", true);
        cli_print_profile(&g->decode_profile, "decode", true);
        if (g->routing)
            cli_print_profile_beside(&g->decode_profile, "router",
                                     g->totals.router_ns);
    }
}

/* Everything after the model and its session are there. */
static int answer(const struct run_args *a, const struct tlr_model *m,
                  struct tlr_session *s, const struct cli_routing *routing,
                  double load_ms, uint64_t seed, struct tlr_err *err)
{
    char *text = NULL;
    size_t len = 0;
    struct tlr_ids prompt = { 0 };
    struct tlr_sampler *sampler = NULL;
    struct tlr_generation generation;
    struct cli_generate g = { 0 };
    int rc = read_prompt(a, &text, &len, err);
    if (rc)
        goto out;
    g.begun_ns = tlr_now_ns();
    rc = encode_prompt(a, m, text, len, &prompt, err);
    if (!rc)
        rc = cli_check_fits(s, m, prompt.n, err);
    if (rc)
        goto out;
    cli_generation(&generation, m, &a->sampling);
    rc = tlr_sampler_new(&sampler, &generation, tlr_model_n_ids(m), seed, err);
    if (rc)
        goto out;
    g.session = s;
    g.model = m;
    g.sampler = sampler;
    g.generation = &generation;
    g.routing = is_routed(a) ? &routing->options : NULL;
    g.keep_records = g.routing && (a->json || a->explain);
    g.prompt = prompt.ids;
    g.n_prompt = prompt.n;
    g.max_tokens = (size_t)a->max_tokens;
    g.stops = &a->stops;
    g.stream = !a->json;
    g.from_start = true;
    g.profile = a->profile;
    cli_interrupt_hold();
    rc = cli_generate(&g, err);
    cli_interrupt_release();
    if (!a->json) {
        cli_write("\n", 1);
        cli_flush();
    }
    if (rc)
        goto out;
    const char *name = a->raw ? "none (--raw)" : tlr_model_chat(m)->name;
    if (a->json)
        rc = print_json(&g, routing, load_ms, name, seed, err);
    report(a, &g, routing, load_ms, name, seed);
out:
    cli_generate_clear(&g);
    tlr_sampler_free(sampler);
    tlr_ids_clear(&prompt);
    tlr_free(text);
    return rc;
}

static int run(const void *args, struct tlr_err *err)
{
    const struct run_args *a = args;
    struct tlr_session_options o;
    struct tlr_model *m = NULL;
    struct tlr_session *s = NULL;
    struct cli_routing routing = { 0 };
    uint64_t seed = cli_seed(&a->sampling);
    if (!a->prompt && !a->estimate)
        return tlr_err_set(err, TLR_EUSAGE, "PROMPT is missing");
    if (a->raw && a->system)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--raw uses no template, so --system has no place "
                           "to go; give one of them");
    int rc = cli_session_options(&o, &a->session, err);
    if (!rc && a->estimate)
        return cli_print_estimate(a->model, &o, a->json, err);
    if (rc)
        return rc;
    uint64_t begun = tlr_now_ns();
    rc = cli_model_open(&m, a->model, true, err);
    if (!rc)
        rc = cli_check_can_talk(m, a->model, a->raw, err);
    if (!rc)
        rc = tlr_session_new(&s, m, &o, err);
    if (!rc && is_routed(a))
        rc = cli_routing_open(&routing, &a->routing, m, s, seed, err);
    routing.options.explain = a->explain;
    cli_out_set_color(a->color);
    if (!rc)
        rc = answer(a, m, s, &routing, tlr_ms_between(begun, tlr_now_ns()),
                    seed, err);
    cli_routing_clear(&routing);
    tlr_session_free(s);
    tlr_model_close(m);
    return rc;
}

const struct cli_verb cli_verb_run = {
    .name = "run",
    .summary = "answer one prompt",
    .about = "Streams the model's answer to a prompt. The text is written as "
             "it is made, in whole characters; on a terminal control "
             "characters are replaced. Temperature 0 gives the same ids for "
             "any number of threads.\n\n"
             "A prompt that does not fit the context is an error; nothing is "
             "ever cut. Ctrl-C ends the answer and prints the statistics; a "
             "second one ends the program.\n\n"
             "With --llm, --policy or another option of routing, each token of "
             "the small model gets a trust, and where it is below a threshold "
             "the large model writes the token instead. The threshold follows "
             "from the share of tokens to route, by the calibration that the "
             "router carries (tlr calibrate), or is --tau. The large model's "
             "tokens are always its likeliest.\n\n"
             CLI_LLM_ABOUT "\n\n"
             "With --json the object has text, ids (without the end-of-text "
             "token), prompt_tokens, completion_tokens, finish_reason (stop: "
             "the model or a stop text ended it; length: -n or the context "
             "did; cancelled), load_ms, ttft_ms (from reading the prompt), "
             "first_token_ms (from the start of the process, in steps of 10 "
             "ms), prefill_tok_s, decode_tok_s, peak_rss_bytes and the choices "
             "made; with --profile prefill_profile and decode_profile, whose "
             "entries add up to their total_ms. With routing it has routing "
             "(mode, policy, tau, target_share, routed_share, asked_share, llm, "
             "positions, asked, llm_tokens, failed, slm_ms, router_ms, llm_ms, "
             "wire_ms, calls, wait_ms, hidden_ms, exposed_ms, queue_ms, "
             "connect_ms, first_byte_ms, cached_tokens, redone_tokens, "
             "branches_taken, redone_ms, speculate, burst, ms_per_token), network "
             "(null for a file, "
             "else server, asks, requests, retries, failed, cancelled, "
             "connections, sent_bytes, received_bytes, sent_tokens, "
             "reply_tokens, cached_tokens and cost) and tokens, one object for "
             "each decision, the end of the text included: id, text, from, "
             "asked, trust, entropy (with --explain), slm and llm (null: not "
             "made) and, where the large model was asked, llm_ms, wire_ms, "
             "queue_ms, connect_ms, first_byte_ms, hidden_ms and exposed_ms. "
             "calls are all asks made, those included whose reply was of no "
             "use; exposed_ms is the part of wait_ms in which nothing was done "
             "that the text has, redone_ms the small model's time for tokens "
             "that were taken back.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct run_args),
    .main = run,
};
