/* lora.h - a source with a PEFT LoRA adapter merged into it. */
#ifndef TLR_CONVERT_LORA_H
#define TLR_CONVERT_LORA_H

#include "convert/source.h"

/* *source becomes a source that reads W + scale * B A where the adapter in
 * `folder` (adapter_config.json, adapter_model.safetensors) has a pair for W,
 * in f32 and in our row order whatever the base came in; all else is the
 * base's.  The new source owns the old one.  On failure *source stays as it is.
 * Every tensor of the adapter is used, or it is refused by name. */
int tlr_source_add_lora(struct tlr_source **source, const char *folder,
                        struct tlr_err *err);

#endif
