/* matmul_avxvnni.c - quantise, matmul and score; the bodies are in
 * kernels/vec/. */
#define TLR_VNNI
#define TLR_FN(name) tlr_##name##_avxvnni
#include "kernels/x86/int_avx2.h"

#include "kernels/vec/matmul.h"
#include "kernels/vec/quantise.h"
#include "kernels/vec/score.h"
