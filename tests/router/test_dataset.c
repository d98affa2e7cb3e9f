/* test_dataset.c - the dataset file: its bytes as README.md draws them, what a kill
 * leaves, and what is refused.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/dataset.h"
#include "tests/router/rows.h"

enum { HEADER = 64, BLOCK = 32, ROW = 128,
       GROUP = BLOCK + ROWS_IN_GROUP * (ROW + 2 * ROWS_DIM) };

static uint8_t *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert(f != NULL);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = tlr_calloc(*len + 1, 1);
    ck_assert_uint_eq(fread(bytes, 1, *len, f), *len);
    fclose(f);
    return bytes;
}

static const char *spill(const uint8_t *bytes, size_t len)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/spilled.tlrd", tlr_test_tmpdir());
    FILE *f = fopen(path, "wb");
    ck_assert(f != NULL);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
    return path;
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static float f32(const uint8_t *p)
{
    uint32_t v = u32(p);
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}

static void check_row_bytes(const uint8_t *p, const struct tlr_row *row)
{
    ck_assert_uint_eq(u32(p), row->pos);
    ck_assert_uint_eq(u32(p + 4), (uint32_t)row->gold);
    ck_assert_uint_eq(u32(p + 8), (uint32_t)row->slm);
    ck_assert_uint_eq(u32(p + 12), (uint32_t)row->llm);
    ck_assert_uint_eq(p[16], row->label);
    ck_assert_uint_eq(p[17], row->what);
    ck_assert_uint_eq(p[18] | p[19] << 8, row->round);
    ck_assert(f32(p + 20) == row->weight && f32(p + 24) == row->p_slm);
    ck_assert(isnan(row->p_llm) ? isnan(f32(p + 28)) : f32(p + 28) == row->p_llm);
    ck_assert(f32(p + 32) == row->signals.entropy &&
              f32(p + 36) == row->signals.max_prob &&
              f32(p + 40) == row->signals.margin &&
              f32(p + 44) == row->signals.max_logit);
    ck_assert_uint_eq(u32(p + 48), (uint32_t)row->signals.best);
    ck_assert_uint_eq(u32(p + 52), 0);
    for (int i = 0; i < TLR_N_FEATURES; i++)
        ck_assert(f32(p + 56 + 4 * i) == row->features[i]);
}

START_TEST(bytes_are_as_drawn)
{
    size_t len;
    uint8_t *b = slurp(rows_write("drawn.tlrd", ROWS_SOUND), &len);
    ck_assert_uint_eq(len, HEADER + ROWS_GROUPS * GROUP + BLOCK);
    ck_assert_mem_eq(b, "\x89TLD\r\n\x1a\n\x01\0\0\0", 12);
    ck_assert_uint_eq(u32(b + 12), ROWS_DIM);
    ck_assert_uint_eq(u32(b + 16), 0x1234);
    ck_assert_uint_eq(u32(b + 24), 0x5678);
    ck_assert_uint_eq(u32(b + 60), tlr_crc32(0, b, 60));
    for (uint32_t g = 0; g < ROWS_GROUPS; g++) {
        const uint8_t *p = b + HEADER + g * GROUP;
        struct tlr_row rows[ROWS_IN_GROUP];
        float hidden[ROWS_IN_GROUP * ROWS_DIM];
        rows_make(g, ROWS_SOUND, rows, hidden);
        ck_assert_mem_eq(p, "TGRP", 4);
        ck_assert_uint_eq(u32(p + 4), g);
        ck_assert_uint_eq(u32(p + 8), ROWS_IN_GROUP);
        ck_assert_uint_eq(u32(p + 12), tlr_crc32(0, p + BLOCK, GROUP - BLOCK));
        ck_assert_uint_eq(u32(p + 16), g * ROWS_IN_GROUP);
        ck_assert_uint_eq(u32(p + 28), tlr_crc32(0, p, 28));
        for (int r = 0; r < ROWS_IN_GROUP; r++)
            check_row_bytes(p + BLOCK + r * ROW, &rows[r]);
    }
    const uint8_t *end = b + HEADER + ROWS_GROUPS * GROUP;
    ck_assert_mem_eq(end, "TEND", 4);
    ck_assert_uint_eq(u32(end + 4), ROWS_GROUPS);
    ck_assert_uint_eq(u32(end + 16), ROWS_GROUPS * ROWS_IN_GROUP);
    tlr_free(b);
}
END_TEST

START_TEST(rows_come_back)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset *d;
    ck_assert_msg(!tlr_dataset_open(&d, rows_write("back.tlrd", ROWS_SOUND), &err),
                  "%s", err.text);
    const struct tlr_dataset_info *info = tlr_dataset_info(d);
    ck_assert_uint_eq(info->n_rows, ROWS_GROUPS * ROWS_IN_GROUP);
    ck_assert_uint_eq(info->n_groups, ROWS_GROUPS);
    for (uint32_t i = 0; i < info->n_rows; i++) {
        struct tlr_row rows[ROWS_IN_GROUP], row;
        float hidden[ROWS_IN_GROUP * ROWS_DIM], h[ROWS_DIM];
        uint32_t r = i % ROWS_IN_GROUP;
        rows_make(i / ROWS_IN_GROUP, ROWS_SOUND, rows, hidden);
        memset(&row, 0, sizeof row);
        tlr_dataset_row(d, i, &row);
        ck_assert_uint_eq(row.group, i / ROWS_IN_GROUP);
        ck_assert_uint_eq(row.pos, rows[r].pos);
        ck_assert(row.label == rows[r].label && row.what == rows[r].what);
        ck_assert_mem_eq(row.features, rows[r].features, sizeof row.features);
        tlr_dataset_hidden(d, i, h);
        for (int k = 0; k < ROWS_DIM; k++) /* half an ulp of f16 */
            ck_assert(fabsf(h[k] - hidden[r * ROWS_DIM + (uint32_t)k]) <=
                      fmaxf(fabsf(h[k]), 6.2e-5f) / 2048);
    }
    tlr_dataset_free(d);
}
END_TEST

