/* provenance.h - where a model came from: {"kind":..., "sources":[{"name",
 * "bytes","sha256"}]}.  Names lose their folders: a model file does not tell
 * how its maker's disk is laid out, and the same source gives the same bytes.
 */
#ifndef TLR_CONVERT_PROVENANCE_H
#define TLR_CONVERT_PROVENANCE_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

/* Appends one source file, of which data [len bytes] is the mapped content. */
int tlr_provenance_add(json_t *sources, const char *path, const void *data,
                       size_t len, struct tlr_err *err);

/* The object as text (tlr_free); takes `sources` over, also on failure. */
int tlr_provenance_text(char **out, const char *kind, json_t *sources,
                        struct tlr_err *err);

#endif
