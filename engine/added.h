/* added.h - tokens that are found in the text before BPE sees it.
 *
 * Works as Hugging Face's AddedVocabulary: the leftmost match counts, the
 * longest of those that start there; white space around a match goes with it
 * where the token says so.
 */
#ifndef TLR_ENGINE_ADDED_H
#define TLR_ENGINE_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/vocab.h"

struct tlr_added {
    const struct tlr_vocab *vocab;
    uint32_t *ids; /* sorted by their bytes */
    uint32_t n;
    uint32_t first[257]; /* ids[first[b] .. first[b + 1]) start with byte b */
};

/* normalized: take the tokens that are matched in normalised text, else the
 * others. */
int tlr_added_build(struct tlr_added *a, const struct tlr_vocab *v,
                    bool normalized, const char *where, struct tlr_err *err);
void tlr_added_clear(struct tlr_added *a);

struct tlr_added_match {
    size_t start, end; /* bytes of the text that it stands for */
    int32_t id;
};

/* Where a search goes on; start with zeros. */
struct tlr_added_cursor {
    size_t search; /* next byte to match at */
    size_t taken;  /* text before it belongs to matches already given */
};

/* The next match in text, well-formed UTF-8; false when there is none.  Special
 * tokens are passed over as plain text unless with_special. */
bool tlr_added_next(const struct tlr_added *a, const uint8_t *text, size_t len,
                    bool with_special, struct tlr_added_cursor *cursor,
                    struct tlr_added_match *out);

#endif
