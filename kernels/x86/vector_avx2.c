/* vector_avx2.c - rmsnorm, rope, swiglu, add and f16 conversions; the body is kernels/vec/vector.h. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/vec/vector.h"
