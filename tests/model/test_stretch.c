/* test_stretch.c - the cache's stretches of 256 positions and what crosses them:
 * chunks of a prefill, branches and what is kept of them, each to the bit what
 * single decodes give.
 *
 * The oracle is one session that decodes token by token; that this one is right
 * over many stretches is what test_golden.c and test_full.c hold to Hugging
 * Face.  With TLR_QUICK (sanitizers, emulation) fewer places are looked at.
 */
#include <stdlib.h>

#include "engine/kvcache.h"
#include "tests/model/models.h"

enum {
    CTX = 3 * TLR_KV_STRETCH,
    BRANCHES = 3,
    STEPS = 20, /* more than a block, so that a branch starts a second one */
    DIM = 64,
    VOCAB = 320
};

/* Before the border, at it, behind it; on a block of 16 and beside one.  The
 * quick ones come first. */
static const uint32_t forks[] = {250, 256, 239, 240, 241, 255, 257, 271,
                                 272, 495, 496, 507, 511, 512, 513};
enum { N_FORKS = sizeof forks / sizeof forks[0], N_QUICK = 2 };

static int n_forks(void)
{
    return getenv("TLR_QUICK") ? N_QUICK : N_FORKS;
}

static struct tlr_session *open(const struct tlr_model *m, enum tlr_kv_type kv,
                                int n_threads)
{
    return new_session(
        m, (struct tlr_session_options){.n_ctx = CTX, .n_threads = n_threads,
                                        .kv = kv, .n_branches = BRANCHES,
                                        .branch_tok = STEPS});
}

static int32_t branch_id(int branch, int step)
{
    return (branch * 37 + step * 11 + 5) % VOCAB;
}

/* Token by token. */
static void decode_to(struct tlr_session *s, const int32_t *ids, uint32_t end)
{
    while (tlr_pos(s) < end) {
        MUST(tlr_decode(s, ids[tlr_pos(s)], TLR_STEP_LOGITS, &must_err));
    }
}

static void check_same(const struct tlr_session *s, const struct tlr_session *one,
                       const char *what, uint32_t at)
{
    const float *a = tlr_logits(s), *b = tlr_logits(one);
    ck_assert_msg(a && b, "%s %u: no logits", what, (unsigned)at);
    ck_assert_msg(memcmp(tlr_hidden(s), tlr_hidden(one), DIM * sizeof *a) == 0,
                  "%s %u: another hidden state", what, (unsigned)at);
    ck_assert_msg(memcmp(a, b, VOCAB * sizeof *a) == 0, "%s %u: other logits",
                  what, (unsigned)at);
}

/* ---- chunks ---- */

/* A prefill's last token, for chunks that end and begin around the borders. */
START_TEST(chunks_are_decodes)
{
    static const uint32_t ends[] = {16,  255, 256, 257, 272, 300,
                                    511, 512, 513, 600, CTX};
    static const uint32_t firsts[] = {0, 1, 15, 246, 255, 256, 257, 500};
    const uint32_t last = getenv("TLR_QUICK") ? 272 : CTX;
    enum tlr_kv_type kv = (enum tlr_kv_type)(TLR_KV_F32 + _i);
    struct tlr_model *m = random_model("tiny-qwen2", TLR_Q8);
    int32_t ids[CTX];
    golden_ids(m, ids, CTX);
    struct tlr_session *one = open(m, kv, 1), *s = open(m, kv, 2);
    for (size_t e = 0; e < sizeof ends / sizeof ends[0] && ends[e] <= last;
         e++) {
        decode_to(one, ids, ends[e]);
        for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
            if (firsts[f] >= ends[e]) {
                continue;
            }
            MUST(tlr_rewind(s, 0, &must_err));
            if (firsts[f]) {
                MUST(tlr_prefill(s, ids, firsts[f], 0, &must_err));
            }
            MUST(tlr_prefill(s, ids + firsts[f], ends[e] - firsts[f],
                             TLR_STEP_LOGITS, &must_err));
            check_same(s, one, "prefill to", ends[e]);
        }
    }
    tlr_session_free(s);
    tlr_session_free(one);
    tlr_model_close(m);
}
END_TEST

/* ---- branches ---- */

/* Logits of branch b's tokens as single decodes give them, [STEPS][VOCAB]. */
static void decode_branch(struct tlr_session *one, uint32_t fork, int b,
                          float *out)
{
    MUST(tlr_rewind(one, fork, &must_err));
    for (int step = 0; step < STEPS; step++, out += VOCAB) {
        MUST(tlr_decode(one, branch_id(b, step), TLR_STEP_LOGITS, &must_err));
        memcpy(out, tlr_logits(one), VOCAB * sizeof *out);
    }
}

