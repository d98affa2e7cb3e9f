/* bpe.c - byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909;
 * over bytes as in GPT-2).
 *
 * Pieces of up to SHORT bytes, nearly all, are merged by looking for the lowest
 * rank again and again; longer ones with a heap of candidate pairs, some of
 * which have become stale by the time they surface.  The vocabulary may be
 * hostile: a chain of hash probes is bounded.
 */
#include "engine/bpe.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

enum { SHORT = 64, MAX_PROBES = 4096 };

static const uint64_t free_pair = UINT64_MAX;
static const uint32_t no_rank = UINT32_MAX;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

uint64_t tlr_bytes_hash(const uint8_t *bytes, size_t len)
{
    uint64_t h = len * 0x9e3779b97f4a7c15u, word;
    for (; len >= 8; len -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        h = mix(h ^ word) + 0x9e3779b97f4a7c15u;
    }
    word = 0;
    memcpy(&word, bytes, len);
    return mix(mix(h ^ word));
}

/* Smallest power of two that leaves a third free. */
static uint32_t table_size(uint32_t n, int *log2_size)
{
    uint32_t size = 16;
    *log2_size = 4;
    while (size / 3 * 2 < n) {
        size *= 2;
        ++*log2_size;
    }
    return size;
}

static int too_many_probes(const char *where, struct tlr_err *err)
{
    return tlr_err_set(err, TLR_ELIMIT,
                       "%s: tokens that collide in a hash table, as no real "
                       "vocabulary's do; get the model from a trusted place",
                       where);
}

/* ---- token index ---- */

int tlr_token_index_build(struct tlr_token_index *x, const struct tlr_vocab *v,
                          const char *where, struct tlr_err *err)
{
    int log2_size;
    uint32_t size = table_size(v->n_tokens, &log2_size);
    x->slots = tlr_calloc(size, sizeof *x->slots);
    if (!x->slots) {
        return tlr_err_nomem(err, where, size * sizeof *x->slots);
    }
    x->mask = size - 1;
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        const struct tlr_vocab_token *t = &v->tokens[id];
        if (t->flags & TLR_TOKEN_UNUSED) {
            continue;
        }
        uint32_t i = (uint32_t)tlr_bytes_hash(t->bytes, t->len) & x->mask;
        int probes = 0;
        for (; x->slots[i]; i = (i + 1) & x->mask) {
            const struct tlr_vocab_token *o = &v->tokens[x->slots[i] - 1];
            if (o->len == t->len && memcmp(o->bytes, t->bytes, t->len) == 0) {
                break;
            }
            if (++probes > MAX_PROBES) {
                return too_many_probes(where, err);
            }
        }
        if (!x->slots[i] ||
            ((v->tokens[x->slots[i] - 1].flags & TLR_TOKEN_ADDED) &&
             !(t->flags & TLR_TOKEN_ADDED))) {
            x->slots[i] = id + 1;
        }
    }
    return 0;
}

void tlr_token_index_clear(struct tlr_token_index *x)
{
    tlr_free(x->slots);
    memset(x, 0, sizeof *x);
}

int32_t tlr_token_index_find(const struct tlr_token_index *x,
                             const struct tlr_vocab *v, const uint8_t *bytes,
                             size_t len)
{
    if (!x->slots || len == 0 || len > TLR_TOKEN_MAX_BYTES) {
        return -1;
    }
    uint32_t i = (uint32_t)tlr_bytes_hash(bytes, len) & x->mask;
    for (; x->slots[i]; i = (i + 1) & x->mask) {
        const struct tlr_vocab_token *t = &v->tokens[x->slots[i] - 1];
        if (t->len == len && memcmp(t->bytes, bytes, len) == 0) {
            return (int32_t)(x->slots[i] - 1);
        }
    }
    return -1;
}

/* ---- merges ---- */

static uint64_t pair_of(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

static uint32_t pair_slot(const struct tlr_bpe *b, uint64_t pair)
{
    return (uint32_t)(mix(pair) * 0x9e3779b97f4a7c15u >> b->merge_shift);
}

/* NULL when the two do not merge. */
static const struct tlr_merge_slot *find_merge(const struct tlr_bpe *b,
                                               uint32_t left, uint32_t right)
{
    uint64_t pair = pair_of(left, right);
    uint32_t i = pair_slot(b, pair);
    for (;; i = (i + 1) & b->merge_mask) {
        const struct tlr_merge_slot *m = &b->merges[i];
        if (m->pair == pair) {
            return m;
        }
        if (m->pair == free_pair) {
            return NULL;
        }
    }
}

int tlr_bpe_build(struct tlr_bpe *b, const struct tlr_vocab *v,
                  const struct tlr_token_index *x, const char *where,
                  struct tlr_err *err)
{
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        b->byte_id[i] = tlr_token_index_find(x, v, &byte, 1);
    }
    int log2_size;
    uint32_t size = table_size(v->n_merges, &log2_size);
    b->merge_mask = size - 1;
    b->merge_shift = 64 - log2_size;
    b->merges = tlr_calloc(size, sizeof *b->merges);
    if (!b->merges) {
        return tlr_err_nomem(err, where, (uint64_t)size * sizeof *b->merges);
    }
    for (uint32_t i = 0; i < size; i++) {
        b->merges[i].pair = free_pair;
    }
    for (uint32_t rank = 0; rank < v->n_merges; rank++) {
        const struct tlr_vocab_merge *m = &v->merges[rank];
        uint64_t pair = pair_of(m->left, m->right);
        uint32_t i = pair_slot(b, pair);
        int probes = 0;
        while (b->merges[i].pair != free_pair && b->merges[i].pair != pair) {
            i = (i + 1) & b->merge_mask;
            if (++probes > MAX_PROBES) {
                return too_many_probes(where, err);
            }
        }
        /* Of a pair that is listed twice the last counts, as in tokenizers. */
        b->merges[i] = (struct tlr_merge_slot){pair, rank, m->result};
    }
    return 0;
}

