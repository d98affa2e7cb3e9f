/* calibrate.h - what the matrices of a model see while it reads a text.
 *
 * For every matrix the sum of x x' over the rows x that reach it: what the
 * rounding of compensate.c wants to know.  They are large (a matrix of 4864
 * columns has 95 MB of them), so they are gathered for some layers at a time and
 * the text is read again for the next ones.
 */
#ifndef TLR_CONVERT_CALIBRATE_H
#define TLR_CONVERT_CALIBRATE_H

#include "convert/compensate.h"
#include "convert/convert.h"

struct tlr_calibration;

/* Makes a q8 model of the source in a temporary file and cuts the text into
 * windows. */
int tlr_calibration_new(struct tlr_calibration **out, struct tlr_source *src,
                        const struct tlr_convert_options *options,
                        struct tlr_err *err);
void tlr_calibration_free(struct tlr_calibration *c); /* NULL is allowed */

/* The factor of the inputs of our i-th tensor, owned by c until the next call.
 * Tensors are asked for in file order. */
int tlr_calibration_factor(struct tlr_calibration *c, uint32_t i,
                           const struct tlr_factor **out, struct tlr_err *err);

/* Ids that are read: whole windows of the text, so fewer than were asked for. */
uint64_t tlr_calibration_tokens(const struct tlr_calibration *c);

/* Work to be done and work done so far, in units of a window: for progress. */
uint64_t tlr_calibration_units(const struct tlr_calibration *c);
/* Called after every window; non-zero cancels. */
void tlr_calibration_on_window(struct tlr_calibration *c,
                               int (*fn)(void *ctx, uint64_t done), void *ctx);

#endif
