/* support_internal.h - between check_main.c and support.c only. */
#ifndef TLR_TESTS_SUPPORT_INTERNAL_H
#define TLR_TESTS_SUPPORT_INTERNAL_H

void tlr_support_begin(void);
int tlr_support_end(void); /* removes the folder, returns the skips counted */

#endif
