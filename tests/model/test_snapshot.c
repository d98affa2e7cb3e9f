/* test_snapshot.c - a timeline survives as bytes; damaged or foreign bytes are
 * refused and change nothing. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "tests/model/models.h"

enum { N = 9, CTX = 16, HEADER = 32 };

struct saved {
    uint8_t *ptr;
    size_t len;
};

static struct saved save(const struct tlr_session *s)
{
    struct saved b;
    MUST(tlr_snapshot_save(s, &b.ptr, &b.len, &must_err));
    return b;
}

static struct tlr_session *played(const struct tlr_model *m,
                                  struct tlr_session_options o)
{
    int32_t ids[N];
    golden_ids(m, ids, N);
    struct tlr_session *s = new_session(m, o);
    MUST(tlr_prefill(s, ids, N, TLR_STEP_LOGITS, &must_err));
    return s;
}

START_TEST(round_trip_goes_on_with_the_same_bits)
{
    struct tlr_model *m = random_model("tiny-qwen3", TLR_Q8);
    struct tlr_session_options o = {.n_ctx = CTX,
                                    .kv = (enum tlr_kv_type)(TLR_KV_F32 + _i)};
    struct tlr_session *a = played(m, o);
    struct saved b = save(a);
    /* Another context and thread count, something else on the timeline. */
    o.n_ctx = 100;
    o.n_threads = 2;
    struct tlr_session *c = new_session(m, o);
    int32_t other[20] = {9};
    MUST(tlr_prefill(c, other, 20, TLR_STEP_LOGITS, &must_err));
    struct tlr_bytes bytes = {b.ptr, b.len};
    MUST(tlr_snapshot_load(c, bytes, &must_err));
    ck_assert_uint_eq(tlr_pos(c), N);
    ck_assert_mem_eq(tlr_ids_of(a), tlr_ids_of(c), N * sizeof(int32_t));
    ck_assert_ptr_null(tlr_logits(c));
    MUST(tlr_run_head(c, &must_err));
    ck_assert_mem_eq(tlr_logits(a), tlr_logits(c), 320 * sizeof(float));
    struct saved again = save(c);
    ck_assert_uint_eq(again.len, b.len);
    ck_assert_mem_eq(again.ptr, b.ptr, b.len);
    for (int i = 0; i < 3; i++) {
        MUST(tlr_decode(a, i, TLR_STEP_LOGITS, &must_err));
        MUST(tlr_decode(c, i, TLR_STEP_LOGITS, &must_err));
        ck_assert_mem_eq(tlr_logits(a), tlr_logits(c), 320 * sizeof(float));
    }
    tlr_free(b.ptr);
    tlr_free(again.ptr);
    tlr_session_free(a);
    tlr_session_free(c);
    tlr_model_close(m);
}
END_TEST

START_TEST(empty_and_rewound_timelines_are_saved)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_session_options o = {.n_ctx = CTX};
    struct tlr_session *empty = new_session(m, o), *s = played(m, o);
    struct saved b = save(empty);
    ck_assert_uint_eq(b.len, HEADER);
    MUST(tlr_snapshot_load(s, (struct tlr_bytes){b.ptr, b.len}, &must_err));
    ck_assert_uint_eq(tlr_pos(s), 0);
    ck_assert_ptr_null(tlr_hidden(s));
    tlr_free(b.ptr);
    tlr_session_free(s);
    s = played(m, o);
    MUST(tlr_rewind(s, 4, &must_err));
    b = save(s);
    MUST(tlr_snapshot_load(empty, (struct tlr_bytes){b.ptr, b.len}, &must_err));
    ck_assert_uint_eq(tlr_pos(empty), 4);
    ck_assert_ptr_null(tlr_hidden(empty));
    tlr_free(b.ptr);
    tlr_session_free(s);
    tlr_session_free(empty);
    tlr_model_close(m);
}
END_TEST