void tlr_bpe_clear(struct tlr_bpe *b)
{
    tlr_free(b->merges);
    memset(b, 0, sizeof *b);
}

/* ---- short pieces ---- */

static uint32_t rank_of(const struct tlr_bpe *b, const uint32_t *ids, size_t i,
                        size_t n)
{
    if (i + 1 >= n) {
        return no_rank;
    }
    const struct tlr_merge_slot *m = find_merge(b, ids[i], ids[i + 1]);
    return m ? m->rank : no_rank;
}

static int encode_short(const struct tlr_bpe *b, const uint8_t *piece,
                        size_t len, struct tlr_ids *out, struct tlr_err *err)
{
    uint32_t ids[SHORT], ranks[SHORT];
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (b->byte_id[piece[i]] >= 0) {
            ids[n++] = (uint32_t)b->byte_id[piece[i]];
        }
    }
    for (size_t i = 0; i < n; i++) {
        ranks[i] = rank_of(b, ids, i, n);
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == no_rank) {
            break;
        }
        ids[best] = find_merge(b, ids[best], ids[best + 1])->result;
        n--;
        memmove(&ids[best + 1], &ids[best + 2], (n - best - 1) * sizeof *ids);
        memmove(&ranks[best + 1], &ranks[best + 2],
                (n - best - 1) * sizeof *ranks);
        ranks[best] = rank_of(b, ids, best, n);
        if (best > 0) {
            ranks[best - 1] = rank_of(b, ids, best - 1, n);
        }
    }
    for (size_t i = 0; i < n; i++) {
        int rc = tlr_ids_push(out, (int32_t)ids[i], err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* ---- long pieces ---- */

struct symbol {
    uint32_t id;
    uint32_t prev, next; /* none: no_symbol */
    uint32_t is_live;
};

struct candidate {
    uint32_t rank, pos;  /* of the left symbol */
    uint32_t left, right; /* ids when it was pushed: else it is stale */
};

struct work {
    const struct tlr_bpe *bpe;
    struct symbol *symbols;
    struct candidate *heap; /* lowest rank, then lowest position, first */
    size_t n_heap;
};

static const uint32_t no_symbol = UINT32_MAX;

static bool comes_first(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static void heap_push(struct work *w, struct candidate c)
{
    size_t i = w->n_heap++;
    while (i > 0 && comes_first(&c, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static struct candidate heap_pop(struct work *w)
{
    struct candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap) {
            break;
        }
        if (child + 1 < w->n_heap &&
            comes_first(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!comes_first(&w->heap[child], &last)) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void offer_pair(struct work *w, uint32_t pos)
{
    const struct symbol *s = &w->symbols[pos];
    if (s->next == no_symbol) {
        return;
    }
    uint32_t right = w->symbols[s->next].id;
    const struct tlr_merge_slot *m = find_merge(w->bpe, s->id, right);
    if (m) {
        heap_push(w, (struct candidate){m->rank, pos, s->id, right});
    }
}

static void merge_all(struct work *w)
{
    while (w->n_heap > 0) {
        struct candidate c = heap_pop(w);
        struct symbol *s = &w->symbols[c.pos];
        if (!s->is_live || s->id != c.left || s->next == no_symbol ||
            w->symbols[s->next].id != c.right) {
            continue;
        }
        struct symbol *gone = &w->symbols[s->next];
        s->id = find_merge(w->bpe, c.left, c.right)->result;
        gone->is_live = 0;
        s->next = gone->next;
        if (s->next != no_symbol) {
            w->symbols[s->next].prev = c.pos;
        }
        offer_pair(w, c.pos);
        if (s->prev != no_symbol) {
            offer_pair(w, s->prev);
        }
    }
}

static int encode_long(const struct tlr_bpe *b, const uint8_t *piece,
                       size_t len, struct tlr_ids *out, struct tlr_err *err)
{
    if (len >= UINT32_MAX / 4) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "text: expected words below 1 GiB, found one of %zu "
                           "bytes; split the text",
                           len);
    }
    /* A merge takes one candidate out and offers at most two: never more than
     * two per byte wait. */
    struct work w = {b, tlr_calloc(len, sizeof *w.symbols),
                     tlr_calloc(2 * len, sizeof *w.heap), 0};
    int rc = 0;
    if (!w.symbols || !w.heap) {
        rc = tlr_err_nomem(err, "text",
                           len * (sizeof *w.symbols + 2 * sizeof *w.heap));
        goto done;
    }
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (b->byte_id[piece[i]] >= 0) {
            w.symbols[n] = (struct symbol){(uint32_t)b->byte_id[piece[i]],
                                           n > 0 ? n - 1 : no_symbol, n + 1, 1};
            n++;
        }
    }
    if (n == 0) {
        goto done;
    }
    w.symbols[n - 1].next = no_symbol;
    for (uint32_t i = 0; i + 1 < n; i++) {
        offer_pair(&w, i);
    }
    merge_all(&w);
    for (uint32_t i = 0; rc == 0 && i != no_symbol; i = w.symbols[i].next) {
        rc = tlr_ids_push(out, (int32_t)w.symbols[i].id, err);
    }
done:
    tlr_free(w.symbols);
    tlr_free(w.heap);
    return rc;
}

int tlr_bpe_encode(const struct tlr_bpe *b, const uint8_t *piece, size_t len,
                   struct tlr_ids *out, struct tlr_err *err)
{
    return len <= SHORT ? encode_short(b, piece, len, out, err)
                        : encode_long(b, piece, len, out, err);
}
