/* llm.h - the large model behind --llm: a file on this machine or a server.
 *
 * The one place that knows which of the two it is.  Everybody else opens it, takes
 * experts of it, and reports what left the device.
 */
#ifndef TLR_CLI_LLM_H
#define TLR_CLI_LLM_H

#include <jansson.h>

#include "cli/cli.h"
#include "net/net.h"
#include "router/expert.h"

struct cli_llm_args {
    const char *llm, *api, *model, *key_file, *cacert, *audit, *price;
    double timeout, max_wait, max_cost;
    int64_t retries, max_calls, max_tokens;
    bool insecure, offline, plain_http, audit_no_text, gzip;
    bool outlives_signal; /* no option: a signal does not end a wait */
};

#define CLI_LLM_OPTIONS(type, field, is_required, without)                     \
    { .name = "llm", .kind = CLI_TEXT, .at = offsetof(type, field.llm),        \
      .required = is_required, .value = "URL|model:FILE",                      \
      .help = "the large model: a server's address (http or https), which is " \
              "sent the running text at each escalation, or a second model "   \
              "file with the same tokenizer", .unset = without },              \
    { .name = "llm-api", .kind = CLI_CHOICE, .at = offsetof(type, field.api),  \
      .value = "auto|sglang|vllm|llamacpp|openai", .fallback = "auto",         \
      .help = "what the server speaks; auto finds out; openai is any "         \
              "OpenAI-style server, by text" },                                \
    { .name = "llm-model", .kind = CLI_TEXT, .at = offsetof(type, field.model),\
      .value = "NAME", .help = "the server's name of the model",               \
      .unset = "the first one that it lists" },                                \
    { .name = "llm-key-file", .kind = CLI_FILE,                                \
      .at = offsetof(type, field.key_file), .value = "FILE",                   \
      .help = "the key for the server, in a file that only its owner may read",\
      .unset = "TLR_API_KEY" },                                                \
    { .name = "llm-timeout", .kind = CLI_REAL,                                 \
      .at = offsetof(type, field.timeout), .value = "S", .fallback = "10",     \
      .help = "seconds for one answer, with all tries", .min = 0.01,           \
      .max = 3600 },                                                           \
    { .name = "llm-retries", .kind = CLI_INT,                                  \
      .at = offsetof(type, field.retries), .value = "N", .fallback = "2",      \
      .help = "ask again up to N times where that may help", .max = 100 },     \
    { .name = "llm-gzip", .kind = CLI_FLAG, .at = offsetof(type, field.gzip),  \
      .help = "send long questions packed; a server that refuses them, as "    \
              "most do, is asked without from then on" },                      \
    { .name = "llm-max-calls", .kind = CLI_INT,                                \
      .at = offsetof(type, field.max_calls), .value = "N",                     \
      .help = "send the server at most N questions in this run", .min = 1,     \
      .max = 9e15, .unset = "no limit" },                                      \
    { .name = "llm-max-tokens", .kind = CLI_INT,                               \
      .at = offsetof(type, field.max_tokens), .value = "N",                    \
      .help = "send and ask for at most N tokens in this run", .min = 1,       \
      .max = 9e15, .unset = "no limit" },                                      \
    { .name = "llm-max-wait", .kind = CLI_REAL,                                \
      .at = offsetof(type, field.max_wait), .value = "S",                      \
      .help = "wait at most S seconds for the server in this run; what was "   \
              "not answered by then is not waited for", .min = 0,              \
      .max = 1e9, .unset = "no limit" },                                       \
    { .name = "llm-price", .kind = CLI_TEXT, .at = offsetof(type, field.price),\
      .value = "IN/OUT",                                                       \
      .help = "price of a million tokens sent and made, such as 0.5/1.5" },    \
    { .name = "llm-max-cost", .kind = CLI_REAL,                                \
      .at = offsetof(type, field.max_cost), .value = "X",                      \
      .help = "spend at most X in this run, by --llm-price", .min = 0,         \
      .max = 1e12, .unset = "no limit" },                                      \
    { .name = "cacert", .kind = CLI_FILE, .at = offsetof(type, field.cacert),  \
      .value = "FILE", .help = "authorities to trust, as PEM",                 \
      .unset = "the system's" },                                               \
    { .name = "insecure", .kind = CLI_FLAG,                                    \
      .at = offsetof(type, field.insecure),                                    \
      .help = "do not check the server's certificate: anyone on the way can "  \
              "read and change the text" },                                    \
    { .name = "plain-http", .kind = CLI_FLAG,                                  \
      .at = offsetof(type, field.plain_http),                                  \
      .help = "allow http:// to other machines: the text crosses the network " \
              "in the clear" },                                                \
    { .name = "offline", .kind = CLI_FLAG,                                     \
      .at = offsetof(type, field.offline),                                     \
      .help = "refuse everything that would open a connection" },              \
    { .name = "audit", .kind = CLI_FILE, .at = offsetof(type, field.audit),    \
      .value = "FILE",                                                         \
      .help = "append what leaves the device to FILE, one JSON object for "    \
              "each request: time, host, path, bytes, tokens, text" },         \
    { .name = "audit-no-text", .kind = CLI_FLAG,                               \
      .at = offsetof(type, field.audit_no_text),                               \
      .help = "leave the text out of --audit" }

/* Paragraphs for the manual of verbs that take these options. */
#define CLI_LLM_ABOUT                                                          \
    "With --llm URL, each escalation sends the running text - the prompt, the " \
    "system message and what was written so far - to that server, and the "    \
    "server's operator can read it. Nothing else leaves the machine. --stats "  \
    "and --json count requests, tokens and bytes; --audit records them; "      \
    "--offline forbids them. Ordinary failure of the server costs nothing but " \
    "its help: the small model's token stands. A key is taken from "           \
    "TLR_API_KEY or --llm-key-file. Proxies are those of the environment "     \
    "(https_proxy, NO_PROXY); this machine itself is asked directly."

struct cli_llm {
    struct tlr_model *model; /* of model:FILE, else NULL */
    struct tlr_net *net;     /* of a URL, else NULL */
};

/* What can be said without opening anything. */
int cli_llm_check(const struct cli_llm_args *a, struct tlr_err *err);
/* like: the small model.  A server that does not answer is an error where it is
 * required, else a message, and asks try again.  Clear it also on failure. */
int cli_llm_open(struct cli_llm *out, const struct cli_llm_args *a,
                 const struct tlr_model *like, bool is_required,
                 struct tlr_err *err);
void cli_llm_close(struct cli_llm *l); /* after its experts; zeroed is allowed */

/* One expert on it, for one thread.  options are the small model's (NULL: none); a
 * server has none of them. */
int cli_llm_expert(const struct cli_llm *l, struct tlr_expert *out,
                   const struct tlr_model *like,
                   const struct tlr_session_options *options,
                   struct tlr_err *err);

/* Which large model it is, for records. */
uint64_t cli_llm_fingerprint(const struct cli_llm *l);

/* What left the device, on standard error and as JSON (null for a file). */
void cli_print_llm(const struct cli_llm *l);
json_t *cli_llm_json(const struct cli_llm *l);

#endif
