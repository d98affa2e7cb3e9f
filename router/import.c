/* import.c - see import.h. */
#include "router/import.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "router/citer.h"

/* The tensors: member of struct tlr_citer, name, shape in letters (I inputs, K
 * hidden, M middle, 1). */
#define TENSORS(X)                                                             \
    X(w1, "mlp.0.weight", "KI")                                                \
    X(b1, "mlp.0.bias", "K")                                                   \
    X(gamma, "mlp.1.weight", "K")                                              \
    X(beta, "mlp.1.bias", "K")                                                 \
    X(mean, "mlp.1.running_mean", "K")                                         \
    X(var, "mlp.1.running_var", "K")                                           \
    X(w2, "mlp.4.weight", "MK")                                                \
    X(b2, "mlp.4.bias", "M")                                                   \
    X(w3, "linear.weight", "1M")

enum { N_CHECKED = 200, MAX_SIZE = 1 << 20 };
static const char ignored[] = "mlp.1.num_batches_tracked";

struct import {
    const struct tlr_import_tensor *tensors;
    size_t n;
    const char *label;
    size_t n_prefix; /* length of what all names begin with */
    struct tlr_citer c;
};

static const struct tlr_import_tensor *find(const struct import *in,
                                            const char *name)
{
    for (size_t i = 0; i < in->n; i++)
        if (strcmp(in->tensors[i].name + in->n_prefix, name) == 0)
            return &in->tensors[i];
    return NULL;
}

/* The prefix is what stands before the first tensor's name. */
static int take_prefix(struct import *in, struct tlr_err *err)
{
    static const char first[] = "mlp.0.weight";
    for (size_t i = 0; i < in->n; i++) {
        const char *name = in->tensors[i].name;
        size_t len = strlen(name);
        if (len >= sizeof first - 1 &&
            strcmp(name + len - (sizeof first - 1), first) == 0) {
            in->n_prefix = len - (sizeof first - 1);
            break;
        }
    }
    const char *prefix = in->tensors[0].name;
    for (size_t i = 0; i < in->n; i++)
        if (strncmp(in->tensors[i].name, prefix, in->n_prefix) != 0)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: is no part of CITER's network",
                               in->label, in->tensors[i].name);
    return 0;
}

static int check_known(const struct import *in, struct tlr_err *err)
{
#define NAME(member, name, shape) name,
    static const char *const names[] = { TENSORS(NAME) "linear.bias", ignored };
#undef NAME
    for (size_t i = 0; i < in->n; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            known = known ||
                    strcmp(in->tensors[i].name + in->n_prefix, names[k]) == 0;
        if (!known)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: is no part of CITER's network",
                               in->label, in->tensors[i].name);
    }
    return 0;
}

static uint64_t size_of(const struct tlr_citer *c, char letter)
{
    switch (letter) {
    case 'I':
        return c->n_in;
    case 'K':
        return c->n_hidden;
    case 'M':
        return c->n_mid;
    default:
        return 1;
    }
}

static int take(const struct import *in, const char *name, const char *shape,
                const float **out, struct tlr_err *err)
{
    const struct tlr_import_tensor *t = find(in, name);
    uint32_t n_dims = (uint32_t)strlen(shape);
    uint64_t rows = n_dims == 2 ? size_of(&in->c, shape[0]) : 1;
    uint64_t cols = size_of(&in->c, shape[n_dims - 1]);
    if (!t)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s is missing; is it CITER's router?",
                           in->label, name);
    if (t->n_dims != n_dims || t->shape[n_dims - 1] != cols ||
        (n_dims == 2 && t->shape[0] != rows))
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected [%" PRIu64 ", %" PRIu64
                           "], found %u dimensions [%" PRIu64 ", %" PRIu64 "]",
                           in->label, name, rows, cols, t->n_dims,
                           t->n_dims == 2 ? t->shape[0] : 1,
                           t->shape[t->n_dims == 2 ? 1 : 0]);
    for (uint64_t i = 0; i < rows * cols; i++)
        if (!isfinite(t->data[i]))
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor %s: element %" PRIu64 " is not a "
                               "finite number", in->label, name, i);
    *out = t->data;
    return 0;
}

static int take_sizes(struct import *in, uint32_t dim, struct tlr_err *err)
{
    const struct tlr_import_tensor *w1 = find(in, "mlp.0.weight");
    const struct tlr_import_tensor *w2 = find(in, "mlp.4.weight");
    if (!w1 || !w2 || w1->n_dims != 2 || w2->n_dims != 2)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected the matrices mlp.0.weight and "
                           "mlp.4.weight of CITER's router", in->label);
    if (w1->shape[1] != dim)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: reads hidden states of width %" PRIu64
                           ", but the model's have %u", in->label, w1->shape[1],
                           dim);
    if (w1->shape[0] < 1 || w1->shape[0] > MAX_SIZE || w2->shape[0] < 1 ||
        w2->shape[0] > MAX_SIZE)
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: expected 1 to %d units in a layer, found %"
                           PRIu64 " and %" PRIu64, in->label, MAX_SIZE,
                           w1->shape[0], w2->shape[0]);
    in->c.n_in = dim;
    in->c.n_hidden = (uint32_t)w1->shape[0];
    in->c.n_mid = (uint32_t)w2->shape[0];
    return 0;
}

static int take_all(struct import *in, struct tlr_err *err)
{
    const float *b3;
    int rc = 0;
#define TAKE(member, name, shape)                                              \
    rc = rc ? rc : take(in, name, shape, &in->c.member, err);
    TENSORS(TAKE)
#undef TAKE
    rc = rc ? rc : take(in, "linear.bias", "1", &b3, err);
    if (rc)
        return rc;
    in->c.b3 = b3[0];
    for (uint32_t k = 0; k < in->c.n_hidden; k++)
        if (in->c.var[k] < 0)
            return tlr_err_set(err, TLR_EFORMAT,
                               "%s: tensor mlp.1.running_var: element %u is "
                               "negative", in->label, k);
    return 0;
}

int tlr_import_citer(struct tlr_router_weights *w,
                     const struct tlr_import_tensor *tensors, size_t n,
                     const char *label, uint32_t dim, double *worst,
                     struct tlr_err *err)
{
    struct import in = { .tensors = tensors, .n = n, .label = label };
    memset(w, 0, sizeof *w);
    int rc = n > 0 ? take_prefix(&in, err)
                   : tlr_err_set(err, TLR_EFORMAT, "%s: holds no tensor", label);
    rc = rc ? rc : check_known(&in, err);
    rc = rc ? rc : take_sizes(&in, dim, err);
    rc = rc ? rc : take_all(&in, err);
    if (rc)
        return rc;
    w->kind = TLR_POLICY_MLP;
    w->dim = dim;
    rc = tlr_citer_fold(w, &in.c, err);
    if (rc)
        return rc;
    rc = tlr_citer_check(w, &in.c, N_CHECKED, 1, worst, err);
    if (!rc && !(*worst <= 1e-5))
        rc = tlr_err_set(err, TLR_EMISMATCH,
                         "%s: the folded network differs from the one in the "
                         "file by %g; is a running_var near 0?", label, *worst);
    if (rc)
        tlr_router_weights_clear(w);
    return rc;
}
