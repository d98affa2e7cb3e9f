/* roofline.c - see roofline.h.
 *
 * Twelve independent accumulators, since two units of four or five cycles want
 * eight to ten in flight.  The instructions stand as assembly: no compiler may
 * drop or reorder what is measured, and intrinsics belong to kernels/.
 */
#include "bench/roofline.h"

#include <stdint.h>

#include "base/clock.h"
#include "bench/stream.h"
#include "kernels/cpu.h"

enum { ROUNDS = 2000, CHAINS = 12 };

/* Runs ROUNDS rounds; what it returns only keeps the work alive. */
typedef void peak_fn(void);

/* One round of an instruction over the twelve accumulators. */
#define ROUND(ins, a, x, y)                                                    \
    __asm__ volatile(                                                          \
        ins(0) ins(1) ins(2) ins(3) ins(4) ins(5) ins(6) ins(7) ins(8) ins(9)  \
            ins(10) ins(11)                                                    \
        : CONSTRAINT(a[0]), CONSTRAINT(a[1]), CONSTRAINT(a[2]),                \
          CONSTRAINT(a[3]), CONSTRAINT(a[4]), CONSTRAINT(a[5]),                \
          CONSTRAINT(a[6]), CONSTRAINT(a[7]), CONSTRAINT(a[8]),                \
          CONSTRAINT(a[9]), CONSTRAINT(a[10]), CONSTRAINT(a[11])               \
        : REGISTER(x), REGISTER(y))

#define PEAK(name, isa, vector, ins)                                           \
    __attribute__((target(isa))) static void name(void)                        \
    {                                                                          \
        vector a[CHAINS] = { { 0 } }, x = { 0 }, y = { 0 };                    \
        for (int i = 0; i < ROUNDS; i++)                                       \
            ROUND(ins, a, x, y);                                               \
    }

struct peak {
    enum tlr_cpu_level level;
    peak_fn *fn;
    double n_ops; /* of one instruction */
};

#if defined(__x86_64__)
#define CONSTRAINT(a) "+v"(a)
#define REGISTER(x) "v"(x)
typedef int32_t zmm __attribute__((vector_size(64)));
typedef int32_t ymm __attribute__((vector_size(32)));
typedef int32_t xmm __attribute__((vector_size(16)));

#define FMA(i) "vfmadd231ps %12, %13, %" #i "\n\t"
#define MULPS(i) "mulps %12, %" #i "\n\t"
#define DOT(i) "vpdpbusd %12, %13, %" #i "\n\t"
#define DOT_VEX(i) "%{vex%} vpdpbusd %12, %13, %" #i "\n\t"
#define MADD(i) "vpmaddubsw %12, %13, %" #i "\n\t"

PEAK(fma_avx512, "avx512f", zmm, FMA)
PEAK(dot_avx512vnni, "avx512f,avx512vnni", zmm, DOT)
PEAK(dot_avx512, "avx512f,avx512bw", zmm, MADD)
PEAK(fma_avx2, "avx2,fma", ymm, FMA)
PEAK(dot_avxvnni, "avx2", ymm, DOT_VEX)
PEAK(dot_avx2, "avx2", ymm, MADD)
PEAK(mul_sse, "sse2", xmm, MULPS)

/* Best first.  Without VNNI an int8 product takes vpmaddubsw, vpmaddwd and
 * vpaddd; the first alone (32 or 64 products) is a bound that no kernel meets. */
static const struct peak float_peaks[] = {
    { TLR_CPU_AVX512, fma_avx512, 32 },
    { TLR_CPU_AVX2, fma_avx2, 16 },
    { TLR_CPU_REF, mul_sse, 4 },
};
static const struct peak int_peaks[] = {
    { TLR_CPU_AVX512VNNI, dot_avx512vnni, 128 },
    { TLR_CPU_AVXVNNI, dot_avxvnni, 64 },
    { TLR_CPU_AVX512, dot_avx512, 128 },
    { TLR_CPU_AVX2, dot_avx2, 64 },
};

