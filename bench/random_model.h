/* random_model.h - a model of seeded random weights in a known shape, for the
 * programs that time something beside `tlr bench`. */
#ifndef TLR_BENCH_RANDOM_MODEL_H
#define TLR_BENCH_RANDOM_MODEL_H

#include "base/err.h"
#include "engine/tlr.h"

/* shape: a name that `tlr convert random:NAME` knows; 4-bit weights, in a
 * temporary file that is gone with the model.  *out with tlr_model_close. */
int tlr_bench_random_model(struct tlr_model **out, const char *shape,
                           struct tlr_err *err);

#endif
