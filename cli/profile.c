/* profile.c - see profile.h.  The rows add up to the total because the engine
 * gives every nanosecond of a step to one operation of one layer. */
#include "cli/profile.h"

#include <stdarg.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/output.h"

#define OP_NAME(id, name) name,
static const char *const op_names[] = { TLR_PROFILE_OPS(OP_NAME) };
#undef OP_NAME

static uint64_t at(const struct tlr_profile *p, uint32_t layer, int op)
{
    return p->ns[(size_t)layer * TLR_N_PROFILE_OPS + (size_t)op];
}

static uint64_t sum_op(const struct tlr_profile *p, int op)
{
    uint64_t sum = 0;
    for (uint32_t l = 0; l <= p->n_layers; l++)
        sum += at(p, l, op);
    return sum;
}

static uint64_t sum_layer(const struct tlr_profile *p, uint32_t layer)
{
    uint64_t sum = 0;
    for (int op = 0; op < TLR_N_PROFILE_OPS; op++)
        sum += at(p, layer, op);
    return sum;
}

static void TLR_PRINTF(2, 3) line(bool to_err, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (to_err)
        cli_note("%s", text);
    else
        cli_printf("%s\n", text);
}

static void print_row(const struct tlr_profile *p, const char *name,
                      uint64_t ns, bool to_err)
{
    line(to_err, "  %-10s %10.3f ms %6.1f %%", name,
         (double)ns / 1e6 / (double)p->n_steps,
         p->total_ns ? (double)ns * 100 / (double)p->total_ns : 0);
}

void cli_print_profile(const struct tlr_profile *p, const char *phase,
                       bool to_err)
{
    char name[24];
    if (!p->ns || p->n_steps == 0)
        return;
    line(to_err, "%s: %.1f ms in %llu steps of %llu tokens; of one step:",
         phase, (double)p->total_ns / 1e6, (unsigned long long)p->n_steps,
         (unsigned long long)p->n_tok);
    for (int op = 0; op < TLR_N_PROFILE_OPS; op++)
        print_row(p, op_names[op], sum_op(p, op), to_err);
    print_row(p, "total", p->total_ns, to_err);
    line(to_err, " by layer:");
    for (uint32_t l = 0; l <= p->n_layers; l++) {
        snprintf(name, sizeof name, "layer %u", l);
        print_row(p, l < p->n_layers ? name : "outside", sum_layer(p, l),
                  to_err);
    }
    print_row(p, "total", p->total_ns, to_err);
}

void cli_print_profile_beside(const struct tlr_profile *p, const char *name,
                              uint64_t ns)
{
    if (!p->ns || p->n_steps == 0)
        return;
    line(true, " beside the steps:");
    print_row(p, name, ns, true);
}

static json_t *layer_json(const struct tlr_profile *p, uint32_t layer)
{
    json_t *j = json_object();
    for (int op = 0; op < TLR_N_PROFILE_OPS; op++)
        if (at(p, layer, op) > 0)
            cli_json_put(j, op_names[op],
                         cli_json_real((double)at(p, layer, op) / 1e6));
    return j;
}

json_t *cli_profile_json(const struct tlr_profile *p)
{
    if (!p->ns || p->n_steps == 0)
        return json_null();
    json_t *j = json_object(), *ops = json_object(), *layers = json_array();
    for (int op = 0; op < TLR_N_PROFILE_OPS; op++)
        cli_json_put(ops, op_names[op],
                     cli_json_real((double)sum_op(p, op) / 1e6));
    for (uint32_t l = 0; l < p->n_layers; l++)
        cli_json_push(layers, layer_json(p, l));
    cli_json_put(j, "steps", json_integer((json_int_t)p->n_steps));
    cli_json_put(j, "tokens", json_integer((json_int_t)p->n_tok));
    cli_json_put(j, "total_ms", cli_json_real((double)p->total_ns / 1e6));
    cli_json_put(j, "ops", ops);
    cli_json_put(j, "layers", layers);
    cli_json_put(j, "outside", layer_json(p, p->n_layers));
    return j;
}
