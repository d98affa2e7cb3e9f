/* test_session.c - a session's promises: the same bits for any thread count
 * and after rewind, refusals that change nothing, results when asked for. */
#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"
#include "tests/model/models.h"

enum { N = 60, CTX = 64 };

static size_t logits_bytes(const struct tlr_model *m)
{
    return tlr_model_config(m)->n_vocab * sizeof(float);
}

/* 40 tokens by prefill, 20 by decode, all logits of each step into out
 * [21][n_vocab]. */
static void play(const struct tlr_model *m, int n_threads, enum tlr_kv_type kv,
                 float *out)
{
    int32_t ids[N];
    golden_ids(m, ids, N);
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){
               .n_ctx = CTX, .n_threads = n_threads, .kv = kv, .n_batch = 24});
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    MUST(tlr_prefill(s, ids, 40, TLR_STEP_LOGITS, &must_err));
    memcpy(out, tlr_logits(s), logits_bytes(m));
    for (int t = 40; t < N; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
        out += n_vocab;
        memcpy(out, tlr_logits(s), logits_bytes(m));
    }
    tlr_session_free(s);
}

START_TEST(threads_do_not_change_bits)
{
    struct tlr_model *m = random_model("tiny-qwen3", (enum tlr_type)_i);
    size_t n = 21 * tlr_model_config(m)->n_vocab;
    float *one = calloc(n, sizeof *one), *more = calloc(n, sizeof *more);
    for (enum tlr_kv_type kv = TLR_KV_F32; kv <= TLR_KV_Q8; kv++) {
        play(m, 1, kv, one);
        for (int threads = 2; threads <= 3; threads++) {
            memset(more, 0, n * sizeof *more);
            play(m, threads, kv, more);
            ck_assert_mem_eq(one, more, n * sizeof *one);
        }
    }
    free(one);
    free(more);
    tlr_model_close(m);
}
END_TEST

START_TEST(chunk_size_changes_roundings_only)
{
    struct tlr_model *m = random_model("tiny-llama3", TLR_Q8);
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    int32_t ids[N];
    golden_ids(m, ids, N);
    float *first = calloc(n_vocab, sizeof *first);
    const uint32_t batches[] = {256, 1, 8, 9, 17, 59};
    for (int i = 0; i < 6; i++) {
        struct tlr_session *s = new_session(
            m, (struct tlr_session_options){.n_ctx = CTX, .kv = TLR_KV_F32,
                                            .n_batch = batches[i]});
        MUST(tlr_prefill(s, ids, N, TLR_STEP_LOGITS, &must_err));
        if (i == 0) {
            memcpy(first, tlr_logits(s), logits_bytes(m));
        }
        ck_assert(relative_error(tlr_logits(s), first, n_vocab) <= 2e-5);
        tlr_session_free(s);
    }
    free(first);
    tlr_model_close(m);
}
END_TEST

START_TEST(rewind_gives_the_same_bits)
{
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q4);
    int32_t ids[N];
    golden_ids(m, ids, N);
    struct tlr_session *s = new_session(
        m, (struct tlr_session_options){.n_ctx = CTX, .n_threads = 2});
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    float *seen = calloc((size_t)N * n_vocab, sizeof *seen);
    MUST(tlr_prefill(s, ids, 20, 0, &must_err));
    for (int t = 20; t < N; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
        memcpy(seen + (size_t)t * n_vocab, tlr_logits(s), logits_bytes(m));
    }
    /* Something else first, so that stale keys would show. */
    MUST(tlr_rewind(s, 20, &must_err));
    ck_assert_ptr_null(tlr_logits(s));
    ck_assert_ptr_null(tlr_hidden(s));
    ck_assert_uint_eq(tlr_pos(s), 20);
    MUST(tlr_prefill(s, ids, 30, 0, &must_err));
    MUST(tlr_rewind(s, 20, &must_err));
    for (int t = 20; t < N; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
        ck_assert_mem_eq(seen + (size_t)t * n_vocab, tlr_logits(s),
                         logits_bytes(m));
    }
    ck_assert_mem_eq(tlr_ids_of(s), ids, sizeof ids);
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_rewind(s, N + 1, &err), TLR_EUSAGE);
    ck_assert_uint_eq(tlr_pos(s), N);
    ck_assert_ptr_nonnull(tlr_logits(s));
    free(seen);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

