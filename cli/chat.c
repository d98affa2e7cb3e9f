/* chat.c - `tlr chat`: a conversation that keeps its KV cache.
 *
 * Only what is new is encoded: the end of the last reply, the new message and
 * the opening of the next reply.  The timeline is therefore the same ids as
 * that of the whole conversation sent at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/explain.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/routing.h"

struct chat_args {
    const char *model, *system, *color;
    struct cli_session_args session;
    struct cli_sampling_args sampling;
    struct cli_routing_args routing;
    struct cli_list stops;
    int64_t max_tokens;
    bool stats;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE, .at = offsetof(struct chat_args, model),
      .help = "a file that tlr convert made" },
};

static const struct cli_option options[] = {
    { .name = "system", .letter = 's', .kind = CLI_TEXT,
      .at = offsetof(struct chat_args, system), .value = "TEXT",
      .help = "system message", .unset = "that of the model's template" },
    { .name = "max-tokens", .letter = 'n', .kind = CLI_INT,
      .at = offsetof(struct chat_args, max_tokens), .value = "N",
      .help = "make at most N tokens in one reply",
      .unset = "what the context holds", .min = 1, .max = 1048576 },
    CLI_SAMPLING_OPTIONS(struct chat_args, sampling),
    { .name = "stop", .kind = CLI_LIST, .at = offsetof(struct chat_args, stops),
      .value = "TEXT",
      .help = "end a reply before this text; may be given up to 16 times" },
    CLI_ROUTING_OPTIONS(struct chat_args, routing),
    CLI_COLOR_OPTION(struct chat_args, color),
    CLI_CTX_OPTION(struct chat_args, session.ctx,
                   "positions for the whole conversation (when not given: the "
                   "model's own limit, at most 4096)"),
    CLI_THREAD_OPTIONS(struct chat_args, session),
    CLI_KV_OPTION(struct chat_args, session),
    CLI_ACT_OPTION(struct chat_args, session),
    { .name = "stats", .kind = CLI_FLAG,
      .at = offsetof(struct chat_args, stats),
      .help = "print speed and choices after each reply, on standard error" },
};

static const char *const examples[] = {
    "tlr chat model.bin --system \"Answer in one sentence.\"",
    "Talk to a model.",
    "printf 'Name a color.\\nAnother one.\\n' | tlr chat model.bin --temp 0",
    "A scripted conversation: one message per line.",
    "tlr chat model.bin --llm http://127.0.0.1:8080 --target-routed 7% --stats",
    "Ask a large model for the doubtful tokens of each reply.",
    NULL
};

struct chat {
    const struct chat_args *args;
    struct tlr_model *model;
    struct tlr_session *session;
    struct tlr_generation generation;
    struct tlr_sampler *sampler;
    struct cli_routing routing;
    bool is_routed;
    uint64_t seed;
    double load_ms;
    int32_t pending; /* id of the last reply that the session lacks, or -1 */
};

/* The ids from the end of the timeline to where the next reply begins. */
static int encode_turn(const struct chat *c, const char *text,
                       struct tlr_ids *out, struct tlr_err *err)
{
    const struct tlr_chat *pieces = tlr_model_chat(c->model);
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(c->model);
    bool first = tlr_pos(c->session) == 0;
    struct tlr_message messages[2] = {
        { TLR_ROLE_SYSTEM, c->args->system }, { TLR_ROLE_USER, text }
    };
    int skip = first && c->args->system ? 0 : 1, rc = 0;
    if (!first) {
        const char *end = pieces->suffix[TLR_ROLE_ASSISTANT];
        if (c->pending >= 0)
            rc = tlr_ids_push(out, c->pending, err);
        if (!rc && end)
            rc = tlr_encode(tok, end, strlen(end), TLR_ENCODE_SPECIAL, out, err);
    }
    if (rc)
        return rc;
    return tlr_chat_encode(pieces, tok, messages + skip, (size_t)(2 - skip),
                           first, true, out, err);
}

static void after_reply(const struct chat *c, const struct cli_generate *g)
{
    cli_write("\n", 1);
    cli_flush();
    uint32_t n_ctx = tlr_session_options_used(c->session)->n_ctx;
    if (g->finish == CLI_FINISH_LENGTH && tlr_pos(c->session) >= n_ctx)
        cli_note("[the context of %u is full: /reset starts anew, --ctx makes "
                 "it larger]", n_ctx);
    if (g->routing)
        cli_print_failures(g, &c->routing);
    if (c->args->stats || g->finish == CLI_FINISH_CANCELLED) {
        cli_print_stats(g, c->load_ms, tlr_model_chat(c->model)->name, c->seed);
        if (g->routing)
            cli_print_routing(g, &c->routing);
        cli_print_llm(&c->routing.llm);
    }
}

