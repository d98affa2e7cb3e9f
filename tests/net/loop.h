/* loop.h - the joint loop on a tiny model with a server behind it, and the text
 * that must come out. */
#ifndef TLR_TESTS_NET_LOOP_H
#define TLR_TESTS_NET_LOOP_H

#include "engine/tlr.h"
#include "net/net.h"
#include "router/decode.h"
#include "tests/net/server.h"

enum { LOOP_TOK = 60, LOOP_PROMPT = 9 };

struct loop {
    struct tlr_model *m;
    struct server_options o; /* with the model's seam */
    int32_t prompt[LOOP_PROMPT];
    int burst; /* of tlr_joint_options */
};

struct loop loop_open(enum tlr_net_api_kind kind);
void loop_close(struct loop *l);

struct loop_result {
    int32_t ids[LOOP_TOK];
    char by[LOOP_TOK + 1]; /* who wrote it: L, s, or F where an ask failed */
    struct tlr_joint_totals totals;
    char failure[512];
};
/* Half of the tokens are asked for.  calls: of tlr_speculation, 0 is serial. */
struct loop_result loop_run(const struct loop *l, struct tlr_expert *e,
                            double calls);
void loop_same(const struct loop_result *got, const struct loop_result *want);

/* A net on the server with short times, and an expert on it. */
struct tlr_net_options loop_options(const struct server *s);
struct tlr_net *loop_connect(const struct loop *l,
                             const struct tlr_net_options *o,
                             struct tlr_expert *e);

#endif
