/* roofline.h - what one core of this machine can reach at most.
 *
 * Williams, Waterman & Patterson 2009 (CACM 52(4)): a kernel that moves B bytes
 * and does W operations takes at least max(B / bandwidth, W / peak).  All three
 * numbers are measured in the run that uses them.
 */
#ifndef TLR_BENCH_ROOFLINE_H
#define TLR_BENCH_ROOFLINE_H

#include <stddef.h>

struct tlr_roofline {
    double read_gb_s;      /* one thread, out of memory */
    double float_gflop_s;  /* f32 fused multiply-add, two operations each */
    double int_gop_s;      /* int8 products summed in int32, likewise; 0: this
                              processor has no such instruction */
};

/* The two compute peaks, on one thread; takes about ms milliseconds.  read_gb_s
 * is the caller's: tlr_stream_measure with one thread. */
void tlr_roofline_measure(struct tlr_roofline *out, double ms);

/* How fast one thread reads a buffer [n_bytes] that it has just read: the
 * bandwidth line of a working set that stays in cache. */
double tlr_roofline_read(const void *buffer, size_t n_bytes, double ms);

/* Least time in ns for these bytes and operations. */
double tlr_roofline_ns(double n_bytes, double gb_s, double n_ops, double gop_s);

#endif
