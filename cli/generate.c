/* generate.c - see generate.h.
 *
 * Stop strings are searched in the text and not in the ids, because a string
 * can be cut into tokens in many ways.  What could still become one waits: the
 * longest end of the text that begins a stop string is not sent yet.
 */
#include "cli/generate.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"

/* An interrupt in a long prompt is seen after this many tokens; a multiple of
 * the engine's chunk. */
enum { PREFILL_STEP = 1024 };

const char *cli_finish_name(enum cli_finish f)
{
    static const char *const names[] = { "stop", "length", "cancelled" };
    return names[f];
}

static int text_reserve(struct cli_text *t, size_t need, struct tlr_err *err)
{
    if (need <= t->cap)
        return 0;
    size_t cap = need + need / 2 + 256;
    char *bytes = tlr_realloc(t->bytes, cap, 1);
    t->bytes = bytes ? bytes : t->bytes;
    bool *is_llm = tlr_realloc(t->is_llm, cap, sizeof *is_llm);
    t->is_llm = is_llm ? is_llm : t->is_llm;
    if (!bytes || !is_llm)
        return tlr_err_nomem(err, "generated text", cap);
    t->cap = cap;
    return 0;
}

/* A character that two tokens share is the second one's. */
static int text_add(struct cli_text *t, struct tlr_utf8_stream *utf8,
                    struct tlr_bytes bytes, bool is_llm, bool flush,
                    struct tlr_err *err)
{
    int rc = text_reserve(t, t->n + 3 * (bytes.len + 4) + 1, err);
    if (rc)
        return rc;
    size_t n = 0;
    tlr_utf8_stream_push(utf8, bytes, flush, t->bytes + t->n, &n);
    for (size_t i = 0; i < n; i++)
        t->is_llm[t->n + i] = is_llm;
    t->n += n;
    return 0;
}

/* Where the first stop string in text[from..] begins, SIZE_MAX if none does. */
static size_t find_stop(const struct cli_text *t, const struct cli_list *stops)
{
    size_t found = SIZE_MAX;
    for (int i = 0; stops && i < stops->n; i++) {
        size_t len = strlen(stops->items[i]);
        const char *at = len == 0 ? NULL
                                  : memmem(t->bytes + t->sent, t->n - t->sent,
                                           stops->items[i], len);
        if (at && (size_t)(at - t->bytes) < found)
            found = (size_t)(at - t->bytes);
    }
    return found;
}

/* How many bytes at the end of the text may become a stop string. */
static size_t held_bytes(const struct cli_text *t, const struct cli_list *stops)
{
    size_t held = 0;
    for (int i = 0; stops && i < stops->n; i++) {
        size_t len = strlen(stops->items[i]), most = t->n - t->sent;
        if (most >= len)
            most = len > 0 ? len - 1 : 0;
        for (size_t k = most; k > held; k--)
            if (memcmp(t->bytes + t->n - k, stops->items[i], k) == 0)
                held = k;
    }
    return held;
}

static void send(struct cli_generate *g, size_t upto)
{
    struct cli_text *t = &g->text;
    while (g->stream && t->sent < upto) {
        bool is_llm = t->is_llm[t->sent];
        size_t end = t->sent + 1;
        while (end < upto && t->is_llm[end] == is_llm)
            end++;
        (is_llm ? cli_write_marked : cli_write)(t->bytes + t->sent,
                                                end - t->sent);
        t->sent = end;
        cli_flush();
    }
    if (upto > t->sent)
        t->sent = upto;
}

/* Adds the text of one token; true in *stopped when a stop string is complete. */
static int add_token(struct cli_generate *g, struct tlr_utf8_stream *utf8,
                     const struct tlr_joint_token *t, bool *stopped,
                     struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(g->model);
    *stopped = false;
    int rc = tlr_ids_push(&g->ids, t->id, err);
    if (rc || tlr_token_is_special(tok, t->id))
        return rc;
    rc = text_add(&g->text, utf8, tlr_token_bytes(tok, t->id), t->is_llm,
                  false, err);
    if (rc)
        return rc;
    size_t at = find_stop(&g->text, g->stops);
    if (at != SIZE_MAX) {
        g->text.n = at;
        send(g, at);
        *stopped = true;
        return 0;
    }
    send(g, g->text.n - held_bytes(&g->text, g->stops));
    return 0;
}