/* Every refusal leaves timeline and results as they were. */
static void refuse(struct tlr_session *s, const int32_t *ids, size_t n,
                   unsigned flags, int code, const char *text)
{
    uint32_t pos = tlr_pos(s);
    float before = tlr_logits(s)[3];
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_prefill(s, ids, n, flags, &err), code);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
    ck_assert_uint_eq(tlr_pos(s), pos);
    ck_assert(tlr_logits(s)[3] == before);
}

START_TEST(bad_steps_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    int32_t ids[CTX + 1];
    golden_ids(m, ids, CTX + 1);
    struct tlr_session *s =
        new_session(m, (struct tlr_session_options){.n_ctx = CTX});
    MUST(tlr_prefill(s, ids, 10, TLR_STEP_LOGITS, &must_err));
    refuse(s, ids, CTX - 9, 0, TLR_ELIMIT, "found 65 (10 in use and 55 more)");
    refuse(s, ids, SIZE_MAX, 0, TLR_ELIMIT, "context");
    refuse(s, ids, 0, 0, TLR_EUSAGE, "at least one");
    refuse(s, ids, 1, 2, TLR_EUSAGE, "tlr_prefill_each");
    refuse(s, ids, 1, 64, TLR_EUSAGE, "flags");
    int32_t good = ids[2];
    const int32_t bad[] = {-1, 320, INT32_MIN, INT32_MAX};
    for (int i = 0; i < 4; i++) {
        ids[2] = bad[i];
        refuse(s, ids, 5, 0, TLR_EUSAGE, "token 2: expected an id from 0 to 319");
    }
    ids[2] = good;
    MUST(tlr_prefill(s, ids + 10, CTX - 10, TLR_STEP_LOGITS, &must_err));
    refuse(s, ids, 1, 0, TLR_ELIMIT, "found 65");
    ck_assert_uint_eq(tlr_pos(s), CTX);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

static void refuse_options(const struct tlr_model *m,
                           struct tlr_session_options o, int code,
                           const char *text)
{
    struct tlr_err err = TLR_ERR_INIT, again = TLR_ERR_INIT;
    struct tlr_session *s = NULL;
    struct tlr_memory memory;
    ck_assert_int_eq(tlr_session_new(&s, m, &o, &err), code);
    ck_assert_ptr_null(s);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
    ck_assert_int_eq(tlr_session_estimate(m, &o, &memory, &again), code);
    ck_assert_str_eq(err.text, again.text);
}

START_TEST(bad_options_are_refused)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    typedef struct tlr_session_options opt;
    refuse_options(m, (opt){.n_ctx = 8193}, TLR_ELIMIT, "found 8193");
    refuse_options(m, (opt){.n_threads = -1}, TLR_ELIMIT, "threads");
    refuse_options(m, (opt){.n_threads = 5000}, TLR_ELIMIT, "threads");
    refuse_options(m, (opt){.cpu_level = 99}, TLR_EUNSUPPORTED, "CPU level");
    refuse_options(m, (opt){.cpu_level = -2}, TLR_EUNSUPPORTED, "CPU level");
    refuse_options(m, (opt){.kv = (enum tlr_kv_type)7}, TLR_EUSAGE, "KV type");
    refuse_options(m, (opt){.n_batch = 100000}, TLR_ELIMIT, "chunk");
    refuse_options(m, (opt){.n_branches = 9}, TLR_ELIMIT, "branches");
    tlr_model_close(m);
}
END_TEST

START_TEST(defaults_are_filled_in)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_session *s = NULL;
    must(tlr_session_new(&s, m, NULL, &err), &err);
    const struct tlr_session_options *o = tlr_session_options_used(s);
    ck_assert_uint_eq(o->n_ctx, 4096);
    ck_assert_int_ge(o->n_threads, 1);
    ck_assert_int_eq(o->cpu_level, (int)tlr_cpu_detect());
    ck_assert_int_eq(o->kv, TLR_KV_F16);
    ck_assert_uint_eq(o->n_batch, 256);
    ck_assert_uint_eq(o->branch_tok, 32);
    ck_assert_uint_eq(tlr_model_n_ids(m), 320);
    ck_assert_ptr_null(tlr_model_tokenizer(m));
    ck_assert_ptr_null(tlr_model_chat(m));
    ck_assert_int_eq(tlr_model_generation(m)->n_eos, 0);
    ck_assert_ptr_null(tlr_hidden(s));
    struct tlr_err none = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_run_head(s, &none), TLR_EUSAGE);
    tlr_session_free(s);
    tlr_model_close(m);
    m = random_model("tiny-llama", TLR_F32);
    s = new_session(m, (struct tlr_session_options){.n_ctx = CTX});
    ck_assert_int_eq(tlr_session_options_used(s)->kv, TLR_KV_F32);
    tlr_session_free(s);
    tlr_model_close(m);
    for (enum tlr_type type = TLR_Q8; type < TLR_N_TYPES; type++) {
        m = random_model("tiny-llama", type);
        s = new_session(m, (struct tlr_session_options){.n_ctx = CTX});
        ck_assert_int_eq(tlr_session_options_used(s)->act,
                         type == TLR_Q4N ? TLR_ACT_INT8 : TLR_ACT_INT16);
        tlr_session_free(s);
        tlr_model_close(m);
    }
}
END_TEST

