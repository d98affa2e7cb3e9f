/* dequant_avx512.c - weights to f32; the body is kernels/vec/dequant.h. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/vec/dequant.h"
