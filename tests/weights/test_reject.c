/* test_reject.c - every way in which a model file can lie, one row each.
 *
 * A row changes one field of a valid image; then, unless the row is about a
 * checksum, the checksums are made right again, so that what refuses the file
 * is the check the row is named after.  The message must say so.
 */
#include <math.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "tests/support/tlr_check.h"
#include "tests/weights/tiny.h"

enum place {
    HEAD,    /* header */
    SLOT,    /* entry of section `section` */
    FREE,    /* first unused slot of the section table */
    PAYLOAD, /* bytes of section `section` */
    ENTRY,   /* directory entry of tensor `tensor` */
    GAP      /* first byte after the payload of section `section` */
};
enum mode { SET, ADD, RAW }; /* RAW: set, and leave the checksums wrong */

struct row {
    const char *name;
    enum place place;
    enum tlr_section section;
    const char *tensor;
    unsigned at, width;
    enum mode mode;
    uint64_t value;
    int code;
    const char *says;
};

#define R_HEAD(name, at, width, mode, value, code, says)                       \
    {name, HEAD, 0, NULL, at, width, mode, value, code, says}
#define R_SLOT(name, id, at, width, mode, value, code, says)                   \
    {name, SLOT, id, NULL, at, width, mode, value, code, says}
#define R_DIR(name, tensor, at, width, mode, value, code, says)                \
    {name, ENTRY, 0, tensor, at, width, mode, value, code, says}
#define R_CONFIG(name, word, value, code, says)                                \
    {name, PAYLOAD, TLR_SECTION_CONFIG, NULL, 4 * (word), 4, SET, value, code, \
     "tiny: config: " says}

#define EPS_ONE 0x3f800000u
#define F32_NAN 0x7fc00000u
#define F32_INF 0x7f800000u

