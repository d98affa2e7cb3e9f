/* cpu.c - asks the processor and its operating system what may be used.
 *
 * x86: a feature counts only when CPUID has it and XCR0 says that the system
 * saves the registers it needs; an old kernel or a hypervisor may withhold them.
 * Reference: Intel SDM volume 1, sections 13.3 and 14.3.  Arm: programs may not
 * read the feature registers, the system tells (HWCAP, sysctl).
 */
#include "kernels/cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <stdio.h>
#include <sys/auxv.h>
#endif

#define LEVEL_NAME(id, name) name,
static const char *const level_names[TLR_N_CPU_LEVELS] = {
    TLR_CPU_LEVELS(LEVEL_NAME)};
#undef LEVEL_NAME

#if defined(__x86_64__)
enum {
    LEAF1_ECX_NEEDED = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C,
    LEAF7_EBX_AVX512 =
        bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | (int)bit_AVX512VL,
    LEAF7_ECX_AVX512VNNI = 1 << 11,
    LEAF7_1_EAX_AVXVNNI = 1 << 4,
    XCR0_YMM = 0x06, /* SSE and AVX state */
    XCR0_ZMM = 0xe6  /* and opmask, upper halves, zmm16-31 */
};

static unsigned xcr0_low(void)
{
    unsigned eax, edx;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return eax;
}

/* AVX2, FMA and F16C with their registers; *leaf7 then holds EBX and ECX of
 * leaf 7 and *xcr0 what the system saves. */
static bool has_avx2(unsigned leaf7[2], unsigned *xcr0)
{
    unsigned a, b, c, d, needed = (unsigned)LEAF1_ECX_NEEDED;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed)
        return false;
    *xcr0 = xcr0_low();
    if ((*xcr0 & XCR0_YMM) != XCR0_YMM)
        return false;
    if (!__get_cpuid_count(7, 0, &a, &leaf7[0], &leaf7[1], &d))
        return false;
    return leaf7[0] & bit_AVX2;
}

static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & LEAF7_1_EAX_AVXVNNI);
}

bool tlr_cpu_has(enum tlr_cpu_level level)
{
    unsigned leaf7[2], xcr0, needed = (unsigned)LEAF7_EBX_AVX512;
    if (level == TLR_CPU_REF)
        return true;
    if (level > TLR_CPU_AVX512VNNI || !has_avx2(leaf7, &xcr0))
        return false;
    if (level == TLR_CPU_AVX2)
        return true;
    if (level == TLR_CPU_AVXVNNI)
        return has_avxvnni();
    bool avx512 =
        (leaf7[0] & needed) == needed && (xcr0 & XCR0_ZMM) == XCR0_ZMM;
    return avx512 &&
           (level == TLR_CPU_AVX512 || (leaf7[1] & LEAF7_ECX_AVX512VNNI));
}

void tlr_cpu_brand(char out[49])
{
    unsigned regs[12];
    for (unsigned i = 0; i < 3; i++) {
        unsigned *r = regs + 4 * i;
        if (!__get_cpuid(0x80000002u + i, r, r + 1, r + 2, r + 3)) {
            strcpy(out, "unknown");
            return;
        }
    }
    char raw[49];
    memcpy(raw, regs, 48);
    raw[48] = '\0';
    const char *first = raw + strspn(raw, " ");
    memmove(out, first, strlen(first) + 1);
    if (out[0] == '\0')
        strcpy(out, "unknown");
}
#elif defined(__aarch64__) && defined(__APPLE__)
static bool sysctl_says(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

bool tlr_cpu_has(enum tlr_cpu_level level)
{
    bool dotprod = sysctl_says("hw.optional.arm.FEAT_DotProd");
    switch (level) {
    case TLR_CPU_REF:
    case TLR_CPU_NEON: return true;
    case TLR_CPU_DOTPROD: return dotprod;
    case TLR_CPU_I8MM:
        return dotprod && sysctl_says("hw.optional.arm.FEAT_I8MM");
    default: return false;
    }
}

void tlr_cpu_brand(char out[49])
{
    size_t size = 49;
    if (sysctlbyname("machdep.cpu.brand_string", out, &size, NULL, 0) != 0)
        strcpy(out, "unknown");
}
#elif defined(__aarch64__) && defined(__linux__)
/* Bits of the auxiliary vector (Linux, Documentation/arch/arm64/elf_hwcaps);
 * the headers of old systems lack some of the names. */
enum {
    HWCAP_BIT_ASIMD = 1 << 1,
    HWCAP_BIT_CPUID = 1 << 11,
    HWCAP_BIT_ASIMDDP = 1 << 20,
    HWCAP2_BIT_I8MM = 1 << 13
};

bool tlr_cpu_has(enum tlr_cpu_level level)
{
    unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    bool neon = hwcap & HWCAP_BIT_ASIMD;
    bool dotprod = neon && (hwcap & HWCAP_BIT_ASIMDDP);
    switch (level) {
    case TLR_CPU_REF: return true;
    case TLR_CPU_NEON: return neon;
    case TLR_CPU_DOTPROD: return dotprod;
    case TLR_CPU_I8MM: return dotprod && (hwcap2 & HWCAP2_BIT_I8MM);
    default: return false;
    }
}

/* Registers name no brand: implementer and part number of MIDR_EL1, which the
 * system lets programs read when it says so. */
void tlr_cpu_brand(char out[49])
{
    unsigned long midr = 0;
    if (getauxval(AT_HWCAP) & HWCAP_BIT_CPUID)
        __asm__("mrs %0, midr_el1" : "=r"(midr));
    if (midr == 0) {
        strcpy(out, "unknown");
        return;
    }
    snprintf(out, 49, "AArch64 implementer 0x%02lx part 0x%03lx",
             midr >> 24 & 0xff, midr >> 4 & 0xfff);
}
#else
bool tlr_cpu_has(enum tlr_cpu_level level)
{
    return level == TLR_CPU_REF;
}

void tlr_cpu_brand(char out[49])
{
    strcpy(out, "unknown");
}
#endif

enum tlr_cpu_level tlr_cpu_detect(void)
{
    int best = TLR_CPU_REF;
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        if (tlr_cpu_has((enum tlr_cpu_level)i))
            best = i;
    }
    return (enum tlr_cpu_level)best;
}

const char *tlr_cpu_level_name(enum tlr_cpu_level level)
{
    return (unsigned)level < TLR_N_CPU_LEVELS ? level_names[level] : "unknown";
}

bool tlr_cpu_level_parse(const char *name, enum tlr_cpu_level *out)
{
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum tlr_cpu_level)i;
            return true;
        }
    }
    return false;
}
