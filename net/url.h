/* url.h - which addresses are asked at all.
 *
 * https anywhere; http to loopback, elsewhere only where it was allowed.  Refused:
 * another scheme, a user or password, a query, a fragment, control characters.
 */
#ifndef TLR_NET_URL_H
#define TLR_NET_URL_H

#include <stdbool.h>

#include "base/err.h"

enum { TLR_URL_BYTES = 512 };

struct tlr_url {
    char base[TLR_URL_BYTES]; /* scheme://host[:port][/path], no slash behind, no
                                 "/v1", which the formats add */
    char host[TLR_URL_BYTES]; /* host[:port], for people and the audit */
    bool is_loopback, is_https;
};

/* TLR_EUSAGE with what is wrong. */
int tlr_url_check(struct tlr_url *out, const char *text, bool plain_http,
                  struct tlr_err *err);

#endif
