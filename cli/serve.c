/* serve.c - `tlr serve`: from options to a server, and its end in order. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/routing.h"
#include "net/serve.h"

enum {
    KEY_FILE_BYTES = 65536,
    BODY_BYTES_MIN = 1 << 20,
    BODY_BYTES_PER_TOK = 64,
    MORE_CONNECTIONS = 64, /* beyond those that can be served or wait */
    LOOK_MS = 50,
    LINGER_MS = 5000 /* for replies that nobody reads */
};

static const double DEFAULT_SHARE = 0.07;

struct serve_args {
    const char *model, *host, *port_file, *key_file, *name;
    struct cli_session_args session;
    struct cli_routing_args routing;
    int64_t port, n_slots, n_queue, receive_s;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE,
      .at = offsetof(struct serve_args, model),
      .help = "a file that tlr convert made" },
};

static const struct cli_option options[] = {
    { .name = "host", .kind = CLI_TEXT, .at = offsetof(struct serve_args, host),
      .value = "NAME", .fallback = "127.0.0.1",
      .help = "address to listen on; one that other machines reach needs "
              "--api-key-file" },
    { .name = "port", .letter = 'p', .kind = CLI_INT,
      .at = offsetof(struct serve_args, port), .value = "N",
      .help = "port to listen on; 0: any that is free", .fallback = "8080",
      .min = 0, .max = 65535 },
    { .name = "port-file", .kind = CLI_FILE,
      .at = offsetof(struct serve_args, port_file), .value = "FILE",
      .help = "write the port into FILE once the server answers" },
    { .name = "api-key-file", .kind = CLI_FILE,
      .at = offsetof(struct serve_args, key_file), .value = "FILE",
      .help = "answer only requests that bring one of the keys in FILE, a line "
              "each (Authorization: Bearer KEY)",
      .unset = "none: loopback only" },
    { .name = "name", .kind = CLI_TEXT, .at = offsetof(struct serve_args, name),
      .value = "NAME", .help = "what replies call the model",
      .unset = "the file's name without .bin" },
    { .name = "slots", .kind = CLI_INT,
      .at = offsetof(struct serve_args, n_slots), .value = "N",
      .help = "texts that are made at once; each has a KV cache of --ctx",
      .fallback = "8", .min = 1, .max = TLR_MAX_TOGETHER },
    { .name = "queue", .kind = CLI_INT,
      .at = offsetof(struct serve_args, n_queue), .value = "N",
      .help = "requests that may wait for a slot; more get status 429",
      .fallback = "32", .min = 0, .max = 4096 },
    { .name = "receive-seconds", .kind = CLI_INT,
      .at = offsetof(struct serve_args, receive_s), .value = "S",
      .help = "time in which a whole request must have come", .fallback = "30",
      .min = 1, .max = 3600 },
    CLI_ROUTING_OPTIONS(struct serve_args, routing),
    CLI_CTX_OPTION(struct serve_args, session.ctx,
                   "positions for prompt and answer together, of each slot "
                   "(when not given: the model's own limit, at most 4096)"),
    CLI_THREAD_OPTIONS(struct serve_args, session),
    CLI_KV_OPTION(struct serve_args, session),
    CLI_ACT_OPTION(struct serve_args, session),
};

static const char *const examples[] = {
    "tlr serve model.bin", "Answer on http://127.0.0.1:8080.",
    "curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": "
    "[{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}]}'",
    "Ask it.",
    "tlr serve model.bin --host 0.0.0.0 --api-key-file keys.txt",
    "Answer other machines that have a key.",
    "tlr serve small.bin --llm model:large.bin --target-routed 7%",
    "Let the large model write the tokens that the small one's router doubts.",
    NULL
};

/* All that a server stands on. */
struct service {
    const struct serve_args *args;
    struct tlr_model *model;
    struct cli_routing routing; /* policy and router */
    struct tlr_router *router;  /* for requests only, where routing is off */
    struct tlr_expert experts[TLR_MAX_TOGETHER];
    struct cli_llm llm;
    char *key_text;
    const char *keys[TLR_KEYS_MAX];
    int n_keys;
    char name[128];
    uint64_t request_bytes; /* most that bodies may take */
    struct tlr_server *server;
};

static void log_line(void *ctx, const char *line)
{
    (void)ctx;
    cli_complain("%s", line);
}

static void name_model(struct service *v)
{
    const char *path = v->args->model, *slash = strrchr(path, '/');
    const char *name = v->args->name ? v->args->name
                                     : slash ? slash + 1 : path;
    snprintf(v->name, sizeof v->name, "%s", name);
    size_t n = strlen(v->name);
    if (!v->args->name && n > 4 && strcmp(v->name + n - 4, ".bin") == 0)
        v->name[n - 4] = '\0';
}

