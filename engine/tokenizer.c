/* tokenizer.c - text to ids.
 *
 * In this order: added tokens that are matched in the raw text, NFC, added
 * tokens that are matched in normalised text, pre-tokenizer, BPE.
 *
 * Bytes that are not UTF-8: the text is cut at each of them; the stretches
 * between are encoded as texts of their own, and the byte becomes its byte
 * token.  So decoding gives the same bytes again, except where NFC changed
 * valid text, where a token strips white space, and where the vocabulary has no
 * token for a byte (SmolLM2 lacks 21, none of them in assigned text but six
 * control characters): such a byte has no id, as in Hugging Face's tokenizers.
 */
#include "engine/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "engine/added.h"
#include "engine/bpe.h"
#include "engine/pretokenize.h"
#include "engine/unicode.h"

struct tlr_tokenizer {
    struct tlr_vocab vocab;
    struct tlr_token_index index;
    struct tlr_bpe bpe;
    struct tlr_added raw, normalized;
};

int tlr_tokenizer_new(struct tlr_tokenizer **out, struct tlr_bytes bytes,
                      const char *where, struct tlr_err *err)
{
    *out = NULL;
    struct tlr_tokenizer *t = tlr_calloc(1, sizeof *t);
    if (!t) {
        return tlr_err_nomem(err, where, sizeof *t);
    }
    int rc;
    if ((rc = tlr_vocab_unpack(&t->vocab, bytes, where, err)) ||
        (rc = tlr_token_index_build(&t->index, &t->vocab, where, err)) ||
        (rc = tlr_bpe_build(&t->bpe, &t->vocab, &t->index, where, err)) ||
        (rc = tlr_added_build(&t->raw, &t->vocab, false, where, err)) ||
        (rc = tlr_added_build(&t->normalized, &t->vocab, true, where, err))) {
        tlr_tokenizer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void tlr_tokenizer_free(struct tlr_tokenizer *t)
{
    if (!t) {
        return;
    }
    tlr_added_clear(&t->raw);
    tlr_added_clear(&t->normalized);
    tlr_bpe_clear(&t->bpe);
    tlr_token_index_clear(&t->index);
    tlr_vocab_clear(&t->vocab);
    tlr_free(t);
}

struct tlr_bytes tlr_token_bytes(const struct tlr_tokenizer *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->vocab.n_tokens) {
        return (struct tlr_bytes){NULL, 0};
    }
    const struct tlr_vocab_token *token = &t->vocab.tokens[id];
    return (struct tlr_bytes){token->bytes, token->len};
}

bool tlr_token_is_special(const struct tlr_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_tokens &&
           (t->vocab.tokens[id].flags & TLR_TOKEN_SPECIAL);
}

int32_t tlr_token_find(const struct tlr_tokenizer *t, const char *bytes,
                       size_t len)
{
    return tlr_token_index_find(&t->index, &t->vocab, (const uint8_t *)bytes,
                                len);
}

uint32_t tlr_tokenizer_n_tokens(const struct tlr_tokenizer *t)
{
    return t->vocab.n_tokens;
}

const struct tlr_vocab *tlr_tokenizer_vocab(const struct tlr_tokenizer *t)
{
    return &t->vocab;
}

int32_t tlr_tokenizer_next_added(const struct tlr_tokenizer *t,
                                 const char *text, size_t len, size_t *start,
                                 size_t *pos)
{
    struct tlr_added_cursor cursor = {*pos, *pos};
    struct tlr_added_match m;
    const uint8_t *bytes = (const uint8_t *)text;
    if (!tlr_utf8_valid(text, len) ||
        !tlr_added_next(&t->raw, bytes, len, true, &cursor, &m)) {
        return -1;
    }
    *start = m.start;
    *pos = m.end;
    return m.id;
}

/* ---- ids ---- */

int tlr_ids_push(struct tlr_ids *a, int32_t id, struct tlr_err *err)
{
    if (a->n == a->cap) {
        size_t cap = a->cap < 64 ? 64 : a->cap + a->cap / 2;
        int32_t *ids =
            cap > a->cap ? tlr_realloc(a->ids, cap, sizeof *ids) : NULL;
        if (!ids) {
            return tlr_err_nomem(err, "token ids", cap * sizeof *ids);
        }
        a->ids = ids;
        a->cap = cap;
    }
    a->ids[a->n++] = id;
    return 0;
}

void tlr_ids_clear(struct tlr_ids *a)
{
    tlr_free(a->ids);
    memset(a, 0, sizeof *a);
}

/* ---- encoding ---- */

/* Words repeat: the ids of short pieces are kept during one call. */
enum { CACHE_KEY = 22, CACHE_IDS = 10, CACHE_MIN_TEXT = 4096 };

struct cache_entry { /* one cache line */
    uint8_t len;     /* 0: free */
    uint8_t n;
    uint8_t key[CACHE_KEY];
    int32_t ids[CACHE_IDS];
};

struct encoder {
    const struct tlr_tokenizer *t;
    bool with_special;
    struct tlr_nfc nfc;
    struct cache_entry *cache; /* NULL: too little text, or no memory */
    uint64_t cache_mask;
    struct tlr_ids *out;
    struct tlr_err *err;
};

static int push_many(struct encoder *e, const int32_t *ids, size_t n)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = tlr_ids_push(e->out, ids[i], e->err);
    }
    return rc;
}

