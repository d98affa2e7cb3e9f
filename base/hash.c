/* hash.c - CRC-32 by zlib, SHA-256 by libcrypto, and two small hashes of our
 * own.
 *
 * splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
 * generators", OOPSLA 2014.  FNV-1a: Fowler, Noll, Vo (64 bits), with the seed
 * folded into the offset basis.
 */
#include "base/hash.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <zlib.h>

#include "base/mem.h"

uint32_t tlr_crc32(uint32_t crc, const void *data, size_t len)
{
    if (!len) {
        return crc; /* zlib takes a NULL pointer as "start anew" */
    }
    return (uint32_t)crc32_z(crc, data, len);
}

struct tlr_sha256 {
    EVP_MD_CTX *ctx;
};

static int sha256_refused(struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "sha256: libcrypto refused to compute it");
}

int tlr_sha256_begin(struct tlr_sha256 **out, struct tlr_err *err)
{
    *out = tlr_calloc(1, sizeof **out);
    if (!*out) {
        return tlr_err_nomem(err, "sha256", sizeof **out);
    }
    (*out)->ctx = EVP_MD_CTX_new();
    if ((*out)->ctx && EVP_DigestInit_ex((*out)->ctx, EVP_sha256(), NULL)) {
        return 0;
    }
    tlr_sha256_drop(*out);
    *out = NULL;
    return sha256_refused(err);
}

int tlr_sha256_add(struct tlr_sha256 *s, const void *data, size_t len,
                   struct tlr_err *err)
{
    return EVP_DigestUpdate(s->ctx, data, len) ? 0 : sha256_refused(err);
}

int tlr_sha256_end(struct tlr_sha256 *s, char out[65], struct tlr_err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    bool is_ok = EVP_DigestFinal_ex(s->ctx, digest, &n) && n == 32;
    tlr_sha256_drop(s);
    if (!is_ok) {
        return sha256_refused(err);
    }
    static const char digits[] = "0123456789abcdef";
    for (unsigned int i = 0; i < n; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = '\0';
    return 0;
}

void tlr_sha256_drop(struct tlr_sha256 *s)
{
    if (s) {
        EVP_MD_CTX_free(s->ctx);
        tlr_free(s);
    }
}

uint64_t tlr_hash_u64(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t tlr_hash_name(uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (; *name; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return h;
}
