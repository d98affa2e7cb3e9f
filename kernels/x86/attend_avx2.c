/* attend_avx2.c - attention; the body is kernels/vec/attend.h. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/vec/attend.h"
