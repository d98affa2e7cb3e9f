/* test_full.c - the whole Qwen2.5-0.5B shape with seeded weights against
 * Hugging Face: by prefill up to each position but the last tokens, which are
 * decoded.  Needs 2 GB in the temporary folder; TLR_QUICK=1 (sanitizer runs)
 * leaves it out and says so. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/model/golden.h"
#include "tests/model/models.h"

/* One golden position: all but the last two tokens by prefill, then decode. */
static double check_position(struct tlr_session *s, const int32_t *ids,
                             const struct golden_sample *g, double tolerance)
{
    uint32_t tail = g->n > 2 ? 2 : g->n;
    uint32_t first = g->n - tail;
    uint32_t pos = tlr_pos(s);
    ck_assert_uint_le(pos, first);
    if (first > pos) {
        MUST(tlr_prefill(s, ids + pos, first - pos, 0, &must_err));
    }
    for (uint32_t t = first; t < g->n; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
    }
    return golden_compare(g, tlr_logits(s), tlr_hidden(s), tolerance, "decode");
}

static void check_full(enum tlr_type type, double tolerance)
{
    static int32_t ids[GOLDEN_TOK];
    struct golden_sample g[GOLDEN_POSITIONS];
    golden_read("qwen2.5-0.5b", g);
    struct tlr_model *m = random_model("qwen2.5-0.5b", type);
    golden_ids(m, ids, GOLDEN_TOK);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = GOLDEN_TOK});
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    float *decoded = malloc(n_vocab * sizeof *decoded);
    for (int i = 0; i < GOLDEN_POSITIONS; i++) {
        double e = check_position(s, ids, &g[i], tolerance);
        printf("full: position %u, error %.2g of max |logit|, allowed %.2g\n",
               (unsigned)g[i].n, e, tolerance);
        if (g[i].n == 512) { /* the same 512 by prefill alone */
            memcpy(decoded, tlr_logits(s), n_vocab * sizeof *decoded);
            MUST(tlr_rewind(s, 0, &must_err));
            MUST(tlr_prefill(s, ids, 512, TLR_STEP_LOGITS, &must_err));
            golden_compare(&g[i], tlr_logits(s), tlr_hidden(s), tolerance,
                           "prefill");
            double d = relative_error(tlr_logits(s), decoded, n_vocab);
            ck_assert_msg(d <= 2 * tolerance, "prefill, not decode: %g", d);
        }
    }
    free(decoded);
    tlr_session_free(s);
    tlr_model_close(m);
}

START_TEST(full_shape_f32)
{
    check_full(TLR_F32, 1e-4);
}
END_TEST

START_TEST(full_shape_bf16)
{
    check_full(TLR_BF16, 1e-2);
}
END_TEST

Suite *suite_full(void);
Suite *suite_full(void)
{
    Suite *s = suite_create("full");
    if (getenv("TLR_QUICK")) {
        printf("suite full: not selected (TLR_QUICK)\n");
        return s;
    }
    TCase *tc = tcase_create("full");
    tcase_set_timeout(tc, 1800);
    tcase_add_test(tc, full_shape_f32);
    tcase_add_test(tc, full_shape_bf16);
    suite_add_tcase(s, tc);
    return s;
}
