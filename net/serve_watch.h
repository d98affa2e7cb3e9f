/* serve_watch.h - connections that take too long to say what they want.
 *
 * libmicrohttpd's timeout begins anew with every byte; this one does not.  A
 * connection must bring a whole request within some seconds of its beginning or
 * of the end of the request before, or it is shut down.
 */
#ifndef TLR_NET_SERVE_WATCH_H
#define TLR_NET_SERVE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tlr_watch;  /* all connections */
struct tlr_watched; /* one */

/* Starts a thread. */
int tlr_watch_new(struct tlr_watch **out, int receive_s, struct tlr_err *err);
void tlr_watch_free(struct tlr_watch *w); /* NULL is allowed */

/* NULL when memory is out: then the connection is not watched. */
struct tlr_watched *tlr_watch_add(struct tlr_watch *w, int fd);
/* Before the socket is closed; c may be NULL, here and below. */
void tlr_watch_remove(struct tlr_watch *w, struct tlr_watched *c);
/* The request is here, or (false) answered: the next may come. */
void tlr_watch_received(struct tlr_watch *w, struct tlr_watched *c,
                        bool received);
int tlr_watch_count(struct tlr_watch *w);

#endif
