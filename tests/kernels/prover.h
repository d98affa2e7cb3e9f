/* prover.h - proves one kernel function against the ref row of its slot.
 *
 * Inputs end at an unreadable page, outputs lie between canaries and start as
 * wrong data.  Exact operations are compared bit by bit; float sums must lie
 * within a bound derived from the operation (see each prove_*.c), and for
 * random inputs that bound must be small beside the results, so that a bound
 * that proves nothing is itself a failure.
 */
#ifndef TLR_TESTS_KERNELS_PROVER_H
#define TLR_TESTS_KERNELS_PROVER_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/variants.h"
#include "tests/support/tlr_check.h"

enum input {
    IN_RANDOM,
    IN_ZERO,
    IN_EXTREME,
    IN_ALTERNATING,
    IN_ONE_HOT,
    IN_DENORMAL,
    N_INPUTS
};

struct proof {
    enum tlr_kernel_op op;
    enum tlr_type type;
    tlr_any_fn *fn, *ref;
    struct tlr_rng rng;
    bool large;     /* with the shapes of whole models */
    long n_cases;   /* calls of fn that were judged */
    char what[512]; /* why it failed; empty while nothing did */
};

/* Runs every shape and input; false and proof->what at the first failure. */
bool prove(struct proof *proof);

/* The parts, one per family; the same contract. */
bool prove_matvec(struct proof *proof);
bool prove_dequant(struct proof *proof);
bool prove_quantise(struct proof *proof);
bool prove_matmul(struct proof *proof); /* and score */
bool prove_vector(struct proof *proof);
bool prove_f16(struct proof *proof);
bool prove_attend(struct proof *proof);
bool prove_attend_merge(struct proof *proof);

/* Unit roundoff of binary32, its smallest subnormal. */
#define ROUNDOFF 0x1p-24
#define TINIEST 0x1p-149

/* ---- memory ---- */

/* n_bytes that end where reading faults; unguard frees. */
struct guarded {
    void *ptr;
    void *map;
    size_t map_bytes;
};
struct guarded guard(size_t n_bytes);
void unguard(struct guarded *g);

/* n_rows stretches of n elements of `size` bytes, `stride` elements apart,
 * with canaries before, between and after; everything starts as wrong data. */
struct output {
    unsigned char *map, *first;
    size_t size, n, stride, n_rows, map_bytes;
};
struct output output_new(size_t size, size_t n, size_t stride, size_t n_rows);
bool output_intact(const struct output *o); /* all canaries */
void output_free(struct output *o);

/* ---- inputs and judgement ---- */

const char *input_name(enum input kind);
/* largest: magnitude of IN_EXTREME. */
void fill(struct tlr_rng *rng, float *x, size_t n, enum input kind,
          double largest);

/* A block of 32 activations of one token: read from and written to the layout
 * of kernels.h. */
struct act_block {
    int8_t q[32];
    float d;
    int32_t sum;
};
void act_get(const void *act, int n_tok, int n_cols, int t, int b,
             struct act_block *x);
void act_put(void *act, int n_tok, int n_cols, int t, int b,
             const struct act_block *x);

/* n_tok tokens; IN_EXTREME is blocks of 127 or of -127 alone. */
void fill_acts(struct tlr_rng *rng, void *act, int n_tok, int n_cols,
               enum input kind);

/* Raw tiles of a tiled type, padding too: every number, every finite scale. */
void fill_matrix(struct tlr_rng *rng, enum tlr_type type, void *w, int n_rows,
                 int n_cols);

/* Records "<case>: <details>" and returns false. */
bool fails(struct proof *proof, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* One result.  Equal values (infinities too) pass, NaN does not. */
bool within(float got, float want, double bound);

/* The bound of a random case must be under 1/64 of the RMS of the results. */
bool bound_is_small(double largest_bound, const float *want, size_t n);

#endif
