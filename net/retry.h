/* retry.h - when to ask again, when to leave a server alone, and when to stop.
 *
 * Plain arithmetic on a clock that the caller gives: no socket, no sleep.
 * Three rules.  A failed attempt is repeated after a random wait that doubles
 * (full jitter: Brooker, "Exponential Backoff And Jitter", 2015) and is never
 * shorter than the server's Retry-After.  Failed asks in a row open a breaker
 * (Nygard, "Release It!", 2007): for a while no ask leaves, then one may try.
 * Budgets are taken from before anything is sent, by what tlr counts itself.
 */
#ifndef TLR_NET_RETRY_H
#define TLR_NET_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* ---- attempts ---- */

/* Whether another attempt may help: code is that of the transfer (0: there was a
 * reply), status HTTP's.  What is the request's own fault is not repeated. */
bool tlr_retry_may_help(int code, long status);

/* Nanoseconds before attempt number n_made + 1 (n_made >= 1); retry_after_s may be
 * NAN. */
int64_t tlr_retry_wait_ns(int n_made, double retry_after_s, uint64_t random);

/* ---- breaker ---- */

enum {
    TLR_BREAKER_FAILS = 3,        /* in a row open it */
    TLR_BREAKER_FIRST_MS = 1000,  /* first rest; doubles */
    TLR_BREAKER_MOST_MS = 30000
};

struct tlr_breaker { /* zeroed: closed */
    int n_failed;        /* in a row */
    int n_opened;        /* in a row */
    uint64_t until_ns;   /* nothing leaves before; 0: closed */
    bool is_trying;      /* half open: one ask is on its way */
};

/* Whether an ask may leave now; *is_trial: it is the one that tries, and gets one
 * attempt. */
bool tlr_breaker_allows(struct tlr_breaker *b, uint64_t now_ns, bool *is_trial);
/* How the ask ended.  retry_after_s (NAN: none) keeps it open at least so long, at
 * most TLR_BREAKER_MOST_MS. */
void tlr_breaker_note(struct tlr_breaker *b, bool is_good, double retry_after_s,
                      uint64_t now_ns);
/* The ask that tries was given up before it ended. */
void tlr_breaker_forget(struct tlr_breaker *b);

/* ---- budgets ---- */

struct tlr_budget {
    uint64_t max_calls, max_tok, max_wait_ns; /* 0: no limit */
    double max_cost, price_in, price_out;     /* cost 0: no limit; prices of a
                                                 million tokens */
    uint64_t calls, tok_in, tok_out, wait_ns; /* used */
};

/* Takes one request of n_in prompt tokens and up to n_out made ones: TLR_ELIMIT
 * names the budget that is used up, and nothing is taken. */
int tlr_budget_take(struct tlr_budget *b, uint64_t n_in, uint64_t n_out,
                    struct tlr_err *err);
/* Nanoseconds that may still be waited for replies; UINT64_MAX: no limit. */
uint64_t tlr_budget_wait_left(const struct tlr_budget *b);
/* TLR_ELIMIT: that is used up. */
int tlr_budget_waited(const struct tlr_budget *b, struct tlr_err *err);
double tlr_budget_cost(const struct tlr_budget *b);

#endif
