/* fuzz_tokenizer_json.c - the JSON readers around the tokenizer, and the packed
 * vocabulary.  The first byte selects which. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/hf_tokenizer.h"
#include "engine/chat.h"
#include "engine/generation.h"
#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_tokenizer(struct tlr_bytes json, struct tlr_bytes config)
{
    struct tlr_hf_tokenizer t = {0};
    struct tlr_err err = TLR_ERR_INIT;
    if (tlr_hf_tokenizer_read(&t, json, "t", config, "c", &err) == 0) {
        uint8_t *packed;
        size_t len;
        struct tlr_tokenizer *k = NULL;
        if (tlr_vocab_pack(&t.owned.vocab, &packed, &len, &err) ||
            tlr_tokenizer_new(&k, (struct tlr_bytes){packed, len}, "p",
                              &err)) {
            abort(); /* what convert accepts must load */
        }
        tlr_tokenizer_free(k);
        tlr_free(packed);
    } else if (err.code == 0) {
        abort();
    }
    tlr_hf_tokenizer_clear(&t);
}

static void read_chat(struct tlr_bytes json)
{
    struct tlr_chat chat;
    if (tlr_chat_from_json(&chat, json, "c", NULL) == 0) {
        char *text;
        size_t len;
        if (tlr_chat_to_json(&chat, &text, &len, NULL)) {
            abort();
        }
        tlr_free(text);
        tlr_chat_clear(&chat);
    }
}

static void recognise(struct tlr_bytes jinja)
{
    struct tlr_chat chat;
    char *text = malloc(jinja.len + 1);
    memcpy(text, jinja.ptr, jinja.len);
    text[jinja.len] = 0;
    if (tlr_chat_recognise(&chat, text, NULL) == 0) {
        tlr_chat_clear(&chat);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char minimal[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
        "\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false}}";
    struct tlr_generation g;
    struct tlr_tokenizer *t = NULL;
    if (size < 2) {
        return 0;
    }
    struct tlr_bytes rest = {data + 1, size - 1};
    switch (data[0] % 6) {
    case 0:
        read_tokenizer(rest, (struct tlr_bytes){NULL, 0});
        break;
    case 1:
        read_tokenizer((struct tlr_bytes){(const uint8_t *)minimal,
                                          sizeof minimal - 1},
                       rest);
        break;
    case 2:
        read_chat(rest);
        break;
    case 3:
        tlr_generation_from_json(&g, rest, 100, "g", NULL);
        break;
    case 4:
        recognise(rest);
        break;
    default:
        if (tlr_tokenizer_new(&t, rest, "v", NULL) == 0) {
            tlr_tokenizer_free(t);
        }
    }
    return 0;
}
