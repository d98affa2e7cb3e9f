/* routing.c - see routing.h. */
#include "cli/routing.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

static const double DEFAULT_SHARE = 0.07;

bool cli_routing_is_on(const struct cli_routing_args *a)
{
    return a->llm.llm || a->router || a->require_llm || a->speculate ||
           a->burst || a->serial || !isnan(a->target) ||
           !isnan(a->tau) || strcmp(a->policy, "auto") != 0 ||
           strcmp(a->mode, "joint") != 0;
}

int cli_router_crc(uint32_t *crc, const struct tlr_router *r,
                   struct tlr_err *err)
{
    uint8_t *bytes;
    size_t len;
    int rc = tlr_router_repack(&bytes, &len, r, err);
    if (rc)
        return rc;
    *crc = tlr_crc32(*crc, bytes, len);
    tlr_free(bytes);
    return 0;
}

int cli_router_open(struct tlr_router **out, const char *path,
                    const struct tlr_model *m, struct tlr_err *err)
{
    int rc = path ? tlr_router_read(out, path, err)
                  : tlr_router_of_model(out, m, err);
    return rc ? rc : tlr_router_check(*out, m, err);
}

static bool has_router(const struct cli_routing_args *a,
                       const struct tlr_model *m)
{
    return a->router ||
           tlr_file_section(tlr_model_file(m), TLR_SECTION_ROUTER).ptr;
}

/* The policy, and its router where there is one: an untrained policy takes its
 * thresholds from there. */
static int choose_policy(struct cli_routing *r,
                         const struct cli_routing_args *a,
                         const struct tlr_model *m, uint64_t seed,
                         struct tlr_err *err)
{
    struct tlr_policy *p = &r->options.policy;
    int named = tlr_policy_find(a->policy); /* -1: auto */
    p->seed = seed;
    if (named < 0 && !has_router(a, m))
        return tlr_err_set(err, TLR_ENOTFOUND,
                           "%s: carries no router to say what to doubt; attach "
                           "one (tlr router attach), name its file (--router), "
                           "or choose --policy entropy and --tau",
                           tlr_file_label(tlr_model_file(m)));
    if (has_router(a, m) ||
        tlr_policy_is_trained((enum tlr_policy_kind)named)) {
        int rc = cli_router_open(&r->router, a->router, m, err);
        if (rc)
            return rc;
    }
    p->kind = named < 0 ? tlr_router_shape(r->router)->kind
                        : (enum tlr_policy_kind)named;
    p->router = tlr_policy_is_trained(p->kind) ? r->router : NULL;
    return tlr_policy_check(p, err);
}

static int choose_tau(struct cli_routing *r, const struct cli_routing_args *a,
                      struct tlr_err *err)
{
    struct tlr_policy *p = &r->options.policy;
    r->target = NAN;
    p->tau = (float)a->tau;
    if (p->kind == TLR_POLICY_ALWAYS || p->kind == TLR_POLICY_NEVER) {
        p->tau = 0;
        return 0;
    }
    if (!isnan(a->tau))
        return 0;
    r->target = isnan(a->target) ? DEFAULT_SHARE : a->target;
    return tlr_calibration_tau(
        r->router ? tlr_router_calibration(r->router) : NULL, p->kind,
        r->target, &p->tau, err);
}

/* Asks for one reply that is needed, and timelines: SPEED.md has what each costs
 * and gains. */
static const struct tlr_speculation DEFAULT_AHEAD = {.calls = 1.6, .n_lanes = 1},
                                    MOST_AHEAD = {.calls = 3,
                                                  .n_lanes = TLR_LANE_MAX};

static int choose_ahead(struct tlr_speculation *out,
                        const struct cli_routing_args *a, struct tlr_err *err)
{
    const char *text = a->speculate;
    char *end;
    if (a->serial && text)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--serial and --speculate both say how to wait; "
                           "give one of them");
    *out = text && strcmp(text, "max") == 0 ? MOST_AHEAD : DEFAULT_AHEAD;
    if (a->lanes != CLI_NO_INT)
        out->n_lanes = (int)a->lanes;
    if (a->serial || (text && strcmp(text, "off") == 0))
        out->calls = 0;
    if (!text || strcmp(text, "max") == 0 || strcmp(text, "off") == 0)
        return 0;
    out->calls = strtod(text, &end);
    if (end != text && !*end && out->calls >= 1 && out->calls <= 10)
        return 0;
    return tlr_err_set(err, TLR_EUSAGE,
                       "--speculate: expected off, max or a number of asks "
                       "from 1 to 10, found '%s'", text);
}

int cli_routing_burst(int *out, const struct cli_routing_args *a,
                      struct tlr_err *err)
{
    const char *text = a->burst;
    char *end;
    *out = 1;
    if (!text)
        return 0;
    if (!a->llm.llm || strcmp(a->mode, "small") == 0)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--burst: found no large model that may write; name "
                           "one (--llm) and leave --mode small out");
    if (strcmp(text, "auto") == 0) {
        *out = TLR_EXPERT_AUTO;
        return 0;
    }
    long n = strtol(text, &end, 10);
    *out = (int)n;
    if (end != text && !*end && n >= 1 && n <= TLR_BURST_MAX)
        return 0;
    return tlr_err_set(err, TLR_EUSAGE,
                       "--burst: expected auto or a number of tokens from 1 to "
                       "%d, found '%s'", TLR_BURST_MAX, text);
}

int cli_routing_open(struct cli_routing *out, const struct cli_routing_args *a,
                     const struct tlr_model *m, const struct tlr_session *s,
                     uint64_t seed, struct tlr_err *err)
{
    static const char *const modes[] = { "joint", "small", "large" };
    memset(out, 0, sizeof *out);
    out->target = NAN;
    for (int i = 0; i < 3; i++)
        if (strcmp(a->mode, modes[i]) == 0)
            out->options.mode = (enum tlr_joint_mode)i;
    if (!isnan(a->tau) && !isnan(a->target))
        return tlr_err_set(err, TLR_EUSAGE,
                           "--tau and --target-routed both set the threshold; "
                           "give one of them");
    if (!a->llm.llm && (a->require_llm || out->options.mode == TLR_LARGE_ONLY))
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s needs a large model; name it (--llm URL or "
                           "--llm model:FILE)",
                           a->require_llm ? "--require-llm" : "--mode large");
    int rc = choose_ahead(&out->options.ahead, a, err);
    rc = rc ? rc : cli_routing_burst(&out->options.burst, a, err);
    if (!rc && a->llm.llm)
        rc = cli_llm_check(&a->llm, err);
    if (!rc && out->options.mode == TLR_JOINT) {
        rc = choose_policy(out, a, m, seed, err);
        rc = rc ? rc : choose_tau(out, a, err);
    }
    if (rc || !a->llm.llm || out->options.mode == TLR_SMALL_ONLY)
        return rc;
    bool is_required = a->require_llm || out->options.mode == TLR_LARGE_ONLY;
    rc = cli_llm_open(&out->llm, &a->llm, m, is_required, err);
    if (!rc)
        rc = cli_llm_expert(&out->llm, &out->expert, m,
                            tlr_session_options_used(s), err);
    out->options.expert = &out->expert;
    out->options.require_expert = a->require_llm;
    return rc;
}

void cli_routing_clear(struct cli_routing *r)
{
    tlr_expert_close(&r->expert);
    cli_llm_close(&r->llm);
    tlr_router_free(r->router);
    memset(r, 0, sizeof *r);
}