static int read_keys(struct service *v, struct tlr_err *err)
{
    size_t len;
    const char *path = v->args->key_file;
    if (!path)
        return 0;
    int rc = tlr_read_file(&v->key_text, &len, path, KEY_FILE_BYTES, err);
    return rc ? rc : tlr_keys_parse(v->key_text, path, v->keys, &v->n_keys,
                                    err);
}

/* One expert for each slot, because each keeps the text it was asked about last;
 * of a server they share connections and budgets. */
static int open_experts(struct service *v,
                        const struct tlr_session_options *so,
                        struct tlr_err *err)
{
    struct cli_llm_args a = v->args->routing.llm;
    if (!a.llm)
        return 0;
    a.outlives_signal = true; /* the first one lets running texts end */
    int rc = cli_llm_open(&v->llm, &a, v->model, v->args->routing.require_llm,
                          err);
    for (int i = 0; i < v->args->n_slots && !rc; i++)
        rc = cli_llm_expert(&v->llm, &v->experts[i], v->model, so, err);
    return rc;
}

/* Requests may route although the server does not, by the model's own router
 * where it has one. */
static void use_attached(struct service *v, struct tlr_request_limits *l)
{
    float tau;
    if (cli_router_open(&v->router, NULL, v->model, NULL))
        return;
    enum tlr_policy_kind kind = tlr_router_shape(v->router)->kind;
    l->router = v->router;
    if (tlr_calibration_tau(tlr_router_calibration(v->router), kind,
                            DEFAULT_SHARE, &tau, NULL))
        return;
    l->policy = (struct tlr_policy){ .kind = kind, .tau = tau,
                                     .router = v->router };
}

/* What holds for requests that say nothing of routing. */
static int choose_routing(struct service *v, struct tlr_request_limits *l,
                          struct tlr_speculation *ahead, struct tlr_err *err)
{
    struct cli_routing_args a = v->args->routing;
    bool is_on = cli_routing_is_on(&a);
    int rc = a.llm.llm ? cli_llm_check(&a.llm, err) : 0;
    l->has_llm = a.llm.llm != NULL;
    l->mode = TLR_SMALL_ONLY;
    l->policy.kind = TLR_POLICY_ENTROPY;
    l->policy.tau = 0.5F;
    if (rc)
        return rc;
    if (!is_on) {
        use_attached(v, l);
        return 0;
    }
    if (strcmp(a.mode, "large") == 0) {
        l->mode = TLR_LARGE_ONLY;
        return l->has_llm ? 0
                          : tlr_err_set(err, TLR_EUSAGE,
                                        "--mode large needs a large model; "
                                        "name it (--llm)");
    }
    a.llm.llm = NULL; /* each slot has its own */
    a.require_llm = false;
    a.burst = NULL; /* of the slots' own, too */
    if (a.lanes == CLI_NO_INT)
        a.lanes = 1; /* the other texts fill the step, and lanes step apart */
    rc = cli_routing_open(&v->routing, &a, v->model, NULL, 0, err);
    *ahead = v->routing.options.ahead;
    l->mode = v->routing.options.mode;
    l->router = v->routing.router;
    if (l->mode == TLR_JOINT)
        l->policy = v->routing.options.policy;
    return rc;
}

static int start(struct service *v, struct tlr_err *err)
{
    const struct serve_args *a = v->args;
    struct tlr_serve_options o = {
        .host = a->host, .port = (uint16_t)a->port, .model_name = v->name,
        .keys = v->keys, .receive_s = (int)a->receive_s,
        .max_connections = (int)(a->n_slots + a->n_queue) + MORE_CONNECTIONS,
        .limits.model = v->model,
        .scheduler = { .n_slots = (int)a->n_slots,
                       .n_queue = (int)a->n_queue,
                       .require_llm = a->routing.require_llm,
                       .log = log_line },
    };
    int rc = cli_session_options(&o.scheduler.session, &a->session, err);
    if (!rc)
        rc = read_keys(v, err);
    o.n_keys = v->n_keys;
    if (!rc)
        rc = cli_model_open(&v->model, a->model, true, err);
    o.limits.model = v->model;
    if (!rc)
        rc = cli_routing_burst(&o.scheduler.burst, &a->routing, err);
    if (!rc)
        rc = choose_routing(v, &o.limits, &o.scheduler.ahead, err);
    if (!rc)
        rc = open_experts(v, &o.scheduler.session, err);
    if (rc)
        return rc;
    if (a->routing.llm.llm)
        o.scheduler.experts = v->experts;
    uint32_t n_ctx = o.scheduler.session.n_ctx;
    n_ctx = n_ctx ? n_ctx : tlr_model_config(v->model)->max_ctx;
    o.max_body_bytes = (size_t)n_ctx * BODY_BYTES_PER_TOK;
    if (o.max_body_bytes < BODY_BYTES_MIN)
        o.max_body_bytes = BODY_BYTES_MIN;
    v->request_bytes = (uint64_t)o.max_connections * o.max_body_bytes;
    return tlr_server_start(&v->server, &o, err);
}

