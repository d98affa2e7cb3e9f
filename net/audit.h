/* audit.h - a record of what left the device: one JSON object a line.
 *
 * {"time":"2026-11-21T20:34:54.123Z","host":"127.0.0.1:8080","path":"/generate",
 *  "bytes":1234,"tokens":210,"text":"..."} - bytes are the body's, tokens those of
 * the prefix (0 for what is not the running text), text is the running text or, for
 * other requests, the body; left out where the user said so.  The line is written
 * before the request is sent, and a request whose line cannot be written is not
 * sent.  Replies are not recorded, nor is the key.
 */
#ifndef TLR_NET_AUDIT_H
#define TLR_NET_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tlr_audit;

/* Appends to path, which is made with mode 0600. */
int tlr_audit_open(struct tlr_audit **out, const char *path, const char *host,
                   bool with_text, struct tlr_err *err);
void tlr_audit_close(struct tlr_audit *a); /* NULL is allowed */

struct tlr_audit_entry {
    const char *path;
    size_t n_bytes, n_tok;
    const char *text;
    size_t n_text;
};
/* a NULL writes nothing. Threads may call it together. */
int tlr_audit_add(struct tlr_audit *a, const struct tlr_audit_entry *e,
                  struct tlr_err *err);

#endif