#elif defined(__aarch64__)
#define CONSTRAINT(a) "+w"(a)
#define REGISTER(x) "w"(x)
typedef int32_t quad __attribute__((vector_size(16)));

#define FMLA(i) "fmla %" #i ".4s, %12.4s, %13.4s\n\t"
#define SDOT(i) "sdot %" #i ".4s, %12.16b, %13.16b\n\t"
#define SMMLA(i) "smmla %" #i ".4s, %12.16b, %13.16b\n\t"

/* GCC names architectures in target(), clang features. */
#ifdef __clang__
#define TARGET(gcc, clang) clang
#else
#define TARGET(gcc, clang) gcc
#endif
PEAK(fma_neon, TARGET("arch=armv8-a", "neon"), quad, FMLA)
PEAK(dot_dotprod, TARGET("arch=armv8.2-a+dotprod", "dotprod"), quad, SDOT)
PEAK(dot_i8mm, TARGET("arch=armv8.2-a+i8mm", "i8mm"), quad, SMMLA)

static const struct peak float_peaks[] = { { TLR_CPU_NEON, fma_neon, 8 } };
static const struct peak int_peaks[] = {
    { TLR_CPU_I8MM, dot_i8mm, 64 },
    { TLR_CPU_DOTPROD, dot_dotprod, 32 },
};

#else
static void nothing(void)
{
}
static const struct peak float_peaks[] = { { TLR_N_CPU_LEVELS, nothing, 0 } };
static const struct peak int_peaks[] = { { TLR_N_CPU_LEVELS, nothing, 0 } };
#endif

/* Of the first row that this machine has; 0 if it has none. */
static double measure(const struct peak *peaks, int n, double ms)
{
    int i = 0;
    while (i < n && (peaks[i].level == TLR_N_CPU_LEVELS ||
                     !tlr_cpu_has(peaks[i].level)))
        i++;
    if (i == n)
        return 0;
    uint64_t begun = tlr_now_ns();
    double best = 0;
    do {
        uint64_t from = tlr_now_ns();
        peaks[i].fn();
        uint64_t ns = tlr_now_ns() - from;
        double rate = ns ? peaks[i].n_ops * CHAINS * ROUNDS / (double)ns : 0;
        if (rate > best)
            best = rate;
    } while (tlr_ms_between(begun, tlr_now_ns()) < ms);
    return best;
}

void tlr_roofline_measure(struct tlr_roofline *out, double ms)
{
    int n_float = (int)(sizeof float_peaks / sizeof *float_peaks);
    int n_int = (int)(sizeof int_peaks / sizeof *int_peaks);
    out->float_gflop_s = measure(float_peaks, n_float, ms / 2);
    out->int_gop_s = measure(int_peaks, n_int, ms / 2);
}

double tlr_roofline_read(const void *buffer, size_t n_bytes, double ms)
{
    size_t n_words = n_bytes / 8 & ~(size_t)(TLR_STREAM_WORDS - 1);
    tlr_stream_sum_fn *sum = tlr_stream_choose();
    double best = 0;
    if (n_words == 0)
        return 0;
    size_t repeat = n_words < 8192 ? 8192 / n_words : 1;
    int n_least = n_bytes < (1 << 22) ? 50 : 3; /* whoever else takes the core */
    uint64_t begun = tlr_now_ns();
    do {
        uint64_t from = tlr_now_ns();
        for (size_t i = 0; i < repeat; i++)
            sum(buffer, n_words);
        uint64_t ns = tlr_now_ns() - from;
        double rate = ns ? (double)(repeat * n_words * 8) / (double)ns : 0;
        if (rate > best)
            best = rate;
    } while (--n_least > 0 || tlr_ms_between(begun, tlr_now_ns()) < ms);
    return best;
}

double tlr_roofline_ns(double n_bytes, double gb_s, double n_ops, double gop_s)
{
    double move = gb_s > 0 ? n_bytes / gb_s : 0;
    double work = gop_s > 0 ? n_ops / gop_s : 0;
    return move > work ? move : work;
}
