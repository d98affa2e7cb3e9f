/* tiny.h - a small model with a tokenizer, routers of random weights and a large
 * model that is a hash: for the tests of walk, eval and calibrate. */
#ifndef TLR_TESTS_ROUTER_TINY_H
#define TLR_TESTS_ROUTER_TINY_H

#include "engine/tlr.h"
#include "router/expert.h"
#include "router/router.h"

/* tests/golden/hf_folders/tiny-llama with all matrices of one type. */
struct tlr_model *tiny_model(enum tlr_type type);

/* mlp or mlp+ for the model. */
struct tlr_router *tiny_router(const struct tlr_model *m,
                               enum tlr_policy_kind kind);

/* Answers id hash(prefix) mod n_ids, end of text for one prefix in 64; counts
 * what it is asked. */
struct tiny_expert {
    uint32_t n_ids;
    int32_t end;
    int n_asks;
    int fail_at; /* this ask fails; 0: none */
};
struct tlr_expert tiny_expert(struct tiny_expert *e, bool with_each);

/* Writes n made-up multiple-choice questions; the path. */
const char *tiny_questions(int n);

#endif
