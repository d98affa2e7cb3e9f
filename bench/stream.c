/* stream.c - see stream.h.
 *
 * Pieces of 1 MiB go to the threads of the same pool that the engine uses.
 * Summing 64-bit integers takes one addition for eight bytes, which the widest
 * registers do far faster than memory delivers; the sum is kept, so that no
 * compiler drops the loads.
 */
#include "bench/stream.h"

#include <stddef.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kernels/cpu.h"

enum { PIECE_BYTES = 1 << 20, MIN_PASSES = 5, MAX_PASSES = 100 };

static inline __attribute__((always_inline)) uint64_t
sum_words(const uint64_t *p, size_t n)
{
    uint64_t lanes[TLR_STREAM_WORDS] = { 0 }; /* four wide registers */
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i += TLR_STREAM_WORDS)
        for (size_t k = 0; k < TLR_STREAM_WORDS; k++)
            lanes[k] += p[i + k];
    for (size_t k = 0; k < TLR_STREAM_WORDS; k++)
        sum += lanes[k];
    return sum;
}

static uint64_t sum_any(const uint64_t *p, size_t n)
{
    return sum_words(p, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint64_t *p,
                                                         size_t n)
{
    return sum_words(p, n);
}

__attribute__((target("avx512f"))) static uint64_t
sum_avx512(const uint64_t *p, size_t n)
{
    return sum_words(p, n);
}
#endif

tlr_stream_sum_fn *tlr_stream_choose(void)
{
#if defined(__x86_64__)
    if (tlr_cpu_has(TLR_CPU_AVX512))
        return sum_avx512;
    if (tlr_cpu_has(TLR_CPU_AVX2))
        return sum_avx2;
#endif
    return sum_any;
}

struct job {
    const uint8_t *buffer;
    tlr_stream_sum_fn *sum;
    uint64_t *sums; /* one per piece */
};

static void sum_piece(void *ctx, int item, int thread)
{
    struct job *job = ctx;
    (void)thread;
    const void *piece = job->buffer + (size_t)item * PIECE_BYTES;
    job->sums[item] = job->sum(piece, PIECE_BYTES / sizeof(uint64_t));
}

/* The pages must be there, and touched by the threads that read them. */
static void fill_piece(void *ctx, int item, int thread)
{
    struct job *job = ctx;
    (void)thread;
    size_t at = (size_t)item * PIECE_BYTES;
    uint64_t *words = (uint64_t *)(void *)((uintptr_t)job->buffer + at);
    for (size_t i = 0; i < PIECE_BYTES / sizeof *words; i++)
        words[i] = at + i;
}

uint64_t tlr_stream_buffer_bytes(void)
{
    uint64_t bytes = (uint64_t)512 << 20;
#ifdef _SC_LEVEL3_CACHE_SIZE
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (cache > 0 && (uint64_t)cache * 4 > bytes)
        bytes = (uint64_t)cache * 4;
#endif
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) {
        uint64_t most = (uint64_t)pages * (uint64_t)page / 8;
        if (bytes > most)
            bytes = most;
    }
    bytes &= ~(uint64_t)(PIECE_BYTES - 1);
    return bytes ? bytes : PIECE_BYTES;
}

int tlr_stream_measure(struct tlr_stream *out, int n_threads,
                       struct tlr_err *err)
{
    struct tlr_pool *pool = NULL;
    uint64_t bytes = tlr_stream_buffer_bytes();
    int n_pieces = (int)(bytes / PIECE_BYTES);
    uint8_t *buffer = tlr_alloc_aligned(bytes);
    uint64_t *sums = tlr_calloc((size_t)n_pieces, sizeof *sums);
    int rc = 0;
    *out = (struct tlr_stream){ .buffer_bytes = bytes };
    if (!buffer || !sums)
        rc = tlr_err_nomem(err, "read bandwidth buffer", bytes);
    else
        rc = tlr_pool_new(&pool, n_threads, err);
    if (rc)
        goto out;
    struct job job = { buffer, tlr_stream_choose(), sums };
    tlr_pool_run(pool, fill_piece, &job, n_pieces);
    uint64_t begun = tlr_now_ns();
    double best_ms = 0;
    while (out->n_passes < MAX_PASSES &&
           (out->n_passes < MIN_PASSES ||
            tlr_ms_between(begun, tlr_now_ns()) < 1000)) {
        uint64_t from = tlr_now_ns();
        tlr_pool_run(pool, sum_piece, &job, n_pieces);
        double ms = tlr_ms_between(from, tlr_now_ns());
        if (out->n_passes++ == 0 || ms < best_ms)
            best_ms = ms;
    }
    uint64_t total = 0, expected = 0;
    for (int i = 0; i < n_pieces; i++) {
        uint64_t n = PIECE_BYTES / sizeof(uint64_t);
        total += sums[i];
        expected += (uint64_t)i * PIECE_BYTES * n + n * (n - 1) / 2;
    }
    if (total != expected)
        rc = tlr_err_set(err, TLR_EMISMATCH,
                         "read bandwidth: the sum of the buffer is wrong");
    out->gb_s = best_ms > 0 ? (double)bytes / best_ms / 1e6 : 0;
out:
    tlr_pool_free(pool);
    tlr_free(sums);
    tlr_free(buffer);
    return rc;
}