static int prefill(struct cli_generate *g, struct tlr_err *err)
{
    uint64_t begun = tlr_now_ns();
    if (g->routing && g->routing->expert && tlr_pos(g->session) == 0)
        tlr_expert_warm(g->routing->expert, g->prompt, g->n_prompt);
    if (g->routing && g->routing->mode == TLR_LARGE_ONLY)
        return 0;
    for (size_t i = 0; i < g->n_prompt;) {
        if (cli_interrupted()) {
            g->finish = CLI_FINISH_CANCELLED;
            break;
        }
        size_t n = g->n_prompt - i;
        if (n > PREFILL_STEP)
            n = PREFILL_STEP;
        int rc = tlr_prefill(g->session, g->prompt + i, n, 0, err);
        if (rc)
            return rc;
        i += n;
    }
    g->prefill_ms = tlr_ms_between(begun, tlr_now_ns());
    return 0;
}

static int keep_record(struct cli_records *r, const struct tlr_joint_token *t,
                       struct tlr_err *err)
{
    if (r->n == r->cap) {
        size_t cap = 2 * r->cap + 64;
        struct tlr_joint_token *grown =
            tlr_realloc(r->tokens, cap, sizeof *grown);
        if (!grown)
            return tlr_err_nomem(err, "records", cap * sizeof *grown);
        r->tokens = grown;
        r->cap = cap;
    }
    r->tokens[r->n++] = *t;
    return 0;
}

/* The clock stops for the first token. */
static void note_first(struct cli_generate *g)
{
    if (g->ids.n > 0 || g->ttft_ms > 0)
        return;
    uint64_t now = tlr_now_ns();
    g->ttft_ms = tlr_ms_between(g->begun_ns, now);
    g->first_token_ms = g->from_start ? cli_ms_since_start(now) : 0;
}

/* Tokens from j to the end of the text. */
static int decode(struct cli_generate *g, struct tlr_joint *j,
                  struct tlr_utf8_stream *utf8, struct tlr_err *err)
{
    uint32_t n_ctx = tlr_session_options_used(g->session)->n_ctx;
    for (;;) {
        struct tlr_joint_token t;
        int rc = tlr_joint_next(j, &t, err);
        if (rc == TLR_ECANCELLED && cli_interrupted()) {
            tlr_err_clear(err); /* in the middle of a wait */
            g->finish = CLI_FINISH_CANCELLED;
            return 0;
        }
        if (rc)
            return rc;
        g->n_decoded += g->pending >= 0;
        g->pending = -1;
        note_first(g);
        rc = g->keep_records ? keep_record(&g->records, &t, err) : 0;
        if (rc)
            return rc;
        g->finish = CLI_FINISH_STOP;
        if (tlr_generation_is_eos(g->generation, t.id))
            return 0;
        bool stopped;
        rc = add_token(g, utf8, &t, &stopped, err);
        if (rc)
            return rc;
        g->pending = t.id;
        g->is_cut = stopped;
        if (stopped)
            return 0;
        g->finish = CLI_FINISH_LENGTH;
        if (g->ids.n >= g->max_tokens || tlr_joint_pos(j) >= n_ctx)
            return 0;
        g->finish = CLI_FINISH_CANCELLED;
        if (cli_interrupted() || cli_out_failed())
            return 0;
    }
}

static int route(struct cli_generate *g, struct tlr_utf8_stream *utf8,
                 struct tlr_err *err)
{
    struct tlr_joint_options o = { .mode = TLR_SMALL_ONLY };
    struct tlr_joint *j = NULL;
    if (g->routing)
        o = *g->routing;
    o.sampler = g->sampler;
    o.ahead.max_tok = g->max_tokens < UINT32_MAX ? (uint32_t)g->max_tokens : 0;
    if (o.mode == TLR_LARGE_ONLY) {
        o.prompt = g->prompt;
        o.n_prompt = g->n_prompt;
    }
    int rc = tlr_joint_new(&j, g->session, g->model, &o, err);
    if (rc)
        return rc;
    uint64_t begun = tlr_now_ns();
    rc = decode(g, j, utf8, err);
    g->decode_ms = tlr_ms_between(begun, tlr_now_ns());
    g->totals = tlr_joint_read(j);
    snprintf(g->llm_failure, sizeof g->llm_failure, "%s",
             tlr_joint_failure(j));
    tlr_joint_free(j);
    return rc;
}

/* Takes what was counted so far for the prompt, and begins to count anew. */
static int split_profile(struct cli_generate *g, struct tlr_err *err)
{
    struct tlr_profile p = tlr_profile_read(g->session);
    size_t n = ((size_t)p.n_layers + 1) * TLR_N_PROFILE_OPS;
    g->prefill_ns = tlr_calloc(n, sizeof *g->prefill_ns);
    if (!g->prefill_ns)
        return tlr_err_nomem(err, "profile", n * sizeof *g->prefill_ns);
    memcpy(g->prefill_ns, p.ns, n * sizeof *g->prefill_ns);
    g->prefill_profile = p;
    g->prefill_profile.ns = g->prefill_ns;
    return tlr_profile_start(g->session, err);
}

