/* seam.c - see seam.h.
 *
 * Where a text goes on inside a word, our tokenizer would cut word and
 * continuation together in another way than the prefix was cut.  So the reply is
 * cut three ways, the first that holds is taken: together with the end of the
 * prefix, if the prefix keeps its ids in that; alone; by the longest token that
 * fits, which serves bytes in the middle of a character.  Before all that, one
 * token asked for that is one of ours is that one: the server's own choice.
 */
#include "net/seam.h"

#include <string.h>

#include "base/span.h"

/* ---- out ---- */

/* Bytes at the end that begin a character and do not end it. */
static int unfinished(const char *text, size_t n)
{
    for (int back = 1; back <= 3 && (size_t)back <= n; back++) {
        uint8_t c = (uint8_t)text[n - (size_t)back];
        if ((c & 0xC0) == 0x80)
            continue;
        int need = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        return need > back ? back : 0;
    }
    return 0;
}

void tlr_seam_prompt(const struct tlr_seam *s, const int32_t *ids, size_t n,
                     bool skip_bos, struct tlr_buf *out, uint8_t begun[4],
                     int *n_begun)
{
    const struct tlr_vocab *v = tlr_tokenizer_vocab(s->tok);
    bool skips = skip_bos && (v->flags & TLR_VOCAB_ADD_BOS) && n > 0 &&
                 v->bos_id >= 0 && ids[0] == v->bos_id;
    tlr_buf_reset(out);
    tlr_buf_put(out, "", 0);
    for (size_t i = skips; i < n; i++) {
        struct tlr_bytes b = tlr_token_bytes(s->tok, ids[i]);
        tlr_buf_put(out, b.ptr, b.len);
    }
    *n_begun = out->failed ? 0 : unfinished(out->ptr, out->n);
    if (out->failed)
        return;
    out->n -= (size_t)*n_begun;
    memcpy(begun, out->ptr + out->n, (size_t)*n_begun);
    out->ptr[out->n] = '\0';
}

/* ---- in: ids ---- */

static bool is_end(const struct tlr_seam *s, int32_t id)
{
    return s->gen && tlr_generation_is_eos(s->gen, id);
}

/* The end of the text in our words. */
static int32_t end_id(const struct tlr_seam *s, int32_t theirs)
{
    if (is_end(s, theirs))
        return theirs;
    return s->gen && s->gen->n_eos > 0 ? s->gen->eos[0] : -1;
}

static int no_end(struct tlr_err *err)
{
    return tlr_err_set(err, TLR_EUNSUPPORTED,
                       "the large model ended the text, and the small one's "
                       "vocabulary has no token for that");
}

static int check_ids(const struct tlr_seam *s, const struct tlr_net_answer *a,
                     const struct tlr_seam_want *w, struct tlr_err *err)
{
    if (a->n_ids > w->n_tok + w->n_slack)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "reply: asked for %d tokens, found %d", w->n_tok,
                           a->n_ids);
    for (int i = 0; i < a->n_ids; i++)
        if ((uint32_t)a->ids[i] >= s->n_ids)
            return tlr_err_set(err, TLR_EMISMATCH,
                               "reply: expected token ids below %u, found %d; "
                               "do the two models share a tokenizer?",
                               s->n_ids, (int)a->ids[i]);
    return 0;
}

/* With its ids; some servers leave the one out that ended the text. */
static int by_ids(const struct tlr_seam *s, const struct tlr_net_answer *a,
                  const struct tlr_seam_want *w, int32_t *out, int *n_out,
                  struct tlr_err *err)
{
    int n = a->n_ids, rc = check_ids(s, a, w, err);
    if (rc)
        return rc;
    if (n == 0 && a->finish != TLR_NET_AT_END)
        return tlr_err_set(err, TLR_EFORMAT,
                           "reply: has no token and does not say that the text "
                           "ends");
    n = n < w->n_tok ? n : w->n_tok;
    for (int i = 0; i < n; i++) {
        out[i] = a->ids[i];
        if (is_end(s, out[i]))
            n = i + 1;
    }
    *n_out = n;
    if (a->finish != TLR_NET_AT_END || n < a->n_ids ||
        (n > 0 && is_end(s, out[n - 1])))
        return 0;
    /* An end of its own that we do not know, or one that was left out. */
    bool is_there = n > 0 && (out[n - 1] == a->end_id ||
                              (a->end_id < 0 &&
                               tlr_token_is_special(s->tok, out[n - 1])));
    if (!is_there && n == w->n_tok)
        return 0;
    int32_t end = end_id(s, a->end_id);
    if (end < 0)
        return no_end(err);
    out[is_there ? n - 1 : n] = end;
    *n_out = is_there ? n : n + 1;
    return 0;
}

/* ---- in: text ---- */

/* How many of the ids spell a beginning of text[0..n). */
static size_t spelled(const struct tlr_seam *s, const int32_t *ids,
                      size_t n_ids, const char *text, size_t n)
{
    size_t at = 0, i = 0;
    for (; i < n_ids; i++) {
        struct tlr_bytes b = tlr_token_bytes(s->tok, ids[i]);
        if (b.len == 0 || b.len > n - at || memcmp(b.ptr, text + at, b.len) != 0)
            break;
        at += b.len;
    }
    return i;
}

static bool is_whole(const struct tlr_seam *s, const struct tlr_ids *ids,
                     size_t from, const char *text, size_t n)
{
    size_t k = spelled(s, ids->ids + from, ids->n - from, text, n), at = 0;
    for (size_t i = 0; i < k; i++)
        at += tlr_token_bytes(s->tok, ids->ids[from + i]).len;
    return k == ids->n - from && at == n;
}

