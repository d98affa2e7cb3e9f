/* check_main.c - runs the suites of one room and prints what they did.
 *
 * Compiled once per room with SUITES naming its suites.inc.  Skips are counted
 * in memory shared with the forked tests.  No test run is a failure.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/support/support_internal.h"
#include "tests/support/tlr_check.h"

#define X(name) Suite *suite_##name(void);
#include SUITES
#undef X

int main(void)
{
    tlr_support_begin();
    printf("== %s: seed %llu (TLR_SEED)\n", ROOM,
           (unsigned long long)tlr_test_seed());
    SRunner *runner = srunner_create(NULL);
#define X(name) srunner_add_suite(runner, suite_##name());
#include SUITES
#undef X
    srunner_run_all(runner, getenv("CI") ? CK_NORMAL : CK_ENV);
    int run = srunner_ntests_run(runner);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    int curable, skipped = tlr_support_end(&curable);
    if (run == 0) {
        printf("%s: no test was run\n", ROOM);
        failed++;
    }
    if (curable > 0 && getenv("TLR_NO_SKIP")) {
        printf("%s: %d skipped, and TLR_NO_SKIP is set\n", ROOM, curable);
        failed++;
    }
    int passed = run - failed - skipped;
    printf("%s: %d passed, %d failed, %d skipped\n", ROOM,
           passed < 0 ? 0 : passed, failed, skipped);
    return failed ? 1 : 0;
}