/* A file cut at any byte is refused, and appending makes it whole again. */
START_TEST(a_cut_file_is_refused_and_taken_up)
{
    size_t len, len_again;
    uint8_t *whole = slurp(rows_write("cut.tlrd", ROWS_SOUND), &len);
    struct tlr_dataset_info info = { .dim = ROWS_DIM, .fingerprint = 0x1234,
                                     .source = 0x5678 };
    for (size_t cut = 1; cut < len; cut += cut < 200 ? 7 : 1009) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_dataset *d;
        struct tlr_dataset_writer *w;
        uint32_t g;
        const char *path = spill(whole, cut);
        ck_assert_int_eq(tlr_dataset_open(&d, path, &err), TLR_EFORMAT);
        ck_assert(d == NULL);
        if (cut >= HEADER)
            ck_assert_ptr_nonnull(strstr(err.text, "cut short"));
        tlr_err_clear(&err);
        ck_assert_msg(!tlr_dataset_append(&w, path, &info, &g, &err), "%s",
                      err.text);
        ck_assert_uint_eq(g, cut < HEADER ? 0 : (cut - HEADER) / GROUP);
        for (; g < ROWS_GROUPS; g++) {
            struct tlr_row rows[ROWS_IN_GROUP];
            float hidden[ROWS_IN_GROUP * ROWS_DIM];
            rows_make(g, ROWS_SOUND, rows, hidden);
            ck_assert(!tlr_dataset_group(w, g, rows, hidden, ROWS_IN_GROUP, &err));
        }
        ck_assert(!tlr_dataset_close(w, &err));
        uint8_t *again = slurp(path, &len_again);
        ck_assert_uint_eq(len_again, len);
        ck_assert_mem_eq(again, whole, len);
        tlr_free(again);
    }
    tlr_free(whole);
}
END_TEST

/* No byte may change unnoticed. */
START_TEST(a_flipped_bit_is_refused)
{
    size_t len;
    uint8_t *b = slurp(rows_write("flip.tlrd", ROWS_SOUND), &len);
    for (size_t at = 0; at < len; at += at < 400 ? 1 : 997) {
        struct tlr_err err = TLR_ERR_INIT;
        struct tlr_dataset *d;
        b[at] ^= 0x10;
        int rc = tlr_dataset_open(&d, spill(b, len), &err);
        ck_assert_msg(rc == TLR_EFORMAT || rc == TLR_EUNSUPPORTED,
                      "byte %zu: %d %s", at, rc, err.text);
        b[at] ^= 0x10;
    }
    tlr_free(b);
}
END_TEST

static void refuse_append(const struct tlr_dataset_info *info, const char *path,
                          const char *says)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_writer *w;
    uint32_t g;
    ck_assert_int_eq(tlr_dataset_append(&w, path, info, &g, &err), TLR_EMISMATCH);
    ck_assert_msg(strstr(err.text, says) != NULL, "%s", err.text);
}

START_TEST(another_source_is_refused)
{
    const char *path = rows_write("other.tlrd", ROWS_SOUND);
    struct tlr_dataset_info info = { .dim = ROWS_DIM, .fingerprint = 0x1234,
                                     .source = 0x5678 };
    info.dim = 13;
    refuse_append(&info, path, "width 12");
    info.dim = ROWS_DIM;
    info.fingerprint = 1;
    refuse_append(&info, path, "another model file");
    info.fingerprint = 0x1234;
    info.source = 1;
    refuse_append(&info, path, "another input or other options");
}
END_TEST

START_TEST(two_writers_are_one_too_many)
{
    const char *path = rows_write("two.tlrd", ROWS_SOUND);
    struct tlr_dataset_info info = { .dim = ROWS_DIM, .fingerprint = 0x1234,
                                     .source = 0x5678 };
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_writer *w, *second;
    uint32_t g;
    ck_assert(!tlr_dataset_append(&w, path, &info, &g, &err));
    ck_assert_int_eq(tlr_dataset_append(&second, path, &info, &g, &err), TLR_EIO);
    ck_assert_msg(strstr(err.text, "another tlr") != NULL, "%s", err.text);
    ck_assert(!tlr_dataset_close(w, NULL));
}
END_TEST