static const struct row rows[] = {
    /* magic: what GGUF, a text transfer and a 7-bit transfer leave */
    R_HEAD("magic empty", 0, 8, RAW, 0, TLR_EFORMAT, "magic: expected a tlr"),
    R_HEAD("magic GGUF", 0, 4, RAW, 0x46554747, TLR_EFORMAT, "tlr convert"),
    R_HEAD("magic 7 bit", 0, 1, RAW, 0x09, TLR_EFORMAT, "text-mode"),
    R_HEAD("magic CR LF to LF", 4, 1, RAW, 0x0a, TLR_EFORMAT, "text-mode"),
    /* versions, endianness, flags, reserved */
    R_HEAD("version 0", TLR_HEAD_VERSION, 4, SET, 0, TLR_EFORMAT, "version"),
    R_HEAD("minimum reader 0", TLR_HEAD_MIN_READER, 4, SET, 0, TLR_EFORMAT,
           "minimum reader 0"),
    R_HEAD("minimum reader over version", TLR_HEAD_MIN_READER, 4, SET, 2,
           TLR_EFORMAT, "minimum reader 2, version 1"),
    R_HEAD("future file", TLR_HEAD_VERSION, 8, SET, 0x0000000300000003,
           TLR_EUNSUPPORTED, "use a newer tlr"),
    R_HEAD("version all ones", TLR_HEAD_VERSION, 8, SET, UINT64_MAX,
           TLR_EUNSUPPORTED, "found 4294967295; use a newer tlr"),
    R_HEAD("big-endian", TLR_HEAD_ENDIAN, 4, SET, 0x04030201, TLR_EUNSUPPORTED,
           "big-endian"),
    R_HEAD("endian mark unknown", TLR_HEAD_ENDIAN, 4, SET, 0x02010403,
           TLR_EUNSUPPORTED, "endianness: expected 0x01020304"),
    R_HEAD("unknown flag", TLR_HEAD_FLAGS, 4, SET, 1, TLR_EUNSUPPORTED,
           "flags: expected 0, found 0x1"),
    R_HEAD("reserved, first", TLR_HEAD_RESERVED, 1, SET, 1, TLR_EFORMAT,
           "reserved"),
    R_HEAD("reserved, last", TLR_HEAD_CRC - 1, 1, SET, 0x80, TLR_EFORMAT,
           "reserved"),
    R_HEAD("header checksum", TLR_HEAD_CRC, 1, RAW, 0, TLR_EFORMAT,
           "header: expected checksum"),
    /* sizes and counts */
    R_HEAD("one byte missing", TLR_HEAD_FILE_BYTES, 8, ADD, 1, TLR_EFORMAT,
           "truncated"),
    R_HEAD("one byte more", TLR_HEAD_FILE_BYTES, 8, ADD, UINT64_MAX,
           TLR_EFORMAT, "trailing bytes"),
    R_HEAD("size all ones", TLR_HEAD_FILE_BYTES, 8, SET, UINT64_MAX,
           TLR_EFORMAT, "truncated"),
    R_HEAD("no sections", TLR_HEAD_N_SECTIONS, 4, SET, 0, TLR_ELIMIT,
           "1 to 16 sections"),
    R_HEAD("17 sections", TLR_HEAD_N_SECTIONS, 4, SET, 17, TLR_ELIMIT,
           "found 17"),
    R_HEAD("sections all ones", TLR_HEAD_N_SECTIONS, 4, SET, UINT32_MAX,
           TLR_ELIMIT, "found 4294967295"),
    R_HEAD("a section fewer", TLR_HEAD_N_SECTIONS, 4, ADD, UINT32_MAX,
           TLR_EFORMAT, "section table: expected zeros"),
    R_HEAD("a section more", TLR_HEAD_N_SECTIONS, 4, ADD, 1, TLR_EUNSUPPORTED,
           "section 0"),
    R_HEAD("no tensors", TLR_HEAD_N_TENSORS, 4, SET, 0, TLR_ELIMIT,
           "1 to 8192 tensors"),
    R_HEAD("8193 tensors", TLR_HEAD_N_TENSORS, 4, SET, 8193, TLR_ELIMIT,
           "found 8193"),
    R_HEAD("tensors all ones", TLR_HEAD_N_TENSORS, 4, SET, UINT32_MAX,
           TLR_ELIMIT, "found 4294967295"),
    R_HEAD("directory over the end", TLR_HEAD_N_TENSORS, 4, SET, 8192,
           TLR_EFORMAT, "bytes of directory"),
    R_HEAD("a tensor fewer", TLR_HEAD_N_TENSORS, 4, ADD, UINT32_MAX,
           TLR_EFORMAT, "section config: expected offset"),
    {"table checksum", FREE, 0, NULL, 0, 1, RAW, 1, TLR_EFORMAT,
     "header tables: expected checksum"},
    /* section table */
    R_SLOT("unknown and required", TLR_SECTION_PROVENANCE, TLR_SECT_ID, 8, SET,
           0x0000000100000063, TLR_EUNSUPPORTED, "section 99"),
    R_SLOT("unknown flag of a section", TLR_SECTION_PROVENANCE, TLR_SECT_FLAGS,
           4, SET, 2, TLR_EFORMAT, "section provenance: expected flags 0x0"),
    R_SLOT("known made optional", TLR_SECTION_CHAT, TLR_SECT_FLAGS, 4, SET, 0,
           TLR_EFORMAT, "section chat: expected flags 0x1"),
    R_SLOT("reserved of a section", TLR_SECTION_CHAT, TLR_SECT_RESERVED, 4,
           SET, 1, TLR_EFORMAT, "section chat: expected flags"),
    R_SLOT("section twice", TLR_SECTION_GENERATION, TLR_SECT_ID, 4, SET,
           TLR_SECTION_CHAT, TLR_EFORMAT, "section chat: expected once"),
    R_SLOT("section misaligned", TLR_SECTION_CHAT, TLR_SECT_OFFSET, 8, ADD, 8,
           TLR_EFORMAT, "section chat: expected offset"),
    R_SLOT("section over another", TLR_SECTION_CHAT, TLR_SECT_OFFSET, 8, ADD,
           -(uint64_t)64, TLR_EFORMAT, "section chat: expected offset"),
    R_SLOT("section after a hole", TLR_SECTION_CHAT, TLR_SECT_OFFSET, 8, ADD,
           64, TLR_EFORMAT, "section chat: expected offset"),
    R_SLOT("section at 2^64 - 64", TLR_SECTION_CHAT, TLR_SECT_OFFSET, 8, SET,
           -(uint64_t)64, TLR_EFORMAT, "section chat: expected offset"),
    R_SLOT("section over the end", TLR_SECTION_ROUTER, TLR_SECT_SIZE, 8, SET,
           1 << 20, TLR_EFORMAT, "to the end of the file, found 1048576"),
    R_SLOT("section size overflows", TLR_SECTION_CHAT, TLR_SECT_SIZE, 8, SET,
           UINT64_MAX, TLR_EFORMAT, "to the end of the file"),
    R_SLOT("section empty", TLR_SECTION_CHAT, TLR_SECT_SIZE, 8, SET, 0,
           TLR_ELIMIT, "section chat: expected 1 to"),
    R_SLOT("config too short", TLR_SECTION_CONFIG, TLR_SECT_SIZE, 8, SET, 63,
           TLR_EFORMAT, "section config: expected 64 bytes, found 63"),
    R_SLOT("no config", TLR_SECTION_CONFIG, TLR_SECT_ID, 8, SET, 77,
           TLR_EFORMAT, "section config: expected one"),
    {"unused slot", FREE, 0, NULL, TLR_SECT_RESERVED, 4, SET, 1, TLR_EFORMAT,
     "section table: expected zeros"},
    {"section checksum", PAYLOAD, TLR_SECTION_TOKENIZER, NULL, 0, 1, RAW, 1,
     TLR_EFORMAT, "section tokenizer: expected checksum"},
    {"bytes in a gap", GAP, TLR_SECTION_CHAT, NULL, 0, 1, SET, 1, TLR_EFORMAT,
     "padding"},
    {"gap before the tensors", GAP, TLR_SECTION_ROUTER, NULL, 0, 1, SET, 1,
     TLR_EFORMAT, "tensor embed: expected zeros in the padding"},
    {"JSON not an object", PAYLOAD, TLR_SECTION_CHAT, NULL, 0, 1, SET, '[',
     TLR_EFORMAT, "section chat: expected a JSON object"},
    {"JSON with NUL", PAYLOAD, TLR_SECTION_CHAT, NULL, 3, 1, SET, 0,
     TLR_EFORMAT, "section chat: expected a JSON object"},
    {"JSON not UTF-8", PAYLOAD, TLR_SECTION_PROVENANCE, NULL, 3, 1, SET, 0xff,
     TLR_EFORMAT, "section provenance: expected a JSON object"},
    /* configuration */
    R_CONFIG("family 0", 0, 0, TLR_EUNSUPPORTED, "family"),
    R_CONFIG("family 4", 0, 4, TLR_EUNSUPPORTED, "family"),
    R_CONFIG("config flag", 1, 0x10, TLR_EUNSUPPORTED, "flags"),
    R_CONFIG("dim 0", 2, 0, TLR_ELIMIT, "dim"),
    R_CONFIG("dim 65537", 2, 65537, TLR_ELIMIT, "dim"),
    R_CONFIG("ffn_dim 0", 3, 0, TLR_ELIMIT, "ffn_dim"),
    R_CONFIG("ffn_dim 65537", 3, 65537, TLR_ELIMIT, "ffn_dim"),
    R_CONFIG("no layers", 4, 0, TLR_ELIMIT, "n_layers"),
    R_CONFIG("513 layers", 4, 513, TLR_ELIMIT, "n_layers"),
    R_CONFIG("2^32 - 1 layers", 4, UINT32_MAX, TLR_ELIMIT, "n_layers"),
    R_CONFIG("no heads", 5, 0, TLR_ELIMIT, "n_heads"),
    R_CONFIG("513 heads", 5, 513, TLR_ELIMIT, "n_heads"),
    R_CONFIG("no kv heads", 6, 0, TLR_ELIMIT, "n_kv_heads"),
    R_CONFIG("kv heads divide not", 6, 3, TLR_EFORMAT, "n_kv_heads"),
    R_CONFIG("more kv heads than heads", 6, 8, TLR_EFORMAT, "n_kv_heads"),
    R_CONFIG("head_dim 0", 7, 0, TLR_ELIMIT, "head_dim"),
    R_CONFIG("head_dim odd", 7, 7, TLR_EUNSUPPORTED, "head_dim"),
    R_CONFIG("head_dim 12", 7, 12, TLR_EUNSUPPORTED, "head_dim"),
    R_CONFIG("head_dim 520", 7, 520, TLR_ELIMIT, "head_dim"),
    R_CONFIG("n_vocab 0", 8, 0, TLR_ELIMIT, "n_vocab"),
    R_CONFIG("n_vocab over 2^20", 8, (1u << 20) + 1, TLR_ELIMIT, "n_vocab"),
    R_CONFIG("max_ctx 0", 9, 0, TLR_ELIMIT, "max_ctx"),
    R_CONFIG("max_ctx over 2^20", 9, (1u << 20) + 1, TLR_ELIMIT, "max_ctx"),
    R_CONFIG("eps 0", 10, 0, TLR_EFORMAT, "rms_eps"),
    R_CONFIG("eps 1", 10, EPS_ONE, TLR_EFORMAT, "rms_eps"),
    R_CONFIG("eps negative", 10, 0xb58637bdu, TLR_EFORMAT, "rms_eps"),
    R_CONFIG("eps NaN", 10, F32_NAN, TLR_EFORMAT, "rms_eps"),
    R_CONFIG("theta 1", 11, EPS_ONE, TLR_EFORMAT, "rope_theta"),
    R_CONFIG("theta infinite", 11, F32_INF, TLR_EFORMAT, "rope_theta"),
    R_CONFIG("theta NaN", 11, F32_NAN, TLR_EFORMAT, "rope_theta"),
    {"config reserved", PAYLOAD, TLR_SECTION_CONFIG, NULL, 63, 1, SET, 1,
     TLR_EFORMAT, "section config: expected zeros"},
    /* configuration and directory disagree */
    {"vocabulary over the embedding", PAYLOAD, TLR_SECTION_CONFIG, NULL, 32, 4,
     SET, 21, TLR_EFORMAT, "tensor embed: expected [21,32], found [20,32]"},
    {"three layers of two", PAYLOAD, TLR_SECTION_CONFIG, NULL, 16, 4, SET, 3,
     TLR_EFORMAT, "tensor blk.2.attn_norm: expected 39 tensors"},
    {"one layer of two", PAYLOAD, TLR_SECTION_CONFIG, NULL, 16, 4, SET, 1,
     TLR_EFORMAT, "expected no more, found blk.1.attn_norm"},
    {"extra head", PAYLOAD, TLR_SECTION_CONFIG, NULL, 4, 4, SET,
     TLR_CONFIG_TIED_HEAD | TLR_CONFIG_QK_NORM, TLR_EFORMAT,
     "expected final_norm, found head"},
    /* tensor directory */
    R_DIR("name empty", "head", 0, 4, SET, 0, TLR_EFORMAT,
          "tensor number 1: expected a name"),
    R_DIR("bytes after the name", "head", 31, 1, SET, 'x', TLR_EFORMAT,
          "tensor number 1: expected a name"),
    R_DIR("name with escape", "head", 1, 1, SET, 0x1b, TLR_EFORMAT,
          "tensor number 1: expected a name"),
    R_DIR("name not ASCII", "head", 1, 1, SET, 0xc3, TLR_EFORMAT,
          "tensor number 1: expected a name"),
    R_DIR("name unknown", "head", 0, 1, SET, 'H', TLR_EFORMAT,
          "expected head, found Head"),
    R_DIR("name twice", "blk.1.q", 4, 1, SET, '0', TLR_EFORMAT,
          "tensor blk.0.q: expected once"),
    R_DIR("type of a younger format", "head", TLR_DIR_TYPE, 4, SET, TLR_Q4N,
          TLR_EFORMAT, "minimum reader of 2 or more for type q4n, found 1"),
    R_DIR("type 7", "head", TLR_DIR_TYPE, 4, SET, 7, TLR_EUNSUPPORTED,
          "tensor head: expected a type"),
    R_DIR("type negative", "head", TLR_DIR_TYPE, 4, SET, UINT32_MAX,
          TLR_EUNSUPPORTED, "tensor head: expected a type"),
    R_DIR("type of another size", "head", TLR_DIR_TYPE, 4, SET, TLR_F32,
          TLR_EFORMAT, "tensor head: expected 2560 bytes for f32"),
    R_DIR("vector of type q8", "final_norm", TLR_DIR_TYPE, 4, SET, TLR_Q8,
          TLR_EFORMAT, "tensor final_norm: expected type f32"),
    R_DIR("rows", "blk.0.up", TLR_DIR_ROWS, 4, ADD, 1, TLR_EFORMAT,
          "tensor blk.0.up: expected [64,32], found [65,32]"),
    R_DIR("shape turned", "blk.0.up", TLR_DIR_ROWS, 8, SET,
          0x0000004000000020, TLR_EFORMAT, "found [32,64]"),
    R_DIR("columns all ones", "blk.0.up", TLR_DIR_COLS, 4, SET, UINT32_MAX,
          TLR_EFORMAT, "found [64,4294967295]"),
    R_DIR("size too small", "blk.0.up", TLR_DIR_SIZE, 8, ADD, UINT64_MAX,
          TLR_EFORMAT, "tensor blk.0.up: expected 2176 bytes for q8"),
    R_DIR("size overflows", "blk.0.up", TLR_DIR_SIZE, 8, SET, UINT64_MAX,
          TLR_EFORMAT, "tensor blk.0.up: expected 2176 bytes for q8"),
    R_DIR("tensor misaligned", "blk.0.up", TLR_DIR_OFFSET, 8, ADD, 32,
          TLR_EFORMAT, "tensor blk.0.up: expected offset"),
    R_DIR("tensor over another", "blk.0.up", TLR_DIR_OFFSET, 8, ADD,
          -(uint64_t)64, TLR_EFORMAT, "tensor blk.0.up: expected offset"),
    R_DIR("tensor after a hole", "blk.0.up", TLR_DIR_OFFSET, 8, ADD, 64,
          TLR_EFORMAT, "tensor blk.0.up: expected offset"),
    R_DIR("tensor over the header", "embed", TLR_DIR_OFFSET, 8, SET, 0,
          TLR_EFORMAT, "tensor embed: expected offset"),
    R_DIR("tensor at 2^64 - 64", "blk.1.down", TLR_DIR_OFFSET, 8, SET,
          -(uint64_t)64, TLR_EFORMAT, "tensor blk.1.down: expected offset"),
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

/* A qwen2 model in q8: head untied, biases present, and a router section. */
static uint8_t *model_image(size_t *len)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, TLR_Q8);
    return tiny_image(&t, len);
}

