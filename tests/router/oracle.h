/* oracle.h - an expert on a virtual network: what it says is a function of the
 * prefix alone, when it says it is drawn from a seed, and no clock is read.
 */
#ifndef TLR_TESTS_ROUTER_ORACLE_H
#define TLR_TESTS_ROUTER_ORACLE_H

#include "router/decode.h"
#include "tests/model/models.h"

enum { ORACLE_TICKETS = 2048 };

struct oracle {
    /* in: shares of answers by hash, the rest is a token by hash */
    const struct tlr_model *like; /* the small model, whose guess may be right */
    uint64_t seed;
    double agree, second, fail; /* its best token, its second best */
    double end;             /* share that is the token `end_id` */
    int32_t end_id;
    int fail_code;          /* of failing answers */
    uint64_t schedule;      /* seed of delays */
    int most_ticks;         /* longest delay; a look takes one */
    int carries;            /* tickets at once; more are TLR_ELIMIT */
    double busy;            /* share of submits that find others' tickets there */
    double shorter;         /* share of bursts that are cut, as by text */
    int budget;             /* answers before all fail; below 0: no end */
    double lost_on_submit;  /* of failures, the share that fails at once */
    /* out */
    uint64_t now;
    int n_open, n_most_open, n_submitted, n_cancelled, n_tried;
    int n_most_tok;         /* asked for at once */
    /* inside */
    struct tlr_session *own; /* the small model once more */
    struct {
        uint64_t ready;
        bool is_open;
        int rc;
        int32_t ids[TLR_BURST_MAX];
        int n_tok;
    } tickets[ORACLE_TICKETS];
};

/* Set what is "in" first; the expert is oracle_close's. */
struct tlr_expert oracle_open(struct oracle *o);
void oracle_close(struct oracle *o);

#endif
