/* mem.c - checked allocation, counted, and failing on demand.
 *
 * The counter and the budget are the only state and belong to the process:
 * tests set them, nothing else reads them.
 */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static atomic_ullong n_allocations;
static atomic_long budget = -1; /* allocations left to succeed; < 0: no limit */

/* Takes one from the budget; false when the test wants this one to fail. */
static bool may_allocate(void)
{
    long left = atomic_load_explicit(&budget, memory_order_relaxed);
    while (left > 0 && !atomic_compare_exchange_weak_explicit(
                           &budget, &left, left - 1, memory_order_relaxed,
                           memory_order_relaxed)) {
    }
    if (left == 0) {
        return false;
    }
    atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed);
    return true;
}

/* n * size as a size that malloc can be asked for: at least 1 (zero bytes give
 * a valid pointer), at most PTRDIFF_MAX (compilers assume it). */
static bool checked_size(size_t n, size_t size, size_t *out)
{
    uint64_t n_bytes;
    if (!tlr_mul_u64(n, size, &n_bytes) || n_bytes > PTRDIFF_MAX - ALIGNMENT) {
        return false;
    }
    *out = n_bytes ? (size_t)n_bytes : 1;
    return true;
}

void *tlr_calloc(size_t n, size_t size)
{
    size_t n_bytes;
    if (!checked_size(n, size, &n_bytes) || !may_allocate()) {
        return NULL;
    }
    return calloc(1, n_bytes);
}

void *tlr_realloc(void *ptr, size_t n, size_t size)
{
    size_t n_bytes;
    if (!checked_size(n, size, &n_bytes) || !may_allocate()) {
        return NULL;
    }
    return realloc(ptr, n_bytes);
}

void *tlr_alloc_aligned(size_t n_bytes)
{
    size_t size;
    if (!checked_size(n_bytes, 1, &size) || !may_allocate()) {
        return NULL;
    }
    /* aligned_alloc of C11 wants a multiple of the alignment. */
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, size);
}

char *tlr_strdup(const char *text)
{
    size_t n_bytes = strlen(text) + 1;
    if (!may_allocate()) {
        return NULL;
    }
    char *copy = malloc(n_bytes);
    return copy ? memcpy(copy, text, n_bytes) : NULL;
}

void tlr_free(void *ptr)
{
    free(ptr);
}

bool tlr_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a && b > UINT64_MAX / a) {
        return false;
    }
    *out = a * b;
    return true;
}

bool tlr_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b > UINT64_MAX - a) {
        return false;
    }
    *out = a + b;
    return true;
}

void tlr_mem_fail_after(long n)
{
    atomic_store(&budget, n < 0 ? -1 : n);
}

unsigned long long tlr_mem_count(void)
{
    return atomic_load(&n_allocations);
}
