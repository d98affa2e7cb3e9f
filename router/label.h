/* label.h - which tokens of a small model would have done: labels for a router.
 *
 * The gold chain of thought of a question is put behind its prompt, and at every
 * position of it (its end of turn is one) both models say what they would write.
 * CITER's cases (arXiv 2502.01976, section 3.3; code at 465492e,
 * get_gt_first_iter.py) make the label: 1, the small model's token may stand; 0,
 * ask the large one.
 *
 *   1  small = gold                                            1
 *   2  else large = gold                                       0
 *   3  both wrong: the small model goes on alone behind the
 *      gold prefix and its own token; its answer is right      1, else 0
 *
 * Completions are the cost: of an item's positions of case 3 only some, chosen by
 * a seeded hash, are completed; they carry the weight of all, the others stay
 * open.  In a later round case 3 alone is labelled again, with the joint loop and
 * the router of the round before in the place of the small model.
 *
 * Without gold chains the large model writes them; then it is right by
 * definition and case 3 does not occur.
 *
 * Mixed chains are what a router will meet: text that both models wrote in turn
 * (label_mixed.c).  There is no gold token in it; what counts is what one question
 * to the large model is worth.  Where the two differ, the text is finished behind
 * either one's token: 0 if only the large one's leads to the right answer, 1 if
 * only the small one's does, and a tie, whose row says keep, if both or neither
 * do.  This is the preference that CITER's routing policy is trained for (section
 * 3.2), measured and not assumed.
 *
 * An item's rows depend on nothing but the item, its number and the options.
 */
#ifndef TLR_ROUTER_LABEL_H
#define TLR_ROUTER_LABEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/tlr.h"
#include "router/dataset.h"
#include "router/expert.h"
#include "router/task.h"

struct tlr_label_options {
    const char *path;        /* of the items, for messages */
    enum tlr_task_kind task; /* csqa or gsm8k */
    bool raw;                /* prompts as they are, no chat template */
    int n_shots;             /* worked examples before each item (task.h) */
    bool llm_chains;         /* the large model writes the chains */
    bool mixed_chains;       /* both do */
    double mix;              /* share of positions where the other one does */
    uint32_t n_completions;  /* of an item, at most */
    uint32_t completion_tok; /* most tokens of one behind a gold chain */
    uint32_t chain_tok;      /* most tokens of a chain that a model writes */
    uint64_t seed;           /* of the choice of completions */
    uint16_t round;          /* 0: the first */
};

struct tlr_label_counts {
    uint64_t n_items, n_rows;
    uint64_t n_case[TLR_CASE_TIE + 1]; /* by enum tlr_label_case */
    uint64_t n_keep, n_ask; /* labels 1 and 0 */
    uint64_t n_completion_tok;
};

/* Rows of one item; zero it first. */
struct tlr_label_rows {
    struct tlr_row *rows;
    float *hidden; /* [n, dim] */
    uint32_t n, cap;
    uint64_t n_completion_tok;
};
void tlr_label_rows_clear(struct tlr_label_rows *rows);

/* CITER's first two cases, and 3 for what is left; *label of those two.  Of ends
 * of text any is as good as any other; generation may be NULL. */
enum tlr_label_case tlr_label_decide(const struct tlr_generation *generation,
                                     int32_t gold, int32_t slm, int32_t llm,
                                     uint8_t *label);

/* ---- one item ---- */

/* What one thread labels with; all of it the caller's. */
struct tlr_labeller {
    const struct tlr_label_options *options;
    const struct tlr_model *slm;
    struct tlr_session *session; /* over slm; labelling moves its timeline */
    struct tlr_expert *expert;
    const struct tlr_policy *policy; /* in later rounds and for mixed chains;
                                        NULL: the small model goes on alone */
    const struct tlr_dataset *previous; /* in later rounds: the one before */
    struct tlr_ids ids;   /* scratch from here on: prompt and chain */
    size_t n_shared, n_held; /* ids that every item begins with; of them those
                                that the session has in one piece */
    size_t n_prompt;
    struct tlr_ids reply; /* a completion */
    int32_t *llm, *want;
    float *p_llm;
    size_t cap;
    char *text;
    size_t text_cap;
};
void tlr_labeller_clear(struct tlr_labeller *l); /* the scratch */

/* Rows of item number `group`, overwriting out.  TLR_ELIMIT when prompt and
 * chain do not fit the session. */
int tlr_label_item(struct tlr_labeller *l, const struct tlr_item *item,
                   uint32_t group, struct tlr_label_rows *out,
                   struct tlr_err *err);

/* Every item has a chain, or the large model writes them. */
int tlr_label_check(const struct tlr_items *items,
                    const struct tlr_label_options *options,
                    struct tlr_err *err);

/* What labels depend on besides the small model: the items, the options, the
 * session's kind of arithmetic, and `who` asks: a hash of the large model and in
 * later rounds of router and threshold. */
uint64_t tlr_label_source(const struct tlr_labeller *l,
                          const struct tlr_items *items, uint64_t who);

/* ---- a file of items, by several threads ---- */

struct tlr_label_run {
    const struct tlr_items *items;
    uint32_t first; /* item to begin with */
    struct tlr_labeller *labellers;
    int n_jobs;
    struct tlr_dataset_writer *writer;
    /* Called by the thread that called, a few times a second; non-zero: finish
     * what is begun, write it, and return TLR_ECANCELLED without a message. */
    int (*progress)(void *ctx, uint32_t done,
                    const struct tlr_label_counts *counts);
    void *ctx;
};

/* Rows are written in the order of the items, whoever made them.  *done: items
 * that the file holds afterwards. */
int tlr_label_run(const struct tlr_label_run *run, uint32_t *done,
                  struct tlr_label_counts *counts, struct tlr_err *err);

#endif
