/* provenance.c - checksums of mapped sources, taken piece by piece so that the
 * pages of a large file do not pile up in memory.
 */
#include "convert/provenance.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/span.h"
#include "engine/json.h"

enum { PIECE_BYTES = 16 << 20 }; /* a multiple of any page size */

static int sha256_of_map(char out[65], const uint8_t *data, size_t len,
                         struct tlr_err *err)
{
    struct tlr_sha256 *sha = NULL;
    int rc = tlr_sha256_begin(&sha, err);
    for (size_t at = 0; rc == 0 && at < len; at += PIECE_BYTES) {
        size_t n = len - at < PIECE_BYTES ? len - at : PIECE_BYTES;
        rc = tlr_sha256_add(sha, data + at, n, err);
        if (n == PIECE_BYTES) {
            /* The map is read-only and file-backed: pages come back on use. */
            (void)madvise((void *)(uintptr_t)(data + at), n, MADV_DONTNEED);
        }
    }
    if (rc) {
        tlr_sha256_drop(sha);
        return rc;
    }
    return tlr_sha256_end(sha, out, err);
}

int tlr_provenance_add(json_t *sources, const char *path, const void *data,
                       size_t len, struct tlr_err *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!tlr_utf8_valid(name, strlen(name))) {
        name = "(name is not UTF-8)";
    }
    char sha[65];
    int rc = sha256_of_map(sha, data, len, err);
    if (rc) {
        return rc;
    }
    json_t *entry = json_object();
    if (!entry || json_object_set_new(entry, "name", json_string(name)) ||
        json_object_set_new(entry, "bytes", json_integer((json_int_t)len)) ||
        json_object_set_new(entry, "sha256", json_string(sha))) {
        json_decref(entry);
        return tlr_err_nomem(err, path, sizeof sha);
    }
    if (json_array_append_new(sources, entry)) {
        return tlr_err_nomem(err, path, sizeof sha);
    }
    return 0;
}

int tlr_provenance_text(char **out, const char *kind, json_t *sources,
                        struct tlr_err *err)
{
    json_t *root = json_object();
    int rc;
    if (!root || json_object_set_new(root, "kind", json_string(kind)) ||
        json_object_set(root, "sources", sources)) {
        rc = tlr_err_nomem(err, "provenance", 0);
    } else {
        size_t len;
        rc = tlr_json_dump(root, out, &len, err);
    }
    json_decref(root);
    json_decref(sources);
    return rc;
}
