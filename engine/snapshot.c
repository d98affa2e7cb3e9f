/* snapshot.c - a timeline as bytes: ids, keys and values, last hidden state.
 *
 * Layout, little-endian (keys and values in the host's order, which for every
 * supported machine is the same):
 *    0  "TLRSNAP1"          8  u64 fingerprint of the model
 *   16  u32 elem_bytes     20  u32 n_pos       24  u32 has_hidden
 *   28  u32 crc32 of the body
 *   32  body: i32 ids[n_pos]; f32 hidden[dim] if has_hidden; then for each
 *       layer and kv head: keys [n_pos] out of their blocks (of q8 the scales,
 *       then the numbers), values likewise.
 * The bytes are hostile until all of that is checked; the session is touched
 * last.  Branches are not part of it.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/session.h"

enum { HEADER_BYTES = 32 };
static const char magic[8] = {'T', 'L', 'R', 'S', 'N', 'A', 'P', '1'};

/* What the header says, in host order. */
struct header {
    uint64_t fingerprint;
    uint32_t elem_bytes, n_pos, has_hidden, crc;
};

static uint64_t head_bytes(const struct tlr_session *s, uint32_t n_pos)
{
    return (uint64_t)n_pos * tlr_kv_pos_bytes(&s->kv);
}

/* Whole size of a snapshot; n_pos <= n_ctx, so no product can overflow that
 * the arena did not. */
static uint64_t snapshot_bytes(const struct tlr_session *s, uint32_t n_pos,
                               bool has_hidden)
{
    const struct tlr_config *c = s->model->config;
    uint64_t n = HEADER_BYTES + (uint64_t)n_pos * sizeof(int32_t);
    n += has_hidden ? (uint64_t)c->dim * sizeof(float) : 0;
    return n + (uint64_t)c->n_layers * c->n_kv_heads * 2 * head_bytes(s, n_pos);
}

static uint8_t *put(uint8_t *dst, const void *src, uint64_t n_bytes)
{
    memcpy(dst, src, (size_t)n_bytes);
    return dst + n_bytes;
}

/* The positions of one head, out of their blocks. */
static uint8_t *put_head(const struct tlr_session *s, uint8_t *dst,
                         const uint8_t *blocks, bool is_key)
{
    for (uint32_t p = 0; p < s->pos; p++) {
        tlr_kv_get(&s->kv, dst,
                   blocks + p / TLR_KV_BLOCK * s->kv.block_bytes,
                   p % TLR_KV_BLOCK, is_key);
        dst += tlr_kv_pos_bytes(&s->kv);
    }
    return dst;
}

static void put_header(uint8_t *dst, const struct header *h)
{
    memcpy(dst, magic, sizeof magic);
    tlr_put_u32(dst + 8, (uint32_t)h->fingerprint);
    tlr_put_u32(dst + 12, (uint32_t)(h->fingerprint >> 32));
    tlr_put_u32(dst + 16, h->elem_bytes);
    tlr_put_u32(dst + 20, h->n_pos);
    tlr_put_u32(dst + 24, h->has_hidden);
    tlr_put_u32(dst + 28, h->crc);
}

int tlr_snapshot_save(const struct tlr_session *s, uint8_t **out,
                      size_t *out_len, struct tlr_err *err)
{
    *out = NULL;
    *out_len = 0;
    const struct tlr_config *c = s->model->config;
    uint64_t n_bytes = snapshot_bytes(s, s->pos, s->has_hidden);
    uint8_t *bytes = tlr_calloc(1, (size_t)n_bytes);
    if (!bytes) {
        return tlr_err_nomem(err, "snapshot", n_bytes);
    }
    uint8_t *p = bytes + HEADER_BYTES;
    p = put(p, s->ids, (uint64_t)s->pos * sizeof *s->ids);
    if (s->has_hidden) {
        p = put(p, s->hidden, (uint64_t)c->dim * sizeof *s->hidden);
    }
    for (uint32_t l = 0; l < c->n_layers; l++) {
        for (uint32_t h = 0; h < c->n_kv_heads; h++) {
            uint64_t off = tlr_kv_offset(&s->kv, l, h, 0);
            p = put_head(s, p, s->kv.k + off, true);
            p = put_head(s, p, s->kv.v + off, false);
        }
    }
    struct header head = {.fingerprint = s->model->fingerprint,
                          .elem_bytes = s->kv.elem_bytes,
                          .n_pos = s->pos,
                          .has_hidden = s->has_hidden};
    head.crc = tlr_crc32(0, bytes + HEADER_BYTES, (size_t)n_bytes - HEADER_BYTES);
    put_header(bytes, &head);
    *out = bytes;
    *out_len = (size_t)n_bytes;
    return 0;
}

