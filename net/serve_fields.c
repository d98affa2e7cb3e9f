/* serve_fields.c - see serve_fields.h. */
#include "net/serve_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/json.h"
#include "net/json.h"
#include "router/router.h"

int tlr_fault_set(struct tlr_fault *f, int status, const char *code,
                  const char *param, const char *fmt, ...)
{
    va_list args;
    f->status = status;
    f->code = code;
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    va_start(args, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, args);
    va_end(args);
    return TLR_EFORMAT;
}

static const char *kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static int wrong_kind(struct tlr_fault *f, const char *name, const char *want,
                      const json_t *v)
{
    return tlr_fault_set(f, 400, "invalid_type", name,
                         "%s: expected %s, found %s", name, want, kind_of(v));
}

json_t *tlr_field(const json_t *object, const char *name)
{
    json_t *v = json_object_get(object, name);
    return json_is_null(v) ? NULL : v;
}

int tlr_field_int(const json_t *object, const char *name, int64_t min,
                  int64_t max, int64_t *out, struct tlr_fault *f)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return wrong_kind(f, name, "an integer", v);
    int64_t x = json_integer_value(v);
    if (x < min || x > max)
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: expected %lld to %lld, found %lld", name,
                             (long long)min, (long long)max, (long long)x);
    *out = x;
    return 0;
}

int tlr_field_real(const json_t *object, const char *name, double min,
                   double max, double *out, struct tlr_fault *f)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong_kind(f, name, "a number", v);
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: expected %g to %g, found %g", name, min, max,
                             x);
    *out = x;
    return 0;
}

int tlr_field_bool(const json_t *object, const char *name, bool *out,
                   struct tlr_fault *f)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong_kind(f, name, "a boolean", v);
    *out = json_is_true(v);
    return 0;
}

int tlr_field_text(const json_t *object, const char *name,
                   struct tlr_bytes *out, struct tlr_fault *f)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong_kind(f, name, "a string", v);
    out->ptr = (const uint8_t *)json_string_value(v);
    out->len = json_string_length(v);
    return 0;
}

int tlr_field_object(const json_t *object, const char *name,
                     const json_t **out, struct tlr_fault *f)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_object(v))
        return wrong_kind(f, name, "an object", v);
    *out = v;
    return 0;
}

int tlr_field_ids(const json_t *array, const char *name, uint32_t n_ids,
                  struct tlr_ids *out, struct tlr_fault *f,
                  struct tlr_err *err)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_integer(v))
            return tlr_fault_set(f, 400, "invalid_type", name,
                                 "%s[%zu]: expected a token id, found %s", name,
                                 i, kind_of(v));
        json_int_t id = json_integer_value(v);
        if (id < 0 || id >= (json_int_t)n_ids)
            return tlr_fault_set(f, 400, "invalid_value", name,
                                 "%s[%zu]: expected an id from 0 to %u, found "
                                 "%lld", name, i, (unsigned)(n_ids - 1),
                                 (long long)id);
        int rc = tlr_ids_push(out, (int32_t)id, err);
        if (rc)
            return rc;
    }
    return 0;
}

int tlr_body_parse(json_t **out, struct tlr_bytes body, struct tlr_fault *f)
{
    json_error_t at;
    *out = NULL;
    if (tlr_json_depth((const char *)body.ptr, body.len) > TLR_NET_DEPTH)
        return tlr_fault_set(f, 400, "invalid_json", NULL,
                             "body: expected JSON of at most %d levels, found "
                             "more", TLR_NET_DEPTH);
    *out = json_loadb((const char *)body.ptr, body.len,
                      JSON_REJECT_DUPLICATES, &at);
    if (!*out)
        return tlr_fault_set(f, 400, "invalid_json", NULL,
                             "body: not JSON: line %d, column %d: %.160s",
                             at.line, at.column, at.text);
    if (json_is_object(*out))
        return 0;
    return tlr_fault_set(f, 400, "invalid_json", NULL,
                         "body: expected a JSON object, found %s",
                         kind_of(*out));
}

/* ---- stop strings ---- */

static int add_stop(struct tlr_job_ask *ask, size_t *used, const json_t *v,
                    const char *name, struct tlr_fault *f)
{
    if (!json_is_string(v))
        return wrong_kind(f, name, "strings", v);
    size_t len = json_string_length(v);
    if (len == 0)
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: an empty string stops nothing", name);
    char *at = ask->stop_bytes + *used;
    memcpy(at, json_string_value(v), len);
    *used += len;
    ask->stops[ask->n_stops++] = (struct tlr_bytes){(uint8_t *)at, len};
    return 0;
}

int tlr_field_stops(const json_t *object, const char *name,
                    struct tlr_job_ask *ask, struct tlr_fault *f,
                    struct tlr_err *err)
{
    const json_t *v = tlr_field(object, name);
    if (!v)
        return 0;
    if (!json_is_string(v) && !json_is_array(v))
        return wrong_kind(f, name, "a string or an array of strings", v);
    size_t n = json_is_array(v) ? json_array_size(v) : 1, n_bytes = 0;
    if (n > TLR_JOB_STOPS_MAX)
        return tlr_fault_set(f, 400, "invalid_value", name,
                             "%s: expected up to %d strings, found %zu", name,
                             (int)TLR_JOB_STOPS_MAX, n);
    for (size_t i = 0; i < n; i++)
        n_bytes += json_string_length(json_is_array(v) ? json_array_get(v, i)
                                                       : v);
    ask->stop_bytes = tlr_calloc(n_bytes, 1);
    if (!ask->stop_bytes)
        return tlr_err_nomem(err, "stop strings", n_bytes);
    size_t used = 0;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = add_stop(ask, &used, json_is_array(v) ? json_array_get(v, i) : v,
                      name, f);
    return rc;
}

