/* support.c - skips, seed, temporary folder, assets, random inputs. */
#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "tests/support/support_internal.h"
#include "tests/support/tlr_check.h"

static int *skips; /* [0] all, [1] curable; shared with forked tests */
static char tmpdir[512];

void tlr_support_begin(void)
{
    skips = mmap(NULL, 2 * sizeof *skips, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skips == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    const char *base = getenv("TMPDIR");
    snprintf(tmpdir, sizeof tmpdir, "%s/tlr-test-XXXXXX",
             base && *base ? base : "/tmp");
    if (!mkdtemp(tmpdir)) {
        perror(tmpdir);
        exit(1);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* Check's 4 seconds are for idle machines and plain builds. */
    setenv("CK_DEFAULT_TIMEOUT", "300", 0);
}

/* Sanitizers would abort where malloc returns NULL, and a refusal of 2^40 bytes
 * is what some tests are about. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(SANITIZED)
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1:halt_on_error=1";
}
#endif

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int tlr_support_end(int *n_curable)
{
    nftw(tmpdir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    *n_curable = skips[1];
    return skips[0];
}

void tlr_test_skip(bool curable, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("SKIP ");
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    __atomic_add_fetch(skips, 1, __ATOMIC_RELAXED);
    if (curable)
        __atomic_add_fetch(skips + 1, 1, __ATOMIC_RELAXED);
}

uint64_t tlr_test_seed(void)
{
    const char *text = getenv("TLR_SEED");
    return text ? strtoull(text, NULL, 0) : 20250407;
}

const char *tlr_test_tmpdir(void)
{
    return tmpdir;
}

/* The first of the folders that has the file. */
static const char *find_in(const char *const *dirs, const char *name)
{
    static char paths[8][512];
    static int n_calls;
    char *path = paths[n_calls++ % 8];
    for (; *dirs; dirs++) {
        snprintf(path, sizeof paths[0], "%s/%s", *dirs, name);
        if (access(path, R_OK) == 0) {
            return path;
        }
    }
    return NULL;
}

#define SHARED "../shared/data"

bool tlr_test_has_shared(void)
{
    return access(SHARED, F_OK) == 0;
}

const char *tlr_test_shared(const char *name)
{
    const char *dirs[] = {SHARED, NULL};
    return find_in(dirs, name);
}

const char *tlr_test_model(const char *name)
{
    const char *dirs[] = {"models", NULL};
    return find_in(dirs, name);
}

uint8_t *tlr_test_guarded(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (len + page - 1) / page * page;
    uint8_t *map = mmap(NULL, body + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + body, page, PROT_NONE) != 0) {
        perror("mmap");
        exit(1);
    }
    return map + body - len;
}

uint64_t tlr_rng_u64(struct tlr_rng *r)
{
    return tlr_hash_u64(r->seed, r->n++);
}

float tlr_rng_normal(struct tlr_rng *r)
{
    /* Box-Muller on two 24-bit uniforms, the first never zero. */
    double u = ((double)(tlr_rng_u64(r) >> 40) + 1.0) / 16777217.0;
    double v = (double)(tlr_rng_u64(r) >> 40) / 16777216.0;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
