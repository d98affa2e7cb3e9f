/* rows.c - see rows.h. */
#include "tests/router/rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The rows of the pairs in enum rows_flaw. */
static void deviate(struct tlr_row *row, uint32_t r, enum rows_flaw flaw)
{
    bool keep = row->label, tie = keep && r % 2;
    if (tie && flaw == ROWS_TIES && row->what != TLR_CASE_OPEN)
        row->what = TLR_CASE_TIE;
    if (tie && flaw == ROWS_TIES_TOLD)
        row->weight *= 0.25f;
    if (flaw == ROWS_UNLIKELY || flaw == ROWS_UNLIKELY_TOLD) {
        row->p_llm = r % 7 == 6 ? NAN : keep ? 0.0101f : 0.0099f;
        row->weight = r % 7 == 6 ? 0 : 1;
    }
    if (flaw == ROWS_UNLIKELY) {
        row->label = r % 3 == 0;
        row->weight = 3;
        row->what = TLR_CASE_TIE;
    }
}

void rows_make(uint32_t g, enum rows_flaw flaw, struct tlr_row *rows,
               float *hidden)
{
    struct tlr_rng rng = { 77 + g, 0 };
    memset(rows, 0, ROWS_IN_GROUP * sizeof *rows);
    for (uint32_t r = 0; r < ROWS_IN_GROUP; r++) {
        float *h = hidden + r * ROWS_DIM;
        for (int i = 0; i < ROWS_DIM; i++)
            h[i] = tlr_rng_normal(&rng) * (float)(1 + i % 3);
        double s = (double)(h[0] - h[3] + h[1] * h[6]) + 0.8;
        bool keep = s + 0.5 * (double)tlr_rng_normal(&rng) > 0;
        struct tlr_row *row = &rows[r];
        row->group = g;
        row->pos = 100 + r;
        row->gold = 5;
        row->slm = keep ? 5 : 6;
        row->llm = r % 2 ? 5 : -1;
        row->label = keep || flaw == ROWS_ALL_KEEP;
        row->what = flaw == ROWS_ALL_OPEN || r % 7 == 6 ? TLR_CASE_OPEN
                    : row->label                        ? TLR_CASE_SLM_RIGHT
                                                        : TLR_CASE_LLM_RIGHT;
        row->weight = 1 + 0.5f * (float)(r % 2);
        row->p_slm = (float)(1 / (1 + exp(-s)));
        row->p_llm = flaw == ROWS_NO_P_LLM || r % 5 == 4 ? NAN : 0.6f;
        deviate(row, r, flaw);
        float doubt = tlr_rng_normal(&rng);
        row->signals = (struct tlr_signals){
            .entropy = fabsf(doubt - (float)keep), .max_prob = 0.3f + 0.4f * (float)keep,
            .margin = 0.1f * fabsf(doubt), .max_logit = 10 + doubt, .best = row->slm };
        for (int i = 0; i < TLR_N_FEATURES; i++)
            row->features[i] = tlr_rng_normal(&rng) * 20;
        row->features[0] += 20 * (float)keep;
    }
}

const char *rows_write(const char *name, enum rows_flaw flaw)
{
    static char path[600];
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_info info = { .dim = ROWS_DIM, .fingerprint = 0x1234,
                                     .source = 0x5678 };
    struct tlr_dataset_writer *w;
    uint32_t g;
    snprintf(path, sizeof path, "%s/%s", tlr_test_tmpdir(), name);
    remove(path);
    ck_assert_msg(!tlr_dataset_append(&w, path, &info, &g, &err), "%s", err.text);
    uint32_t n = flaw == ROWS_ONE_GROUP ? 1 : ROWS_GROUPS;
    for (; g < n; g++) {
        struct tlr_row rows[ROWS_IN_GROUP];
        float hidden[ROWS_IN_GROUP * ROWS_DIM];
        rows_make(g, flaw, rows, hidden);
        ck_assert_msg(!tlr_dataset_group(w, g, rows, hidden, ROWS_IN_GROUP, &err),
                      "%s", err.text);
    }
    ck_assert_msg(!tlr_dataset_close(w, &err), "%s", err.text);
    return path;
}