static void step_branches(struct tlr_session *s, int step)
{
    int32_t ids[BRANCHES];
    for (int b = 0; b < BRANCHES; b++) {
        ids[b] = branch_id(b, step);
    }
    MUST(tlr_branch_decode(s, ids, BRANCHES, TLR_STEP_LOGITS, &must_err));
}

START_TEST(branches_cross_the_border)
{
    enum tlr_kv_type kv = (enum tlr_kv_type)(TLR_KV_F32 + _i % 3);
    struct tlr_model *m =
        random_model(_i < 3 ? "tiny-qwen3" : "tiny-llama", TLR_Q8);
    int32_t ids[CTX];
    golden_ids(m, ids, CTX);
    struct tlr_session *one = open(m, kv, 1), *s = open(m, kv, 2);
    size_t n = (size_t)STEPS * VOCAB;
    float *want = calloc(BRANCHES * n, sizeof *want);
    ck_assert(want != NULL);
    for (int f = 0; f < n_forks(); f++) {
        MUST(tlr_rewind(one, 0, &must_err));
        MUST(tlr_rewind(s, 0, &must_err));
        MUST(tlr_prefill(one, ids, forks[f], 0, &must_err));
        MUST(tlr_prefill(s, ids, forks[f], 0, &must_err));
        for (int b = 0; b < BRANCHES; b++) {
            decode_branch(one, forks[f], b, want + (size_t)b * n);
        }
        for (int step = 0; step < STEPS; step++) {
            step_branches(s, step);
            for (int b = 0; b < BRANCHES; b++) {
                const float *w = want + (size_t)b * n + (size_t)step * VOCAB;
                ck_assert_msg(memcmp(tlr_branch_logits(s, b), w,
                                     VOCAB * sizeof *w) == 0,
                              "fork at %u, branch %d, step %d",
                              (unsigned)forks[f], b, step);
            }
        }
        tlr_branch_drop(s);
    }
    free(want);
    tlr_session_free(s);
    tlr_session_free(one);
    tlr_model_close(m);
}
END_TEST

/* ---- what is kept ---- */

/* Keeps n_tok of a branch and goes on into the next blocks. */
static void check_keep(struct tlr_session *s, struct tlr_session *one,
                       const int32_t *ids, uint32_t fork, uint32_t n_tok)
{
    int b = (int)n_tok % BRANCHES;
    MUST(tlr_rewind(s, 0, &must_err));
    MUST(tlr_prefill(s, ids, fork, 0, &must_err));
    for (int step = 0; step < STEPS; step++) {
        step_branches(s, step);
    }
    MUST(tlr_branch_keep(s, b, n_tok, &must_err));
    ck_assert_uint_eq(tlr_pos(s), fork + n_tok);
    MUST(tlr_rewind(one, fork, &must_err));
    for (uint32_t i = 0; i < n_tok; i++) {
        MUST(tlr_decode(one, branch_id(b, (int)i), 0, &must_err));
    }
    for (int i = 0; i < STEPS; i++) {
        MUST(tlr_decode(s, 7 + i, TLR_STEP_LOGITS, &must_err));
        MUST(tlr_decode(one, 7 + i, TLR_STEP_LOGITS, &must_err));
        check_same(s, one, "kept at", fork + n_tok);
    }
    ck_assert_mem_eq(tlr_ids_of(s), tlr_ids_of(one),
                     tlr_pos(one) * sizeof(int32_t));
    MUST(tlr_rewind(one, fork, &must_err));
}

START_TEST(keep_crosses_the_border)
{
    enum tlr_kv_type kv = (enum tlr_kv_type)(TLR_KV_F32 + _i);
    struct tlr_model *m = random_model("tiny-llama", TLR_Q8);
    int32_t ids[CTX];
    golden_ids(m, ids, CTX);
    struct tlr_session *one = open(m, kv, 1), *s = open(m, kv, 2);
    for (int f = 0; f < n_forks(); f++) {
        MUST(tlr_rewind(one, 0, &must_err));
        MUST(tlr_prefill(one, ids, forks[f], 0, &must_err));
        for (uint32_t n_tok = 1; n_tok <= STEPS; n_tok += 1 + n_tok / 2) {
            check_keep(s, one, ids, forks[f], n_tok);
        }
    }
    tlr_session_free(s);
    tlr_session_free(one);
    tlr_model_close(m);
}
END_TEST

Suite *suite_stretch(void);
Suite *suite_stretch(void)
{
    Suite *s = suite_create("stretch");
    TCase *tc = tcase_create("stretch");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, chunks_are_decodes, 0, 3);
    tcase_add_loop_test(tc, branches_cross_the_border, 0, 6);
    tcase_add_loop_test(tc, keep_crosses_the_border, 0, 3);
    suite_add_tcase(s, tc);
    return s;
}