static int turn(struct chat *c, const char *text, bool *cancelled,
                struct tlr_err *err)
{
    struct tlr_ids ids = { 0 };
    struct cli_generate g = {
        .session = c->session, .model = c->model, .sampler = c->sampler,
        .generation = &c->generation, .stops = &c->args->stops, .stream = true,
        .routing = c->is_routed ? &c->routing.options : NULL,
        .max_tokens = c->args->max_tokens == CLI_NO_INT
                          ? SIZE_MAX : (size_t)c->args->max_tokens,
        .begun_ns = tlr_now_ns(),
    };
    uint32_t before = tlr_pos(c->session);
    int rc = encode_turn(c, text, &ids, err);
    if (!rc)
        rc = cli_check_fits(c->session, c->model, ids.n, err);
    if (rc)
        goto out;
    g.prompt = ids.ids;
    g.n_prompt = ids.n;
    cli_interrupt_hold();
    rc = cli_generate(&g, err);
    cli_interrupt_release();
    *cancelled = g.finish == CLI_FINISH_CANCELLED;
    if (!rc && tlr_pos(c->session) < before + ids.n)
        /* Interrupted before the first token: as if never said. */
        rc = tlr_rewind(c->session, before, err);
    else
        c->pending = g.pending;
    if (!rc)
        after_reply(c, &g);
out:
    cli_generate_clear(&g);
    tlr_ids_clear(&ids);
    return rc;
}

enum command { NOT_A_COMMAND, COMMAND_EXIT, COMMAND_DONE };

static enum command command(struct chat *c, const char *line)
{
    if (line[0] != '/' || strpbrk(line, " \t"))
        return NOT_A_COMMAND;
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0)
        return COMMAND_EXIT;
    if (strcmp(line, "/reset") == 0) {
        tlr_rewind(c->session, 0, NULL);
        c->pending = -1;
        cli_note("[new conversation]");
    } else {
        if (strcmp(line, "/help") != 0)
            cli_note("[there is no command %s]", line);
        cli_note("[/reset: new conversation  /exit or Ctrl-D: end  /help: this  "
                 "Ctrl-C: end the reply]");
    }
    return COMMAND_DONE;
}

/* One message per line until the end of input.  A message that does not fit is
 * reported and the conversation goes on; a script learns of it by the exit
 * status. */
static int converse(struct chat *c, struct tlr_err *err)
{
    char *line = NULL;
    size_t cap = 0;
    bool at_terminal = isatty(STDIN_FILENO), cancelled = false;
    int rc = 0, rc_last = 0;
    while (!rc && !cli_out_failed() && !(cancelled && !at_terminal)) {
        if (at_terminal)
            fputs("> ", stderr);
        errno = 0;
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) {
            if (ferror(stdin))
                rc = tlr_err_set_errno(err, TLR_EIO, errno,
                                       "standard input: reading failed");
            else if (at_terminal)
                fputc('\n', stderr);
            break;
        }
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        enum command did = command(c, line);
        if (did == COMMAND_EXIT)
            break;
        if (did == COMMAND_DONE || n == 0)
            continue;
        if (strlen(line) != (size_t)n) {
            rc = tlr_err_set(err, TLR_EFORMAT, "standard input: has a NUL byte");
            break;
        }
        rc = turn(c, line, &cancelled, err);
        if (rc == TLR_ELIMIT) {
            cli_complain("%s", err->text);
            tlr_err_clear(err);
            rc_last = at_terminal ? 0 : rc;
            rc = 0;
        }
    }
    free(line);
    return rc ? rc : rc_last;
}

/* The conversation lives in the small model's cache, so it must be there. */
static int check_mode(const struct cli_routing_args *a, struct tlr_err *err)
{
    if (strcmp(a->mode, "large") != 0)
        return 0;
    return tlr_err_set(err, TLR_EUSAGE,
                       "--mode: expected joint or small, found 'large': a chat "
                       "is kept by the small model; tlr run has that mode");
}

static int chat(const void *args, struct tlr_err *err)
{
    struct chat c = { .args = args, .pending = -1 };
    struct tlr_session_options o;
    int rc = check_mode(&c.args->routing, err);
    if (!rc)
        rc = cli_session_options(&o, &c.args->session, err);
    if (rc)
        return rc;
    uint64_t begun = tlr_now_ns();
    rc = cli_model_open(&c.model, c.args->model, true, err);
    if (!rc)
        rc = cli_check_can_talk(c.model, c.args->model, false, err);
    if (!rc)
        rc = tlr_session_new(&c.session, c.model, &o, err);
    if (rc)
        goto out;
    c.load_ms = tlr_ms_between(begun, tlr_now_ns());
    cli_generation(&c.generation, c.model, &c.args->sampling);
    c.seed = cli_seed(&c.args->sampling);
    c.is_routed = cli_routing_is_on(&c.args->routing);
    cli_out_set_color(c.args->color);
    if (c.is_routed)
        rc = cli_routing_open(&c.routing, &c.args->routing, c.model, c.session,
                              c.seed, err);
    if (!rc)
        rc = tlr_sampler_new(&c.sampler, &c.generation,
                             tlr_model_n_ids(c.model), c.seed, err);
    if (!rc)
        rc = converse(&c, err);
out:
    cli_routing_clear(&c.routing);
    tlr_sampler_free(c.sampler);
    tlr_session_free(c.session);
    tlr_model_close(c.model);
    return rc;
}

const struct cli_verb cli_verb_chat = {
    .name = "chat",
    .summary = "talk to a model",
    .about = "Reads messages from standard input, one per line, and streams a "
             "reply to each. The conversation stays in the KV cache, so only "
             "what is new is computed. Replies go to standard output, "
             "everything else to standard error.\n\n"
             "/reset starts a new conversation, /help lists the commands, "
             "/exit or the end of input ends. Ctrl-C ends the reply that is "
             "being written. A message that does not fit the context is "
             "reported and not sent.\n\n"
             "With --llm, --policy or another option of routing, each token of "
             "a reply is weighed as in tlr run, and each escalation sends the "
             "whole conversation so far. Budgets are of the whole chat.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct chat_args),
    .main = chat,
};