START_TEST(estimate_counts_the_cache)
{
    struct tlr_model *m = random_model("tiny-qwen3", TLR_Q8);
    struct tlr_session_options o = {.n_ctx = 1000, .kv = TLR_KV_F16,
                                    .n_branches = 3, .branch_tok = 10};
    struct tlr_memory a, b;
    MUST(tlr_session_estimate(m, &o, &a, &must_err));
    /* K and V, 2 layers, 2 heads of 32, 2 bytes; whole blocks of 16: 63 of the
     * timeline, 2 of a branch, which starts in the middle of one. */
    ck_assert_uint_eq(a.kv_bytes, 2 * 2 * 2 * 32 * 2 * (1008 + 3 * 32));
    ck_assert_uint_eq(a.weights_bytes, tlr_file_bytes(tlr_model_file(m)));
    ck_assert_uint_eq(a.total_bytes,
                      a.weights_bytes + a.kv_bytes + a.scratch_bytes);
    o.kv = TLR_KV_F32;
    MUST(tlr_session_estimate(m, &o, &b, &must_err));
    ck_assert_uint_eq(b.kv_bytes, 2 * a.kv_bytes);
    ck_assert_uint_eq(b.scratch_bytes, a.scratch_bytes);
    o.kv = TLR_KV_Q8; /* a byte and, of 32 of them, a scale */
    MUST(tlr_session_estimate(m, &o, &b, &must_err));
    ck_assert_uint_eq(32 * b.kv_bytes, 17 * a.kv_bytes);
    /* All tensors but, where it is not the head, the embedding table. */
    uint64_t all = 0;
    for (uint32_t i = 0; i < tlr_file_n_tensors(tlr_model_file(m)); i++) {
        all += tlr_file_tensor_at(tlr_model_file(m), i)->n_bytes;
    }
    ck_assert_uint_eq(tlr_model_bytes_per_token(m), all);
    tlr_model_close(m);
    m = random_model("tiny-qwen2", TLR_F32);
    all = 0;
    for (uint32_t i = 0; i < tlr_file_n_tensors(tlr_model_file(m)); i++) {
        all += tlr_file_tensor_at(tlr_model_file(m), i)->n_bytes;
    }
    ck_assert_uint_eq(tlr_model_bytes_per_token(m), all - 320 * 64 * 4);
    tlr_model_close(m);
}
END_TEST

/* ---- every token's logits ---- */

struct visit {
    const float *want; /* [n][n_vocab] */
    uint32_t n_vocab;
    size_t next, stop_at;
};

static int visit(void *ctx, size_t index, const float *hidden,
                 const float *logits)
{
    struct visit *v = ctx;
    ck_assert_uint_eq(index, v->next);
    ck_assert_ptr_nonnull(hidden);
    if (v->next == v->stop_at) {
        return 1;
    }
    double e = relative_error(logits, v->want + index * v->n_vocab, v->n_vocab);
    ck_assert_msg(e <= 2e-5, "token %zu: error %g", index, e);
    v->next++;
    return 0;
}

