/* attend_neon.c - attention; the body is kernels/vec/attend.h. */
#include "kernels/arm/vec_neon.h"

#include "kernels/vec/attend.h"
