/* twin_avx512vnni.c - the avxvnni kernels on machines that have AVX-512 VNNI
 * instead: the same source, with vpdpbusd in its EVEX encoding.
 *
 * No server has both, so that there the avxvnni rows would be compiled and
 * never run.  The twin proves their arithmetic, not their object code.
 */
#include "kernels/variants.h"
#include "tests/kernels/twin.h"

#if defined(__x86_64__)
#include <string.h>

#define tlr_quantise_avxvnni twin_quantise
#define tlr_matmul_q8_avxvnni twin_matmul_q8
#define tlr_matmul_q4_avxvnni twin_matmul_q4
#define tlr_matmul_q4m_avxvnni twin_matmul_q4m
#define tlr_matmul_q4n_avxvnni twin_matmul_q4n
#define tlr_matmul_q8p_avxvnni twin_matmul_q8p
#define tlr_score_q8p_avxvnni twin_score_q8p
/* as in the file below, for the header that comes before it */
#define TLR_FN(name) tlr_##name##_avxvnni
#include "kernels/x86/vec_avx2.h"
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32
#include "kernels/x86/matmul_avxvnni.c"

tlr_any_fn *twin_of(const struct tlr_variant *row)
{
    static const struct {
        const char *slot;
        tlr_any_fn *fn;
    } twins[] = {{"quantise", (tlr_any_fn *)twin_quantise},
                 {"matmul_q8", (tlr_any_fn *)twin_matmul_q8},
                 {"matmul_q4", (tlr_any_fn *)twin_matmul_q4},
                 {"matmul_q4m", (tlr_any_fn *)twin_matmul_q4m},
                 {"matmul_q4n", (tlr_any_fn *)twin_matmul_q4n},
                 {"matmul_q8p", (tlr_any_fn *)twin_matmul_q8p},
                 {"score_q8p", (tlr_any_fn *)twin_score_q8p}};
    if (row->level != TLR_CPU_AVXVNNI || !tlr_cpu_has(TLR_CPU_AVX512VNNI))
        return NULL;
    for (size_t i = 0; i < sizeof twins / sizeof twins[0]; i++) {
        if (strcmp(twins[i].slot, row->slot) == 0)
            return twins[i].fn;
    }
    return NULL;
}
#else
tlr_any_fn *twin_of(const struct tlr_variant *row)
{
    (void)row;
    return NULL;
}
#endif