int cli_generate(struct cli_generate *g, struct tlr_err *err)
{
    struct tlr_utf8_stream utf8 = { { 0 }, 0 };
    struct tlr_bytes none = { NULL, 0 };
    g->pending = -1;
    g->finish = CLI_FINISH_STOP;
    int rc = g->profile ? tlr_profile_start(g->session, err) : 0;
    if (!rc)
        rc = prefill(g, err);
    if (!rc && g->profile)
        rc = split_profile(g, err);
    if (rc || g->finish == CLI_FINISH_CANCELLED)
        return rc;
    rc = route(g, &utf8, err);
    if (g->profile)
        g->decode_profile = tlr_profile_read(g->session);
    if (g->is_cut)
        return rc;
    /* What waited for a character or a stop string to end is text after all. */
    int rc_text = text_add(&g->text, &utf8, none, false, true, err);
    send(g, g->text.n);
    return rc ? rc : rc_text;
}

void cli_generate_clear(struct cli_generate *g)
{
    tlr_ids_clear(&g->ids);
    tlr_free(g->prefill_ns);
    g->prefill_ns = NULL;
    tlr_free(g->text.bytes);
    tlr_free(g->text.is_llm);
    tlr_free(g->records.tokens);
    g->records = (struct cli_records){ 0 };
    g->text = (struct cli_text){ 0 };
}

static double rate(size_t n, double ms)
{
    return n > 0 && ms > 0 ? (double)n * 1000 / ms : 0;
}

double cli_prefill_rate(const struct cli_generate *g)
{
    return rate(g->n_prompt, g->prefill_ms);
}

double cli_decode_rate(const struct cli_generate *g)
{
    return rate(g->n_decoded, g->decode_ms);
}

int cli_check_fits(const struct tlr_session *s, const struct tlr_model *m,
                   size_t n, struct tlr_err *err)
{
    uint32_t n_ctx = tlr_session_options_used(s)->n_ctx, used = tlr_pos(s);
    uint32_t most = tlr_model_config(m)->max_ctx;
    if (n <= n_ctx - used)
        return 0;
    char before[64] = "", advice[96] = "";
    if (used > 0)
        snprintf(before, sizeof before, " after %u of the conversation", used);
    if (n + used < most)
        snprintf(advice, sizeof advice, " or give it --ctx (this model takes "
                                        "up to %u)", most);
    return tlr_err_set(err, TLR_ELIMIT,
                       "prompt: %zu tokens%s do not fit the context of %u; "
                       "shorten it%s", n, before, n_ctx, advice);
}

const char *cli_kv_name(enum tlr_kv_type kv)
{
    static const char *const names[] = { "auto", "f32", "f16", "q8" };
    return names[kv];
}

const char *cli_act_name(enum tlr_act act)
{
    static const char *const names[] = { "auto", "int8", "int16" };
    return names[act];
}

void cli_print_stats(const struct cli_generate *g, double load_ms,
                     const char *template_name, uint64_t seed)
{
    const struct tlr_session_options *o = tlr_session_options_used(g->session);
    struct tlr_memory mem = { 0 };
    tlr_session_estimate(g->model, o, &mem, NULL);
    char text[3][24], draws[64] = "greedy", start[48] = "";
    if (g->from_start)
        snprintf(start, sizeof start, " (%.0f ms from the start of tlr)",
                 g->first_token_ms);
    if (g->generation->temperature > 0)
        snprintf(draws, sizeof draws, "temp %g, seed %llu",
                 (double)g->generation->temperature, (unsigned long long)seed);
    cli_note("load %.0f ms | prompt %zu tokens, %.1f tok/s | first token "
             "%.0f ms%s | %zu tokens, %.1f tok/s | %s", load_ms, g->n_prompt,
             cli_prefill_rate(g), g->ttft_ms, start, g->ids.n,
             cli_decode_rate(g), cli_finish_name(g->finish));
    cli_note("%d threads, %s kernels, inputs %s, OpenBLAS for %s, template %s, "
             "%s | ctx %u, KV %s %s, weights %s, peak %s", o->n_threads,
             tlr_cpu_level_name((enum tlr_cpu_level)o->cpu_level),
             cli_act_name(o->act), cli_blas_core(), template_name, draws,
             o->n_ctx, cli_kv_name(o->kv),
             cli_bytes(text[0], sizeof text[0], mem.kv_bytes),
             cli_bytes(text[1], sizeof text[1], mem.weights_bytes),
             cli_bytes(text[2], sizeof text[2], tlr_peak_rss_bytes()));
}
