/* test_sabotage.c - the prover proven: kernels broken on purpose, each of which
 * must be caught.  A broken kernel calls ref and then spoils what it wrote, or
 * is given spoiled inputs; the honest wrapper must pass.  Crimes that only an
 * integer product can commit are in test_sabotage_int.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernels/sabotage.h"

enum crime {
    HONEST,
    ALL_ZEROS,
    SWAPPED_SIGN,
    DROPPED_TAIL,
    ONE_OFF,
    PAST_THE_END,
    BEFORE_THE_START,
    ONE_ULP, /* only exact operations must see it */
    /* matvec only */
    SKIPPED_BLOCK,
    DEPENDS_ON_N_X,
    READS_PAST_X,
    N_CRIMES
};

static const char *const crime_names[N_CRIMES] = {
    "honest",         "all zeros",        "swapped sign",  "dropped tail",
    "one off",        "past the end",     "before start",  "one ulp",
    "skipped block",  "depends on n_x",   "reads past x"};

static enum crime crime;
static tlr_any_fn *honest_fn;

/* What stood at the end before the call. */
static uint32_t old_last;

static void before(const void *out, size_t n, size_t size)
{
    old_last = 0;
    if (n > 0)
        memcpy(&old_last, (const char *)out + (n - 1) * size, size);
}

/* Spoils n elements at out; the sign is the top bit of an element. */
static void spoil(void *out, size_t n, size_t size)
{
    unsigned char *p = out;
    if (n == 0)
        return;
    switch (crime) {
    case ALL_ZEROS: memset(p, 0, n * size); break;
    case SWAPPED_SIGN: p[(n / 2 + 1) * size - 1] ^= 0x80; break;
    case DROPPED_TAIL: memcpy(p + (n - 1) * size, &old_last, size); break;
    case ONE_OFF: memmove(p, p + size, (n - 1) * size); break;
    case PAST_THE_END: p[n * size] ^= 1; break;
    case BEFORE_THE_START: p[-1] ^= 1; break;
    case ONE_ULP: p[n / 2 * size] ^= 1; break;
    default: break;
    }
}

static void bad_matvec(float *y, size_t y_stride, const void *w, const float *x,
                       size_t x_stride, int n_x, int n_rows, int n_cols)
{
    size_t n = (size_t)(n_x - 1) * x_stride + (size_t)n_cols;
    float *copy = malloc(n * sizeof *copy);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, x, n * sizeof *copy);
    for (int c = n_cols / 2; crime == SKIPPED_BLOCK && c < n_cols; c++) {
        if (c < n_cols / 2 + 32)
            copy[c] = 0;
    }
    if (crime == READS_PAST_X)
        copy[0] += 1e-30f * ((const volatile float *)x)[n];
    before(y, (size_t)n_rows, sizeof *y);
    ((tlr_matvec_fn *)honest_fn)(y, y_stride, w, copy, x_stride, n_x, n_rows,
                                 n_cols);
    if (crime == DEPENDS_ON_N_X && n_x > 1)
        y[0] = nextafterf(y[0], 1);
    spoil(y, (size_t)n_rows, sizeof *y);
    free(copy);
}

static void bad_dequant(float *dst, const void *w, int n_rows, int n_cols)
{
    size_t n = (size_t)n_rows * (size_t)n_cols;
    before(dst, n, sizeof *dst);
    ((tlr_dequant_fn *)honest_fn)(dst, w, n_rows, n_cols);
    spoil(dst, n, sizeof *dst);
}

static void bad_rmsnorm(float *y, const float *x, const float *weight, int n,
                        float eps)
{
    before(y, (size_t)n, sizeof *y);
    ((tlr_rmsnorm_fn *)honest_fn)(y, x, weight, n, eps);
    spoil(y, (size_t)n, sizeof *y);
}

static void bad_rope(float *x, const float *cos, const float *sin, int n_heads,
                     int head_dim)
{
    size_t n = (size_t)n_heads * (size_t)head_dim;
    before(x, n, sizeof *x);
    ((tlr_rope_fn *)honest_fn)(x, cos, sin, n_heads, head_dim);
    spoil(x, n, sizeof *x);
}

static void bad_swiglu(float *y, const float *gate, const float *up, int n)
{
    before(y, (size_t)n, sizeof *y);
    ((tlr_swiglu_fn *)honest_fn)(y, gate, up, n);
    spoil(y, (size_t)n, sizeof *y);
}

static void bad_add(float *y, const float *x, int n)
{
    before(y, (size_t)n, sizeof *y);
    ((tlr_add_fn *)honest_fn)(y, x, n);
    spoil(y, (size_t)n, sizeof *y);
}

static void bad_to_f16(uint16_t *dst, const float *src, int n)
{
    before(dst, (size_t)n, sizeof *dst);
    ((tlr_to_f16_fn *)honest_fn)(dst, src, n);
    spoil(dst, (size_t)n, sizeof *dst);
}

static void bad_from_f16(float *dst, const uint16_t *src, int n)
{
    before(dst, (size_t)n, sizeof *dst);
    ((tlr_from_f16_fn *)honest_fn)(dst, src, n);
    spoil(dst, (size_t)n, sizeof *dst);
}

static void bad_attend(float *part, const struct tlr_attend *job,
                       float *scratch)
{
    size_t n_rows = (size_t)(job->n_tok * job->n_heads);
    size_t n = (n_rows - 1) * TLR_PART_FLOATS(job->head_dim) +
               (size_t)job->head_dim + 2;
    before(part, n, sizeof *part);
    ((tlr_attend_fn *)honest_fn)(part, job, scratch);
    spoil(part, n, sizeof *part);
}

