/* test_variants.c - every row of kernel_list.inc against the ref row of its
 * slot, as far as TLR_CPU goes and this machine has the row's level. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/prover.h"
#include "tests/kernels/twin.h"

/* The level that TLR_CPU asks for, the highest there is without it. */
static enum tlr_cpu_level wished_level(void)
{
    enum tlr_cpu_level wish = TLR_N_CPU_LEVELS - 1;
    const char *name = getenv("TLR_CPU");
    if (name != NULL)
        ck_assert_msg(tlr_cpu_level_parse(name, &wish), "TLR_CPU: no level %s",
                      name);
    return wish;
}

static const struct tlr_variant *ref_of(const struct tlr_variant *row)
{
    while (row->level != TLR_CPU_REF)
        row--;
    return row;
}

/* fn as the row's function. */
static void check(const struct tlr_variant *row, tlr_any_fn *fn, int i)
{
    struct proof proof = {.op = row->op,
                          .type = row->type,
                          .fn = fn,
                          .ref = ref_of(row)->fn,
                          .rng = {tlr_test_seed() + (uint64_t)i, 0},
                          .large = row->level != TLR_CPU_REF &&
                                   getenv("TLR_QUICK") == NULL};
    ck_assert_msg(prove(&proof), "%s %s: %s", row->slot, row->isa, proof.what);
    ck_assert_msg(proof.n_cases > 0, "%s %s: nothing was run", row->slot,
                  row->isa);
}

START_TEST(row_against_ref)
{
    size_t n;
    const struct tlr_variant *row = tlr_kernel_variants(&n) + _i;
    ck_assert_str_eq(row->slot, ref_of(row)->slot);
    if (row->level > wished_level()) {
        printf("%s %s: not asked for, over TLR_CPU\n", row->slot, row->isa);
        return;
    }
    const char *only = getenv("TLR_ROWS"); /* of one level: under emulation */
    if (only != NULL && strcmp(only, row->isa) != 0) {
        printf("%s %s: not asked for by TLR_ROWS\n", row->slot, row->isa);
        return;
    }
    if (!tlr_cpu_has(row->level))
        TLR_LACKS("%s %s: this machine cannot run it", row->slot, row->isa);
    check(row, row->fn, _i);
}
END_TEST

/* What this machine lacks, by the same source in other instructions. */
START_TEST(twin_against_ref)
{
    size_t n;
    const struct tlr_variant *row = tlr_kernel_variants(&n) + _i;
    tlr_any_fn *twin = twin_of(row);
    if (twin != NULL && row->level <= wished_level())
        check(row, twin, _i);
}
END_TEST

/* A harness that runs nothing proves nothing: each slot has a ref row first,
 * levels ascend, and every slot is filled at every level. */
START_TEST(list_is_whole)
{
    size_t n;
    const struct tlr_variant *rows = tlr_kernel_variants(&n);
    int n_refs = 0, n_runnable = 0;
    ck_assert_uint_gt(n, 0);
    ck_assert_int_eq(rows[0].level, TLR_CPU_REF);
    for (size_t i = 0; i < n; i++) {
        n_refs += rows[i].level == TLR_CPU_REF;
        n_runnable +=
            rows[i].level <= wished_level() && tlr_cpu_has(rows[i].level);
        ck_assert(rows[i].fn != NULL);
        ck_assert_str_eq(rows[i].isa, tlr_cpu_level_name(rows[i].level));
        if (i == 0)
            continue;
        bool same = strcmp(rows[i].slot, rows[i - 1].slot) == 0;
        ck_assert_msg(same ? rows[i].level > rows[i - 1].level
                           : rows[i].level == TLR_CPU_REF,
                      "%s %s stands out of order", rows[i].slot, rows[i].isa);
    }
    ck_assert_int_eq(n_refs * (int)sizeof(tlr_any_fn *),
                     (int)(sizeof(struct tlr_kernels) -
                           offsetof(struct tlr_kernels, matvec)));
    ck_assert_int_ge(n_runnable, n_refs);
}
END_TEST

/* A level's table against the list: of the rows up to it that this machine can
 * run, the last. */
