/* explain.c - see explain.h.  Token texts are bytes of anybody's, often a part
 * of a character: the table shows them escaped. */
#include "cli/explain.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/output.h"

enum { CELL_CHARS = 16, CELL_BYTES = 4 * CELL_CHARS + 8 };

static struct tlr_bytes token_text(const struct cli_generate *g, int32_t id)
{
    return tlr_token_bytes(tlr_model_tokenizer(g->model), id);
}

/* ---- the table ---- */

/* The next character of the text, or the escape of a byte that is none: length
 * in out, bytes used in *used. */
static size_t put_char(char out[8], const uint8_t *p, size_t left,
                       size_t *used)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    *used = 1;
    if (p[0] == '\n' || p[0] == '\t' || p[0] == '\r')
        return (size_t)sprintf(out, "\\%c", p[0] == '\n'   ? 'n'
                                            : p[0] == '\t' ? 't'
                                                           : 'r');
    if (p[0] == '"' || p[0] == '\\')
        return (size_t)sprintf(out, "\\%c", p[0]);
    if (p[0] < 0x20 || p[0] == 0x7F || n > left || !tlr_utf8_valid(p, n))
        return (size_t)sprintf(out, "\\x%02x", p[0]);
    memcpy(out, p, n);
    *used = n;
    return n;
}

/* "text", quoted, cut and padded to CELL_CHARS characters and the quotes. */
static const char *cell(char out[CELL_BYTES], struct tlr_bytes text)
{
    size_t n = 0, chars = 0;
    out[n++] = '"';
    for (size_t i = 0; i < text.len;) {
        char one[8];
        size_t used;
        size_t len = put_char(one, text.ptr + i, text.len - i, &used);
        size_t wide = one[0] == '\\' ? len : 1;
        if (chars + wide > CELL_CHARS - 1 && i + used < text.len) {
            memcpy(out + n, "..", 2);
            n += 2;
            chars += 2;
            break;
        }
        memcpy(out + n, one, len);
        n += len;
        chars += wide;
        i += used;
    }
    out[n++] = '"';
    for (; chars < CELL_CHARS + 3; chars++)
        out[n++] = ' ';
    out[n] = '\0';
    return out;
}

static const char *candidate(char out[CELL_BYTES], const struct cli_generate *g,
                             int32_t id)
{
    struct tlr_bytes none = { NULL, 0 };
    if (id >= 0)
        return cell(out, token_text(g, id));
    cell(out, none);
    out[0] = '-';
    out[1] = ' ';
    return out;
}

static const char *writer_of(const struct tlr_joint_token *t, bool has_llm)
{
    return t->is_llm      ? "large"
           : t->is_failed ? "small, large gave no answer"
           : t->is_asked && !has_llm ? "small, would ask"
                                     : "small";
}

static const char *number(char out[16], double v)
{
    if (isfinite(v))
        snprintf(out, 16, "%8.4f", v);
    else
        snprintf(out, 16, "%8s", "-");
    return out;
}

void cli_print_explain(const struct cli_generate *g,
                       const struct cli_routing *r)
{
    char slm[CELL_BYTES], llm[CELL_BYTES], trust[16], entropy[16];
    cli_note("%5s %8s %8s  %-*s%-*s%s", "token", "trust", "entropy",
             CELL_CHARS + 5, "small model's", CELL_CHARS + 5, "large model's",
             "written by");
    for (size_t i = 0; i < g->records.n; i++) {
        const struct tlr_joint_token *t = &g->records.tokens[i];
        cli_note("%5zu %s %s  %s%s%s", i + 1, number(trust, (double)t->trust),
                 number(entropy, (double)t->signals.entropy),
                 candidate(slm, g, t->slm), candidate(llm, g, t->llm),
                 writer_of(t, r->options.expert != NULL));
    }
}

/* ---- statistics ---- */

