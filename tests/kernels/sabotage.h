/* sabotage.h - judges a kernel that was broken on purpose. */
#ifndef TLR_TESTS_KERNELS_SABOTAGE_H
#define TLR_TESTS_KERNELS_SABOTAGE_H

#include "tests/kernels/prover.h"

enum verdict { PASSED = 0, CAUGHT = 40, FAULTED = 41, BROKEN = 42 };

/* What the prover says of bad as a variant of the slot of ref; in a child,
 * because a crime may fault. */
enum verdict judge(const struct tlr_variant *ref, tlr_any_fn *bad);

#endif
