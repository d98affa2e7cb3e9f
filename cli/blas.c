/* blas.c - makes OpenBLAS use the instructions that this processor has.
 *
 * OpenBLAS picks its kernels from a table of processor models when it is
 * loaded, before main.  A processor younger than the library falls back to the
 * oldest kernels: SGEMM is then 4.5 and prefill 3.4 times slower (see
 * SPEED.md).  Its only remedy is the variable OPENBLAS_CORETYPE, read at load;
 * so the program sets it and starts itself once more, before it has done
 * anything else.  A variable that is already set is the user's and stays.
 */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define CORETYPE "OPENBLAS_CORETYPE"

const char *cli_blas_core(void)
{
    return openblas_get_corename();
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

/* The core to ask for, NULL when OpenBLAS chose well. */
static const char *better_core(void)
{
    static const char *const avx512[] = {"SkylakeX", "Cooperlake",
                                         "Sapphirerapids", "SapphireRapids",
                                         NULL};
    static const char *const avx2[] = {"Haswell", "Zen", "Excavator", NULL};
    const char *core = cli_blas_core();
    /* Arm has neither, and its levels stand above them in the list. */
    if (!tlr_cpu_has(TLR_CPU_AVX2) || is_one_of(core, avx512))
        return NULL;
    if (tlr_cpu_has(TLR_CPU_AVX512))
        return is_one_of(core, avx2) ? NULL : "SkylakeX";
    return is_one_of(core, avx2) ? NULL : "Haswell";
}

void cli_fix_blas(char **argv)
{
    if (getenv(CORETYPE))
        return;
    const char *core = better_core();
    /* Where a program cannot find itself, slow is still right. */
    if (core && setenv(CORETYPE, core, 1) == 0)
        execv("/proc/self/exe", argv);
}
