/* parity.h - logits of a converted model beside those of transformers. */
#ifndef TLR_TESTS_CONVERT_PARITY_H
#define TLR_TESTS_CONVERT_PARITY_H

/* Converts `from`, with the LoRA folder merged unless NULL, to the file `to`
 * and verifies it; any failure fails the test. */
void convert_to(const char *from, const char *lora, const char *to, int type);

/* Reads the text of an expected.json (text, ids, logits at two positions: the
 * make.py of hf_folders and lora) with the model at `bin`: fails unless the ids
 * are the same, returns the largest difference of a logit as a share of the
 * largest logit. */
double logits_apart(const char *bin, const char *expected);

#endif