/* ---- sampling ---- */

int tlr_field_sampling(const json_t *object, struct tlr_job_ask *ask,
                       const char *penalty_name, struct tlr_fault *f)
{
    struct tlr_generation *g = &ask->generation;
    double temp = (double)g->temperature, top_p = (double)g->top_p;
    double min_p = (double)g->min_p, penalty = (double)g->repeat_penalty;
    int64_t top_k = g->top_k;
    int rc = tlr_field_real(object, "temperature", 0, 100, &temp, f);
    if (!rc)
        rc = tlr_field_real(object, "top_p", 1e-6, 1, &top_p, f);
    if (!rc)
        rc = tlr_field_real(object, "min_p", 0, 0.999999, &min_p, f);
    if (!rc) /* -1: off, as the servers that have it say */
        rc = tlr_field_int(object, "top_k", -1, INT32_MAX, &top_k, f);
    if (!rc)
        rc = tlr_field_real(object, penalty_name, 0.01, 10, &penalty, f);
    if (rc)
        return rc;
    g->temperature = (float)temp;
    g->top_p = (float)top_p;
    g->min_p = (float)min_p;
    /* SGLang's "all" is 2^30. */
    g->top_k = top_k < 0 || top_k >= 1 << 20 ? 0 : (int)top_k;
    g->repeat_penalty = (float)penalty;
    return 0;
}

/* ---- routing ---- */

static int choose_mode(const json_t *o, const struct tlr_request_limits *limits,
                       struct tlr_job_ask *ask, struct tlr_fault *f)
{
    static const char *const modes[] = {"joint", "small", "large"};
    struct tlr_bytes name = {NULL, 0};
    int rc = tlr_field_text(o, "mode", &name, f), found = -1;
    if (rc || !name.ptr) {
        /* who says how to route wants it */
        if (tlr_field(o, "policy") || tlr_field(o, "tau") ||
            tlr_field(o, "target"))
            ask->mode = TLR_JOINT;
        return rc;
    }
    for (int i = 0; i < 3; i++)
        if (strcmp((const char *)name.ptr, modes[i]) == 0)
            found = i;
    if (found < 0)
        return tlr_fault_set(f, 400, "invalid_value", "tlr.mode",
                             "tlr.mode: expected joint, small or large, found "
                             "%.40s", (const char *)name.ptr);
    if (found == TLR_LARGE_ONLY && !limits->has_llm)
        return tlr_fault_set(f, 400, "unsupported", "tlr.mode",
                             "tlr.mode: this server has no large model");
    ask->mode = (enum tlr_joint_mode)found;
    return 0;
}

static int choose_policy(const json_t *o,
                         const struct tlr_request_limits *limits,
                         struct tlr_job_ask *ask, struct tlr_fault *f)
{
    struct tlr_bytes name = {NULL, 0};
    struct tlr_policy *p = &ask->policy;
    struct tlr_err why = TLR_ERR_INIT;
    int rc = tlr_field_text(o, "policy", &name, f);
    if (rc)
        return rc;
    if (name.ptr) {
        int kind = tlr_policy_find((const char *)name.ptr);
        if (kind < 0)
            return tlr_fault_set(f, 400, "invalid_value", "tlr.policy",
                                 "tlr.policy: there is none called %.40s",
                                 (const char *)name.ptr);
        p->kind = (enum tlr_policy_kind)kind;
        p->router = tlr_policy_is_trained(p->kind) ? limits->router : NULL;
    }
    if (ask->mode == TLR_JOINT && tlr_policy_check(p, &why))
        return tlr_fault_set(f, 400, "unsupported", "tlr.policy",
                             "tlr.policy: %s needs a router that this server "
                             "does not have", tlr_policy_name(p->kind));
    return 0;
}

static int choose_tau(const json_t *o, const struct tlr_request_limits *limits,
                      struct tlr_job_ask *ask, struct tlr_fault *f)
{
    double tau = NAN, target = NAN;
    struct tlr_err why = TLR_ERR_INIT;
    int rc = tlr_field_real(o, "tau", -1e9, 1e9, &tau, f);
    if (!rc)
        rc = tlr_field_real(o, "target", 0, 1, &target, f);
    if (rc)
        return rc;
    if (!isnan(tau) && !isnan(target))
        return tlr_fault_set(f, 400, "invalid_value", "tlr.target",
                             "tlr.target: tau and target both set the "
                             "threshold; give one of them");
    if (!isnan(tau))
        ask->policy.tau = (float)tau;
    if (!isnan(target) &&
        (!limits->router ||
         tlr_calibration_tau(tlr_router_calibration(limits->router),
                             ask->policy.kind, target, &ask->policy.tau,
                             &why)))
        return tlr_fault_set(f, 400, "unsupported", "tlr.target",
                             "tlr.target: %s", limits->router ? why.text
                             : "this server's model carries no calibration; "
                               "give tau");
    return 0;
}

int tlr_field_routing(const json_t *object,
                      const struct tlr_request_limits *limits,
                      struct tlr_job_ask *ask, struct tlr_fault *f)
{
    const json_t *o = NULL;
    int rc = tlr_field_object(object, "tlr", &o, f);
    ask->mode = limits->mode;
    ask->policy = limits->policy;
    if (rc || !o)
        return rc;
    rc = choose_mode(o, limits, ask, f);
    if (!rc)
        rc = choose_policy(o, limits, ask, f);
    if (!rc)
        rc = choose_tau(o, limits, ask, f);
    if (!rc)
        rc = tlr_field_bool(o, "explain", &ask->explain, f);
    ask->records = ask->explain;
    return rc ? rc : tlr_field_bool(o, "records", &ask->records, f);
}
