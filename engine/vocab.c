/* vocab.c - the vocabulary's byte form (weights/FORMAT.md, "Tokenizer section")
 * and what it is held to.
 *
 * Little-endian; counts are compared with the bytes that are left before
 * anything is allocated for them.
 */
#include "engine/vocab.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

enum {
    FORM_VERSION = 1,
    HEAD_BYTES = 32,
    TOKEN_BYTES = 4, /* u16 length, u16 flags */
    MERGE_BYTES = 12,
    MAX_TOKENS = 1 << 20,
    MAX_MERGES = 1 << 22
};

static const uint32_t known_vocab_flags =
    TLR_VOCAB_NFC | TLR_VOCAB_ADD_BOS | TLR_VOCAB_IGNORE_MERGES;
static const uint32_t known_token_flags =
    TLR_TOKEN_ADDED | TLR_TOKEN_SPECIAL | TLR_TOKEN_LSTRIP |
    TLR_TOKEN_RSTRIP | TLR_TOKEN_SINGLE_WORD | TLR_TOKEN_NORMALIZED |
    TLR_TOKEN_UNUSED;

/* ---- checks ---- */

static int check_head(const struct tlr_vocab *v, const char *where,
                      struct tlr_err *err)
{
    if (v->pre < TLR_PRE_GPT2 || v->pre > TLR_PRE_SMOLLM) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: pre-tokenizer: expected 1..4, found %u; convert "
                           "the model again",
                           where, v->pre);
    }
    if (v->flags & ~known_vocab_flags) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: flags: expected none above 0x%x, found 0x%x; "
                           "convert the model again",
                           where, known_vocab_flags, v->flags);
    }
    if (v->n_tokens < 1 || v->n_tokens > MAX_TOKENS) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected 1..%d tokens, found %u; convert the "
                           "model again",
                           where, MAX_TOKENS, v->n_tokens);
    }
    if (v->n_merges > MAX_MERGES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected at most %d merges, found %u; convert "
                           "the model again",
                           where, MAX_MERGES, v->n_merges);
    }
    if (v->bos_id < -1 || v->bos_id >= (int32_t)v->n_tokens) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: first token: expected -1..%u, found %d; convert "
                           "the model again",
                           where, v->n_tokens - 1, v->bos_id);
    }
    return 0;
}

static int check_token(const struct tlr_vocab_token *t, uint32_t id,
                       const char *where, struct tlr_err *err)
{
    bool is_unused = t->flags & TLR_TOKEN_UNUSED;
    if (t->flags & ~known_token_flags) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: token %u: unknown flags 0x%x; convert the model "
                           "again",
                           where, id, t->flags);
    }
    if (t->len > TLR_TOKEN_MAX_BYTES || (t->len == 0) != is_unused) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: token %u: expected %s, found %u; the vocabulary "
                           "is damaged or not supported",
                           where, id,
                           is_unused ? "no bytes, as it is a hole"
                                     : "1..1024 bytes",
                           t->len);
    }
    if ((t->flags & TLR_TOKEN_ADDED) && !tlr_utf8_valid(t->bytes, t->len)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: token %u: an added token must be UTF-8; the "
                           "vocabulary is damaged",
                           where, id);
    }
    return 0;
}

static int check_merge(const struct tlr_vocab *v, uint32_t rank,
                       const char *where, struct tlr_err *err)
{
    const struct tlr_vocab_merge *m = &v->merges[rank];
    if (m->left >= v->n_tokens || m->right >= v->n_tokens ||
        m->result >= v->n_tokens) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: merge %u: expected ids below %u, found %u + %u "
                           "= %u; convert the model again",
                           where, rank, v->n_tokens, m->left, m->right,
                           m->result);
    }
    const struct tlr_vocab_token *a = &v->tokens[m->left];
    const struct tlr_vocab_token *b = &v->tokens[m->right];
    const struct tlr_vocab_token *c = &v->tokens[m->result];
    if (a->len == 0 || b->len == 0 || a->len + b->len != c->len ||
        memcmp(c->bytes, a->bytes, a->len) != 0 ||
        memcmp(c->bytes + a->len, b->bytes, b->len) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: merge %u: token %u is not token %u followed by "
                           "token %u; convert the model again",
                           where, rank, m->result, m->left, m->right);
    }
    return 0;
}

int tlr_vocab_check(const struct tlr_vocab *v, const char *where,
                    struct tlr_err *err)
{
    int rc = check_head(v, where, err);
    for (uint32_t i = 0; rc == 0 && i < v->n_tokens; i++) {
        rc = check_token(&v->tokens[i], i, where, err);
    }
    for (uint32_t i = 0; rc == 0 && i < v->n_merges; i++) {
        rc = check_merge(v, i, where, err);
    }
    return rc;
}

/* ---- bytes ---- */

static uint8_t *put(uint8_t *p, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) {
        *p++ = (uint8_t)(value >> (8 * i));
    }
    return p;
}

