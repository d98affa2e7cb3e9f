/* dequant_avx2.c - weights to f32; the body is kernels/vec/dequant.h. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/vec/dequant.h"
