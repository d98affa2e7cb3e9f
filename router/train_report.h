/* train_report.h - how good the folded router is on what was held out, and the
 * thresholds it starts with.  Between train.c and train_report.c.
 */
#ifndef TLR_ROUTER_TRAIN_REPORT_H
#define TLR_ROUTER_TRAIN_REPORT_H

#include "router/train_data.h"

/* held [n_held]: logits of the folded network, temperature not applied.  Fits
 * temperature and offset into w (not for deferral), fills calibration and the
 * figures of report. */
int tlr_train_judge(const struct tlr_train_data *data,
                    const struct tlr_train_options *o, const double *held,
                    struct tlr_router_weights *w,
                    struct tlr_calibration *calibration,
                    struct tlr_train_report *report, struct tlr_err *err);

#endif
