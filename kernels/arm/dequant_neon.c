/* dequant_neon.c - weights to f32; the body is kernels/vec/dequant.h. */
#include "kernels/arm/vec_neon.h"

#include "kernels/vec/dequant.h"
