/* mem.h - heap memory with checked sizes and a switch that makes it fail.
 *
 * Every allocation of tlr goes through here, so that a test can make the k-th
 * one fail for k = 0, 1, 2, ... and see each path clean up after itself.
 */
#ifndef TLR_BASE_MEM_H
#define TLR_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n * size bytes, zeroed; NULL when the product overflows or memory is out.
 * Zero bytes give a valid pointer. */
void *tlr_calloc(size_t n, size_t size);

/* Resizes to n * size bytes; on failure returns NULL and ptr stays valid. */
void *tlr_realloc(void *ptr, size_t n, size_t size);

/* n_bytes at a multiple of 64 (a cache line, a zmm register), not zeroed.
 * Free with tlr_free. */
void *tlr_alloc_aligned(size_t n_bytes);

char *tlr_strdup(const char *text);

/* NULL is allowed; works for everything this file hands out. */
void tlr_free(void *ptr);

/* a*b and a+b in 64 bits; false on overflow, *out untouched then. */
bool tlr_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool tlr_add_u64(uint64_t a, uint64_t b, uint64_t *out);

/* Fault injection, for tests only and off by default: after n more successful
 * allocations (this process, any thread) every one fails until it is called
 * again.  n < 0 turns it off. */
void tlr_mem_fail_after(long n);

/* Allocations made so far by this process: a test shows that decoding a token
 * makes none. */
unsigned long long tlr_mem_count(void);

#endif
