/* label_setting.h - what the tests of labels share: a tiny real model, questions
 * that lead to all cases, and a large model that is a table.
 */
#ifndef TLR_TESTS_ROUTER_LABEL_SETTING_H
#define TLR_TESTS_ROUTER_LABEL_SETTING_H

#include "router/label.h"
#include "tests/model/models.h"

enum { N_ITEMS = 9, N_JOBS_MAX = 3 };

struct questions {
    struct tlr_items list;
    struct tlr_item items[N_ITEMS];
    char prompts[N_ITEMS][32], chains[N_ITEMS][512];
};

struct setting {
    struct tlr_model *m; /* tests/golden/hf_folders/tiny-llama in q8 */
    struct questions *q;
    struct tlr_label_options o;
    struct tlr_expert experts[N_JOBS_MAX];
    struct tlr_labeller labellers[N_JOBS_MAX];
};

/* csqa, two completions of 12 tokens. */
void setting_begin(struct setting *t);
void setting_end(struct setting *t);

struct tlr_session *open_session(const struct tlr_model *m);

/* The table's token after ids[0..n), next being the one of the text: that one at
 * about half of the positions. */
int32_t table_says(const int32_t *ids, size_t n, int32_t next);

#endif
