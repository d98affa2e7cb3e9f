/* names.h - our tensor names in the words of GGUF and of Hugging Face. */
#ifndef TLR_CONVERT_NAMES_H
#define TLR_CONVERT_NAMES_H

enum tlr_dialect { TLR_DIALECT_GGUF, TLR_DIALECT_HF, TLR_N_DIALECTS };
enum { TLR_FOREIGN_NAME_BYTES = 96 };

/* ours as in weights/model_file.h. */
void tlr_foreign_name(char out[TLR_FOREIGN_NAME_BYTES], const char *ours,
                      enum tlr_dialect dialect);

#endif
