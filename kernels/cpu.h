/* cpu.h - what this processor and its operating system can run. */
#ifndef TLR_KERNELS_CPU_H
#define TLR_KERNELS_CPU_H

#include <stdbool.h>

/* Levels of both architectures in one list, each architecture's ascending.  A
 * level needs what is said here; a machine may have a high one and lack one
 * below it (no server with avx512 has avxvnni), so ask tlr_cpu_has.
 *   avx2        AVX2, FMA, F16C
 *   avxvnni     avx2 and AVX-VNNI (VEX-coded vpdpbusd)
 *   avx512      avx2 and AVX-512 F, BW, DQ, VL
 *   avx512vnni  avx512 and AVX512_VNNI
 *   neon        Armv8-A with Advanced SIMD
 *   dotprod     neon and FEAT_DotProd (sdot)
 *   i8mm        dotprod and FEAT_I8MM (smmla) */
#define TLR_CPU_LEVELS(X)                                                      \
    X(REF, "ref")                                                              \
    X(AVX2, "avx2")                                                            \
    X(AVXVNNI, "avxvnni")                                                      \
    X(AVX512, "avx512")                                                        \
    X(AVX512VNNI, "avx512vnni")                                                \
    X(NEON, "neon")                                                            \
    X(DOTPROD, "dotprod")                                                      \
    X(I8MM, "i8mm")

#define TLR_CPU_LEVEL_ENUM(id, name) TLR_CPU_##id,
enum tlr_cpu_level { TLR_CPU_LEVELS(TLR_CPU_LEVEL_ENUM) TLR_N_CPU_LEVELS };
#undef TLR_CPU_LEVEL_ENUM

/* Does this machine have the level: the instructions (CPUID, HWCAP) and the
 * registers that the operating system saves (XCR0)?  Always true for ref. */
bool tlr_cpu_has(enum tlr_cpu_level level);

/* Highest level that this machine has. */
enum tlr_cpu_level tlr_cpu_detect(void);

const char *tlr_cpu_level_name(enum tlr_cpu_level level);
bool tlr_cpu_level_parse(const char *name, enum tlr_cpu_level *out);

/* "Intel(R) Xeon(R) ..." from CPUID, "AArch64 implementer 0x41 part 0xd0c" from
 * MIDR, or "unknown"; out holds 49 bytes. */
void tlr_cpu_brand(char out[49]);

#endif
