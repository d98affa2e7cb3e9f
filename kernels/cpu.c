/* cpu.c - asks the processor and its operating system what may be used.
 *
 * A feature counts only when CPUID has it and XCR0 says that the system saves
 * the registers it needs; an old kernel or a hypervisor may withhold them.
 * Reference: Intel SDM volume 1, sections 13.3 and 14.3.
 */
#include "kernels/cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
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
