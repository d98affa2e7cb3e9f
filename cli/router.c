/* router.c - `tlr router`: put a trained router into a model, take it out, show
 * what one holds, and make one of another program's. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/router_import.h"
#include "cli/routing.h"

struct router_args {
    const char *action, *file, *router, *output, *model;
    bool json;
};

static const struct cli_operand operands[] = {
    { .name = "ACTION", .kind = CLI_TEXT,
      .at = offsetof(struct router_args, action),
      .help = "attach, detach, show or import" },
    { .name = "FILE", .kind = CLI_FILE, .at = offsetof(struct router_args, file),
      .help = "a model; show takes a router's file, too; import takes a "
              ".safetensors file, or a folder with model.safetensors" },
    { .name = "ROUTER", .kind = CLI_FILE, .optional = true,
      .at = offsetof(struct router_args, router),
      .help = "attach: the router's file; detach: where to keep it" },
};

static const struct cli_option options[] = {
    { .name = "output", .letter = 'o', .kind = CLI_FILE,
      .at = offsetof(struct router_args, output), .value = "OUT",
      .help = "write the changed model to OUT; import: the router",
      .unset = "FILE itself" },
    { .name = "for", .kind = CLI_FILE, .at = offsetof(struct router_args, model),
      .value = "MODEL", .help = "import: the model that the router is for" },
    { .name = "json", .kind = CLI_FLAG, .at = offsetof(struct router_args, json),
      .help = "show: print one JSON object" },
};

static const char *const examples[] = {
    "tlr router attach model.bin router.bin",
    "Make the router a part of the model file.",
    "tlr router detach model.bin router.bin -o bare.bin",
    "Write the model without its router, and the router beside it.",
    "tlr router show model.bin", "What it is, and its thresholds.",
    "tlr router import citer.safetensors --for model.bin -o router.bin",
    "A router that CITER's own code trained.",
    NULL
};

/* ---- attach and detach ---- */

static int on_progress(void *ctx, uint64_t done, uint64_t total)
{
    cli_progress_set(ctx, done, total, NULL);
    return cli_interrupted();
}

/* The model with these bytes as its router, under the name that was asked for;
 * in place that is the file a link points at, not the link. */
static int write_model(const struct router_args *a, const struct tlr_model *m,
                       struct tlr_bytes bytes, struct tlr_err *err)
{
    struct cli_progress p;
    char *real = a->output ? NULL : realpath(a->file, NULL);
    const char *path = a->output ? a->output : real ? real : a->file;
    cli_progress_begin(&p, a->action, true);
    cli_interrupt_hold();
    int rc = tlr_file_rewrite(tlr_model_file(m), path, TLR_SECTION_ROUTER,
                              bytes, on_progress, &p, err);
    cli_interrupt_release();
    cli_progress_end(&p);
    free(real);
    return rc;
}

static int attach(const struct router_args *a, const struct tlr_model *m,
                  struct tlr_err *err)
{
    struct tlr_router *r = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;
    int rc = cli_router_open(&r, a->router, m, err);
    rc = rc ? rc : tlr_router_repack(&bytes, &len, r, err);
    if (!rc)
        rc = write_model(a, m, (struct tlr_bytes){ bytes, len }, err);
    if (!rc)
        cli_note("%s: carries the %s router of %s",
                 a->output ? a->output : a->file,
                 tlr_policy_name(tlr_router_shape(r)->kind), a->router);
    tlr_free(bytes);
    tlr_router_free(r);
    return rc;
}

static int detach(const struct router_args *a, const struct tlr_model *m,
                  struct tlr_err *err)
{
    struct tlr_bytes has =
        tlr_file_section(tlr_model_file(m), TLR_SECTION_ROUTER);
    struct tlr_bytes none = { NULL, 0 };
    if (!has.ptr)
        return tlr_err_set(err, TLR_ENOTFOUND, "%s: carries no router", a->file);
    int rc = a->router ? tlr_write_file(a->router, has.ptr, has.len, err) : 0;
    return rc ? rc : write_model(a, m, none, err);
}

/* ---- show ---- */

