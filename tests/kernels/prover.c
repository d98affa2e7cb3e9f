/* prover.c - guarded memory, inputs and judgement for the kernel proofs. */
#include "tests/kernels/prover.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CANARY_BYTES = 256, WRONG = 0xa5 };

struct guarded guard(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (n_bytes + page - 1) / page * page;
    struct guarded g = {NULL, NULL, body + page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(g.map, MAP_FAILED);
    char *end = (char *)g.map + body;
    ck_assert_int_eq(mprotect(end, page, PROT_NONE), 0);
    g.ptr = end - n_bytes;
    return g;
}

void unguard(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
    *g = (struct guarded){NULL, NULL, 0};
}

struct output output_new(size_t size, size_t n, size_t stride, size_t n_rows)
{
    struct output o = {NULL, NULL, size, n, stride, n_rows, 0};
    o.map_bytes = stride * n_rows * size + 2 * CANARY_BYTES;
    o.map = malloc(o.map_bytes);
    ck_assert_ptr_nonnull(o.map);
    memset(o.map, WRONG, o.map_bytes);
    o.first = o.map + CANARY_BYTES;
    return o;
}

static bool all_wrong(const unsigned char *from, const unsigned char *to)
{
    for (; from < to; from++) {
        if (*from != WRONG)
            return false;
    }
    return true;
}

bool output_intact(const struct output *o)
{
    const unsigned char *at = o->map;
    for (size_t r = 0; r < o->n_rows; r++) {
        const unsigned char *row = o->first + r * o->stride * o->size;
        if (!all_wrong(at, row))
            return false;
        at = row + o->n * o->size;
    }
    return all_wrong(at, o->map + o->map_bytes);
}

void output_free(struct output *o)
{
    free(o->map);
    o->map = o->first = NULL;
}

const char *input_name(enum input kind)
{
    static const char *const names[N_INPUTS] = {
        "random", "zero", "extreme", "alternating", "one-hot", "denormal"};
    return names[kind];
}

static float extreme(struct tlr_rng *rng, double largest)
{
    uint64_t u = tlr_rng_u64(rng);
    double magnitude = (u & 6) ? ((u & 2) ? largest : 1 / largest) : 1;
    return (float)((u & 1) ? magnitude : -magnitude);
}

void fill(struct tlr_rng *rng, float *x, size_t n, enum input kind,
          double largest)
{
    size_t hot = n ? tlr_rng_u64(rng) % n : 0;
    for (size_t i = 0; i < n; i++) {
        switch (kind) {
        case IN_ZERO: x[i] = 0; break;
        case IN_EXTREME: x[i] = extreme(rng, largest); break;
        case IN_ALTERNATING: x[i] = i % 2 ? -3.0f : 3.0f; break;
        case IN_ONE_HOT: x[i] = i == hot ? 1.7f : 0; break;
        case IN_DENORMAL:
            x[i] = (float)((double)tlr_rng_normal(rng) * 0x1p-130);
            break;
        default: x[i] = tlr_rng_normal(rng); break;
        }
    }
}

bool fails(struct proof *proof, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(proof->what, sizeof proof->what, fmt, args);
    va_end(args);
    return false;
}

bool within(float got, float want, double bound)
{
    return got == want || fabs((double)got - (double)want) <= bound;
}

bool bound_is_small(double largest_bound, const float *want, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)want[i] * (double)want[i];
    return largest_bound * 64 <= sqrt(sum / (double)n);
}

bool prove(struct proof *proof)
{
    switch (proof->op) {
    case TLR_OP_MATVEC: return prove_matvec(proof);
    case TLR_OP_DEQUANT: return prove_dequant(proof);
    case TLR_OP_QUANTISE: return prove_quantise(proof);
    case TLR_OP_MATMUL:
    case TLR_OP_SCORE: return prove_matmul(proof);
    case TLR_OP_TO_F16:
    case TLR_OP_FROM_F16: return prove_f16(proof);
    case TLR_OP_ATTEND_F32:
    case TLR_OP_ATTEND_F16:
    case TLR_OP_ATTEND_Q8: return prove_attend(proof);
    case TLR_OP_ATTEND_MERGE: return prove_attend_merge(proof);
    default: return prove_vector(proof);
    }
}
