/* support_internal.h - between check_main.c and support.c only. */
#ifndef TLR_TESTS_SUPPORT_INTERNAL_H
#define TLR_TESTS_SUPPORT_INTERNAL_H

void tlr_support_begin(void);
/* Removes the folder; returns the skips counted, those of TLR_SKIP apart. */
int tlr_support_end(int *n_curable);

#endif
