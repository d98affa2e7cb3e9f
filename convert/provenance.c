/* provenance.c - checksums of mapped sources, taken piece by piece so that the
 * pages of a large file do not pile up in memory.
 */
#include "convert/provenance.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/span.h"

enum { PIECE_BYTES = 16 << 20 }; /* a multiple of any page size */

/* 64 hex digits and a NUL; false when the library fails. */
static bool sha256_of_map(char out[65], const uint8_t *data, size_t len)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    for (size_t at = 0; is_ok && at < len; at += PIECE_BYTES) {
        size_t n = len - at < PIECE_BYTES ? len - at : PIECE_BYTES;
        is_ok = EVP_DigestUpdate(ctx, data + at, n) == 1;
        if (n == PIECE_BYTES) {
            /* The map is read-only and file-backed: pages come back on use. */
            (void)madvise((void *)(uintptr_t)(data + at), n, MADV_DONTNEED);
        }
    }
    is_ok = is_ok && EVP_DigestFinal_ex(ctx, digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    for (int i = 0; is_ok && i < 32; i++) {
        static const char hex[] = "0123456789abcdef";
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[64] = '\0';
    return is_ok;
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
    if (!sha256_of_map(sha, data, len)) {
        return tlr_err_set(err, TLR_ENOMEM, "%s: sha256 failed", path);
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

/* What json_dump_callback fills. */
struct text {
    char *bytes;
    size_t len, cap;
};

static int append(const char *data, size_t len, void *ctx)
{
    struct text *t = ctx;
    if (t->cap - t->len <= len) {
        size_t cap = (t->len + len + 1) * 2;
        char *bytes = tlr_realloc(t->bytes, cap, 1);
        if (!bytes) {
            return -1;
        }
        t->bytes = bytes;
        t->cap = cap;
    }
    memcpy(t->bytes + t->len, data, len);
    t->len += len;
    t->bytes[t->len] = '\0';
    return 0;
}

int tlr_json_text(char **out, const json_t *value, struct tlr_err *err)
{
    struct text t = {0};
    if (json_dump_callback(value, append, &t, JSON_COMPACT | JSON_SORT_KEYS)) {
        tlr_free(t.bytes);
        return tlr_err_nomem(err, "JSON text", t.cap);
    }
    *out = t.bytes;
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
        rc = tlr_json_text(out, root, err);
    }
    json_decref(root);
    json_decref(sources);
    return rc;
}
