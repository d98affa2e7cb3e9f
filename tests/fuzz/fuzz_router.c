/* fuzz_router.c - any bytes as a router file.
 *
 * config=fuzz compiles the checksum's comparison out.  What opens is evaluated,
 * its thresholds are looked up, and packed again it is the same bytes.  Seeds:
 * tests/fuzz/corpus/router, kept current by tests/router.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "router/router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile float sink;

static void must(int holds)
{
    if (!holds)
        abort();
}

static void evaluate(const struct tlr_router *r)
{
    const struct tlr_router_weights *w = tlr_router_shape(r);
    float *hidden = tlr_calloc(w->dim, sizeof *hidden);
    float *scratch = tlr_calloc(tlr_router_scratch(r), sizeof *scratch);
    float features[TLR_N_FEATURES];
    must(hidden && scratch);
    for (uint32_t i = 0; i < w->dim; i++)
        hidden[i] = (float)(i % 7) - 3;
    for (uint32_t i = 0; i < TLR_N_FEATURES; i++)
        features[i] = (float)i;
    struct tlr_policy p = {.kind = w->kind, .router = r};
    float trust;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_policy_trust_of(&p, hidden, features, NULL, 1, scratch, &trust,
                                 &err);
    must(rc ? err.text[0] != '\0' : trust >= 0 && trust <= 1);
    sink = trust;
    tlr_free(hidden);
    tlr_free(scratch);
}

static void use(struct tlr_router *r)
{
    struct tlr_err err = TLR_ERR_INIT;
    const struct tlr_calibration *c = tlr_router_calibration(r);
    for (int k = 0; k < TLR_N_POLICIES; k++) {
        float tau;
        if (!tlr_calibration_tau(c, (enum tlr_policy_kind)k, 0.07, &tau, NULL))
            must(isfinite(tau));
    }
    evaluate(r);
    uint8_t *bytes = NULL;
    size_t len = 0;
    must(tlr_router_repack(&bytes, &len, r, &err) == 0);
    struct tlr_router *again = NULL;
    must(tlr_router_open(&again, (struct tlr_bytes){bytes, len}, "again",
                         &err) == 0);
    tlr_router_free(again);
    tlr_free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_router *r;
    int rc = tlr_router_open(&r, (struct tlr_bytes){data, size}, "fuzz", &err);
    if (rc == 0) {
        use(r);
        tlr_router_free(r);
    } else {
        must(r == NULL && err.code == rc && err.text[0] != '\0');
    }
    return 0;
}