static uint8_t *locate(uint8_t *image, const struct row *r)
{
    uint8_t *slot;
    switch (r->place) {
    case HEAD: return image + r->at;
    case ENTRY: return tiny_entry(image, r->tensor) + r->at;
    case FREE:
        return image + TLR_HEAD_BYTES +
               tlr_get_u32(image + TLR_HEAD_N_SECTIONS) * TLR_SECT_BYTES +
               r->at;
    default: break;
    }
    slot = tiny_slot(image, r->section);
    if (r->place == SLOT) {
        return slot + r->at;
    }
    return image + tlr_get_u64(slot + TLR_SECT_OFFSET) + r->at +
           (r->place == GAP ? tlr_get_u64(slot + TLR_SECT_SIZE) : 0);
}

static void expect_refused(const uint8_t *image, size_t len, const char *name,
                           int code, const char *says)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f = NULL;
    int rc = tlr_file_open_bytes(&f, image, len, "tiny", &err);
    ck_assert_msg(rc == code, "%s: expected %s, got %s: %s", name,
                  tlr_err_name(code), tlr_err_name(rc), err.text);
    ck_assert_ptr_null(f);
    ck_assert_msg(strncmp(err.text, "tiny: ", 6) == 0, "%s: %s", name,
                  err.text);
    ck_assert_msg(strstr(err.text, says) != NULL, "%s: no \"%s\" in: %s", name,
                  says, err.text);
}

