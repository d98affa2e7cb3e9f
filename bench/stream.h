/* stream.h - how fast this machine reads memory.
 *
 * Decoding reads every weight once per token, so its speed is bounded by this
 * number; read_gb_s / stream_gb_s says how near the engine is.
 */
#ifndef TLR_BENCH_STREAM_H
#define TLR_BENCH_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tlr_stream {
    double gb_s;           /* best pass, 1e9 bytes per second */
    uint64_t buffer_bytes;
    int n_passes;
};

/* Sums a buffer that no cache holds (at least 512 MiB and four times the last
 * level cache, at most an eighth of the machine's memory) with n_threads
 * threads, for about a second, and takes the best pass. */
int tlr_stream_measure(struct tlr_stream *out, int n_threads,
                       struct tlr_err *err);

/* Sum of n words, a multiple of TLR_STREAM_WORDS, read with the widest registers
 * of this machine.  Choosing asks the processor, which a virtual machine answers
 * in microseconds: choose outside of what is timed. */
enum { TLR_STREAM_WORDS = 32 };
typedef uint64_t tlr_stream_sum_fn(const uint64_t *words, size_t n);
tlr_stream_sum_fn *tlr_stream_choose(void);

/* Bytes of the buffer above. */
uint64_t tlr_stream_buffer_bytes(void);

#endif
