/* text.c - see text.h. */
#include "engine/text.h"

#include <string.h>

#include "base/mem.h"

static int reserve(struct tlr_text *t, size_t need, struct tlr_err *err)
{
    if (need <= t->cap) {
        return 0;
    }
    size_t cap = need + need / 2 + 256;
    char *bytes = tlr_realloc(t->bytes, cap, 1);
    if (!bytes) {
        return tlr_err_nomem(err, "generated text", cap);
    }
    t->bytes = bytes;
    t->cap = cap;
    return 0;
}

static int add(struct tlr_text *t, struct tlr_bytes token, bool flush,
               struct tlr_err *err)
{
    int rc = reserve(t, t->n + 3 * (token.len + 4) + 1, err);
    if (rc) {
        return rc;
    }
    size_t n = 0;
    tlr_utf8_stream_push(&t->utf8, token, flush, t->bytes + t->n, &n);
    t->n += n;
    return 0;
}

/* Which stop string comes first in what is not final, and where; -1: none. */
static int find_stop(const struct tlr_text *t, const struct tlr_bytes *stops,
                     int n_stops, size_t *begin)
{
    size_t found = SIZE_MAX;
    int which = -1;
    for (int i = 0; i < n_stops; i++) {
        const char *at = memmem(t->bytes + t->n_final, t->n - t->n_final,
                                stops[i].ptr, stops[i].len);
        if (at && (size_t)(at - t->bytes) < found) {
            found = (size_t)(at - t->bytes);
            which = i;
        }
    }
    *begin = found;
    return which;
}

/* How many bytes at the end of the text may become a stop string. */
static size_t held_bytes(const struct tlr_text *t,
                         const struct tlr_bytes *stops, int n_stops)
{
    size_t held = 0;
    for (int i = 0; i < n_stops; i++) {
        size_t most = t->n - t->n_final;
        if (most >= stops[i].len) {
            most = stops[i].len - 1;
        }
        for (size_t k = most; k > held; k--) {
            if (memcmp(t->bytes + t->n - k, stops[i].ptr, k) == 0) {
                held = k;
            }
        }
    }
    return held;
}

int tlr_text_push(struct tlr_text *t, struct tlr_bytes token,
                  const struct tlr_bytes *stops, int n_stops,
                  struct tlr_err *err)
{
    int rc = add(t, token, false, err);
    if (rc) {
        return rc;
    }
    size_t at;
    int which = find_stop(t, stops, n_stops, &at);
    if (which >= 0) {
        t->n = t->n_final = at;
        return which + 1;
    }
    t->n_final = t->n - held_bytes(t, stops, n_stops);
    return 0;
}

int tlr_text_end(struct tlr_text *t, struct tlr_err *err)
{
    struct tlr_bytes none = {NULL, 0};
    int rc = add(t, none, true, err);
    t->n_final = t->n;
    return rc;
}

void tlr_text_clear(struct tlr_text *t)
{
    tlr_free(t->bytes);
    *t = (struct tlr_text){.bytes = NULL};
}
