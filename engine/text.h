/* text.h - text as tokens make it: whole characters, and stop strings that end
 * it.
 *
 * Stop strings are searched in the text and not in the ids, because a string can
 * be cut into tokens in many ways.  What could still become one waits: the
 * longest end of the text that begins a stop string is not final yet.
 */
#ifndef TLR_ENGINE_TEXT_H
#define TLR_ENGINE_TEXT_H

#include "engine/tokenizer.h"

struct tlr_text {
    char *bytes; /* [n] UTF-8, no NUL at the end */
    size_t n, cap;
    size_t n_final; /* of them nothing can be taken back */
    struct tlr_utf8_stream utf8;
};

/* Adds the bytes of one token.  Returns i + 1 when stops[i] (none of them empty;
 * NULL with n_stops 0) is complete: the text then ends before it and all of it is
 * final.  Of several the one that begins first.  Zero the text first. */
int tlr_text_push(struct tlr_text *t, struct tlr_bytes token,
                  const struct tlr_bytes *stops, int n_stops,
                  struct tlr_err *err);

/* No more tokens come: what waited is text after all. */
int tlr_text_end(struct tlr_text *t, struct tlr_err *err);

void tlr_text_clear(struct tlr_text *t);

#endif