START_TEST(row_is_refused)
{
    const struct row *r = &rows[_i];
    size_t len;
    uint8_t *image = model_image(&len);
    uint8_t *p = locate(image, r);
    uint64_t v = 0;
    memcpy(&v, p, r->width);
    v = r->mode == ADD ? v + r->value : r->value;
    ck_assert_msg(memcmp(p, &v, r->width) != 0, "%s changes nothing", r->name);
    memcpy(p, &v, r->width);
    if (r->mode != RAW) {
        tiny_repair(image, len);
    }
    expect_refused(image, len, r->name, r->code, r->says);
    tlr_free(image);
}
END_TEST

START_TEST(repair_alone_is_harmless)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    size_t len;
    uint8_t *image = model_image(&len), *before = tiny_copy(image, len);
    tiny_repair(image, len);
    ck_assert_mem_eq(image, before, len);
    ck_assert_msg(tlr_file_open_bytes(&f, image, len, "tiny", &err) == 0,
                  "%s", err.text);
    tlr_file_close(f);
    tlr_free(image);
    tlr_free(before);
}
END_TEST

/* What must stay open to later versions. */
START_TEST(newer_and_unknown_optional_is_read)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    size_t len;
    uint8_t *image = model_image(&len);
    tlr_put_u32(image + TLR_HEAD_VERSION, 7);
    tlr_put_u32(tiny_slot(image, TLR_SECTION_PROVENANCE) + TLR_SECT_ID, 99);
    tiny_repair(image, len);
    ck_assert_msg(tlr_file_open_bytes(&f, image, len, "tiny", &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(tlr_file_version(f), 7);
    ck_assert_ptr_null(tlr_file_section(f, TLR_SECTION_PROVENANCE).ptr);
    ck_assert_msg(tlr_file_verify(f, NULL, NULL, &err) == 0, "%s", err.text);
    tlr_file_close(f);
    tlr_free(image);
}
END_TEST

START_TEST(memory_must_be_aligned)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    size_t len;
    uint8_t *image = model_image(&len);
    ck_assert_int_eq(
        tlr_file_open_bytes(&f, image + 8, len - 8, "tiny", &err), TLR_EUSAGE);
    tlr_free(image);
}
END_TEST

