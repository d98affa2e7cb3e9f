/* buf.h - bytes that grow: a request's body, a reply's.
 *
 * Running out of memory sets `failed` and drops what comes later, so that a body
 * is built without a check at every piece and looked at once in the end.
 */
#ifndef TLR_NET_BUF_H
#define TLR_NET_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tlr_buf {
    char *ptr; /* NUL-terminated once something was put */
    size_t n, cap;
    bool failed;
};

void tlr_buf_reset(struct tlr_buf *b); /* empty, memory stays */
void tlr_buf_clear(struct tlr_buf *b); /* frees; a zeroed one is allowed */

void tlr_buf_put(struct tlr_buf *b, const void *bytes, size_t n);
void tlr_buf_text(struct tlr_buf *b, const char *text);
void tlr_buf_int(struct tlr_buf *b, long long v);
/* A JSON string with its quotes.  What is not UTF-8 becomes U+FFFD. */
void tlr_buf_json(struct tlr_buf *b, const char *text, size_t n);
/* A JSON list of numbers: "[1,2,3]". */
void tlr_buf_ids(struct tlr_buf *b, const int32_t *ids, size_t n);
/* n bytes as one gzip member (RFC 1952), fast rather than small.  Puts nothing where
 * that would be longer than the bytes, or fails. */
void tlr_buf_gzip(struct tlr_buf *b, const void *bytes, size_t n);

#endif
