/* serve_reply_parts.c - lists of ids, log-probabilities and decisions. */
#include "net/serve_reply.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Control characters are JSON's own business; what is not UTF-8 is ours. */
json_t *tlr_reply_text(const char *bytes, size_t len)
{
    json_t *v = json_stringn(bytes, len);
    if (v)
        return v;
    struct tlr_utf8_stream utf8 = {{0}, 0};
    char *out = tlr_calloc(3 * (len + 8), 1);
    size_t n = 0, more = 0;
    if (!out)
        return NULL;
    tlr_utf8_stream_push(&utf8,
                         (struct tlr_bytes){(const uint8_t *)bytes, len},
                         false, out, &n);
    tlr_utf8_stream_push(&utf8, (struct tlr_bytes){NULL, 0}, true, out + n,
                         &more);
    v = json_stringn(out, n + more);
    tlr_free(out);
    return v;
}

/* null where the number is not finite. */
static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *tlr_reply_ids(const struct tlr_job *j, size_t from, size_t to)
{
    json_t *list = json_array();
    for (size_t i = from; i < to; i++)
        json_array_append_new(list, json_integer(j->tokens[i].joint.id));
    return list;
}

/* ---- log-probabilities ---- */

static struct tlr_bytes bytes_of(const struct tlr_reply *r, int32_t id)
{
    return r->tokenizer ? tlr_token_bytes(r->tokenizer, id)
                        : (struct tlr_bytes){NULL, 0};
}

static json_t *token_text(const struct tlr_reply *r, int32_t id)
{
    struct tlr_bytes b = bytes_of(r, id);
    return b.len ? tlr_reply_text((const char *)b.ptr, b.len)
                 : json_string("");
}

static json_t *chat_token(const struct tlr_reply *r, int32_t id, float logprob)
{
    json_t *o = json_object(), *list = json_array();
    struct tlr_bytes b = bytes_of(r, id);
    for (size_t i = 0; i < b.len; i++)
        json_array_append_new(list, json_integer(b.ptr[i]));
    json_object_set_new(o, "token", token_text(r, id));
    json_object_set_new(o, "logprob", real((double)logprob));
    json_object_set_new(o, "bytes", list);
    return o;
}

json_t *tlr_reply_chat_logprobs(const struct tlr_reply *r,
                                const struct tlr_job *j, size_t from,
                                size_t to)
{
    json_t *o = json_object(), *list = json_array();
    size_t n_top = (size_t)j->ask.n_top;
    for (size_t i = from; i < to; i++) {
        const struct tlr_job_token *t = &j->tokens[i];
        json_t *token = chat_token(r, t->joint.id, t->logprob);
        json_t *best = json_array();
        for (size_t k = i * n_top; k < (i + 1) * n_top; k++)
            json_array_append_new(best, chat_token(r, j->top_ids[k],
                                                   j->top_logprobs[k]));
        json_object_set_new(token, "top_logprobs", best);
        json_array_append_new(list, token);
    }
    json_object_set_new(o, "content", list);
    json_object_set_new(o, "refusal", json_null());
    return o;
}

/* {text: logprob} of the best; of two with one text the better one stays. */
static json_t *best_by_text(const struct tlr_reply *r, const struct tlr_job *j,
                            size_t i)
{
    json_t *o = json_object();
    size_t n_top = (size_t)j->ask.n_top;
    for (size_t k = i * n_top; k < (i + 1) * n_top; k++) {
        json_t *text = token_text(r, j->top_ids[k]);
        const char *key = json_string_value(text);
        if (key && !json_object_get(o, key))
            json_object_set_new(o, key, real((double)j->top_logprobs[k]));
        json_decref(text);
    }
    return o;
}

json_t *tlr_reply_text_logprobs(const struct tlr_reply *r,
                                const struct tlr_job *j, size_t from,
                                size_t to)
{
    json_t *o = json_object(), *texts = json_array(), *values = json_array();
    json_t *best = json_array(), *offsets = json_array();
    for (size_t i = from; i < to; i++) {
        const struct tlr_job_token *t = &j->tokens[i];
        json_array_append_new(texts, token_text(r, t->joint.id));
        json_array_append_new(values, real((double)t->logprob));
        json_array_append_new(offsets, json_integer(t->begin));
        json_array_append_new(best, best_by_text(r, j, i));
    }
    json_object_set_new(o, "tokens", texts);
    json_object_set_new(o, "token_logprobs", values);
    json_object_set_new(o, "top_logprobs", best);
    json_object_set_new(o, "text_offset", offsets);
    return o;
}

static json_t *triple(int32_t id, float logprob)
{
    json_t *list = json_array();
    json_array_append_new(list, real((double)logprob));
    json_array_append_new(list, json_integer(id));
    json_array_append_new(list, json_null());
    return list;
}

