/* load.h - the tokenizers that the tests of this room use. */
#ifndef TLR_TESTS_TOKENIZER_LOAD_H
#define TLR_TESTS_TOKENIZER_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/tokenizer.h"

struct test_tokenizer {
    struct tlr_tokenizer *t; /* NULL: its file is not there */
    uint8_t *packed;
    char *chat_template; /* NULL: none */
};

/* Fails the test on any error but a missing file. */
void load_smollm2(struct test_tokenizer *out);
void load_qwen3(struct test_tokenizer *out);
/* From a tokenizer.json given as text. */
void load_json(struct test_tokenizer *out, const char *json);
void unload(struct test_tokenizer *t);

/* The whole of a file below the repository's root, NUL-terminated; free(). */
char *read_golden(const char *path, size_t *len);

#endif
