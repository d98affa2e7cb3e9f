/* prove_quantise.c - quantise: the same bits as ref, numbers and rest.
 *
 * Beside the usual inputs: values on the border between two numbers (the scale
 * is 1 there, so halves are exact), blocks around the size below which a block
 * is zero, and a token alone against the same token in a group.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"

enum { IN_TIES = N_INPUTS, IN_THRESHOLD, N_ALL_INPUTS };

static void fill_x(struct tlr_rng *rng, float *x, size_t n, int kind)
{
    if (kind < N_INPUTS) {
        fill(rng, x, n, (enum input)kind, 1e30);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float half = (float)((int)(tlr_rng_u64(rng) % 509) - 254) / 2;
        if (kind == IN_TIES)
            x[i] = half;
        else
            x[i] = half / 127 * 0x1p-100f;
    }
    for (size_t i = 0; i + 32 <= n; i += 32) {
        if (kind == IN_TIES)
            x[i + tlr_rng_u64(rng) % 32] = i % 64 ? -127 : 127;
        else
            x[i] = (i % 64 ? 1 : -1) * (i % 96 ? 0x1p-100f
                                               : 0x1.fffffep-101f);
    }
}

/* Token t of a group in a call of its own. */
static bool same_alone(struct proof *p, const float *x, int t, int n_tok,
                       int n_cols, const void *act, const float *rest)
{
    size_t cols = (size_t)n_cols, bytes = tlr_act_bytes(1, cols);
    struct output one = output_new(1, bytes, bytes, 1);
    struct output one_rest = output_new(4, cols, cols, 1);
    ((tlr_quantise_fn *)p->fn)(one.first, (float *)(void *)one_rest.first, x,
                               cols, 1, n_cols);
    bool ok = memcmp(one_rest.first, rest, cols * sizeof *rest) == 0;
    for (int b = 0; ok && b < n_cols / 32; b++) {
        struct act_block in_group, alone;
        act_get(act, n_tok, n_cols, t, b, &in_group);
        act_get(one.first, 1, n_cols, 0, b, &alone);
        ok = memcmp(&in_group, &alone, sizeof alone) == 0;
    }
    output_free(&one_rest);
    output_free(&one);
    return ok || fails(p, "token %d alone has other bits", t);
}

static bool quantise_case(struct proof *p, int n_tok, int n_cols, int kind)
{
    size_t tok = (size_t)n_tok, cols = (size_t)n_cols;
    size_t stride = cols + (tok % 2 ? 0 : 7), n = (tok - 1) * stride + cols;
    size_t act_bytes = tlr_act_bytes(tok, cols), n_rest = tok * cols;
    struct guarded x = guard(n * sizeof(float));
    fill_x(&p->rng, x.ptr, n, kind);
    struct output want = output_new(1, act_bytes, act_bytes, 1);
    struct output act = output_new(1, act_bytes, act_bytes, 1);
    struct output no_rest = output_new(1, act_bytes, act_bytes, 1);
    struct output want_rest = output_new(4, n_rest, n_rest, 1);
    struct output rest = output_new(4, n_rest, n_rest, 1);
    tlr_quantise_fn *fn = (tlr_quantise_fn *)p->fn;
    ((tlr_quantise_fn *)p->ref)(want.first, (float *)(void *)want_rest.first,
                                x.ptr, stride, n_tok, n_cols);
    fn(act.first, (float *)(void *)rest.first, x.ptr, stride, n_tok, n_cols);
    fn(no_rest.first, NULL, x.ptr, stride, n_tok, n_cols);
    p->n_cases++;
    bool ok = true;
    if (!output_intact(&act) || !output_intact(&no_rest))
        ok = fails(p, "wrote outside act");
    else if (!output_intact(&rest))
        ok = fails(p, "wrote outside rest");
    else if (memcmp(act.first, want.first, act_bytes) != 0)
        ok = fails(p, "act has not ref's bits");
    else if (memcmp(no_rest.first, want.first, act_bytes) != 0)
        ok = fails(p, "act has other bits without rest");
    else if (memcmp(rest.first, want_rest.first, n_rest * 4) != 0)
        ok = fails(p, "rest has not ref's bits");
    for (int t = 0; ok && n_tok > 1 && t < n_tok; t++)
        ok = same_alone(p, (const float *)x.ptr + (size_t)t * stride, t, n_tok,
                        n_cols, act.first,
                        (const float *)(void *)rest.first + (size_t)t * cols);
    if (!ok) {
        char why[sizeof p->what];
        memcpy(why, p->what, sizeof why);
        fails(p, "n_tok %d n_cols %d input %d: %.400s", n_tok, n_cols, kind,
              why);
    }
    output_free(&rest);
    output_free(&want_rest);
    output_free(&no_rest);
    output_free(&act);
    output_free(&want);
    unguard(&x);
    return ok;
}

bool prove_quantise(struct proof *p)
{
    static const int cols[] = {32, 64, 96, 128, 576, 896, 1536, 4864};
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) {
        for (int n_tok = 1; n_tok <= TLR_ACT_GROUP; n_tok++) {
            for (int kind = 0; kind < N_ALL_INPUTS; kind++) {
                if (!quantise_case(p, n_tok, cols[i], kind))
                    return false;
            }
        }
    }
    return true;
}