/* Where it answers, and what it may take. */
static int announce(const struct service *v, struct tlr_err *err)
{
    const struct serve_args *a = v->args;
    struct tlr_scheduler *s = tlr_server_scheduler(v->server);
    struct tlr_memory mem = tlr_scheduler_memory(s);
    char text[4][24];
    bool is_v6 = strchr(a->host, ':') != NULL;
    cli_note("%s answers on http://%s%s%s:%u", v->name, is_v6 ? "[" : "",
             a->host, is_v6 ? "]" : "", (unsigned)tlr_server_port(v->server));
    cli_note("%lld slots of %u positions, %lld requests may wait; memory: "
             "weights %s, KV caches up to %s, scratch %s, requests up to %s",
             (long long)a->n_slots, (unsigned)tlr_scheduler_ctx(s),
             (long long)a->n_queue,
             cli_bytes(text[0], sizeof text[0], mem.weights_bytes),
             cli_bytes(text[1], sizeof text[1], mem.kv_bytes),
             cli_bytes(text[2], sizeof text[2], mem.scratch_bytes),
             cli_bytes(text[3], sizeof text[3], v->request_bytes));
    if (!a->port_file)
        return 0;
    struct tlr_out *out = NULL;
    char port[8];
    int n = snprintf(port, sizeof port, "%u\n",
                     (unsigned)tlr_server_port(v->server));
    int rc = tlr_out_begin(&out, a->port_file, err);
    if (!rc)
        rc = tlr_out_write(out, port, (size_t)n, err);
    if (rc) {
        tlr_out_abort(out);
        return rc;
    }
    return tlr_out_commit(out, err);
}

static void nap(void)
{
    struct timespec t = { 0, LOOK_MS * 1000000 };
    nanosleep(&t, NULL);
}

/* Until a signal; then running texts are finished and sent. */
static void serve_until_signal(struct service *v)
{
    while (!cli_interrupted())
        nap();
    struct tlr_scheduler *s = tlr_server_scheduler(v->server);
    tlr_server_drain(v->server);
    int n = tlr_scheduler_load(s);
    if (n > 0)
        cli_note("[finishing %d request%s; a second signal ends at once]", n,
                 n == 1 ? "" : "s");
    uint64_t idle_ns = tlr_now_ns();
    while (tlr_server_open_requests(v->server) > 0 &&
           tlr_ms_between(idle_ns, tlr_now_ns()) < LINGER_MS) {
        if (tlr_scheduler_load(s) > 0)
            idle_ns = tlr_now_ns();
        nap();
    }
}

static void clear(struct service *v)
{
    tlr_server_free(v->server);
    for (int i = 0; i < TLR_MAX_TOGETHER; i++)
        tlr_expert_close(&v->experts[i]);
    cli_print_llm(&v->llm);
    cli_llm_close(&v->llm);
    cli_routing_clear(&v->routing);
    tlr_router_free(v->router);
    tlr_model_close(v->model);
    tlr_free(v->key_text);
}

static int serve(const void *args, struct tlr_err *err)
{
    struct service *v = tlr_calloc(1, sizeof *v);
    if (!v)
        return tlr_err_nomem(err, "server", sizeof *v);
    v->args = args;
    name_model(v);
    cli_interrupt_hold();
    int rc = start(v, err);
    if (!rc)
        rc = announce(v, err);
    if (!rc)
        serve_until_signal(v);
    clear(v);
    cli_interrupt_release();
    tlr_free(v);
    return rc;
}

const struct cli_verb cli_verb_serve = {
    .name = "serve",
    .summary = "answer over HTTP, as OpenAI's and SGLang's servers do",
    .about = "Answers requests until a signal comes: /v1/chat/completions, "
             "/v1/completions and /v1/models as OpenAI has them, streamed or "
             "not; /generate as SGLang has it, so that another tlr may use this "
             "one as its large model; /tokenize, /detokenize, /health, and "
             "/metrics for Prometheus. Requests that run at the same time are "
             "decoded together, in one pass over the weights for a token of "
             "each. A text gets the tokens that tlr run gives it; temperature 0 "
             "gives the same ids whatever else is running.\n\n"
             "Without keys it listens on loopback addresses only and refuses "
             "requests that a page of another site makes a browser send; with "
             "--api-key-file every request but /health needs a key. Headers, "
             "bodies, connections, the queue and the time a request may take "
             "to arrive are bounded. A request that finds the queue full gets "
             "status 429 and Retry-After. The first SIGINT or SIGTERM finishes "
             "the texts that are running, the second ends the program.\n\n"
             CLI_LLM_ABOUT "\n\n"
             "With --llm and the other options of routing, doubtful tokens are "
             "written by the large model. A request may say otherwise in an "
             "object \"tlr\": mode (joint, small, large), policy, tau, target "
             "(a share), records (the reply lists each token's decision), "
             "explain (both models' candidates at every position). What a "
             "request does not say (temperature, top_p, ...) is the model's own "
             "default.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct serve_args),
    .main = serve,
};