static const double shown_shares[] = { 0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 0.5 };

/* NAN where the policy was not calibrated. */
static double tau_of(const struct tlr_calibration *c, enum tlr_policy_kind kind,
                     double share)
{
    float tau;
    if (!tlr_calibration_has(c, kind) ||
        tlr_calibration_tau(c, kind, share, &tau, NULL))
        return NAN;
    return (double)tau;
}

static json_t *calibration_json(const struct tlr_calibration *c)
{
    json_t *j = json_object(), *taus = json_object(), *shares = json_array();
    for (int i = 0; i < TLR_N_SHARES; i++)
        cli_json_push(shares, cli_json_real((double)c->share[i]));
    for (int p = 0; p < TLR_N_POLICIES; p++) {
        if (!tlr_calibration_has(c, p))
            continue;
        json_t *list = json_array();
        for (int i = 0; i < TLR_N_SHARES; i++)
            cli_json_push(list, cli_json_real((double)c->tau[p][i]));
        cli_json_put(taus, tlr_policy_name(p), list);
    }
    cli_json_put(j, "positions", json_integer((json_int_t)c->n_positions));
    cli_json_put(j, "shares", shares);
    cli_json_put(j, "tau", taus);
    return j;
}

/* model: whether it was trained for the model that carries it; NULL: a file of
 * its own. */
static int print_json(struct tlr_router *r, const struct tlr_model *m,
                      struct tlr_err *err)
{
    const struct tlr_router_weights *w = tlr_router_shape(r);
    char fingerprint[20];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64,
             tlr_router_fingerprint(r));
    json_t *j = json_object();
    cli_json_put(j, "kind", json_string(tlr_policy_name(w->kind)));
    cli_json_put(j, "dim", json_integer(w->dim));
    cli_json_put(j, "features", json_integer(w->n_features));
    cli_json_put(j, "hidden", json_integer(w->n_hidden));
    cli_json_put(j, "temperature", cli_json_real((double)w->temperature));
    cli_json_put(j, "fingerprint", json_string(fingerprint));
    cli_json_put(j, "fits", m ? json_boolean(!tlr_router_check(r, m, NULL))
                              : json_null());
    cli_json_put(j, "calibration",
                 calibration_json(tlr_router_calibration(r)));
    cli_json_put(j, "info", json_loads(tlr_router_info(r), 0, NULL));
    return cli_json_print(j, err);
}

static void print_thresholds(const struct tlr_calibration *c)
{
    cli_printf("thresholds   for a share of routed tokens, measured on %" PRIu64
               " positions\n             %-10s", c->n_positions, "");
    for (size_t i = 0; i < CLI_COUNT(shown_shares); i++)
        cli_printf("%7.0f %%", 100 * shown_shares[i]);
    cli_printf("\n");
    for (int p = 0; p < TLR_N_POLICIES; p++) {
        if (!tlr_calibration_has(c, p))
            continue;
        cli_printf("             %-10s", tlr_policy_name(p));
        for (size_t i = 0; i < CLI_COUNT(shown_shares); i++)
            cli_printf("%9.4f", tau_of(c, p, shown_shares[i]));
        cli_printf("\n");
    }
}

static void print_human(const char *path, struct tlr_router *r,
                        const struct tlr_model *m)
{
    const struct tlr_router_weights *w = tlr_router_shape(r);
    const struct tlr_calibration *c = tlr_router_calibration(r);
    bool any = false;
    cli_printf("%s: %s router for hidden states of width %u", path,
               tlr_policy_name(w->kind), w->dim);
    if (w->n_hidden > 0)
        cli_printf(", %u hidden units", w->n_hidden);
    if (w->n_features > 0)
        cli_printf(", %u features of the logits", w->n_features);
    cli_printf("\ntrained for  the model with fingerprint %016" PRIx64 "%s\n",
               tlr_router_fingerprint(r),
               !m                           ? ""
               : tlr_router_check(r, m, NULL) ? ", which is NOT this one"
                                              : ", this one");
    for (int p = 0; p < TLR_N_POLICIES; p++)
        any = any || tlr_calibration_has(c, p);
    if (any)
        print_thresholds(c);
    else
        cli_printf("thresholds   none: not calibrated (tlr calibrate)\n");
    cli_printf("info         %s\n", tlr_router_info(r));
}