static double percent(uint64_t n, uint64_t of)
{
    return of > 0 ? 100.0 * (double)n / (double)of : 0;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static double ms_per_token(const struct cli_generate *g)
{
    return g->totals.n_tok > 0 ? g->decode_ms / (double)g->totals.n_tok : 0;
}

static const char *mode_name(enum tlr_joint_mode mode)
{
    static const char *const names[] = { "joint", "small only", "large only" };
    return names[mode];
}

static void print_policy(const struct cli_generate *g,
                         const struct cli_routing *r)
{
    const struct tlr_policy *p = &r->options.policy;
    const struct tlr_joint_totals *n = &g->totals;
    char aim[64] = "";
    if (!isnan(r->target))
        snprintf(aim, sizeof aim, " for %.3g %%", 100 * r->target);
    cli_note("policy %s, tau %g%s | %s %llu of %llu tokens (%.1f %%)",
             tlr_policy_name(p->kind), (double)p->tau, aim,
             r->options.expert ? "asked for" : "would have asked for",
             (unsigned long long)n->n_asked, (unsigned long long)n->n_tok,
             percent(n->n_asked, n->n_tok));
}

static uint64_t hidden_ns(uint64_t llm_ns, uint64_t wire_ns,
                          uint64_t exposed_ns)
{
    uint64_t wait = llm_ns + wire_ns;
    return wait > exposed_ns ? wait - exposed_ns : 0;
}

/* What waiting for a server was like. */
static void print_waits(const struct cli_generate *g)
{
    const struct tlr_joint_totals *n = &g->totals;
    if (n->n_calls == 0)
        return;
    cli_note("asked %llu times for %llu replies | wait %.0f ms, hidden %.0f ms, "
             "exposed %.0f ms | queue %.0f ms, connecting %.0f ms, first bytes "
             "%.0f ms | %llu prompt tokens cached | took back %llu tokens "
             "(%.0f ms)", (unsigned long long)n->n_calls,
             (unsigned long long)n->n_asked, ms(n->llm_ns + n->wire_ns),
             ms(hidden_ns(n->llm_ns, n->wire_ns, n->exposed_ns)),
             ms(n->exposed_ns), ms(n->queue_ns), ms(n->connect_ns),
             ms(n->first_byte_ns), (unsigned long long)n->cached_tok,
             (unsigned long long)n->n_redone, ms(n->lost_ns));
}

void cli_print_routing(const struct cli_generate *g,
                       const struct cli_routing *r)
{
    const struct tlr_joint_totals *n = &g->totals;
    if (r->options.mode == TLR_JOINT)
        print_policy(g, r);
    cli_note("%s: first token %.0f ms | %llu tokens, %llu routed (%.1f %%) | "
             "SLM %.0f ms, router %.1f ms, LLM %.0f ms, communication %.0f ms | "
             "%.1f ms per token, %.2f s in all", mode_name(r->options.mode),
             g->ttft_ms, (unsigned long long)n->n_tok,
             (unsigned long long)n->n_llm, percent(n->n_llm, n->n_tok),
             g->prefill_ms + ms(n->slm_ns), ms(n->router_ns), ms(n->llm_ns),
             ms(n->wire_ns), ms_per_token(g),
             (g->prefill_ms + g->decode_ms) / 1e3);
    print_waits(g);
}

void cli_print_failures(const struct cli_generate *g,
                        const struct cli_routing *r)
{
    if (g->totals.n_failed > 0)
        cli_complain("%s: gave no answer for %llu of %llu tokens, where the "
                     "small model's stand: %s", r->expert.name,
                     (unsigned long long)g->totals.n_failed,
                     (unsigned long long)g->totals.n_asked, g->llm_failure);
}

/* ---- JSON ---- */

static json_t *count(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *share(uint64_t n, uint64_t of)
{
    return cli_json_real(of > 0 ? (double)n / (double)of : 0);
}

static void put_ms(json_t *j, const char *key, uint64_t ns)
{
    cli_json_put(j, key, cli_json_real(ms(ns)));
}

static void put_waits(json_t *j, const struct tlr_joint_totals *n)
{
    cli_json_put(j, "calls", count(n->n_calls));
    put_ms(j, "wait_ms", n->llm_ns + n->wire_ns);
    put_ms(j, "hidden_ms", hidden_ns(n->llm_ns, n->wire_ns, n->exposed_ns));
    put_ms(j, "exposed_ms", n->exposed_ns);
    put_ms(j, "queue_ms", n->queue_ns);
    put_ms(j, "connect_ms", n->connect_ns);
    put_ms(j, "first_byte_ms", n->first_byte_ns);
    cli_json_put(j, "cached_tokens", count(n->cached_tok));
    cli_json_put(j, "redone_tokens", count(n->n_redone));
    cli_json_put(j, "branches_taken", count(n->n_branches));
    put_ms(j, "redone_ms", n->lost_ns);
}

/* 0: the serial loop runs. */
static double calls_ahead(const struct cli_routing *r)
{
    const struct tlr_joint_options *o = &r->options;
    bool may = o->mode == TLR_JOINT && !o->explain && o->expert &&
               tlr_expert_is_async(o->expert);
    return !may ? 0 : o->expert->is_budgeted ? 1 : o->ahead.calls;
}

json_t *cli_routing_json(const struct cli_generate *g,
                         const struct cli_routing *r)
{
    static const char *const modes[] = { "joint", "small", "large" };
    const struct tlr_joint_totals *n = &g->totals;
    const struct tlr_policy *p = &r->options.policy;
    bool joint = r->options.mode == TLR_JOINT;
    json_t *j = json_object();
    cli_json_put(j, "mode", json_string(modes[r->options.mode]));
    cli_json_put(j, "policy",
                 joint ? json_string(tlr_policy_name(p->kind)) : json_null());
    cli_json_put(j, "tau", cli_json_real(joint ? (double)p->tau : NAN));
    cli_json_put(j, "target_share", cli_json_real(r->target));
    cli_json_put(j, "routed_share", share(n->n_llm, n->n_tok));
    cli_json_put(j, "asked_share", share(n->n_asked, n->n_tok));
    cli_json_put(j, "llm", r->options.expert
                               ? cli_json_text(r->expert.name,
                                               strlen(r->expert.name))
                               : json_null());
    cli_json_put(j, "positions", count(n->n_tok));
    cli_json_put(j, "asked", count(n->n_asked));
    cli_json_put(j, "llm_tokens", count(n->n_llm));
    cli_json_put(j, "failed", count(n->n_failed));
    cli_json_put(j, "slm_ms", cli_json_real(ms(n->slm_ns)));
    cli_json_put(j, "router_ms", cli_json_real(ms(n->router_ns)));
    cli_json_put(j, "llm_ms", cli_json_real(ms(n->llm_ns)));
    cli_json_put(j, "wire_ms", cli_json_real(ms(n->wire_ns)));
    put_waits(j, n);
    cli_json_put(j, "speculate", cli_json_real(calls_ahead(r)));
    cli_json_put(j, "burst", r->options.burst == TLR_EXPERT_AUTO
                                 ? json_string("auto")
                                 : json_integer(r->options.burst));
    cli_json_put(j, "ms_per_token", cli_json_real(ms_per_token(g)));
    return j;
}

static json_t *id_json(int32_t id)
{
    return id >= 0 ? json_integer(id) : json_null();
}

static json_t *record_json(const struct cli_generate *g,
                           const struct tlr_joint_token *t)
{
    struct tlr_bytes text = token_text(g, t->id);
    json_t *j = json_object();
    cli_json_put(j, "id", json_integer(t->id));
    cli_json_put(j, "text", cli_json_text(text.len ? (const char *)text.ptr : "",
                                          text.len));
    cli_json_put(j, "from", json_string(t->is_llm ? "llm" : "slm"));
    cli_json_put(j, "asked", json_boolean(t->is_asked));
    if (t->is_failed)
        cli_json_put(j, "failed", json_true());
    cli_json_put(j, "trust", cli_json_real((double)t->trust));
    if (isfinite(t->signals.entropy))
        cli_json_put(j, "entropy", cli_json_real((double)t->signals.entropy));
    cli_json_put(j, "slm", id_json(t->slm));
    cli_json_put(j, "llm", id_json(t->llm));
    if (t->llm_ns + t->wire_ns > 0) { /* it was asked */
        put_ms(j, "llm_ms", t->llm_ns);
        put_ms(j, "wire_ms", t->wire_ns);
        put_ms(j, "queue_ms", t->queue_ns);
        put_ms(j, "connect_ms", t->connect_ns);
        put_ms(j, "first_byte_ms", t->first_byte_ns);
        put_ms(j, "hidden_ms", hidden_ns(t->llm_ns, t->wire_ns, t->exposed_ns));
        put_ms(j, "exposed_ms", t->exposed_ns);
    }
    return j;
}

json_t *cli_records_json(const struct cli_generate *g)
{
    json_t *list = json_array();
    for (size_t i = 0; i < g->records.n; i++)
        cli_json_push(list, record_json(g, &g->records.tokens[i]));
    return list;
}
