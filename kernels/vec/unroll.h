/* unroll.h - kernels are written once for a constant number of vectors n_x and
 * instantiated for each, so that accumulators live in registers. */
#ifndef TLR_KERNELS_VEC_UNROLL_H
#define TLR_KERNELS_VEC_UNROLL_H

#if defined(__clang__)
#define TLR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TLR_UNROLL _Pragma("GCC unroll 16")
#endif

/* CALL(constant) for n in 1..4 (the caller guarantees it), or 1..8. */
#define TLR_CALL_1_TO_4(n, CALL)                                               \
    switch (n) {                                                               \
    case 1: CALL(1); break;                                                    \
    case 2: CALL(2); break;                                                    \
    case 3: CALL(3); break;                                                    \
    default: CALL(4); break;                                                   \
    }
#define TLR_CALL_1_TO_8(n, CALL)                                               \
    switch (n) {                                                               \
    case 1: CALL(1); break;                                                    \
    case 2: CALL(2); break;                                                    \
    case 3: CALL(3); break;                                                    \
    case 4: CALL(4); break;                                                    \
    case 5: CALL(5); break;                                                    \
    case 6: CALL(6); break;                                                    \
    case 7: CALL(7); break;                                                    \
    default: CALL(8); break;                                                   \
    }

#endif
