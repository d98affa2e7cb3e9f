/* matvec_rows_avx512.c - f32 and bf16 weights times vectors; the body is kernels/vec/matvec_rows.h. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/vec/matvec_rows.h"