/* The whole piece as one token, where the model wants that first. */
static int32_t whole_piece(const struct tlr_tokenizer *t, const uint8_t *piece,
                           size_t len)
{
    if (!(t->vocab.flags & TLR_VOCAB_IGNORE_MERGES)) {
        return -1;
    }
    int32_t id = tlr_token_index_find(&t->index, &t->vocab, piece, len);
    return id >= 0 && !(t->vocab.tokens[id].flags & TLR_TOKEN_ADDED) ? id : -1;
}

static int encode_piece(struct encoder *e, const uint8_t *piece, size_t len)
{
    const struct tlr_tokenizer *t = e->t;
    struct cache_entry *c = NULL;
    if (e->cache && len <= CACHE_KEY) {
        c = &e->cache[tlr_bytes_hash(piece, len) & e->cache_mask];
        if (c->len == len && memcmp(c->key, piece, len) == 0) {
            return push_many(e, c->ids, c->n);
        }
    }
    int32_t whole = whole_piece(t, piece, len);
    if (whole >= 0) {
        return tlr_ids_push(e->out, whole, e->err);
    }
    size_t before = e->out->n;
    int rc = tlr_bpe_encode(&t->bpe, piece, len, e->out, e->err);
    size_t n = e->out->n - before;
    if (rc == 0 && c && n > 0 && n <= CACHE_IDS) {
        c->len = (uint8_t)len;
        c->n = (uint8_t)n;
        memcpy(c->key, piece, len);
        memcpy(c->ids, e->out->ids + before, n * sizeof *c->ids);
    }
    return rc;
}

static int encode_words(struct encoder *e, const uint8_t *text, size_t len)
{
    for (size_t pos = 0; pos < len;) {
        size_t end = tlr_pretokenize_next(e->t->vocab.pre, text, len, pos);
        int rc = encode_piece(e, text + pos, end - pos);
        if (rc) {
            return rc;
        }
        pos = end;
    }
    return 0;
}

/* Splits text at the tokens of `added` and hands what lies between to `rest`. */
static int split_added(struct encoder *e, const struct tlr_added *added,
                       const uint8_t *text, size_t len,
                       int (*rest)(struct encoder *, const uint8_t *, size_t))
{
    struct tlr_added_cursor cursor = {0, 0};
    struct tlr_added_match m;
    size_t done = 0;
    int rc = 0;
    while (rc == 0 && tlr_added_next(added, text, len, e->with_special, &cursor,
                                     &m)) {
        rc = m.start > done ? rest(e, text + done, m.start - done) : 0;
        rc = rc ? rc : tlr_ids_push(e->out, m.id, e->err);
        done = m.end;
    }
    return rc || done == len ? rc : rest(e, text + done, len - done);
}

static int encode_normalized(struct encoder *e, const uint8_t *text, size_t len)
{
    struct tlr_bytes nfc = {text, len};
    if (e->t->vocab.flags & TLR_VOCAB_NFC) {
        int rc = tlr_nfc_normalize(&e->nfc, text, len, &nfc, e->err);
        if (rc) {
            return rc;
        }
    }
    return split_added(e, &e->t->normalized, nfc.ptr, nfc.len, encode_words);
}

static int encode_bytes(struct encoder *e, const uint8_t *text, size_t len)
{
    while (len > 0) {
        size_t n = tlr_utf8_valid_len(text, len);
        int rc = n ? split_added(e, &e->t->raw, text, n, encode_normalized) : 0;
        for (; rc == 0 && n < len && !tlr_utf8_char_len(text + n, len - n);
             n++) {
            int32_t id = e->t->bpe.byte_id[text[n]];
            rc = id < 0 ? 0 : tlr_ids_push(e->out, id, e->err);
        }
        if (rc) {
            return rc;
        }
        text += n;
        len -= n;
    }
    return 0;
}

int tlr_encode(const struct tlr_tokenizer *t, const char *text, size_t len,
               unsigned flags, struct tlr_ids *out, struct tlr_err *err)
{
    struct encoder e = {.t = t,
                        .with_special = flags & TLR_ENCODE_SPECIAL,
                        .out = out,
                        .err = err};
    if ((flags & TLR_ENCODE_BOS) && (t->vocab.flags & TLR_VOCAB_ADD_BOS) &&
        t->vocab.bos_id >= 0) {
        int rc = tlr_ids_push(out, t->vocab.bos_id, err);
        if (rc) {
            return rc;
        }
    }
    if (len >= CACHE_MIN_TEXT) {
        size_t n = len < (1u << 20) ? 2048 : 16384;
        e.cache = tlr_calloc(n, sizeof *e.cache);
        e.cache_mask = n - 1;
    }
    int rc = encode_bytes(&e, (const uint8_t *)text, len);
    tlr_free(e.cache);
    tlr_nfc_clear(&e.nfc);
    return rc;
}
