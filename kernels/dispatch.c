/* dispatch.c - chooses a variant for every slot.
 *
 * The only file that turns variant symbols into pointers.  A level's table
 * starts as ref and each level up to it overwrites what it has; nothing is
 * chosen by measuring, so the same machine and level always run the same code.
 */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "kernels/variants.h"
#include "kernels/variants_decl.h"

enum {
    N_VARIANTS = 0
#define TLR_VARIANT(slot, isa, level) +1
#include "kernels/kernel_list.inc"
};

/* A slot's columns as constants, for the rows of its variants. */
#define TLR_SLOT(slot, op, type, field)                                        \
    enum {                                                                     \
        OP_##slot = TLR_OP_##op,                                               \
        TYPE_##slot = type,                                                    \
        OFFSET_##slot = offsetof(struct tlr_kernels, field)                    \
    };
#include "kernels/kernel_list.inc"

static const size_t offsets[N_VARIANTS] = {
#define TLR_VARIANT(slot, isa, level) OFFSET_##slot,
#include "kernels/kernel_list.inc"
};

static const struct tlr_variant variants[N_VARIANTS] = {
#define TLR_VARIANT(slot, isa, level)                                          \
    {#slot,                                                                    \
     #isa,                                                                     \
     (enum tlr_kernel_op)OP_##slot,                                            \
     (enum tlr_type)TYPE_##slot,                                               \
     level,                                                                    \
     (tlr_any_fn *)tlr_##slot##_##isa},
#include "kernels/kernel_list.inc"
};

const struct tlr_variant *tlr_kernel_variants(size_t *n)
{
    *n = N_VARIANTS;
    return variants;
}

/* A table capped at avx512 on a machine without avxvnni takes no avxvnni row. */
static bool runs_at(const struct tlr_variant *v, enum tlr_cpu_level level)
{
    return v->level <= level && tlr_cpu_has(v->level);
}

void tlr_kernels_init(struct tlr_kernels *k, enum tlr_cpu_level level)
{
    assert(tlr_cpu_has(level));
    memset(k, 0, sizeof *k);
    k->level = level;
    for (size_t i = 0; i < N_VARIANTS; i++) {
        if (!runs_at(&variants[i], level))
            continue;
        memcpy((char *)k + offsets[i], &variants[i].fn,
               sizeof variants[i].fn);
    }
}

const char *tlr_kernels_variant(const char *slot, enum tlr_cpu_level level)
{
    const char *name = NULL;
    for (size_t i = 0; i < N_VARIANTS; i++) {
        if (runs_at(&variants[i], level) && strcmp(variants[i].slot, slot) == 0)
            name = variants[i].isa;
    }
    return name;
}
