/* pair.c - see pair.h. */
#include "cli/pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/routing.h"

static int add_router(struct cli_pair *p, struct tlr_router *r,
                      struct tlr_err *err)
{
    enum tlr_policy_kind kind = tlr_router_shape(r)->kind;
    int rc = tlr_router_check(r, p->slm, err);
    if (rc || p->routers[kind]) { /* the first of a kind holds */
        tlr_router_free(r);
        return rc;
    }
    tlr_router_set_level(r, p->session.cpu_level < 0
                                ? tlr_cpu_detect()
                                : (enum tlr_cpu_level)p->session.cpu_level);
    p->routers[kind] = r;
    p->order[p->n_routers++] = kind;
    return 0;
}

static int open_routers(struct cli_pair *p, const struct cli_list *files,
                        struct tlr_err *err)
{
    struct tlr_router *r;
    for (int i = 0; files && i < files->n; i++) {
        int rc = tlr_router_read(&r, files->items[i], err);
        if (!rc)
            rc = add_router(p, r, err);
        if (rc)
            return rc;
    }
    struct tlr_err none = TLR_ERR_INIT;
    int rc = tlr_router_of_model(&r, p->slm, &none);
    if (rc == TLR_ENOTFOUND)
        return 0;
    return rc ? tlr_err_set(err, rc, "%s", none.text) : add_router(p, r, err);
}

int cli_pair_open(struct cli_pair *out, const char *slm,
                  const struct cli_llm_args *llm,
                  const struct cli_list *routers,
                  const struct tlr_session_options *session,
                  struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    out->session = *session;
    int rc = llm->llm ? cli_llm_check(llm, err) : 0;
    if (!rc)
        rc = cli_model_open(&out->slm, slm, true, err);
    if (!rc && llm->llm)
        rc = cli_llm_open(&out->llm, llm, out->slm, true, err);
    if (!rc)
        rc = open_routers(out, routers, err);
    return rc;
}

void cli_pair_close(struct cli_pair *p)
{
    for (int i = 0; i < TLR_N_POLICIES; i++)
        tlr_router_free(p->routers[i]);
    cli_llm_close(&p->llm);
    tlr_model_close(p->slm);
    memset(p, 0, sizeof *p);
}

int cli_pair_expert(void *ctx, uint32_t n_ctx, struct tlr_expert *out,
                    struct tlr_err *err)
{
    const struct cli_pair *p = ctx;
    struct tlr_session_options o = p->session;
    o.n_ctx = n_ctx;
    o.n_threads = 1;
    return cli_llm_expert(&p->llm, out, p->slm, &o, err);
}

int cli_pair_tau(const struct cli_pair *p, enum tlr_policy_kind kind,
                 double share, float *tau, struct tlr_err *err)
{
    const struct tlr_calibration *c = NULL;
    if (kind == TLR_POLICY_RANDOM)
        return tlr_calibration_tau(NULL, kind, share, tau, err);
    if (p->routers[kind])
        c = tlr_router_calibration(p->routers[kind]);
    for (int i = 0; i < p->n_routers && !c; i++) {
        c = tlr_router_calibration(p->routers[p->order[i]]);
        if (isnan(c->tau[kind][0]))
            c = NULL;
    }
    if (c && !isnan(c->tau[kind][0]))
        return tlr_calibration_tau(c, kind, share, tau, err);
    return tlr_err_set(err, TLR_ENOTFOUND,
                       "policy %s: no router has thresholds for it; measure "
                       "them on training questions with tlr calibrate (they "
                       "are never fitted on the file that is measured), or "
                       "give --tau",
                       tlr_policy_name(kind));
}

bool cli_next_word(const char **list, char *out, size_t cap)
{
    const char *s = *list;
    if (!s)
        return false;
    const char *comma = strchr(s, ',');
    size_t n = comma ? (size_t)(comma - s) : strlen(s);
    snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), s);
    *list = comma ? comma + 1 : NULL;
    return true;
}

static int unknown_policy(const char *word, struct tlr_err *err)
{
    char names[160] = "";
    for (int i = 0; i < TLR_N_POLICIES; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "",
                 tlr_policy_name((enum tlr_policy_kind)i));
    }
    return tlr_err_set(err, TLR_EUSAGE,
                       "--policy: expected some of %s, found '%s'", names, word);
}

int cli_policies(const char *list, enum tlr_policy_kind *out, int *n,
                 struct tlr_err *err)
{
    char word[32];
    *n = 0;
    while (cli_next_word(&list, word, sizeof word)) {
        int kind = tlr_policy_find(word);
        bool is_new = true;
        if (kind < 0)
            return unknown_policy(word, err);
        for (int i = 0; i < *n; i++)
            is_new = is_new && (int)out[i] != kind;
        if (is_new && kind != TLR_POLICY_NEVER && kind != TLR_POLICY_ALWAYS)
            out[(*n)++] = (enum tlr_policy_kind)kind;
    }
    return 0;
}
