/* generate.c - see generate.h.  What of the text is final, engine/text.h knows. */
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

/* Bytes from `from` on are by whoever wrote the last token.  A character that
 * two tokens share is the second one's. */
static int mark_text(struct cli_text *t, size_t from, bool is_llm,
                     struct tlr_err *err)
{
    if (t->cap < t->text.cap) {
        bool *grown = tlr_realloc(t->is_llm, t->text.cap, sizeof *grown);
        if (!grown)
            return tlr_err_nomem(err, "generated text", t->text.cap);
        t->is_llm = grown;
        t->cap = t->text.cap;
    }
    for (size_t i = from; i < t->text.n; i++)
        t->is_llm[i] = is_llm;
    return 0;
}

/* Stop strings as the text wants them; an empty one stops nothing. */
static int list_stops(const struct cli_list *list,
                      struct tlr_bytes stops[CLI_LIST_MAX])
{
    int n = 0;
    for (int i = 0; list && i < list->n; i++) {
        size_t len = strlen(list->items[i]);
        if (len > 0)
            stops[n++] = (struct tlr_bytes){ (const uint8_t *)list->items[i],
                                             len };
    }
    return n;
}

static void send(struct cli_generate *g, size_t upto)
{
    struct cli_text *t = &g->text;
    while (g->stream && t->sent < upto) {
        bool is_llm = t->is_llm[t->sent];
        size_t end = t->sent + 1;
        while (end < upto && t->is_llm[end] == is_llm)
            end++;
        (is_llm ? cli_write_marked : cli_write)(t->text.bytes + t->sent,
                                                end - t->sent);
        t->sent = end;
        cli_flush();
    }
    if (upto > t->sent)
        t->sent = upto;
}

/* Adds the text of one token; true in *stopped when a stop string is complete. */
static int add_token(struct cli_generate *g, const struct tlr_joint_token *t,
                     bool *stopped, struct tlr_err *err)
{
    const struct tlr_tokenizer *tok = tlr_model_tokenizer(g->model);
    struct tlr_text *text = &g->text.text;
    struct tlr_bytes stops[CLI_LIST_MAX];
    size_t before = text->n;
    *stopped = false;
    int rc = tlr_ids_push(&g->ids, t->id, err);
    if (rc || tlr_token_is_special(tok, t->id))
        return rc;
    rc = tlr_text_push(text, tlr_token_bytes(tok, t->id), stops,
                       list_stops(g->stops, stops), err);
    if (rc < 0)
        return rc;
    *stopped = rc > 0;
    rc = mark_text(&g->text, before, t->is_llm, err);
    if (!rc)
        send(g, text->n_final);
    return rc;
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
                  struct tlr_err *err)
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
        rc = add_token(g, &t, &stopped, err);
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

static int route(struct cli_generate *g, struct tlr_err *err)
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
    rc = decode(g, j, err);
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
    g->pending = -1;
    g->finish = CLI_FINISH_STOP;
    int rc = g->profile ? tlr_profile_start(g->session, err) : 0;
    if (!rc)
        rc = prefill(g, err);
    if (!rc && g->profile)
        rc = split_profile(g, err);
    if (rc || g->finish == CLI_FINISH_CANCELLED)
        return rc;
    rc = route(g, err);
    if (g->profile)
        g->decode_profile = tlr_profile_read(g->session);
    if (g->is_cut)
        return rc;
    /* What waited for a character or a stop string to end is text after all. */
    size_t before = g->text.text.n;
    int rc_text = tlr_text_end(&g->text.text, err);
    if (!rc_text)
        rc_text = mark_text(&g->text, before, false, err);
    if (!rc_text)
        send(g, g->text.text.n);
    return rc ? rc : rc_text;
}

void cli_generate_clear(struct cli_generate *g)
{
    tlr_ids_clear(&g->ids);
    tlr_free(g->prefill_ns);
    g->prefill_ns = NULL;
    tlr_text_clear(&g->text.text);
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
