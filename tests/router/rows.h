/* rows.h - a small labelled dataset that training can learn from. */
#ifndef TLR_TESTS_ROUTER_ROWS_H
#define TLR_TESTS_ROUTER_ROWS_H

#include "router/dataset.h"
#include "tests/support/tlr_check.h"

enum { ROWS_DIM = 12, ROWS_GROUPS = 40, ROWS_IN_GROUP = 25 };

/* How a row deviates, for tests of refusals. */
enum rows_flaw { ROWS_SOUND, ROWS_ALL_KEEP, ROWS_NO_P_LLM, ROWS_ONE_GROUP,
                 ROWS_ALL_OPEN,
                 /* Pairs that must train alike: ties at a weight of 0.25, and
                  * rows that weigh that; labels of p_llm < 0.01, and told. */
                 ROWS_TIES, ROWS_TIES_TOLD, ROWS_UNLIKELY, ROWS_UNLIKELY_TOLD };

/* Rows of group g: labels follow from the state, the first feature from the
 * label, signals from both a little; every seventh row is open. */
void rows_make(uint32_t g, enum rows_flaw flaw, struct tlr_row *rows,
               float *hidden);
/* Writes a dataset of ROWS_GROUPS groups into the test's folder; the path is
 * valid until the next call. */
const char *rows_write(const char *name, enum rows_flaw flaw);

#endif
