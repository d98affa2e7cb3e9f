/* vocab_build.c - see vocab_build.h.
 *
 * Byte letters: GPT-2 writes a byte as the character of that number where it is
 * printable, and as U+0100, U+0101, ... for the others in their order.
 */
#include "convert/vocab_build.h"

#include <string.h>

#include "base/mem.h"
#include "engine/unicode.h"

static bool is_printable(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
           byte >= 174;
}

/* Byte that a letter stands for, -1 if it is none. */
static int byte_of_letter(uint32_t cp)
{
    if (cp < 256) {
        return is_printable(cp) ? (int)cp : -1;
    }
    unsigned left = cp - 256;
    for (unsigned byte = 0; byte < 256; byte++) {
        if (!is_printable(byte) && left-- == 0) {
            return (int)byte;
        }
    }
    return -1;
}

/* The bytes that text spells, to out[TLR_TOKEN_MAX_BYTES]; their number, or -1
 * when it is no spelling of at most that many. */
static long bytes_of_letters(struct tlr_bytes text, uint8_t *out)
{
    if (!tlr_utf8_valid(text.ptr, text.len)) {
        return -1;
    }
    long n = 0;
    for (size_t i = 0; i < text.len;) {
        int byte = byte_of_letter(tlr_utf8_next(text.ptr, &i));
        if (byte < 0 || n == TLR_TOKEN_MAX_BYTES) {
            return -1;
        }
        out[n++] = (uint8_t)byte;
    }
    return n;
}

static int not_letters(const char *where, const char *what, uint64_t i,
                       struct tlr_bytes text, struct tlr_err *err)
{
    int shown = text.len > 64 ? 64 : (int)text.len;
    return tlr_err_set(err, TLR_EFORMAT,
                       "%s: %s %llu: expected up to %d byte letters, found "
                       "\"%.*s\"; only byte-level BPE is supported",
                       where, what, (unsigned long long)i, TLR_TOKEN_MAX_BYTES,
                       shown, (const char *)text.ptr);
}

void tlr_vocab_owned_clear(struct tlr_vocab_owned *v)
{
    tlr_token_index_clear(&v->index);
    tlr_free(v->tokens);
    tlr_free(v->merges);
    tlr_free(v->bytes);
    memset(v, 0, sizeof *v);
}

int tlr_vocab_build_begin(struct tlr_vocab_owned *v, const char *where,
                          uint64_t n_tokens, uint64_t n_merges,
                          uint64_t cap_bytes, struct tlr_err *err)
{
    enum { MAX_TOKENS = 1 << 20, MAX_MERGES = 1 << 22 };
    if (n_tokens < 1 || n_tokens > MAX_TOKENS || n_merges > MAX_MERGES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected 1..%d tokens and at most %d merges, "
                           "found %llu and %llu; the file is damaged",
                           where, MAX_TOKENS, MAX_MERGES,
                           (unsigned long long)n_tokens,
                           (unsigned long long)n_merges);
    }
    v->tokens = tlr_calloc((size_t)n_tokens, sizeof *v->tokens);
    v->merges = tlr_calloc((size_t)n_merges, sizeof *v->merges);
    v->bytes = cap_bytes > SIZE_MAX ? NULL : tlr_calloc((size_t)cap_bytes, 1);
    if (!v->tokens || !v->merges || !v->bytes) {
        return tlr_err_nomem(err, where, cap_bytes);
    }
    v->cap_bytes = (size_t)cap_bytes;
    for (uint64_t i = 0; i < n_tokens; i++) {
        v->tokens[i].flags = TLR_TOKEN_UNUSED;
    }
    v->vocab = (struct tlr_vocab){.pre = TLR_PRE_GPT2,
                                  .n_tokens = (uint32_t)n_tokens,
                                  .bos_id = -1,
                                  .tokens = v->tokens,
                                  .merges = v->merges};
    return 0;
}

