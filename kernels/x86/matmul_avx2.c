/* matmul_avx2.c - quantise, matmul and score; the bodies are in
 * kernels/vec/. */
#include "kernels/x86/int_avx2.h"

#include "kernels/vec/matmul.h"
#include "kernels/vec/quantise.h"
#include "kernels/vec/score.h"