/* Writes one group with what spoil does to it; it must be refused by name, and
 * the file stays without a mark at its end. */
static void refuse_row(void (*spoil)(struct tlr_row *, float *), const char *says)
{
    char path[600];
    struct tlr_dataset_info info = { .dim = ROWS_DIM };
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_writer *w;
    struct tlr_dataset *d;
    struct tlr_row rows[ROWS_IN_GROUP];
    float hidden[ROWS_IN_GROUP * ROWS_DIM];
    uint32_t g;
    snprintf(path, sizeof path, "%s/row.tlrd", tlr_test_tmpdir());
    remove(path);
    rows_make(0, ROWS_SOUND, rows, hidden);
    spoil(&rows[3], hidden + 3 * ROWS_DIM);
    ck_assert(!tlr_dataset_append(&w, path, &info, &g, &err));
    ck_assert_int_eq(tlr_dataset_group(w, 0, rows, hidden, ROWS_IN_GROUP, &err),
                     TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, says) && strstr(err.text, "position 103"),
                  "%s", err.text);
    tlr_err_clear(&err);
    ck_assert(!tlr_dataset_close(w, &err));
    ck_assert_int_eq(tlr_dataset_open(&d, path, &err), TLR_EFORMAT);
}

static void nan_state(struct tlr_row *row, float *h)
{
    (void)row;
    h[5] = NAN;
}

static void huge_state(struct tlr_row *row, float *h)
{
    (void)row;
    h[5] = 70000;
}

static void nan_signal(struct tlr_row *row, float *h)
{
    (void)h;
    row->signals.entropy = NAN;
}

static void bad_label(struct tlr_row *row, float *h)
{
    (void)h;
    row->label = 2;
}

static void bad_weight(struct tlr_row *row, float *h)
{
    (void)h;
    row->weight = -1;
}

START_TEST(numbers_that_cannot_be_are_refused)
{
    refuse_row(nan_state, "element 5 of the hidden state");
    refuse_row(huge_state, "element 5 of the hidden state");
    refuse_row(nan_signal, "signals");
    refuse_row(bad_label, "label");
    refuse_row(bad_weight, "weight");
}
END_TEST

/* The same inside a file whose checksums are right: somebody else's writer. */
START_TEST(a_nan_state_in_a_file_is_refused)
{
    size_t len;
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset *d;
    uint8_t *b = slurp(rows_write("nan.tlrd", ROWS_SOUND), &len);
    uint8_t *block = b + HEADER + 2 * GROUP;
    uint8_t *state = block + BLOCK + ROWS_IN_GROUP * ROW + 2 * (4 * ROWS_DIM + 7);
    state[0] = 0;
    state[1] = 0x7e;
    uint32_t crc = tlr_crc32(0, block + BLOCK, GROUP - BLOCK);
    memcpy(block + 12, &crc, 4);
    crc = tlr_crc32(0, block, 28);
    memcpy(block + 28, &crc, 4);
    ck_assert_int_eq(tlr_dataset_open(&d, spill(b, len), &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "row 54 (group 2, position 104)") != NULL, "%s",
                  err.text);
    tlr_free(b);
}
END_TEST

START_TEST(an_empty_dataset_is_refused)
{
    char path[600];
    struct tlr_dataset_info info = { .dim = ROWS_DIM };
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_dataset_writer *w;
    struct tlr_dataset *d;
    uint32_t g;
    snprintf(path, sizeof path, "%s/empty.tlrd", tlr_test_tmpdir());
    remove(path);
    ck_assert(!tlr_dataset_append(&w, path, &info, &g, &err));
    ck_assert(!tlr_dataset_group(w, 0, NULL, NULL, 0, &err));
    ck_assert(!tlr_dataset_close(w, &err));
    ck_assert_int_eq(tlr_dataset_open(&d, path, &err), TLR_EFORMAT);
    ck_assert_msg(strstr(err.text, "empty") != NULL, "%s", err.text);
}
END_TEST

Suite *suite_dataset(void);
Suite *suite_dataset(void)
{
    Suite *s = suite_create("dataset");
    TCase *c = tcase_create("file");
    tcase_add_test(c, bytes_are_as_drawn);
    tcase_add_test(c, rows_come_back);
    tcase_add_test(c, a_cut_file_is_refused_and_taken_up);
    tcase_add_test(c, a_flipped_bit_is_refused);
    tcase_add_test(c, another_source_is_refused);
    tcase_add_test(c, two_writers_are_one_too_many);
    tcase_add_test(c, numbers_that_cannot_be_are_refused);
    tcase_add_test(c, a_nan_state_in_a_file_is_refused);
    tcase_add_test(c, an_empty_dataset_is_refused);
    suite_add_tcase(s, c);
    return s;
}