/* Copies of exactly the cut length: a sanitizer sees a read past it. */
START_TEST(truncation_is_refused)
{
    size_t len;
    uint8_t *image = model_image(&len);
    size_t head = tlr_head_area_bytes(tlr_get_u32(image + TLR_HEAD_N_TENSORS));
    ck_assert_uint_lt(head, len);
    for (size_t cut = 0; cut < len; cut += cut < head + 64 ? 1 : 97) {
        uint8_t *copy = tiny_copy(image, cut);
        expect_refused(copy, cut, "cut", TLR_EFORMAT,
                       cut < 4                ? "magic"
                       : cut < 8              ? "text-mode"
                                              : "truncated");
        tlr_free(copy);
    }
    uint8_t *longer = tlr_alloc_aligned(len + 1);
    memcpy(longer, image, len);
    longer[len] = 0;
    expect_refused(longer, len + 1, "longer", TLR_EFORMAT, "trailing bytes");
    /* Also when the header agrees with the longer file. */
    tlr_put_u64(longer + TLR_HEAD_FILE_BYTES, len + 1);
    tiny_repair(longer, len + 1);
    expect_refused(longer, len + 1, "longer and declared", TLR_EFORMAT,
                   "trailing bytes");
    tlr_free(longer);
    tlr_free(image);
}
END_TEST