static int check_header(const struct tlr_session *s, struct header *h,
                        struct tlr_bytes bytes, struct tlr_err *err)
{
    struct tlr_span in = tlr_span_of(bytes.ptr, bytes.len);
    const uint8_t *m = tlr_span_take(&in, sizeof magic);
    h->fingerprint = tlr_span_u64(&in);
    h->elem_bytes = tlr_span_u32(&in);
    h->n_pos = tlr_span_u32(&in);
    h->has_hidden = tlr_span_u32(&in);
    h->crc = tlr_span_u32(&in);
    if (in.bad || memcmp(m, magic, sizeof magic) != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "snapshot: expected a header of %d bytes that starts "
                           "with TLRSNAP1, found something else; save it again",
                           HEADER_BYTES);
    }
    if (h->fingerprint != s->model->fingerprint) {
        return tlr_err_set(err, TLR_EMISMATCH,
                           "snapshot: expected model %016llx (%s), found "
                           "%016llx; load it into the model it was saved from",
                           (unsigned long long)s->model->fingerprint,
                           tlr_file_label(s->model->file),
                           (unsigned long long)h->fingerprint);
    }
    if (h->elem_bytes != s->kv.elem_bytes) {
        return tlr_err_set(err, TLR_EMISMATCH,
                           "snapshot: expected a KV cache of %u-byte elements, "
                           "found %u; open the session with the same KV type",
                           s->kv.elem_bytes, (unsigned)h->elem_bytes);
    }
    if (h->n_pos > s->opt.n_ctx) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "snapshot: expected at most %u positions, found %u; "
                           "open the session with a longer context",
                           (unsigned)s->opt.n_ctx, (unsigned)h->n_pos);
    }
    return 0;
}

static int check_body(const struct tlr_session *s, const struct header *h,
                      struct tlr_bytes bytes, struct tlr_err *err)
{
    uint64_t want = snapshot_bytes(s, h->n_pos, h->has_hidden == 1);
    if (h->has_hidden > 1 || want != bytes.len) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "snapshot: expected %llu bytes for %u positions, "
                           "found %zu; save it again", (unsigned long long)want,
                           (unsigned)h->n_pos, bytes.len);
    }
    uint32_t crc =
        tlr_crc32(0, bytes.ptr + HEADER_BYTES, bytes.len - HEADER_BYTES);
    if (crc != h->crc) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "snapshot: expected checksum %08x, found %08x; the "
                           "bytes are damaged, save it again", (unsigned)h->crc,
                           (unsigned)crc);
    }
    struct tlr_span in = tlr_span_of(bytes.ptr, bytes.len);
    tlr_span_take(&in, HEADER_BYTES);
    for (uint32_t i = 0; i < h->n_pos; i++) {
        int32_t id = (int32_t)tlr_span_u32(&in);
        if (tlr_session_check_ids(s, &id, 1, NULL)) {
            return tlr_err_set(err, TLR_EFORMAT,
                               "snapshot: token %u: expected an id below %u, "
                               "found %d; save it again", (unsigned)i,
                               (unsigned)s->model->n_ids, (int)id);
        }
    }
    return 0;
}

static const uint8_t *get(void *dst, const uint8_t *src, uint64_t n_bytes)
{
    memcpy(dst, src, (size_t)n_bytes);
    return src + n_bytes;
}

static const uint8_t *get_head(const struct tlr_session *s, uint8_t *blocks,
                               const uint8_t *src, uint32_t n_pos, bool is_key)
{
    for (uint32_t p = 0; p < n_pos; p++) {
        tlr_kv_put(&s->kv, blocks + p / TLR_KV_BLOCK * s->kv.block_bytes,
                   p % TLR_KV_BLOCK, src, is_key);
        src += tlr_kv_pos_bytes(&s->kv);
    }
    return src;
}

int tlr_snapshot_load(struct tlr_session *s, struct tlr_bytes bytes,
                      struct tlr_err *err)
{
    struct header head;
    int rc = check_header(s, &head, bytes, err);
    if (!rc) {
        rc = check_body(s, &head, bytes, err);
    }
    if (rc) {
        return rc;
    }
    tlr_branch_drop(s);
    const struct tlr_config *c = s->model->config;
    const uint8_t *p = bytes.ptr + HEADER_BYTES;
    p = get(s->ids, p, (uint64_t)head.n_pos * sizeof *s->ids);
    if (head.has_hidden) {
        p = get(s->hidden, p, (uint64_t)c->dim * sizeof *s->hidden);
    }
    for (uint32_t l = 0; l < c->n_layers; l++) {
        for (uint32_t h = 0; h < c->n_kv_heads; h++) {
            uint64_t off = tlr_kv_offset(&s->kv, l, h, 0);
            p = get_head(s, s->kv.k + off, p, head.n_pos, true);
            p = get_head(s, s->kv.v + off, p, head.n_pos, false);
        }
    }
    s->pos = head.n_pos;
    tlr_session_made(s, head.has_hidden, false);
    return 0;
}

/* ---- from session to session ---- */

int tlr_adopt(struct tlr_session *to, const struct tlr_session *from,
              uint32_t n, struct tlr_err *err)
{
    if (to == from || to->model != from->model || to->kv.type != from->kv.type) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "timeline: expected another session of the same model "
                           "and KV type");
    }
    if (n > from->pos || n > to->opt.n_ctx) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "timeline: expected up to %u tokens, found %u",
                           (unsigned)(n > from->pos ? from->pos
                                                    : to->opt.n_ctx),
                           (unsigned)n);
    }
    uint32_t same = 0, most = to->pos < n ? to->pos : n;
    while (same < most && to->ids[same] == from->ids[same]) {
        same++;
    }
    tlr_branch_drop(to);
    if (same < n) {
        tlr_kv_copy(&to->kv, &from->kv, same, n);
    }
    memcpy(to->ids, from->ids, n * sizeof *to->ids);
    to->pos = n;
    const struct tlr_config *c = to->model->config;
    bool is_all = n == from->pos;
    tlr_session_made(to, is_all && from->has_hidden,
                     is_all && from->has_logits);
    if (to->has_hidden) {
        memcpy(to->hidden, from->hidden, c->dim * sizeof *to->hidden);
        to->found = from->found;
    }
    if (to->has_logits) {
        memcpy(to->logits, from->logits, c->n_vocab * sizeof *to->logits);
    }
    return 0;
}
