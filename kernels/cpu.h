/* cpu.h - what this processor and its operating system can run. */
#ifndef TLR_KERNELS_CPU_H
#define TLR_KERNELS_CPU_H

#include <stdbool.h>

/* Each level includes the ones before it on the same architecture.
 * avx2 needs AVX2, FMA and F16C; avx512 needs F, BW, DQ and VL. */
#define TLR_CPU_LEVELS(X) X(REF, "ref") X(AVX2, "avx2") X(AVX512, "avx512")

#define TLR_CPU_LEVEL_ENUM(id, name) TLR_CPU_##id,
enum tlr_cpu_level { TLR_CPU_LEVELS(TLR_CPU_LEVEL_ENUM) TLR_N_CPU_LEVELS };
#undef TLR_CPU_LEVEL_ENUM

/* Highest level of this machine: CPUID and the registers that the operating
 * system saves (XCR0). */
enum tlr_cpu_level tlr_cpu_detect(void);

const char *tlr_cpu_level_name(enum tlr_cpu_level level);
bool tlr_cpu_level_parse(const char *name, enum tlr_cpu_level *out);

/* "Intel(R) Xeon(R) ..." from CPUID, or "unknown"; out holds 49 bytes. */
void tlr_cpu_brand(char out[49]);

#endif
