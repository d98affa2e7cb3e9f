/* twin.h - a function that runs here in the place of one that does not. */
#ifndef TLR_TESTS_KERNELS_TWIN_H
#define TLR_TESTS_KERNELS_TWIN_H

#include "kernels/variants.h"

/* NULL where the row has none or this machine cannot run that either. */
tlr_any_fn *twin_of(const struct tlr_variant *row);

#endif
