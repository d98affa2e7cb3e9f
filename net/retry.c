/* retry.c - see retry.h. */
#include "net/retry.h"

#include <inttypes.h>
#include <math.h>

enum { FIRST_WAIT_MS = 100, MOST_WAIT_MS = 5000 };
static const int64_t MS = 1000000;

bool tlr_retry_may_help(int code, long status)
{
    if (code)
        return code == TLR_EIO || code == TLR_EFORMAT;
    if (status >= 500)
        return status != 501 && status != 505;
    return status == 408 || status == 425 || status == 429;
}

int64_t tlr_retry_wait_ns(int n_made, double retry_after_s, uint64_t random)
{
    int64_t most = FIRST_WAIT_MS;
    for (int i = 1; i < n_made && most < MOST_WAIT_MS; i++)
        most *= 2;
    most = most < MOST_WAIT_MS ? most : MOST_WAIT_MS;
    int64_t wait = (int64_t)(random % (uint64_t)(most * MS));
    if (!isnan(retry_after_s)) {
        double s = retry_after_s < 86400 ? retry_after_s : 86400;
        int64_t said = (int64_t)(s * 1e9);
        wait = wait > said ? wait : said;
    }
    return wait;
}

bool tlr_breaker_allows(struct tlr_breaker *b, uint64_t now_ns, bool *is_trial)
{
    *is_trial = false;
    if (b->until_ns == 0)
        return true;
    if (now_ns < b->until_ns || b->is_trying)
        return false;
    b->is_trying = *is_trial = true;
    return true;
}

void tlr_breaker_note(struct tlr_breaker *b, bool is_good, double retry_after_s,
                      uint64_t now_ns)
{
    bool was_trial = b->is_trying;
    b->is_trying = false;
    if (is_good) {
        b->n_failed = b->n_opened = 0;
        b->until_ns = 0;
        return;
    }
    b->n_failed++;
    if (!was_trial && b->n_failed < TLR_BREAKER_FAILS && isnan(retry_after_s))
        return;
    int64_t rest = TLR_BREAKER_FIRST_MS;
    for (int i = 0; i < b->n_opened && rest < TLR_BREAKER_MOST_MS; i++)
        rest *= 2;
    rest = (rest < TLR_BREAKER_MOST_MS ? rest : TLR_BREAKER_MOST_MS) * MS;
    if (retry_after_s * 1e9 > (double)rest)
        rest = retry_after_s * 1e3 < TLR_BREAKER_MOST_MS
                   ? (int64_t)(retry_after_s * 1e9)
                   : TLR_BREAKER_MOST_MS * MS;
    b->n_opened++;
    b->until_ns = now_ns + (uint64_t)rest;
}

void tlr_breaker_forget(struct tlr_breaker *b)
{
    b->is_trying = false;
}

double tlr_budget_cost(const struct tlr_budget *b)
{
    return ((double)b->tok_in * b->price_in +
            (double)b->tok_out * b->price_out) / 1e6;
}

uint64_t tlr_budget_wait_left(const struct tlr_budget *b)
{
    if (!b->max_wait_ns)
        return UINT64_MAX;
    return b->wait_ns < b->max_wait_ns ? b->max_wait_ns - b->wait_ns : 0;
}

int tlr_budget_waited(const struct tlr_budget *b, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_ELIMIT, "the budget of %g s of waiting is used "
                       "up", (double)b->max_wait_ns * 1e-9);
}

int tlr_budget_take(struct tlr_budget *b, uint64_t n_in, uint64_t n_out,
                    struct tlr_err *err)
{
    struct tlr_budget after = *b;
    after.calls++;
    after.tok_in += n_in;
    after.tok_out += n_out;
    if (b->max_calls && after.calls > b->max_calls)
        return tlr_err_set(err, TLR_ELIMIT, "the budget of %" PRIu64
                           " requests is used up", b->max_calls);
    if (b->max_tok && after.tok_in + after.tok_out > b->max_tok)
        return tlr_err_set(err, TLR_ELIMIT, "the budget of %" PRIu64
                           " tokens is used up", b->max_tok);
    if (tlr_budget_wait_left(b) == 0)
        return tlr_budget_waited(b, err);
    if (b->max_cost > 0 && tlr_budget_cost(&after) > b->max_cost)
        return tlr_err_set(err, TLR_ELIMIT, "the budget of %g is used up",
                           b->max_cost);
    *b = after;
    return 0;
}
