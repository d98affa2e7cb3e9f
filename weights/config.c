/* config.c - the limits of a configuration and the tensors that follow from it.
 *
 * One table says which tensors a model has, in file order; the converter, the
 * writer and the reader all walk it, so they cannot disagree.  Also the kinds
 * of sections, which both ends of the file need.
 */
#include <inttypes.h>
#include <stdio.h>

#include "weights/layout.h"

enum extent { ONE, DIM, FFN, VOCAB, Q_ROWS, KV_ROWS, HEAD_DIM, HALF_HEAD };

struct item {
    const char *name;
    uint32_t with;    /* present only if these flags are set */
    uint32_t without; /* absent if one of these is set */
    enum extent rows, cols;
};

static const struct item model_items[] = {
    {"embed", 0, 0, VOCAB, DIM},
    {"head", 0, TLR_CONFIG_TIED_HEAD, VOCAB, DIM},
    {"final_norm", 0, 0, ONE, DIM},
    {"rope_factors", TLR_CONFIG_ROPE_FACTORS, 0, ONE, HALF_HEAD},
};

static const struct item layer_items[] = {
    {"attn_norm", 0, 0, ONE, DIM},
    {"q", 0, 0, Q_ROWS, DIM},
    {"k", 0, 0, KV_ROWS, DIM},
    {"v", 0, 0, KV_ROWS, DIM},
    {"q_bias", TLR_CONFIG_QKV_BIAS, 0, ONE, Q_ROWS},
    {"k_bias", TLR_CONFIG_QKV_BIAS, 0, ONE, KV_ROWS},
    {"v_bias", TLR_CONFIG_QKV_BIAS, 0, ONE, KV_ROWS},
    {"q_norm", TLR_CONFIG_QK_NORM, 0, ONE, HEAD_DIM},
    {"k_norm", TLR_CONFIG_QK_NORM, 0, ONE, HEAD_DIM},
    {"o", 0, 0, DIM, Q_ROWS},
    {"ffn_norm", 0, 0, ONE, DIM},
    {"gate", 0, 0, FFN, DIM},
    {"up", 0, 0, FFN, DIM},
    {"down", 0, 0, DIM, FFN},
};

#define N_ITEMS(items) (sizeof(items) / sizeof(items)[0])

static const uint32_t known_flags =
    TLR_CONFIG_QKV_BIAS | TLR_CONFIG_QK_NORM | TLR_CONFIG_TIED_HEAD |
    TLR_CONFIG_ROPE_FACTORS;

static bool is_present(const struct item *item, uint32_t flags)
{
    return (flags & item->with) == item->with && !(flags & item->without);
}

static uint32_t count_present(const struct item *items, size_t n,
                              uint32_t flags)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += is_present(&items[i], flags);
    }
    return count;
}

/* The i-th item that is present; i is below count_present. */
static const struct item *nth_present(const struct item *items, uint32_t flags,
                                      uint32_t i)
{
    for (;; items++) {
        if (is_present(items, flags) && i-- == 0) {
            return items;
        }
    }
}

static uint32_t extent_of(const struct tlr_config *c, enum extent e)
{
    switch (e) {
    case ONE: return 1;
    case DIM: return c->dim;
    case FFN: return c->ffn_dim;
    case VOCAB: return c->n_vocab;
    case Q_ROWS: return c->n_heads * c->head_dim;
    case KV_ROWS: return c->n_kv_heads * c->head_dim;
    case HEAD_DIM: return c->head_dim;
    case HALF_HEAD: return c->head_dim / 2;
    }
    return 0;
}

uint32_t tlr_config_n_tensors(const struct tlr_config *c)
{
    uint32_t outer = count_present(model_items, N_ITEMS(model_items), c->flags);
    uint32_t inner = count_present(layer_items, N_ITEMS(layer_items), c->flags);
    return outer + c->n_layers * inner;
}

void tlr_config_tensor(const struct tlr_config *c, uint32_t i,
                       struct tlr_tensor_want *out)
{
    uint32_t outer = count_present(model_items, N_ITEMS(model_items), c->flags);
    const struct item *item;
    if (i < outer) {
        item = nth_present(model_items, c->flags, i);
        snprintf(out->name, sizeof out->name, "%s", item->name);
    } else {
        uint32_t inner =
            count_present(layer_items, N_ITEMS(layer_items), c->flags);
        i -= outer;
        item = nth_present(layer_items, c->flags, i % inner);
        snprintf(out->name, sizeof out->name, "blk.%" PRIu32 ".%s", i / inner,
                 item->name);
    }
    out->n_rows = extent_of(c, item->rows);
    out->n_cols = extent_of(c, item->cols);
    out->is_matrix = item->rows != ONE;
}

static int check_range(const char *where, const char *field, uint32_t value,
                       uint32_t max, struct tlr_err *err)
{
    if (value >= 1 && value <= max) {
        return 0;
    }
    return tlr_err_set(err, TLR_ELIMIT,
                       "%s: %s: expected 1 to %" PRIu32 ", found %" PRIu32
                       "; this model is not supported",
                       where, field, max, value);
}

