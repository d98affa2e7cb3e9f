/* fuzz_tokenize.c - any text through a tiny vocabulary of each pre-tokenizer:
 * what is encoded decodes to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_MERGES = 6, N_TOKENS = 256 + N_MERGES + 2 };

static struct tlr_tokenizer *make(uint32_t pre)
{
    static uint8_t single[256];
    static const char *const words[N_MERGES + 2] = {
        "ab", "abab", "  ", "12", "'s", "\xc3\xa9", "<|x|>", "<t>"};
    static const struct tlr_vocab_merge merges[N_MERGES] = {
        {'a', 'b', 256}, {256, 256, 257}, {' ', ' ', 258},
        {'1', '2', 259}, {'\'', 's', 260}, {0xc3, 0xa9, 261}};
    struct tlr_vocab_token tokens[N_TOKENS];
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        if (i < 256) {
            single[i] = (uint8_t)i;
            tokens[i] = (struct tlr_vocab_token){&single[i], 1, 0};
        } else {
            const char *w = words[i - 256];
            uint32_t flags = i == N_TOKENS - 2
                                 ? TLR_TOKEN_ADDED | TLR_TOKEN_SPECIAL
                             : i == N_TOKENS - 1 ? TLR_TOKEN_ADDED
                                                 : 0;
            tokens[i] = (struct tlr_vocab_token){(const uint8_t *)w,
                                                 (uint32_t)strlen(w), flags};
        }
    }
    struct tlr_vocab v = {pre, 0, N_TOKENS, N_MERGES, -1, tokens, merges};
    uint8_t *packed;
    size_t len;
    struct tlr_tokenizer *t = NULL;
    if (tlr_vocab_pack(&v, &packed, &len, NULL) ||
        tlr_tokenizer_new(&t, (struct tlr_bytes){packed, len}, "fuzz", NULL)) {
        abort();
    }
    return t; /* one per pre-tokenizer for the life of the process */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tlr_tokenizer *tokenizers[5];
    if (size < 1) {
        return 0;
    }
    uint32_t pre = 1 + data[0] % 4;
    unsigned flags = data[0] & 0x80 ? TLR_ENCODE_SPECIAL : 0;
    if (!tokenizers[pre]) {
        tokenizers[pre] = make(pre);
    }
    struct tlr_tokenizer *t = tokenizers[pre];
    struct tlr_ids ids = {0};
    data++;
    size--;
    if (tlr_encode(t, (const char *)data, size, flags, &ids, NULL)) {
        abort();
    }
    struct tlr_utf8_stream stream = {0};
    size_t pos = 0;
    for (size_t i = 0; i < ids.n; i++) {
        struct tlr_bytes b = tlr_token_bytes(t, ids.ids[i]);
        char out[3 * (16 + 4)];
        size_t n;
        if (b.len == 0 || b.len > size - pos ||
            memcmp(data + pos, b.ptr, b.len) != 0) {
            abort();
        }
        pos += b.len;
        tlr_utf8_stream_push(&stream, b, i + 1 == ids.n, out, &n);
        if (n > sizeof out || !tlr_utf8_valid(out, n)) {
            abort();
        }
    }
    if (pos != size) {
        abort();
    }
    tlr_ids_clear(&ids);
    return 0;
}
