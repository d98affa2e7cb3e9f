/* hash.c - CRC-32 by zlib, SHA-256 by libcrypto, and two small hashes of our
 * own.
 *
 * splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
 * generators", OOPSLA 2014.  FNV-1a: Fowler, Noll, Vo (64 bits), with the seed
 * folded into the offset basis.
 */
#include "base/hash.h"

#include <openssl/evp.h>
#include <zlib.h>

uint32_t tlr_crc32(uint32_t crc, const void *data, size_t len)
{
    if (!len) {
        return crc; /* zlib takes a NULL pointer as "start anew" */
    }
    return (uint32_t)crc32_z(crc, data, len);
}

int tlr_sha256_hex(char out[65], const void *data, size_t len,
                   struct tlr_err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (!EVP_Digest(len ? data : "", len, digest, &n, EVP_sha256(), NULL) ||
        n != 32) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "sha256: libcrypto refused to compute it");
    }
    static const char digits[] = "0123456789abcdef";
    for (unsigned int i = 0; i < n; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = '\0';
    return 0;
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
