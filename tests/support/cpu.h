/* cpu.h - the level that TLR_CPU asks a test for.  For rooms that link kernels/;
 * the libraries read no environment, so tests hand it on. */
#ifndef TLR_TESTS_SUPPORT_CPU_H
#define TLR_TESTS_SUPPORT_CPU_H

#include <stdlib.h>

#include "kernels/cpu.h"
#include "tests/support/tlr_check.h"

/* The best level without TLR_CPU; an unknown one fails the test. */
static inline enum tlr_cpu_level tlr_test_cpu_level(void)
{
    enum tlr_cpu_level level = tlr_cpu_detect();
    const char *name = getenv("TLR_CPU");
    if (name) {
        ck_assert_msg(tlr_cpu_level_parse(name, &level), "TLR_CPU=%s", name);
    }
    return level;
}

#endif