static int opens_and_verifies(const uint8_t *image, size_t len)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    int rc = tlr_file_open_bytes(&f, image, len, "tiny", &err);
    if (rc == 0) {
        rc = tlr_file_verify(f, NULL, NULL, &err);
        tlr_file_close(f);
    }
    return rc;
}

/* The header area in full, by opening alone; of the rest every 37th bit, where
 * verify may be needed.  Padding and checksums leave no bit without a guard. */
START_TEST(every_bit_is_guarded)
{
    size_t len;
    uint8_t *image = model_image(&len);
    size_t head = tlr_head_area_bytes(tlr_get_u32(image + TLR_HEAD_N_TENSORS));
    for (size_t bit = 0; bit < 8 * len; bit += bit < 8 * head ? 1 : 37) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_file *f;
        image[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = bit < 8 * head
                     ? tlr_file_open_bytes(&f, image, len, "tiny", &err)
                     : opens_and_verifies(image, len);
        ck_assert_msg(rc < 0, "bit %zu of byte %zu", bit % 8, bit / 8);
        image[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ck_assert_int_eq(opens_and_verifies(image, len), 0);
    tlr_free(image);
}
END_TEST

static int stop_at_third(void *ctx, uint64_t done, uint64_t total)
{
    ck_assert_uint_lt(done, total);
    return ++*(int *)ctx == 3;
}

static void put_u16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}

/* Writes bad bits at `at` of tensor blk.0.q, repairs its checksum. */
static void expect_verify(enum tlr_type type, size_t at, uint32_t bits,
                          const char *says)
{
    struct tiny t = tiny_model(TLR_FAMILY_QWEN2, type);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    size_t len;
    uint8_t *image = tiny_image(&t, &len);
    uint8_t *entry = tiny_entry(image, "blk.0.q");
    uint8_t *data = image + tlr_get_u64(entry + TLR_DIR_OFFSET);
    uint64_t size = tlr_get_u64(entry + TLR_DIR_SIZE);
    if (type == TLR_F32) {
        tlr_put_u32(data + at, bits);
    } else {
        put_u16(data + at, (uint16_t)bits);
    }
    tlr_put_u32(entry + TLR_DIR_CRC, tlr_crc32(0, data, (size_t)size));
    tiny_repair(image, len);
    ck_assert_msg(tlr_file_open_bytes(&f, image, len, "tiny", &err) == 0,
                  "%s", err.text);
    int rc = tlr_file_verify(f, NULL, NULL, &err);
    if (!says) {
        ck_assert_msg(rc == 0, "%s", err.text);
    } else {
        ck_assert_int_eq(rc, TLR_EFORMAT);
        ck_assert_msg(strstr(err.text, "tensor blk.0.q") &&
                          strstr(err.text, says),
                      "no \"%s\" in: %s", says, err.text);
    }
    tlr_file_close(f);
    tlr_free(image);
}

START_TEST(verify_reads_values)
{
    /* [32, 32]: row 17, column 5; for tiles the scale of row 17. */
    expect_verify(TLR_F32, 4 * (17 * 32 + 5), F32_NAN, "[17,5]");
    expect_verify(TLR_F32, 4 * 1023, 0xff800000u, "[31,31]");
    expect_verify(TLR_F32, 0, 0x7f7fffffu, NULL); /* FLT_MAX */
    expect_verify(TLR_BF16, 2 * (17 * 32 + 5), 0x7f80, "[17,5]");
    expect_verify(TLR_BF16, 0, 0x7f7f, NULL);
    expect_verify(TLR_Q8, 544 + 2, 0x7c00, "scales, found an infinity or NaN "
                                           "at [17,0]");
    expect_verify(TLR_Q8, 544 + 32, 0x7c00, NULL); /* quants may be anything */
    expect_verify(TLR_Q4, 288 + 2, 0xfe00, "[17,0]");
    expect_verify(TLR_Q4, 288 + 32, 0x7c00, NULL);
    expect_verify(TLR_Q4M, 320 + 2, 0x7c01, "[17,0]");
    expect_verify(TLR_Q4M, 320 + 34, 0x7c00, "[17,0]");
    expect_verify(TLR_Q4M, 320 + 64, 0x7c00, NULL);
    expect_verify(TLR_Q4N, 288 + 2, 0x7c00, "[17,0]");
    expect_verify(TLR_Q8P, 288 + 2, 0xfc00, "[17,0]"); /* high tile of band 1 */
    expect_verify(TLR_Q8P, 288 + 32, 0x7c00, NULL);
    expect_verify(TLR_Q8P, 64 * 288 + 2, 0x7c00, NULL); /* the low plane */
    expect_verify(TLR_Q8, 0, 0x7bff, NULL); /* largest f16 */
}
END_TEST

START_TEST(verify_names_the_damage_and_can_be_stopped)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_file *f;
    int calls = 0;
    size_t len;
    uint8_t *image = model_image(&len);
    ck_assert_msg(tlr_file_open_bytes(&f, image, len, "tiny", &err) == 0,
                  "%s", err.text);
    ck_assert_int_eq(tlr_file_verify(f, stop_at_third, &calls, &err),
                     TLR_ECANCELLED);
    ck_assert_int_eq(calls, 3);
    tlr_err_clear(&err);
    image[tlr_get_u64(tiny_entry(image, "blk.1.gate") + TLR_DIR_OFFSET) + 99] ^=
        4;
    ck_assert_int_eq(tlr_file_verify(f, NULL, NULL, &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "tensor blk.1.gate: expected checksum"),
                  "%s", err.text);
    tlr_file_close(f);
    tlr_free(image);
}
END_TEST

Suite *suite_reject(void);
Suite *suite_reject(void)
{
    Suite *s = suite_create("reject");
    TCase *tc = tcase_create("model_file");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, row_is_refused, 0, N_ROWS);
    tcase_add_test(tc, repair_alone_is_harmless);
    tcase_add_test(tc, newer_and_unknown_optional_is_read);
    tcase_add_test(tc, memory_must_be_aligned);
    tcase_add_test(tc, truncation_is_refused);
    tcase_add_test(tc, every_bit_is_guarded);
    tcase_add_test(tc, verify_reads_values);
    tcase_add_test(tc, verify_names_the_damage_and_can_be_stopped);
    suite_add_tcase(s, tc);
    return s;
}