static int check_shape(const struct tlr_config *c, const char *where,
                       struct tlr_err *err)
{
    if (c->n_heads % c->n_kv_heads != 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: n_kv_heads: expected a divisor of n_heads "
                           "%" PRIu32 ", found %" PRIu32
                           "; this model is not supported",
                           where, c->n_heads, c->n_kv_heads);
    }
    if (c->head_dim % 8 != 0) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: head_dim: expected a multiple of 8, found "
                           "%" PRIu32 "; this model is not supported",
                           where, c->head_dim);
    }
    return 0;
}

int tlr_config_check(const struct tlr_config *c, const char *where,
                     struct tlr_err *err)
{
    const struct {
        const char *name;
        uint32_t value, max;
    } ranges[] = {
        {"n_layers", c->n_layers, 512},      {"n_heads", c->n_heads, 512},
        {"n_kv_heads", c->n_kv_heads, 512},  {"head_dim", c->head_dim, 512},
        {"dim", c->dim, 65536},              {"ffn_dim", c->ffn_dim, 65536},
        {"n_vocab", c->n_vocab, 1u << 20},   {"max_ctx", c->max_ctx, 1u << 20},
    };
    if (c->family < TLR_FAMILY_LLAMA || c->family > TLR_FAMILY_QWEN3) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: family: expected 1 to 3, found %" PRIu32
                           "; this tlr does not know that architecture",
                           where, c->family);
    }
    if (c->flags & ~known_flags) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: flags: expected only bits of 0x%" PRIx32
                           ", found 0x%" PRIx32 "; use a newer tlr",
                           where, known_flags, c->flags);
    }
    for (size_t i = 0; i < N_ITEMS(ranges); i++) {
        int rc = check_range(where, ranges[i].name, ranges[i].value,
                             ranges[i].max, err);
        if (rc) {
            return rc;
        }
    }
    int rc = check_shape(c, where, err);
    if (rc) {
        return rc;
    }
    /* Written so that NaN fails. */
    if (!(c->rms_eps > 0.0f && c->rms_eps < 1.0f)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: rms_eps: expected a number in (0, 1), found "
                           "%g; this model is not supported",
                           where, (double)c->rms_eps);
    }
    if (!(c->rope_theta > 1.0f && c->rope_theta < 1e9f)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: rope_theta: expected a number in (1, 1e9), "
                           "found %g; this model is not supported",
                           where, (double)c->rope_theta);
    }
    return 0;
}

uint32_t tlr_type_version(enum tlr_type type)
{
    return type == TLR_Q4N || type == TLR_Q8P ? 2 : 1;
}

int tlr_tensor_size(const struct tlr_tensor_want *want, unsigned type,
                    const char *label, uint64_t *out, struct tlr_err *err)
{
    if (type >= TLR_N_TYPES) {
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: tensor %s: expected a type from 0 to %d, found "
                           "%u; use a newer tlr or convert the model again",
                           label, want->name, TLR_N_TYPES - 1, type);
    }
    if (!want->is_matrix && type != TLR_F32) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected type f32 for a vector, "
                           "found %s; convert the model again",
                           label, want->name, tlr_type_name(type));
    }
    *out = tlr_matrix_bytes(type, want->n_rows, want->n_cols);
    if (*out == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: tensor %s: expected columns in multiples of %d "
                           "for %s, found %" PRIu32
                           "; convert this tensor to bf16",
                           label, want->name, TLR_TILE_COLS,
                           tlr_type_name(type), want->n_cols);
    }
    return 0;
}

static const struct tlr_section_kind section_kinds[] = {
    [TLR_SECTION_CONFIG] = {"config", TLR_CONFIG_BYTES, TLR_SECT_REQUIRED,
                            false},
    [TLR_SECTION_TOKENIZER] = {"tokenizer", 64u << 20, TLR_SECT_REQUIRED,
                               false},
    [TLR_SECTION_CHAT] = {"chat", 1u << 20, TLR_SECT_REQUIRED, true},
    [TLR_SECTION_GENERATION] = {"generation", 1u << 20, TLR_SECT_REQUIRED,
                                true},
    [TLR_SECTION_PROVENANCE] = {"provenance", 1u << 20, 0, true},
    [TLR_SECTION_ROUTER] = {"router", 256u << 20, 0, false},
};

const struct tlr_section_kind *tlr_section_kind(uint32_t id)
{
    return id >= 1 && id < N_ITEMS(section_kinds) ? &section_kinds[id] : NULL;
}

int tlr_section_check(uint32_t id, const void *data, uint64_t len,
                      const char *label, struct tlr_err *err)
{
    const struct tlr_section_kind *kind = tlr_section_kind(id);
    if (id == TLR_SECTION_CONFIG && len != TLR_CONFIG_BYTES) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section config: expected %d bytes, found "
                           "%" PRIu64 "; convert the model again",
                           label, TLR_CONFIG_BYTES, len);
    }
    if (len == 0 || len > kind->max_bytes) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: section %s: expected 1 to %" PRIu64
                           " bytes, found %" PRIu64 "; convert the model again",
                           label, kind->name, kind->max_bytes, len);
    }
    if (!kind->is_json) {
        return 0;
    }
    if (*(const uint8_t *)data != '{' || memchr(data, 0, (size_t)len) ||
        !tlr_utf8_valid(data, (size_t)len)) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: section %s: expected a JSON object in UTF-8 "
                           "without NUL, found something else; convert the "
                           "model again",
                           label, kind->name);
    }
    return 0;
}