static int show(const struct router_args *a, struct tlr_err *err)
{
    struct tlr_router *r = NULL;
    struct tlr_model *m = NULL;
    struct tlr_map map = { NULL, 0 };
    int rc = tlr_map_open(&map, a->file, false, err);
    if (rc)
        return rc;
    struct tlr_bytes bytes = { map.ptr, map.len };
    if (tlr_router_is_router(bytes)) {
        rc = tlr_router_open(&r, bytes, a->file, err);
    } else {
        rc = cli_model_open(&m, a->file, false, err);
        rc = rc ? rc : tlr_router_of_model(&r, m, err);
    }
    if (!rc && a->json)
        rc = print_json(r, m, err);
    else if (!rc)
        print_human(a->file, r, m);
    tlr_router_free(r);
    tlr_model_close(m);
    tlr_map_close(&map);
    return rc;
}

static int import(const struct router_args *a, struct tlr_err *err)
{
    if (!a->model || !a->output)
        return tlr_err_set(err, TLR_EUSAGE,
                           "import: needs --for MODEL, which the router is for, "
                           "and -o ROUTER");
    return cli_router_import(a->file, a->model, a->output, err);
}

enum action { ATTACH, DETACH, SHOW, IMPORT, N_ACTIONS };
static const char *const actions[N_ACTIONS] = { "attach", "detach", "show",
                                                "import" };

/* What does not go together. */
static int check(const struct router_args *a, enum action action,
                 struct tlr_err *err)
{
    if (action == N_ACTIONS)
        return tlr_err_set(err, TLR_EUSAGE,
                           "ACTION: expected attach, detach, show or import, "
                           "found '%s'", a->action);
    if (action == ATTACH && !a->router)
        return tlr_err_set(err, TLR_EUSAGE, "ROUTER is missing");
    if (action == SHOW && (a->router || a->output))
        return tlr_err_set(err, TLR_EUSAGE,
                           "show takes one FILE and writes none");
    if (action == IMPORT && a->router)
        return tlr_err_set(err, TLR_EUSAGE,
                           "import takes one FILE; the router is named by -o");
    if (action != SHOW && a->json)
        return tlr_err_set(err, TLR_EUSAGE, "--json goes with show");
    if (action != IMPORT && a->model)
        return tlr_err_set(err, TLR_EUSAGE, "--for goes with import");
    return 0;
}

static int router(const void *args, struct tlr_err *err)
{
    const struct router_args *a = args;
    struct tlr_model *m = NULL;
    enum action action = 0;
    while (action < N_ACTIONS && strcmp(a->action, actions[action]) != 0)
        action++;
    int rc = check(a, action, err);
    if (rc)
        return rc;
    if (action == SHOW)
        return show(a, err);
    if (action == IMPORT)
        return import(a, err);
    rc = cli_model_open(&m, a->file, false, err);
    if (!rc)
        rc = action == ATTACH ? attach(a, m, err) : detach(a, m, err);
    tlr_model_close(m);
    return rc;
}

const struct cli_verb cli_verb_router = {
    .name = "router",
    .summary = "attach a trained router to a model, detach, show or import one",
    .about = "A router (tlr train) belongs to one model file and is stored "
             "beside it or in it. attach streams the model into a new file with "
             "the router in it, which then takes the old one's name (or -o's); "
             "a router of another model, width or quantisation is refused. "
             "detach takes it out, into ROUTER where that is given.\n\n"
             "import takes a router that CITER's code trained, folds its batch "
             "normalisation and its last two layers, and checks the result "
             "against the layers as they were; calibrate it before use.\n\n"
             "show prints the kind, the thresholds and what training left. With "
             "--json the object has kind, dim, features, hidden, temperature, "
             "fingerprint, fits (whether it belongs to the model that carries "
             "it; null for a router's own file), calibration (positions, "
             "shares, tau by policy) and info.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct router_args),
    .main = router,
};
