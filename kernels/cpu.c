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
    XCR0_YMM = 0x06, /* SSE and AVX state */
    XCR0_ZMM = 0xe6  /* and opmask, upper halves, zmm16-31 */
};

static unsigned xcr0_low(void)
{
    unsigned eax, edx;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return eax;
}

enum tlr_cpu_level tlr_cpu_detect(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return TLR_CPU_REF;
    unsigned needed = (unsigned)LEAF1_ECX_NEEDED;
    if ((c & needed) != needed)
        return TLR_CPU_REF;
    unsigned state = xcr0_low();
    if ((state & XCR0_YMM) != XCR0_YMM)
        return TLR_CPU_REF;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return TLR_CPU_REF;
    needed = (unsigned)LEAF7_EBX_AVX512;
    if ((b & needed) != needed || (state & XCR0_ZMM) != XCR0_ZMM)
        return TLR_CPU_AVX2;
    return TLR_CPU_AVX512;
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
enum tlr_cpu_level tlr_cpu_detect(void)
{
    return TLR_CPU_REF;
}

void tlr_cpu_brand(char out[49])
{
    strcpy(out, "unknown");
}
#endif

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