json_t *tlr_reply_triples(const struct tlr_job *j)
{
    json_t *list = json_array();
    for (size_t i = 0; i < j->n; i++)
        json_array_append_new(list, triple(j->tokens[i].joint.id,
                                           j->tokens[i].logprob));
    return list;
}

json_t *tlr_reply_top_triples(const struct tlr_job *j)
{
    json_t *list = json_array();
    size_t n_top = (size_t)j->ask.n_top;
    for (size_t i = 0; i < j->n; i++) {
        json_t *best = json_array();
        for (size_t k = i * n_top; k < (i + 1) * n_top; k++)
            json_array_append_new(best, triple(j->top_ids[k],
                                               j->top_logprobs[k]));
        json_array_append_new(list, best);
    }
    return list;
}

/* ---- decisions ---- */

bool tlr_reply_has_routing(const struct tlr_job *j)
{
    return j->ask.mode != TLR_SMALL_ONLY || j->ask.records;
}

static json_t *id_or_null(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

static double ms(uint64_t ns)
{
    return (double)ns * 1e-6;
}

static json_t *decision(const struct tlr_job *j, const struct tlr_job_token *t)
{
    json_t *o = json_object();
    const struct tlr_joint_token *k = &t->joint;
    size_t end = t->end < j->text.n ? t->end : j->text.n;
    size_t begin = t->begin < end ? t->begin : end;
    json_object_set_new(o, "id", json_integer(k->id));
    json_object_set_new(o, "text",
                        end > begin ? tlr_reply_text(j->text.bytes + begin,
                                                     end - begin)
                                    : json_string(""));
    json_object_set_new(o, "from", json_string(k->is_llm ? "llm" : "slm"));
    json_object_set_new(o, "asked", json_boolean(k->is_asked));
    json_object_set_new(o, "failed", json_boolean(k->is_failed));
    json_object_set_new(o, "trust", real((double)k->trust));
    json_object_set_new(o, "entropy", real((double)k->signals.entropy));
    json_object_set_new(o, "slm", id_or_null(k->slm));
    json_object_set_new(o, "llm", id_or_null(k->llm));
    json_object_set_new(o, "at_ms", json_integer(t->at_ms));
    json_object_set_new(o, "slm_ms", real(ms(k->slm_ns)));
    json_object_set_new(o, "llm_ms", real(ms(k->llm_ns + k->wire_ns)));
    json_object_set_new(o, "exposed_ms", real(ms(k->exposed_ns)));
    return o;
}

static void put_sums(json_t *o, const struct tlr_job *j)
{
    static const char *const modes[] = {"joint", "small", "large"};
    const struct tlr_joint_totals *sum = &j->totals;
    bool has_policy = j->ask.mode == TLR_JOINT;
    json_object_set_new(o, "mode", json_string(modes[j->ask.mode]));
    json_object_set_new(o, "policy",
                        has_policy
                            ? json_string(tlr_policy_name(j->ask.policy.kind))
                            : json_null());
    json_object_set_new(o, "tau", has_policy ? real((double)j->ask.policy.tau)
                                             : json_null());
    json_object_set_new(o, "positions", json_integer((json_int_t)sum->n_tok));
    json_object_set_new(o, "asked", json_integer((json_int_t)sum->n_asked));
    json_object_set_new(o, "llm_tokens", json_integer((json_int_t)sum->n_llm));
    json_object_set_new(o, "failed", json_integer((json_int_t)sum->n_failed));
    json_object_set_new(o, "slm_ms", real(ms(sum->slm_ns)));
    json_object_set_new(o, "router_ms", real(ms(sum->router_ns)));
    json_object_set_new(o, "llm_ms", real(ms(sum->llm_ns)));
    json_object_set_new(o, "wire_ms", real(ms(sum->wire_ns)));
    json_object_set_new(o, "exposed_ms", real(ms(sum->exposed_ns)));
    double first = j->first_ns ? ms(j->first_ns - j->submit_ns) : NAN;
    json_object_set_new(o, "ttft_ms", real(first));
    json_object_set_new(o, "total_ms", real(ms(j->last_ns - j->submit_ns)));
}

json_t *tlr_reply_routing(const struct tlr_job *j, size_t from, size_t to,
                          bool whole)
{
    json_t *o = json_object();
    if (whole)
        put_sums(o, j);
    if (j->ask.records) {
        json_t *list = json_array();
        for (size_t i = from; i < to; i++)
            json_array_append_new(list, decision(j, &j->tokens[i]));
        json_object_set_new(o, "tokens", list);
    }
    return o;
}