/* Together with the end of the prefix, from its last special token on. */
static bool cut_joined(const struct tlr_seam *s, const struct tlr_seam_want *w,
                       const char *text, size_t n, struct tlr_ids *ids,
                       size_t *from)
{
    struct tlr_buf all = {0};
    int first = w->n_tail;
    while (first > 0 && !tlr_token_is_special(s->tok, w->tail[first - 1]))
        first--;
    for (int i = first; i < w->n_tail; i++) {
        struct tlr_bytes b = tlr_token_bytes(s->tok, w->tail[i]);
        tlr_buf_put(&all, b.ptr, b.len);
    }
    tlr_buf_put(&all, text, n);
    size_t n_tail = (size_t)(w->n_tail - first);
    ids->n = 0;
    bool ok = !all.failed &&
              tlr_encode(s->tok, all.ptr, all.n, 0, ids, NULL) == 0 &&
              ids->n >= n_tail;
    for (size_t i = 0; i < n_tail && ok; i++)
        ok = ids->ids[i] == w->tail[first + (int)i];
    ok = ok && is_whole(s, ids, n_tail, text, n);
    *from = n_tail;
    tlr_buf_clear(&all);
    return ok;
}

static bool cut_alone(const struct tlr_seam *s, const char *text, size_t n,
                      struct tlr_ids *ids)
{
    ids->n = 0;
    return tlr_encode(s->tok, text, n, 0, ids, NULL) == 0 &&
           is_whole(s, ids, 0, text, n);
}

/* As far as it goes; at most n_tok + 1 tokens. */
static void cut_greedily(const struct tlr_seam *s, const char *text, size_t n,
                         int n_tok, struct tlr_ids *ids)
{
    ids->n = 0;
    for (size_t at = 0; at < n && ids->n <= (size_t)n_tok;) {
        size_t len = n - at < TLR_TOKEN_MAX_BYTES ? n - at : TLR_TOKEN_MAX_BYTES;
        int32_t id = -1;
        for (; len > 0 && id < 0; len -= id < 0) {
            id = tlr_token_find(s->tok, text + at, len);
            if (id >= 0 && tlr_token_is_special(s->tok, id))
                id = -1;
        }
        if (id < 0 || tlr_ids_push(ids, id, NULL))
            return;
        at += len;
    }
}

/* Where a special token that ends the text stands in it, spelled out; n if none
 * does. */
static size_t find_end(const struct tlr_seam *s, const char *text, size_t n,
                       int32_t *id)
{
    size_t start = 0, pos = 0;
    while ((*id = tlr_tokenizer_next_added(s->tok, text, n, &start, &pos)) >= 0)
        if (is_end(s, *id))
            return start;
    return n;
}

/* A character that the server's last token only began, as U+FFFD. */
static size_t without_torn(const char *text, size_t n)
{
    while (n >= 3 && memcmp(text + n - 3, "\xEF\xBF\xBD", 3) == 0)
        n -= 3;
    return n;
}

static int cut(const struct tlr_seam *s, const struct tlr_seam_want *w,
               const char *text, size_t n, int32_t *out, int *n_out,
               struct tlr_err *err)
{
    struct tlr_ids ids = {0};
    size_t from = 0;
    int32_t id = w->n_tok == 1 ? tlr_token_find(s->tok, text, n) : -1;
    if (id >= 0 && !tlr_token_is_special(s->tok, id)) {
        out[0] = id;
        *n_out = 1;
        return 0;
    }
    if (w->n_begun > 0 || (!cut_joined(s, w, text, n, &ids, &from) &&
                           !(from = 0, cut_alone(s, text, n, &ids)))) {
        from = 0;
        cut_greedily(s, text, n, w->n_tok, &ids);
    }
    size_t k = ids.n - from;
    k = k < (size_t)w->n_tok ? k : (size_t)w->n_tok;
    if (k > 0)
        memcpy(out, ids.ids + from, k * sizeof *out);
    *n_out = (int)k;
    tlr_ids_clear(&ids);
    return k > 0 ? 0
                 : tlr_err_set(err, TLR_EMISMATCH,
                               "reply: its text cannot be spelled in the small "
                               "model's tokens");
}

static int by_text(const struct tlr_seam *s, const struct tlr_net_answer *a,
                   const struct tlr_seam_want *w, int32_t *out, int *n_out,
                   struct tlr_err *err)
{
    const char *text = a->text.n > 0 ? a->text.ptr : "";
    size_t n = a->text.n, begun = (size_t)w->n_begun;
    bool ends = a->finish == TLR_NET_AT_END;
    int32_t end = a->end_id;
    if (ends)
        n = find_end(s, text, n, &end);
    else
        n = without_torn(text, n);
    if (n == 0 && !ends)
        return TLR_EPENDING;
    *n_out = 0;
    if (n > 0) {
        if (n < begun || memcmp(text, w->begun, begun) != 0)
            return tlr_err_set(err, TLR_EMISMATCH,
                               "reply: does not go on with the character that "
                               "the text has begun");
        if (n == begun && !ends)
            return TLR_EPENDING;
        int rc = n > begun ? cut(s, w, text + begun, n - begun, out, n_out, err)
                           : 0;
        if (rc)
            return rc;
    }
    if (!ends || *n_out == w->n_tok)
        return 0;
    out[*n_out] = end_id(s, end);
    return out[(*n_out)++] >= 0 ? 0 : no_end(err);
}

int tlr_seam_answer(const struct tlr_seam *s, const struct tlr_net_answer *a,
                    const struct tlr_seam_want *want, int32_t *out, int *n_out,
                    struct tlr_err *err)
{
    *n_out = 0;
    return a->n_ids >= 0 ? by_ids(s, a, want, out, n_out, err)
                         : by_text(s, a, want, out, n_out, err);
}