START_TEST(each_token_is_visited)
{
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8);
    int32_t ids[N];
    golden_ids(m, ids, N);
    uint32_t n_vocab = tlr_model_config(m)->n_vocab;
    float *want = calloc((size_t)N * n_vocab, sizeof *want);
    struct tlr_session_options o = {.n_ctx = CTX, .kv = TLR_KV_F32,
                                    .n_batch = 25, .n_threads = 2};
    struct tlr_session *s = new_session(m, o);
    for (int t = 0; t < N; t++) {
        MUST(tlr_decode(s, ids[t], TLR_STEP_LOGITS, &must_err));
        memcpy(want + (size_t)t * n_vocab, tlr_logits(s), logits_bytes(m));
    }
    MUST(tlr_rewind(s, 0, &must_err));
    struct visit v = {.want = want, .n_vocab = n_vocab, .stop_at = SIZE_MAX};
    MUST(tlr_prefill_each(s, ids, N, visit, &v, &must_err));
    ck_assert_uint_eq(v.next, N);
    ck_assert_uint_eq(tlr_pos(s), N);
    const float *last = want + (size_t)(N - 1) * n_vocab;
    ck_assert(relative_error(tlr_logits(s), last, n_vocab) <= 2e-5);
    ck_assert_ptr_nonnull(tlr_hidden(s));

    /* Stopped: the timeline and its results are those of before. */
    MUST(tlr_rewind(s, 0, &must_err));
    MUST(tlr_decode(s, ids[0], TLR_STEP_LOGITS, &must_err));
    v.stop_at = v.next = 0;
    struct tlr_err err = TLR_ERR_INIT;
    ck_assert_int_eq(tlr_prefill_each(s, ids + 1, N - 1, visit, &v, &err),
                     TLR_ECANCELLED);
    ck_assert_uint_eq(tlr_pos(s), 1);
    ck_assert_mem_eq(tlr_logits(s), want, logits_bytes(m));
    MUST(tlr_decode(s, ids[1], TLR_STEP_LOGITS, &must_err));
    ck_assert_mem_eq(tlr_logits(s), want + n_vocab, logits_bytes(m));
    free(want);
    tlr_session_free(s);
    tlr_model_close(m);
}
END_TEST

START_TEST(head_can_be_run_later)
{
    struct tlr_model *m = random_model("tiny-qwen3", TLR_Q4M);
    struct tlr_session_options o = {.n_ctx = CTX, .n_threads = 2};
    struct tlr_session *a = new_session(m, o), *b = new_session(m, o);
    MUST(tlr_decode(a, 5, TLR_STEP_LOGITS, &must_err));
    MUST(tlr_decode(b, 5, 0, &must_err));
    ck_assert_ptr_null(tlr_logits(b));
    ck_assert_mem_eq(tlr_hidden(a), tlr_hidden(b), 64 * sizeof(float));
    MUST(tlr_run_head(b, &must_err));
    ck_assert_mem_eq(tlr_logits(a), tlr_logits(b), logits_bytes(m));
    tlr_session_free(a);
    tlr_session_free(b);
    tlr_model_close(m);
}
END_TEST

/* ---- two sessions, two threads, one model ---- */

struct job {
    const struct tlr_model *m;
    float *out;
};

static void *play_job(void *arg)
{
    struct job *j = arg;
    play(j->m, 2, TLR_KV_F16, j->out);
    return NULL;
}

START_TEST(two_sessions_share_a_model)
{
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    size_t n = 21 * tlr_model_config(m)->n_vocab;
    float *want = calloc(n, sizeof *want);
    struct job jobs[2] = {{m, calloc(n, sizeof *want)},
                          {m, calloc(n, sizeof *want)}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, play_job, &jobs[i]),
                         0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    play(m, 1, TLR_KV_F16, want);
    for (int i = 0; i < 2; i++) {
        ck_assert_mem_eq(want, jobs[i].out, n * sizeof *want);
        free(jobs[i].out);
    }
    free(want);
    tlr_model_close(m);
}
END_TEST

Suite *suite_session(void);
Suite *suite_session(void)
{
    Suite *s = suite_create("session");
    TCase *tc = tcase_create("session");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, threads_do_not_change_bits, 0, TLR_N_TYPES);
    tcase_add_test(tc, chunk_size_changes_roundings_only);
    tcase_add_test(tc, rewind_gives_the_same_bits);
    tcase_add_test(tc, bad_steps_are_refused);
    tcase_add_test(tc, bad_options_are_refused);
    tcase_add_test(tc, defaults_are_filled_in);
    tcase_add_test(tc, estimate_counts_the_cache);
    tcase_add_test(tc, each_token_is_visited);
    tcase_add_test(tc, head_can_be_run_later);
    tcase_add_test(tc, two_sessions_share_a_model);
    suite_add_tcase(s, tc);
    return s;
}
