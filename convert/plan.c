/* plan.c - a type for every tensor. */
#include "convert/plan.h"

#include <string.h>

#include "base/mem.h"

static const char *const recipe_names[] = {"q8", "q4"};

bool tlr_convert_type_parse(const char *name, int *out)
{
    static const struct {
        const char *name;
        int type;
    } others[] = {{"q8", TLR_RECIPE_Q8},
                  {"q4", TLR_RECIPE_Q4},
                  {"q8-plain", TLR_Q8},
                  {"q4-plain", TLR_Q4}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(name, others[i].name) == 0) {
            *out = others[i].type;
            return true;
        }
    }
    enum tlr_type type;
    if (!tlr_type_parse(name, &type)) {
        return false;
    }
    *out = (int)type;
    return true;
}

const char *tlr_convert_type_name(int type)
{
    if (type == TLR_Q8 || type == TLR_Q4) {
        return type == TLR_Q8 ? "q8-plain" : "q4-plain";
    }
    if (type >= TLR_RECIPE_Q8 && type < TLR_RECIPES_END) {
        return recipe_names[type - TLR_RECIPE_Q8];
    }
    return type < 0 ? NULL : tlr_type_name((unsigned)type);
}

static enum tlr_type type_of(const struct tlr_plan_tensor *t, bool is_head,
                             int asked)
{
    if (asked >= 0 && asked < TLR_N_TYPES) {
        return (enum tlr_type)asked;
    }
    if (asked == TLR_RECIPE_KEEP && t->from.exact >= 0 &&
        t->from.exact != TLR_Q8) {
        return (enum tlr_type)t->from.exact;
    }
    if (is_head) {
        return TLR_Q8P;
    }
    if (asked != TLR_RECIPE_Q4) {
        return TLR_Q8;
    }
    return t->from.exact == TLR_Q4 ? TLR_Q4 : TLR_Q4N;
}

static void choose(struct tlr_plan_tensor *t, const struct tlr_source *src,
                   int asked)
{
    if (!t->want.is_matrix) {
        t->type = TLR_F32;
        return;
    }
    const char *head = src->config.flags & TLR_CONFIG_TIED_HEAD ? "embed"
                                                                : "head";
    t->type = type_of(t, strcmp(t->want.name, head) == 0, asked);
    if (tlr_type_is_tiled(t->type) && t->want.n_cols % TLR_TILE_COLS != 0) {
        t->type = TLR_BF16;
        t->is_fallback = true;
    }
    t->coded = t->type == TLR_Q8P ? TLR_Q8 : t->type;
    t->is_carried = tlr_type_is_tiled(t->type) &&
                    t->from.exact == (int)t->coded && src->ops->read_band_exact;
}

/* A text that would change nothing costs a caller minutes for nothing. */
static int check_calibration(const struct tlr_plan *p,
                             const struct tlr_convert_options *options,
                             struct tlr_err *err)
{
    if (!options || !options->calibration_text) {
        return 0;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->tensors[i].is_calibrated) {
            return 0;
        }
    }
    const char *type = tlr_convert_type_name(options->type);
    return tlr_err_set(err, TLR_EUSAGE,
                       "calibration: expected matrices that are rounded to q4n, "
                       "found none (type %s); use type q4 or q4n, or leave the "
                       "text out",
                       type ? type : "not given");
}

int tlr_plan_make(struct tlr_plan *out, struct tlr_source *src,
                  const struct tlr_convert_options *options,
                  struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    int asked = options ? options->type : TLR_RECIPE_KEEP;
    if (asked < TLR_RECIPE_KEEP || asked >= TLR_RECIPES_END) {
        return tlr_err_set(err, TLR_EUSAGE, "type %d is none of tlr's", asked);
    }
    uint32_t n = tlr_config_n_tensors(&src->config);
    out->tensors = tlr_calloc(n, sizeof *out->tensors);
    if (!out->tensors) {
        return tlr_err_nomem(err, "plan of the conversion",
                             n * sizeof *out->tensors);
    }
    for (; out->n < n; out->n++) {
        struct tlr_plan_tensor *t = &out->tensors[out->n];
        tlr_config_tensor(&src->config, out->n, &t->want);
        int rc = src->ops->describe(src, out->n, &t->from, err);
        if (rc) {
            return rc;
        }
        choose(t, src, asked);
        t->is_calibrated = options && options->calibration_text &&
                           t->type == TLR_Q4N && !t->is_carried &&
                           strncmp(t->want.name, "blk.", 4) == 0;
        if (!tlr_add_u64(out->src_bytes, t->from.src_bytes, &out->src_bytes)) {
            return tlr_err_set(err, TLR_ELIMIT,
                               "tensor %s: the source's size overflows",
                               t->want.name);
        }
        if (t->want.n_cols > out->max_cols) {
            out->max_cols = t->want.n_cols;
        }
    }
    return check_calibration(out, options, err);
}

void tlr_plan_clear(struct tlr_plan *p)
{
    tlr_free(p->tensors);
    memset(p, 0, sizeof *p);
}

uint64_t tlr_plan_total(const struct tlr_plan *p,
                        const struct tlr_convert_options *options)
{
    uint64_t times = 1;
    if (options) {
        times += options->verify;
        times += options->calibration_text ? TLR_PLAN_CALIBRATION_SHARE : 0;
    }
    return times * p->src_bytes;
}
