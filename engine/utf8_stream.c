/* utf8_stream.c - token bytes to whole characters.
 *
 * A sequence waits while it can still become a character; as soon as it cannot,
 * each maximal part of it becomes one U+FFFD (Unicode, chapter 3, "U+FFFD
 * substitution of maximal subparts").
 */
#include <string.h>

#include "engine/tokenizer.h"
#include "engine/unicode.h"

/* Could these 1..3 bytes be the beginning of a longer character? */
static bool is_beginning(const uint8_t *p, int n)
{
    static const uint8_t tails[][3] = {
        {0x80, 0x80, 0x80}, {0xbf, 0xbf, 0xbf}, {0x90, 0x80, 0x80}};
    uint8_t whole[4];
    int need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (n >= need) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        memcpy(whole, p, (size_t)n);
        memcpy(whole + n, tails[i], (size_t)(need - n));
        if (tlr_utf8_valid(whole, (size_t)need)) {
            return true;
        }
    }
    return false;
}

static size_t put_replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return 3;
}

void tlr_utf8_stream_push(struct tlr_utf8_stream *s, struct tlr_bytes bytes,
                          bool flush, char *out, size_t *out_len)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        s->pending[s->n_pending++] = bytes.ptr[i];
        size_t len = (size_t)s->n_pending;
        if (tlr_utf8_char_len(s->pending, len) == len) {
            memcpy(out + n, s->pending, len);
            n += len;
            s->n_pending = 0;
        } else if (!is_beginning(s->pending, s->n_pending)) {
            n += put_replacement(out + n);
            /* The last byte broke the sequence, unless it is all of it; it may
             * start the next one. */
            s->n_pending = 0;
            i -= len > 1;
        }
    }
    if (flush && s->n_pending > 0) {
        n += put_replacement(out + n);
        s->n_pending = 0;
    }
    *out_len = n;
}