static void check_table(enum tlr_cpu_level level, const char *slot,
                        const struct tlr_kernels *k, size_t offset)
{
    size_t n;
    const struct tlr_variant *rows = tlr_kernel_variants(&n), *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].slot, slot) == 0 && rows[i].level <= level &&
            tlr_cpu_has(rows[i].level))
            best = rows + i;
    }
    ck_assert(best != NULL);
    tlr_any_fn *fn;
    memcpy(&fn, (const char *)k + offset, sizeof fn);
    ck_assert_msg(fn == best->fn, "%s at %s: not %s", slot,
                  tlr_cpu_level_name(level), best->isa);
    ck_assert_str_eq(tlr_kernels_variant(slot, level), best->isa);
}

START_TEST(table_takes_the_best_allowed)
{
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        enum tlr_cpu_level level = (enum tlr_cpu_level)i;
        struct tlr_kernels k;
        if (!tlr_cpu_has(level))
            continue;
        tlr_kernels_init(&k, level);
        ck_assert_int_eq(k.level, level);
#define TLR_SLOT(slot, op, type, field)                                        \
    check_table(level, #slot, &k, offsetof(struct tlr_kernels, field));
#include "kernels/kernel_list.inc"
    }
    ck_assert_ptr_null(tlr_kernels_variant("matvec_q5", TLR_CPU_REF));
}
END_TEST

START_TEST(level_names)
{
    enum tlr_cpu_level level;
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        const char *name = tlr_cpu_level_name((enum tlr_cpu_level)i);
        ck_assert(tlr_cpu_level_parse(name, &level));
        ck_assert_int_eq(level, i);
    }
    ck_assert(!tlr_cpu_level_parse("", &level));
    ck_assert(!tlr_cpu_level_parse("avx", &level));
    ck_assert(!tlr_cpu_level_parse("AVX2", &level));
    char brand[49];
    memset(brand, 'x', sizeof brand);
    tlr_cpu_brand(brand);
    ck_assert_uint_gt(strnlen(brand, 49), 0);
    ck_assert_uint_lt(strnlen(brand, 49), 49);
}
END_TEST

#if defined(__linux__) && defined(__x86_64__)
/* /proc/cpuinfo lists what the kernel lets programs use. */
START_TEST(agrees_with_the_system)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    static char line[16384];
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f))
        found = strncmp(line, "flags", 5) == 0;
    if (f != NULL)
        fclose(f);
    if (!found)
        TLR_SKIP("/proc/cpuinfo has no flags");
    line[strcspn(line, "\n")] = ' ';
    bool has[TLR_N_CPU_LEVELS] = {[TLR_CPU_REF] = true};
    has[TLR_CPU_AVX2] = strstr(line, " avx2 ") && strstr(line, " fma ") &&
                        strstr(line, " f16c ");
    has[TLR_CPU_AVXVNNI] = has[TLR_CPU_AVX2] && strstr(line, " avx_vnni ");
    has[TLR_CPU_AVX512] =
        has[TLR_CPU_AVX2] && strstr(line, " avx512f ") &&
        strstr(line, " avx512bw ") && strstr(line, " avx512dq ") &&
        strstr(line, " avx512vl ");
    has[TLR_CPU_AVX512VNNI] =
        has[TLR_CPU_AVX512] && strstr(line, " avx512_vnni ");
    int best = 0;
    for (int i = 0; i < TLR_N_CPU_LEVELS; i++) {
        ck_assert_msg(tlr_cpu_has((enum tlr_cpu_level)i) == has[i],
                      "%s: the system says %d",
                      tlr_cpu_level_name((enum tlr_cpu_level)i), has[i]);
        best = has[i] ? i : best;
    }
    ck_assert_int_eq(tlr_cpu_detect(), best);
}
END_TEST
#endif

Suite *suite_variants(void);
Suite *suite_variants(void)
{
    size_t n;
    tlr_kernel_variants(&n);
    Suite *suite = suite_create("variants");
    TCase *tc = tcase_create("rows");
    tcase_set_timeout(tc, 900);
    tcase_add_loop_test(tc, row_against_ref, 0, (int)n);
    tcase_add_loop_test(tc, twin_against_ref, 0, (int)n);
    suite_add_tcase(suite, tc);
    tc = tcase_create("list");
    tcase_add_test(tc, list_is_whole);
    tcase_add_test(tc, table_takes_the_best_allowed);
    tcase_add_test(tc, level_names);
#if defined(__linux__) && defined(__x86_64__)
    tcase_add_test(tc, agrees_with_the_system);
#endif
    suite_add_tcase(suite, tc);
    return suite;
}
