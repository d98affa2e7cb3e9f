/* vector_neon.c - rmsnorm, rope, swiglu, add and f16 conversions; the body is kernels/vec/vector.h. */
#include "kernels/arm/vec_neon.h"

#include "kernels/vec/vector.h"
