/* vocab_open.h - a tokenizer without its model's weights.
 *
 * From a model file, a .gguf file, a tokenizer.json or the Hugging Face folder
 * that holds one.
 */
#ifndef TLR_CLI_VOCAB_OPEN_H
#define TLR_CLI_VOCAB_OPEN_H

#include "engine/tokenizer.h"
#include "weights/model_file.h"

struct cli_vocab {
    struct tlr_file *file;
    uint8_t *packed;
    struct tlr_tokenizer *tokenizer;
};

int cli_vocab_open(struct cli_vocab *out, const char *path,
                   struct tlr_err *err);
void cli_vocab_close(struct cli_vocab *v);

#endif
