/* train_data.c - see train_data.h. */
#include "router/train_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

/* ---- the split ----------------------------------------------------------------- */

struct ranked {
    uint64_t hash;
    uint32_t group;
};

static int by_hash(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->group < y->group ? -1 : 1;
}

/* is_held [n_groups] of the groups that have rows. */
static int choose_groups(struct tlr_train_data *t, double share, uint64_t seed,
                         uint8_t *is_held, struct tlr_err *err)
{
    const struct tlr_dataset_info *info = tlr_dataset_info(t->d);
    struct ranked *order = tlr_calloc(info->n_groups, sizeof *order);
    if (!order)
        return tlr_err_nomem(err, "split", info->n_groups * sizeof *order);
    uint32_t n = 0, last = UINT32_MAX;
    for (uint64_t i = 0; i < info->n_rows; i++) {
        struct tlr_row row;
        tlr_dataset_row(t->d, i, &row);
        if (row.group != last)
            order[n++] = (struct ranked){
                tlr_hash_u64(seed ^ 0x73706c6974, row.group), row.group };
        last = row.group;
    }
    int rc = 0;
    if (n < 2) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "dataset: all rows belong to one question; expected "
                         "at least 2, since questions are held out whole");
    } else {
        qsort(order, n, sizeof *order, by_hash);
        uint32_t n_held = (uint32_t)ceil(share * n);
        n_held = n_held < 1 ? 1 : n_held > n - 1 ? n - 1 : n_held;
        for (uint32_t i = 0; i < n_held; i++)
            is_held[order[i].group] = 1;
        t->n_groups_valid = n_held;
    }
    tlr_free(order);
    return rc;
}

void tlr_train_row(const struct tlr_train_data *data, uint64_t i,
                   struct tlr_row *out)
{
    tlr_dataset_row(data->d, i, out);
    if (data->unlikely > 0) {
        bool knows = !isnan(out->p_llm);
        out->label = !((double)out->p_llm < data->unlikely);
        out->weight = knows;
        out->what = knows ? TLR_CASE_SLM_RIGHT : TLR_CASE_OPEN;
    } else if (out->what == TLR_CASE_TIE) {
        out->weight = (float)((double)out->weight * data->tie_weight);
    }
}

/* unlikely reads p_llm as that of the small model's token, which it is in mixed
 * chains only. */
static int check_mixed(const struct tlr_dataset *d, struct tlr_err *err)
{
    for (uint64_t i = 0; i < tlr_dataset_info(d)->n_rows; i++) {
        struct tlr_row row;
        tlr_dataset_row(d, i, &row);
        if (row.what == TLR_CASE_SLM_RIGHT || row.what == TLR_CASE_LLM_RIGHT)
            return tlr_err_set(err, TLR_EFORMAT,
                               "dataset: expected mixed chains for --unlikely, "
                               "found gold ones; label with --chains mixed");
    }
    return 0;
}

static bool has_target(const struct tlr_row *row, enum tlr_loss_kind loss)
{
    if (row->weight <= 0)
        return false;
    return loss == TLR_LOSS_DEFERRAL ? !isnan(row->p_llm)
                                     : row->what != TLR_CASE_OPEN;
}

static void split_rows(struct tlr_train_data *t, enum tlr_loss_kind loss,
                       const uint8_t *is_held, double *valid_ones)
{
    uint64_t n_rows = tlr_dataset_info(t->d)->n_rows;
    *valid_ones = 0;
    for (uint64_t i = 0; i < n_rows; i++) {
        struct tlr_row row;
        tlr_train_row(t, i, &row);
        if (is_held[row.group])
            t->held[t->n_held++] = i;
        if (!has_target(&row, loss))
            continue;
        if (is_held[row.group]) {
            t->valid[t->n_valid++] = i;
            *valid_ones += row.label;
        } else {
            t->train[t->n_train++] = i;
            t->train_ones += row.label;
        }
    }
}

/* Labels train the MLPs and measure every router. */
static int check_classes(const char *part, uint64_t n, double ones,
                         struct tlr_err *err)
{
    if (n >= 2 && ones > 0 && ones < (double)n)
        return 0;
    if (n < 2)
        return tlr_err_set(err, TLR_EFORMAT,
                           "dataset: expected at least 2 labelled rows %s, "
                           "found %llu; label more questions", part,
                           (unsigned long long)n);
    return tlr_err_set(err, TLR_EFORMAT,
                       "dataset: all %llu rows %s have label %d; expected both "
                       "0 (ask) and 1 (keep); label more questions",
                       (unsigned long long)n, part, ones > 0);
}

/* ---- normalisation --------------------------------------------------------------- */

static void read_inputs(const struct tlr_train_data *t, uint64_t i, float *x,
                        struct tlr_row *row)
{
    tlr_train_row(t, i, row);
    tlr_dataset_hidden(t->d, i, x);
    memcpy(x + t->dim, row->features, t->n_features * sizeof *x);
}

/* Mean and 1 / standard deviation over the training rows, from element `first`
 * on; the others stay as they are.  One pass, sums of differences from the first
 * row, in double. */
