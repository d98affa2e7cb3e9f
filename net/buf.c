/* buf.c - see buf.h.  Numbers are written by hand: a prefix of 1,000 ids is built
 * for every escalation, and the wait for it is not hidden behind anything. */
#include "net/buf.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "base/span.h"

void tlr_buf_reset(struct tlr_buf *b)
{
    b->n = 0;
    b->failed = false;
}

void tlr_buf_clear(struct tlr_buf *b)
{
    tlr_free(b->ptr);
    memset(b, 0, sizeof *b);
}

static bool reserve(struct tlr_buf *b, size_t n)
{
    if (b->failed || n > SIZE_MAX / 4 - b->n) {
        b->failed = true;
        return false;
    }
    if (b->n + n < b->cap)
        return true;
    size_t cap = (b->n + n) * 3 / 2 + 256;
    char *grown = tlr_realloc(b->ptr, cap, 1);
    if (!grown) {
        b->failed = true;
        return false;
    }
    b->ptr = grown;
    b->cap = cap;
    return true;
}

void tlr_buf_put(struct tlr_buf *b, const void *bytes, size_t n)
{
    if (!reserve(b, n))
        return;
    if (n > 0)
        memcpy(b->ptr + b->n, bytes, n);
    b->n += n;
    b->ptr[b->n] = '\0';
}

void tlr_buf_text(struct tlr_buf *b, const char *text)
{
    tlr_buf_put(b, text, strlen(text));
}

/* Decimal digits of v, backwards from end; their beginning. */
static char *digits(char *end, unsigned long long v)
{
    do
        *--end = (char)('0' + v % 10);
    while (v /= 10);
    return end;
}

void tlr_buf_int(struct tlr_buf *b, long long v)
{
    char text[24], *end = text + sizeof text;
    unsigned long long u = v < 0 ? 0 - (unsigned long long)v
                                 : (unsigned long long)v;
    char *at = digits(end, u);
    if (v < 0)
        *--at = '-';
    tlr_buf_put(b, at, (size_t)(end - at));
}

void tlr_buf_ids(struct tlr_buf *b, const int32_t *ids, size_t n)
{
    enum { WIDEST = 12 };
    if (n > SIZE_MAX / WIDEST - 2 || !reserve(b, n * WIDEST + 2)) {
        b->failed = true;
        return;
    }
    char *at = b->ptr + b->n;
    *at++ = '[';
    for (size_t i = 0; i < n; i++) {
        char text[WIDEST], *end = text + sizeof text;
        char *first = digits(end, ids[i] < 0 ? 0 : (unsigned)ids[i]);
        if (i > 0)
            *at++ = ',';
        memcpy(at, first, (size_t)(end - first));
        at += end - first;
    }
    *at++ = ']';
    *at = '\0';
    b->n = (size_t)(at - b->ptr);
}

/* Length of the UTF-8 sequence at s, 0 if there is none. */
static size_t sequence(const char *s, size_t left)
{
    uint8_t c = (uint8_t)s[0];
    size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return n <= left && tlr_utf8_valid(s, n) ? n : 0;
}

void tlr_buf_json(struct tlr_buf *b, const char *text, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    tlr_buf_put(b, "\"", 1);
    for (size_t i = 0; i < n && !b->failed;) {
        uint8_t c = (uint8_t)text[i];
        size_t len = sequence(text + i, n - i);
        if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            tlr_buf_put(b, escaped, 2);
        } else if (c < 0x20) {
            char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            tlr_buf_put(b, escaped, 6);
        } else if (len == 0) {
            tlr_buf_put(b, "\xEF\xBF\xBD", 3);
        } else {
            tlr_buf_put(b, text + i, len);
        }
        i += len > 0 ? len : 1;
    }
    tlr_buf_put(b, "\"", 1);
}

void tlr_buf_gzip(struct tlr_buf *b, const void *bytes, size_t n)
{
    enum { GZIP_WINDOW = 15 + 16, LEVEL = 1, MEMORY = 8 };
    z_stream z;
    memset(&z, 0, sizeof z);
    if (n > UINT_MAX || deflateInit2(&z, LEVEL, Z_DEFLATED, GZIP_WINDOW, MEMORY,
                                     Z_DEFAULT_STRATEGY) != Z_OK)
        return;
    unsigned char *out = tlr_calloc(n + 1, 1);
    z.next_in = (unsigned char *)(uintptr_t)bytes; /* zlib only reads there */
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)n;
    if (out && deflate(&z, Z_FINISH) == Z_STREAM_END)
        tlr_buf_put(b, out, z.total_out);
    deflateEnd(&z);
    tlr_free(out);
}
