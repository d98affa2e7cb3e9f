/* vocab_open.h - a tokenizer without its model's weights.
 *
 * From a model file, or from what tlr convert reads: a .gguf file or a Hugging
 * Face folder.
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
