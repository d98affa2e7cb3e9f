/* router_import.h - `tlr router import`: another program's router as ours. */
#ifndef TLR_CLI_ROUTER_IMPORT_H
#define TLR_CLI_ROUTER_IMPORT_H

#include "base/err.h"

/* source: a .safetensors file of CITER's router, or a folder with
 * model.safetensors; model_path: the model it is for; out: the router to write,
 * not calibrated yet. */
int cli_router_import(const char *source, const char *model_path,
                      const char *out, struct tlr_err *err);

#endif
