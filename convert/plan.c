/* plan.c - a type for every tensor. */
#include "convert/plan.h"

#include <string.h>

#include "base/mem.h"

static void choose(struct tlr_plan_tensor *t, const struct tlr_source *src,
                   int asked)
{
    if (!t->want.is_matrix) {
        t->type = TLR_F32;
        return;
    }
    int type = asked >= 0 ? asked : t->from.exact >= 0 ? t->from.exact : TLR_Q8;
    t->type = (enum tlr_type)type;
    if (tlr_type_is_tiled(t->type) && t->want.n_cols % TLR_TILE_COLS != 0) {
        t->type = TLR_BF16;
        t->is_fallback = true;
    }
    t->is_carried = tlr_type_is_tiled(t->type) &&
                    t->from.exact == (int)t->type && src->ops->read_band_exact;
}

int tlr_plan_make(struct tlr_plan *out, struct tlr_source *src,
                  const struct tlr_convert_options *options,
                  struct tlr_err *err)
{
    memset(out, 0, sizeof *out);
    int asked = options ? options->type : -1;
    if (asked >= TLR_N_TYPES) {
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
        if (!tlr_add_u64(out->src_bytes, t->from.src_bytes, &out->src_bytes)) {
            return tlr_err_set(err, TLR_ELIMIT,
                               "tensor %s: the source's size overflows",
                               t->want.name);
        }
        if (t->want.n_cols > out->max_cols) {
            out->max_cols = t->want.n_cols;
        }
    }
    return 0;
}

void tlr_plan_clear(struct tlr_plan *p)
{
    tlr_free(p->tensors);
    memset(p, 0, sizeof *p);
}