static int measure_inputs(struct tlr_train_data *t, uint32_t first,
                          struct tlr_err *err)
{
    float *x = tlr_calloc(t->n_in, sizeof *x);
    double *sum = tlr_calloc(3 * (size_t)t->n_in, sizeof *sum);
    int rc = x && sum ? 0 : tlr_err_nomem(err, "input statistics", t->n_in * 28ull);
    for (uint32_t i = 0; i < t->n_in; i++)
        t->scale[i] = 1;
    for (uint64_t n = 0; !rc && n < t->n_train && first < t->n_in; n++) {
        struct tlr_row row;
        double *base = sum + t->n_in, *square = base + t->n_in;
        read_inputs(t, t->train[n], x, &row);
        for (uint32_t i = first; i < t->n_in; i++) {
            if (n == 0)
                base[i] = (double)x[i];
            double e = (double)x[i] - base[i];
            sum[i] += e;
            square[i] += e * e;
        }
    }
    for (uint32_t i = first; !rc && i < t->n_in; i++) {
        double mean = sum[i] / (double)t->n_train;
        double var = sum[2 * (size_t)t->n_in + i] / (double)t->n_train -
                     mean * mean;
        t->mean[i] = (float)(mean + sum[t->n_in + i]);
        t->scale[i] = var > 1e-12 ? (float)(1 / sqrt(var)) : 1;
    }
    tlr_free(x);
    tlr_free(sum);
    return rc;
}

/* ---- all of it ------------------------------------------------------------------- */

static int allocate(struct tlr_train_data *t, struct tlr_err *err)
{
    uint64_t n = tlr_dataset_info(t->d)->n_rows;
    t->train = tlr_calloc(n, sizeof *t->train);
    t->held = tlr_calloc(n, sizeof *t->held);
    t->valid = tlr_calloc(n, sizeof *t->valid);
    t->mean = tlr_calloc(t->n_in, sizeof *t->mean);
    t->scale = tlr_calloc(t->n_in, sizeof *t->scale);
    if (!t->train || !t->held || !t->valid || !t->mean || !t->scale)
        return tlr_err_nomem(err, "rows to train on", 24 * n);
    return 0;
}

int tlr_train_data_new(struct tlr_train_data *out, const struct tlr_dataset *d,
                       const struct tlr_train_options *o, struct tlr_err *err)
{
    const struct tlr_dataset_info *info = tlr_dataset_info(d);
    double valid_ones = 0;
    memset(out, 0, sizeof *out);
    out->d = d;
    out->dim = info->dim;
    out->tie_weight = o->tie_weight;
    out->unlikely = o->unlikely;
    out->n_features = o->kind == TLR_POLICY_MLP_PLUS ? TLR_N_FEATURES : 0;
    out->n_in = out->dim + out->n_features;
    uint8_t *is_held = tlr_calloc(info->n_groups, 1);
    int rc = is_held ? allocate(out, err)
                     : tlr_err_nomem(err, "split", info->n_groups);
    if (!rc && o->unlikely > 0)
        rc = check_mixed(d, err);
    if (!rc)
        rc = choose_groups(out, o->valid, o->seed, is_held, err);
    if (!rc)
        split_rows(out, o->loss, is_held, &valid_ones);
    tlr_free(is_held);
    if (!rc && o->loss == TLR_LOSS_DEFERRAL && out->n_train + out->n_valid == 0)
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "dataset: no row knows the large model's probability "
                         "of the gold token (p_llm), which the deferral head "
                         "learns from; label again with --llm");
    if (!rc)
        rc = check_classes("to train on", out->n_train, out->train_ones, err);
    if (!rc)
        rc = check_classes("of the held-out questions", out->n_valid,
                           valid_ones, err);
    if (!rc)
        rc = measure_inputs(out, o->standardise ? 0 : out->dim, err);
    if (rc)
        tlr_train_data_clear(out);
    return rc;
}

void tlr_train_data_clear(struct tlr_train_data *t)
{
    tlr_free(t->train);
    tlr_free(t->held);
    tlr_free(t->valid);
    tlr_free(t->mean);
    tlr_free(t->scale);
    memset(t, 0, sizeof *t);
}

/* ---- batches --------------------------------------------------------------------- */

struct load {
    const struct tlr_train_data *data;
    const uint64_t *rows;
    bool normalised;
    float *x;
    struct tlr_target *targets;
};

static void load_row(void *ctx, int item, int thread)
{
    const struct load *l = ctx;
    const struct tlr_train_data *t = l->data;
    float *x = l->x + (size_t)item * t->n_in;
    struct tlr_row row;
    (void)thread;
    read_inputs(t, l->rows[item], x, &row);
    for (uint32_t i = 0; l->normalised && i < t->n_in; i++)
        x[i] = (x[i] - t->mean[i]) * t->scale[i];
    l->targets[item] = (struct tlr_target){ row.weight, row.p_slm, row.p_llm,
                                            row.label };
}

void tlr_train_load(const struct tlr_train_data *data, struct tlr_pool *pool,
                    const uint64_t *rows, uint32_t n, bool normalised,
                    float *x, struct tlr_target *targets)
{
    struct load l = { data, rows, normalised, x, targets };
    tlr_pool_run(pool, load_row, &l, (int)n);
}

void tlr_train_shuffle(uint64_t *order, uint64_t n, uint64_t seed,
                       uint32_t epoch)
{
    uint64_t key = tlr_hash_u64(seed, 0x73687566 + (uint64_t)epoch);
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = tlr_hash_u64(key, i) % i;
        uint64_t t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}
