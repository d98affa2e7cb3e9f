/* vector_avx512.c - rmsnorm, rope, swiglu, add and f16 conversions; the body is kernels/vec/vector.h. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/vec/vector.h"