int tlr_vocab_build_token(struct tlr_vocab_owned *v, const char *where,
                          uint64_t id, struct tlr_bytes text, bool is_letters,
                          unsigned flags, struct tlr_err *err)
{
    uint8_t spelled[TLR_TOKEN_MAX_BYTES];
    if (id >= v->vocab.n_tokens || !(v->tokens[id].flags & TLR_TOKEN_UNUSED)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: token id %llu: expected each of 0..%u at most "
                           "once, found it %s; the file is damaged",
                           where, (unsigned long long)id, v->vocab.n_tokens - 1,
                           id >= v->vocab.n_tokens ? "beyond" : "twice");
    }
    if (is_letters) {
        long n = bytes_of_letters(text, spelled);
        if (n < 0) {
            return not_letters(where, "token", id, text, err);
        }
        text = (struct tlr_bytes){spelled, (size_t)n};
    }
    if (text.len < 1 || text.len > TLR_TOKEN_MAX_BYTES ||
        text.len > v->cap_bytes - v->n_bytes) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: token %llu: expected 1..%d bytes, found %zu; "
                           "the vocabulary is damaged or not supported",
                           where, (unsigned long long)id, TLR_TOKEN_MAX_BYTES,
                           text.len);
    }
    uint8_t *dst = v->bytes + v->n_bytes;
    memcpy(dst, text.ptr, text.len);
    v->n_bytes += text.len;
    v->tokens[id] =
        (struct tlr_vocab_token){dst, (uint32_t)text.len, (uint32_t)flags};
    return 0;
}

int tlr_vocab_build_index(struct tlr_vocab_owned *v, const char *where,
                          struct tlr_err *err)
{
    return tlr_token_index_build(&v->index, &v->vocab, where, err);
}

int32_t tlr_vocab_build_find(const struct tlr_vocab_owned *v,
                             struct tlr_bytes bytes)
{
    return tlr_token_index_find(&v->index, &v->vocab, bytes.ptr, bytes.len);
}

int tlr_vocab_build_merge(struct tlr_vocab_owned *v, const char *where,
                          struct tlr_bytes left, struct tlr_bytes right,
                          struct tlr_err *err)
{
    uint8_t spelled[2 * TLR_TOKEN_MAX_BYTES];
    uint32_t rank = v->vocab.n_merges;
    long n = bytes_of_letters(left, spelled);
    if (n < 1) {
        return not_letters(where, "merge", rank, left, err);
    }
    long m = bytes_of_letters(right, spelled + n);
    if (m < 1) {
        return not_letters(where, "merge", rank, right, err);
    }
    struct tlr_bytes a = {spelled, (size_t)n}, b = {spelled + n, (size_t)m};
    struct tlr_bytes both = {spelled, (size_t)(n + m)};
    int32_t ids[3] = {tlr_vocab_build_find(v, a), tlr_vocab_build_find(v, b),
                      tlr_vocab_build_find(v, both)};
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: merge %u: \"%.*s\" + \"%.*s\": expected both "
                           "and their sum in the vocabulary; the file is "
                           "damaged",
                           where, rank, (int)(left.len > 64 ? 64 : left.len),
                           (const char *)left.ptr,
                           (int)(right.len > 64 ? 64 : right.len),
                           (const char *)right.ptr);
    }
    v->merges[rank] = (struct tlr_vocab_merge){
        (uint32_t)ids[0], (uint32_t)ids[1], (uint32_t)ids[2]};
    v->vocab.n_merges++;
    return 0;
}

int tlr_vocab_build_merge_line(struct tlr_vocab_owned *v, const char *where,
                               struct tlr_bytes line, struct tlr_err *err)
{
    const uint8_t *blank = line.len ? memchr(line.ptr, ' ', line.len) : NULL;
    if (!blank) {
        return not_letters(where, "merge", v->vocab.n_merges, line, err);
    }
    size_t n = (size_t)(blank - line.ptr);
    struct tlr_bytes left = {line.ptr, n};
    struct tlr_bytes right = {blank + 1, line.len - n - 1};
    return tlr_vocab_build_merge(v, where, left, right, err);
}

int tlr_vocab_build_end(struct tlr_vocab_owned *v, const char *where,
                        struct tlr_err *err)
{
    tlr_token_index_clear(&v->index);
    return tlr_vocab_check(&v->vocab, where, err);
}
