/* matvec_rows_neon.c - f32 and bf16 weights times vectors; the body is kernels/vec/matvec_rows.h. */
#include "kernels/arm/vec_neon.h"

#include "kernels/vec/matvec_rows.h"
