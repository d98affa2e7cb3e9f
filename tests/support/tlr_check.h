/* tlr_check.h - what tlr's tests need beyond the Check framework.
 *
 * A suite is a function `Suite *suite_NAME(void)` in tests/ROOM/test_NAME.c and
 * a line X(NAME) in tests/ROOM/suites.inc.  Asserts are Check's ck_assert_*,
 * which release builds keep.
 */
#ifndef TLR_TESTS_SUPPORT_TLR_CHECK_H
#define TLR_TESTS_SUPPORT_TLR_CHECK_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counts a skip that the summary shows, prints why, and leaves the test.  With
 * TLR_NO_SKIP=1 (CI) a skip is a failure, because installing something would
 * cure it; what the processor lacks, TLR_LACKS skips and counts alike, but no
 * setting forbids it. */
#define TLR_SKIP(...)                                                          \
    do {                                                                       \
        tlr_test_skip(true, __VA_ARGS__);                                      \
        return;                                                                \
    } while (0)
#define TLR_LACKS(...)                                                         \
    do {                                                                       \
        tlr_test_skip(false, __VA_ARGS__);                                     \
        return;                                                                \
    } while (0)
/* The same for a file of tlr_test_shared: a clone that stands alone has none of
 * them and nothing to install would bring them, so only a folder that is there
 * and lacks the file offends TLR_NO_SKIP. */
#define TLR_SKIP_SHARED(...)                                                   \
    do {                                                                       \
        tlr_test_skip(tlr_test_has_shared(), __VA_ARGS__);                     \
        return;                                                                \
    } while (0)
void tlr_test_skip(bool curable, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Seed of this run: TLR_SEED or a fixed one; printed at the start. */
uint64_t tlr_test_seed(void);

/* A fresh folder under $TMPDIR, removed with all it holds when the process
 * that ran the tests ends.  The path is valid until then. */
const char *tlr_test_tmpdir(void);

/* Path of a file in ../shared/data, or NULL when this clone has none: then
 * TLR_SKIP_SHARED.  The last eight paths of this and the next function are valid. */
const char *tlr_test_shared(const char *name);
bool tlr_test_has_shared(void); /* is there such a folder at all? */

/* Path of the real model (models/smollm2-135m-instruct.bin) or its GGUF
 * (models/smollm2-135m-instruct.gguf), or NULL when not fetched. */
const char *tlr_test_model(const char *name);

/* len bytes, zeroed, that end where an unreadable page begins: reading or
 * writing past them is a fault.  Lives until the process ends. */
uint8_t *tlr_test_guarded(size_t len);

/* Counter-based generator for inputs (tlr_hash_u64). */
struct tlr_rng {
    uint64_t seed, n;
};
uint64_t tlr_rng_u64(struct tlr_rng *r);
float tlr_rng_normal(struct tlr_rng *r); /* mean 0, variance 1 */

#endif
