/* corpus.h - deterministic test text, the same as golden/tokenizer/corpus.py. */
#ifndef TLR_TESTS_TOKENIZER_CORPUS_H
#define TLR_TESTS_TOKENIZER_CORPUS_H

#include <stddef.h>
#include <stdint.h>

struct corpus {
    char **atoms;
    size_t n_atoms;
};
void corpus_load(struct corpus *c);
void corpus_clear(struct corpus *c);

/* Segment k as UTF-8; free() it. */
char *corpus_segment(const struct corpus *c, uint64_t seed, uint64_t k,
                     int n_atoms, size_t *len);
uint64_t ids_hash(const int32_t *ids, size_t n);

#endif
