/* guess.c - see guess.h. */
#include "router/guess.h"

#include <string.h>

#include "base/mem.h"

enum { CAP = 1 << 15, MATCH_MOST = 8, MATCH_LEAST = 2, STOP = -1 };

/* Looks for the longest match of the end of ids[0..n) that ends in text[0..len)
 * before its last id; the newest of equals.  *best grows. */
static size_t find(const int32_t *text, size_t len, const int32_t *ids,
                   size_t n, size_t *best)
{
    size_t found = 0;
    for (size_t end = len; end-- > 1;) {
        size_t m = 0;
        while (m < end && m < n && m < MATCH_MOST &&
               text[end - 1 - m] == ids[n - 1 - m])
            m++;
        if (m > *best && text[end] != STOP) {
            *best = m;
            found = end;
            if (m == MATCH_MOST)
                break;
        }
    }
    return found;
}

int tlr_guess_next(const struct tlr_guess *g, const int32_t *ids, size_t n,
                   int most, int32_t *out)
{
    size_t best = MATCH_LEAST - 1;
    const int32_t *text = ids;
    size_t len = n, at = find(ids, n, ids, n, &best);
    size_t learnt = g->n ? find(g->ids, g->n, ids, n, &best) : 0;
    if (learnt) {
        text = g->ids;
        len = g->n;
        at = learnt;
    }
    /* A short match goes on rightly for a few ids only, and rows cost. */
    int worth = 2 * (int)best - 1, k = 0;
    most = most < worth ? most : worth;
    while (at > 0 && k < most && at < len && text[at] != STOP)
        out[k++] = text[at++];
    return k;
}

int tlr_guess_learn(struct tlr_guess *g, const int32_t *ids, size_t n,
                    struct tlr_err *err)
{
    if (!g->ids) {
        g->ids = tlr_calloc(CAP, sizeof *g->ids);
        if (!g->ids)
            return tlr_err_nomem(err, "guesses", CAP * sizeof *g->ids);
    }
    if (n + 1 > CAP / 2)
        n = CAP / 2 - 1;
    if (g->n + n + 1 > CAP) {
        memmove(g->ids, g->ids + g->n - CAP / 2, CAP / 2 * sizeof *g->ids);
        g->n = CAP / 2;
    }
    memcpy(g->ids + g->n, ids, n * sizeof *ids);
    g->n += n;
    g->ids[g->n++] = STOP;
    return 0;
}

void tlr_guess_clear(struct tlr_guess *g)
{
    tlr_free(g->ids);
    memset(g, 0, sizeof *g);
}
