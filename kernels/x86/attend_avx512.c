/* attend_avx512.c - attention; the body is kernels/vec/attend.h. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/vec/attend.h"
