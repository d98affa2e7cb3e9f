/* matmul_dotprod.c - integer products by sdot; the body is matmul.h. */
#include <arm_neon.h>
#include <stdbool.h>

#define TLR_FN(name) tlr_##name##_dotprod
#define TLR_INLINE static inline __attribute__((always_inline))

#include "kernels/arm/dot_sdot.h"
#include "kernels/arm/matmul.h"

TLR_MATMUL_SLOTS(matmul)
TLR_SCORE_SLOT
