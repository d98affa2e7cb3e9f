/* hf_tokenizer.h - Hugging Face's tokenizer.json and tokenizer_config.json.
 *
 * Takes byte-level BPE with one of the known pre-tokenizers, recognised by
 * structure and pattern, and the normalizers NFC or none; anything else is
 * refused by name.
 */
#ifndef TLR_CONVERT_HF_TOKENIZER_H
#define TLR_CONVERT_HF_TOKENIZER_H

#include "base/err.h"
#include "base/span.h"
#include "convert/vocab_build.h"

struct tlr_hf_tokenizer {
    struct tlr_vocab_owned owned; /* use owned.vocab */
    char *chat_template; /* of tokenizer_config.json; NULL: it has none */
    int32_t eos_id;      /* its eos_token; -1: none */
};

/* Zero out first; clear it also after failure.  config_json.ptr NULL: there is
 * no tokenizer_config.json.  The names open the messages. */
int tlr_hf_tokenizer_read(struct tlr_hf_tokenizer *out,
                          struct tlr_bytes tokenizer_json,
                          const char *tokenizer_where,
                          struct tlr_bytes config_json,
                          const char *config_where, struct tlr_err *err);
void tlr_hf_tokenizer_clear(struct tlr_hf_tokenizer *t);

#endif
