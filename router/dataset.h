/* dataset.h - labelled positions on disk, mapped.
 *
 * What tlr label writes and tlr train and tlr calibrate read: one row for each
 * position of a chain of thought, with the small model's hidden state there.
 * README.md draws the bytes.  Rows of a group (one question) are written at
 * once: after a kill the file holds whole groups, and labelling goes on behind
 * the last one.  A file that was closed ends in a mark; a reader refuses one
 * without it.  Splits go by group, never by row.
 */
#ifndef TLR_ROUTER_DATASET_H
#define TLR_ROUTER_DATASET_H

#include <stdint.h>

#include "base/err.h"
#include "router/policy.h"

/* Which of CITER's cases (arXiv 2502.01976 section 3.3) decided the label. */
enum tlr_label_case {
    TLR_CASE_SLM_RIGHT = 1, /* the small model's token is the gold one: 1 */
    TLR_CASE_LLM_RIGHT = 2, /* else the large model's is: 0 */
    TLR_CASE_OUTCOME = 3,   /* decided by finishing the text (label.h) */
    TLR_CASE_OPEN = 4,      /* could be, was not: no label, not trained */
    TLR_CASE_TIE = 5        /* mixed chains: asking changes nothing: 1 */
};

struct tlr_row {
    uint32_t group;   /* question, counted from 0 in the source */
    uint32_t pos;     /* position of the proposed token in the whole sequence */
    int32_t gold, slm, llm; /* ids; llm -1 where it was not asked */
    uint8_t label;    /* 1: keep the small model's token; 0: ask */
    uint8_t what;     /* enum tlr_label_case */
    uint16_t round;   /* of labelling, 0 the first */
    float weight;     /* of the row in the loss, >= 0 */
    float p_slm, p_llm; /* probability of the gold token, in mixed chains of the
                           small model's, under each model; p_llm NaN where it
                           is not known (deferral needs it) */
    struct tlr_signals signals;
    float features[TLR_N_FEATURES];
};

struct tlr_dataset_info {
    uint32_t dim;         /* width of the hidden states */
    uint64_t fingerprint; /* of the small model's file */
    uint64_t source;      /* hash of the labelled file's bytes and of all options
                             that change labels */
    uint64_t n_rows;
    uint32_t n_groups;    /* groups finished: 0 .. n_groups - 1 */
};

/* ---- writing ---- */

struct tlr_dataset_writer;

enum { TLR_GROUP_ROWS_MAX = 1 << 20 };

/* Makes the file, or opens what a killed run left (info must match, else
 * TLR_EMISMATCH naming the difference) and cuts an unfinished group off.
 * *n_groups: where to go on.  One writer at a time (flock). */
int tlr_dataset_append(struct tlr_dataset_writer **out, const char *path,
                       const struct tlr_dataset_info *info,
                       uint32_t *n_groups, struct tlr_err *err);
/* One whole group, in order of groups (row.group is ignored); rows [n], hidden
 * f32 [n, dim] (kept as f16).  NaN states, or some beyond f16's 65504, are
 * TLR_EFORMAT, and so are numbers that the reader would refuse.  n may be 0, at
 * most TLR_GROUP_ROWS_MAX.  After a failure only close is left. */
int tlr_dataset_group(struct tlr_dataset_writer *w, uint32_t group,
                      const struct tlr_row *rows, const float *hidden,
                      uint32_t n, struct tlr_err *err);
/* Marks the end (the next append takes the mark away) and frees w, also on
 * failure; after a failed group no mark is written.  NULL is allowed. */
int tlr_dataset_close(struct tlr_dataset_writer *w, struct tlr_err *err);

/* ---- reading ---- */

struct tlr_dataset;

/* Checks sizes, checksums, the mark at the end and every row's numbers; a file
 * without rows is an error. */
int tlr_dataset_open(struct tlr_dataset **out, const char *path,
                     struct tlr_err *err);
void tlr_dataset_free(struct tlr_dataset *d);
const struct tlr_dataset_info *tlr_dataset_info(const struct tlr_dataset *d);
void tlr_dataset_row(const struct tlr_dataset *d, uint64_t i,
                     struct tlr_row *out);
/* hidden f32 [dim] of row i. */
void tlr_dataset_hidden(const struct tlr_dataset *d, uint64_t i, float *out);
/* Checksum of all groups' checksums: names the contents. */
uint32_t tlr_dataset_digest(const struct tlr_dataset *d);

#endif