int tlr_vocab_pack(const struct tlr_vocab *v, uint8_t **out, size_t *out_len,
                   struct tlr_err *err)
{
    *out = NULL;
    *out_len = 0;
    int rc = tlr_vocab_check(v, "vocabulary", err);
    if (rc) {
        return rc;
    }
    /* Within the limits above: no overflow in 64 bits. */
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        n_bytes += v->tokens[i].len;
    }
    uint64_t total = HEAD_BYTES + (uint64_t)TOKEN_BYTES * v->n_tokens +
                     (uint64_t)MERGE_BYTES * v->n_merges + n_bytes;
    uint8_t *bytes = total > SIZE_MAX ? NULL : tlr_calloc((size_t)total, 1);
    if (!bytes) {
        return tlr_err_nomem(err, "vocabulary", total);
    }
    uint8_t *p = put(bytes, FORM_VERSION, 4);
    p = put(p, v->pre, 4);
    p = put(p, v->flags, 4);
    p = put(p, (uint32_t)v->bos_id, 4);
    p = put(p, v->n_tokens, 4);
    p = put(p, v->n_merges, 4);
    p = put(p, n_bytes, 8);
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        p = put(p, v->tokens[i].len, 2);
        p = put(p, v->tokens[i].flags, 2);
    }
    for (uint32_t i = 0; i < v->n_merges; i++) {
        p = put(p, v->merges[i].left, 4);
        p = put(p, v->merges[i].right, 4);
        p = put(p, v->merges[i].result, 4);
    }
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        if (v->tokens[i].len > 0) {
            memcpy(p, v->tokens[i].bytes, v->tokens[i].len);
            p += v->tokens[i].len;
        }
    }
    *out = bytes;
    *out_len = (size_t)total;
    return 0;
}

/* Token and merge tables; the sizes have been checked against the span. */
static int read_tables(struct tlr_vocab *v, struct tlr_span *s,
                       uint64_t n_bytes, const char *where,
                       struct tlr_err *err)
{
    struct tlr_vocab_token *tokens = tlr_calloc(v->n_tokens, sizeof *tokens);
    struct tlr_vocab_merge *merges = tlr_calloc(v->n_merges, sizeof *merges);
    v->tokens = tokens;
    v->merges = merges;
    if (!tokens || !merges) {
        return tlr_err_nomem(err, where,
                             (unsigned long long)v->n_tokens * sizeof *tokens +
                                 (unsigned long long)v->n_merges *
                                     sizeof *merges);
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        tokens[i].len = tlr_span_u16(s);
        tokens[i].flags = tlr_span_u16(s);
        sum += tokens[i].len;
    }
    for (uint32_t i = 0; i < v->n_merges; i++) {
        merges[i].left = tlr_span_u32(s);
        merges[i].right = tlr_span_u32(s);
        merges[i].result = tlr_span_u32(s);
    }
    if (sum != n_bytes) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: expected %llu bytes of tokens, found lengths "
                           "that add up to %llu; convert the model again",
                           where, (unsigned long long)n_bytes,
                           (unsigned long long)sum);
    }
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        tokens[i].bytes = tlr_span_take(s, tokens[i].len);
    }
    return 0;
}

int tlr_vocab_unpack(struct tlr_vocab *out, struct tlr_bytes bytes,
                     const char *where, struct tlr_err *err)
{
    struct tlr_span s = tlr_span_of(bytes.ptr, bytes.len);
    memset(out, 0, sizeof *out);
    uint32_t version = tlr_span_u32(&s);
    out->pre = tlr_span_u32(&s);
    out->flags = tlr_span_u32(&s);
    out->bos_id = (int32_t)tlr_span_u32(&s);
    out->n_tokens = tlr_span_u32(&s);
    out->n_merges = tlr_span_u32(&s);
    uint64_t n_bytes = tlr_span_u64(&s);
    int rc;
    if (s.bad || version != FORM_VERSION) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: expected a tokenizer of version %d, found %zu "
                         "bytes of version %u; convert the model again",
                         where, FORM_VERSION, bytes.len, version);
        goto fail;
    }
    rc = check_head(out, where, err);
    if (rc) {
        goto fail;
    }
    uint64_t tables = (uint64_t)TOKEN_BYTES * out->n_tokens +
                      (uint64_t)MERGE_BYTES * out->n_merges;
    uint64_t left = tlr_span_left(&s);
    if (tables > left || n_bytes != left - tables) {
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "%s: expected %u tokens, %u merges and %llu bytes, "
                         "found %llu bytes for all of them; the file is "
                         "damaged",
                         where, out->n_tokens, out->n_merges,
                         (unsigned long long)n_bytes, (unsigned long long)left);
        goto fail;
    }
    rc = read_tables(out, &s, n_bytes, where, err);
    if (rc == 0) {
        rc = tlr_vocab_check(out, where, err);
    }
    if (rc == 0) {
        return 0;
    }
fail:
    tlr_vocab_clear(out);
    return rc;
}

void tlr_vocab_clear(struct tlr_vocab *v)
{
    /* Allocated here, const for everybody else. */
    tlr_free((void *)(uintptr_t)v->tokens);
    tlr_free((void *)(uintptr_t)v->merges);
    memset(v, 0, sizeof *v);
}