static void refuse(struct tlr_session *s, const uint8_t *ptr, size_t len,
                   int code, const char *text)
{
    /* In a block of its own size, so that ASan sees a read past the end. */
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, ptr, len);
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_snapshot_load(s, (struct tlr_bytes){copy, len}, &err);
    free(copy);
    ck_assert_msg(rc < 0, "accepted");
    ck_assert_msg(code == 0 || rc == code, "%s", err.text);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
    ck_assert_uint_eq(tlr_pos(s), 1);
}

START_TEST(damaged_bytes_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_session_options o = {.n_ctx = CTX};
    struct tlr_session *a = played(m, o), *s = new_session(m, o);
    struct tlr_session *same = new_session(m, o);
    MUST(tlr_decode(s, 3, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_decode(same, 3, TLR_STEP_LOGITS, &must_err));
    struct saved b = save(a);
    for (size_t len = 0; len < b.len; len++) {
        refuse(s, b.ptr, len, TLR_EFORMAT, "snapshot");
    }
    for (size_t i = 0; i < b.len; i++) {
        b.ptr[i] ^= (uint8_t)(1u << (i % 8));
        refuse(s, b.ptr, b.len, 0, "snapshot");
        b.ptr[i] ^= (uint8_t)(1u << (i % 8));
    }
    uint8_t *longer = calloc(1, b.len + 1);
    memcpy(longer, b.ptr, b.len);
    refuse(s, longer, b.len + 1, TLR_EFORMAT, "expected");
    free(longer);
    /* An id that does not exist, with a right checksum. */
    b.ptr[HEADER + 5] = 7;
    uint32_t crc = tlr_crc32(0, b.ptr + HEADER, b.len - HEADER);
    memcpy(b.ptr + 28, &crc, 4);
    refuse(s, b.ptr, b.len, TLR_EFORMAT, "token 1: expected an id below 320");
    MUST(tlr_decode(s, 8, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_decode(same, 8, TLR_STEP_LOGITS, &must_err));
    ck_assert_mem_eq(tlr_logits(s), tlr_logits(same), 320 * sizeof(float));
    tlr_free(b.ptr);
    tlr_session_free(a);
    tlr_session_free(s);
    tlr_session_free(same);
    tlr_model_close(m);
}
END_TEST

START_TEST(foreign_bytes_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_model *other = random_model("tiny-llama", TLR_Q4);
    struct tlr_session_options o = {.n_ctx = CTX, .kv = TLR_KV_F16};
    struct tlr_session *a = played(m, o);
    struct saved b = save(a);
    struct tlr_session *s = new_session(other, o);
    MUST(tlr_decode(s, 3, 0, &must_err));
    refuse(s, b.ptr, b.len, TLR_EMISMATCH, "expected model");
    tlr_session_free(s);
    o.kv = TLR_KV_F32;
    s = new_session(m, o);
    MUST(tlr_decode(s, 3, 0, &must_err));
    refuse(s, b.ptr, b.len, TLR_EMISMATCH, "KV type");
    tlr_session_free(s);
    o.kv = TLR_KV_F16;
    o.n_ctx = N - 1;
    s = new_session(m, o);
    MUST(tlr_decode(s, 3, 0, &must_err));
    refuse(s, b.ptr, b.len, TLR_ELIMIT, "longer context");
    tlr_session_free(s);
    tlr_free(b.ptr);
    tlr_session_free(a);
    tlr_model_close(m);
    tlr_model_close(other);
}
END_TEST

Suite *suite_snapshot(void);
Suite *suite_snapshot(void)
{
    Suite *s = suite_create("snapshot");
    TCase *tc = tcase_create("snapshot");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, round_trip_goes_on_with_the_same_bits, 0, 3);
    tcase_add_test(tc, empty_and_rewound_timelines_are_saved);
    tcase_add_test(tc, damaged_bytes_are_refused);
    tcase_add_test(tc, foreign_bytes_are_refused);
    suite_add_tcase(s, tc);
    return s;
}
