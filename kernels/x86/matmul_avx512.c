/* matmul_avx512.c - quantise, matmul and score; the bodies are in
 * kernels/vec/. */
#include "kernels/x86/int_avx512.h"

#include "kernels/vec/matmul.h"
#include "kernels/vec/quantise.h"
#include "kernels/vec/score.h"
