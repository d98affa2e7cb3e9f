/* fuzz_safetensors.c - any bytes as a .safetensors file.
 *
 * What parses must be usable: data lies inside the file, in order and without
 * holes, and the first and last byte of every tensor can be read.
 */
#include <stdlib.h>
#include <string.h>

#include "convert/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void must(int holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tlr_safetensors s;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_safetensors_parse(&s, data, size, "fuzz", &err);
    must(rc == err.code && (rc == 0) == (err.text[0] == '\0'));
    uint64_t sum = 0;
    for (size_t i = 0; rc == 0 && i < s.n; i++) {
        const struct tlr_safetensor *t = &s.tensors[i];
        must(t->name[0] != '\0' && t->dtype != NULL);
        must(t->data >= data && t->data + t->n_bytes <= data + size);
        must(i == 0 || t->data == (t - 1)->data + (t - 1)->n_bytes);
        if (t->n_bytes > 0) {
            sum += t->data[0];
            sum += t->data[t->n_bytes - 1];
        }
    }
    must(rc != 0 || s.n == 0 ||
         s.tensors[s.n - 1].data + s.tensors[s.n - 1].n_bytes == data + size);
    tlr_safetensors_clear(&s);
    sink = sum;
    return 0;
}
