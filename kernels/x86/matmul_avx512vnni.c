/* matmul_avx512vnni.c - quantise, matmul and score; the bodies are in
 * kernels/vec/. */
#define TLR_VNNI
#define TLR_FN(name) tlr_##name##_avx512vnni
#include "kernels/x86/int_avx512.h"

#include "kernels/vec/matmul.h"
#include "kernels/vec/quantise.h"
#include "kernels/vec/score.h"