static void bad_attend_merge(float *into, const float *part, int n_rows,
                             int head_dim)
{
    size_t n = (size_t)(n_rows - 1) * TLR_PART_FLOATS(head_dim) +
               (size_t)head_dim + 2;
    before(into, n, sizeof *into);
    ((tlr_attend_merge_fn *)honest_fn)(into, part, n_rows, head_dim);
    spoil(into, n, sizeof *into);
}

static void bad_quantise(void *act, float *rest, const float *x,
                         size_t x_stride, int n_tok, int n_cols)
{
    size_t n = tlr_act_bytes((size_t)n_tok, (size_t)n_cols);
    before(act, n, 1);
    ((tlr_quantise_fn *)honest_fn)(act, rest, x, x_stride, n_tok, n_cols);
    spoil(act, n, 1);
}

static void bad_matmul(float *y, size_t y_stride, const void *w, int row,
                       const void *act, int n_tok, int n_rows, int n_cols)
{
    before(y, (size_t)n_rows, sizeof *y);
    ((tlr_matmul_fn *)honest_fn)(y, y_stride, w, row, act, n_tok, n_rows,
                                 n_cols);
    spoil(y, (size_t)n_rows, sizeof *y);
}

static void bad_score(float *y, float *dev, size_t stride, const void *w,
                      int row, const void *act, int n_tok, int n_rows,
                      int n_cols)
{
    before(y, (size_t)n_rows, sizeof *y);
    ((tlr_score_fn *)honest_fn)(y, dev, stride, w, row, act, n_tok, n_rows,
                                n_cols);
    spoil(y, (size_t)n_rows, sizeof *y);
}

static tlr_any_fn *const bad_fns[TLR_N_OPS] = {
    [TLR_OP_QUANTISE] = (tlr_any_fn *)bad_quantise,
    [TLR_OP_MATMUL] = (tlr_any_fn *)bad_matmul,
    [TLR_OP_SCORE] = (tlr_any_fn *)bad_score,
    [TLR_OP_MATVEC] = (tlr_any_fn *)bad_matvec,
    [TLR_OP_DEQUANT] = (tlr_any_fn *)bad_dequant,
    [TLR_OP_RMSNORM] = (tlr_any_fn *)bad_rmsnorm,
    [TLR_OP_ROPE] = (tlr_any_fn *)bad_rope,
    [TLR_OP_SWIGLU] = (tlr_any_fn *)bad_swiglu,
    [TLR_OP_ADD] = (tlr_any_fn *)bad_add,
    [TLR_OP_TO_F16] = (tlr_any_fn *)bad_to_f16,
    [TLR_OP_FROM_F16] = (tlr_any_fn *)bad_from_f16,
    [TLR_OP_ATTEND_F32] = (tlr_any_fn *)bad_attend,
    [TLR_OP_ATTEND_F16] = (tlr_any_fn *)bad_attend,
    [TLR_OP_ATTEND_Q8] = (tlr_any_fn *)bad_attend,
    [TLR_OP_ATTEND_MERGE] = (tlr_any_fn *)bad_attend_merge,
};

static bool applies(const struct tlr_variant *row, enum crime what)
{
    if (what == ONE_ULP)
        return row->op == TLR_OP_DEQUANT || row->op == TLR_OP_QUANTISE ||
               row->op == TLR_OP_MATMUL || row->op == TLR_OP_SCORE ||
               row->op == TLR_OP_ADD ||
               row->op == TLR_OP_TO_F16 || row->op == TLR_OP_FROM_F16;
    return what <= BEFORE_THE_START || row->op == TLR_OP_MATVEC;
}

/* A sanitizer exits with 1 where the kernel faults. */
enum verdict judge(const struct tlr_variant *ref, tlr_any_fn *bad)
{
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(BROKEN);
        struct proof proof = {.op = ref->op,
                              .type = ref->type,
                              .fn = bad,
                              .ref = ref->fn,
                              .rng = {tlr_test_seed(), 0}};
        bool passed = prove(&proof);
        _exit(passed ? PASSED : proof.what[0] ? CAUGHT : BROKEN);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : FAULTED;
    return code == 1 ? FAULTED : (enum verdict)code;
}

START_TEST(every_crime_is_caught)
{
    size_t n;
    const struct tlr_variant *rows = tlr_kernel_variants(&n);
    int n_judged = 0;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].level != TLR_CPU_REF || !applies(rows + i, (enum crime)_i))
            continue;
        crime = (enum crime)_i;
        honest_fn = rows[i].fn;
        enum verdict got = judge(rows + i, bad_fns[rows[i].op]);
        enum verdict want = _i == HONEST         ? PASSED
                            : _i == READS_PAST_X ? FAULTED
                                                 : CAUGHT;
        ck_assert_msg(got == want, "%s, %s: expected verdict %d, found %d",
                      rows[i].slot, crime_names[_i], (int)want, (int)got);
        n_judged++;
    }
    /* Of the slots, two are matvec's; the others share what is left. */
    ck_assert_int_ge(n_judged, _i > ONE_ULP ? 2 : 5);
}
END_TEST

Suite *suite_sabotage(void);
Suite *suite_sabotage(void)
{
    Suite *suite = suite_create("sabotage");
    TCase *tc = tcase_create("crimes");
    tcase_set_timeout(tc, 900);
    tcase_add_loop_test(tc, every_crime_is_caught, 0, N_CRIMES);
    suite_add_tcase(suite, tc);
    return suite;
}
