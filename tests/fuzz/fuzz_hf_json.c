/* fuzz_hf_json.c - config.json and generation_config.json of a Hugging Face
 * folder, adapter_config.json of a LoRA folder.  The first byte selects which;
 * what is accepted must hold the limits that the engine relies on. */
#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"
#include "convert/hf_config.h"
#include "convert/json_file.h"
#include "convert/lora_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_config(const json_t *root)
{
    static struct tlr_hf_config c;
    struct tlr_err err = TLR_ERR_INIT;
    int rc = tlr_hf_config_read(&c, root, "config.json", &err);
    if (rc == 0 ? tlr_config_check(&c.config, "c", NULL) != 0
                : err.code == 0) {
        abort();
    }
}

static void read_generation(const json_t *root)
{
    struct tlr_generation g;
    struct tlr_err err = TLR_ERR_INIT;
    int64_t eos[TLR_MAX_EOS];
    if (tlr_hf_generation_read(&g, root, "generation_config.json", &err) == 0) {
        char *text;
        size_t len;
        g.n_eos = 0;
        /* Ranges are checked by the way to the model file and back. */
        if (tlr_generation_to_json(&g, &text, &len, NULL) == 0) {
            struct tlr_bytes json = {(const uint8_t *)text, len};
            tlr_generation_from_json(&g, json, 10, "g", NULL);
            tlr_free(text);
        }
    } else if (err.code == 0) {
        abort();
    }
    if (tlr_hf_eos_read(eos, root, "generation_config.json", NULL) >
        TLR_MAX_EOS) {
        abort();
    }
}

static void read_adapter(const json_t *root)
{
    static const char *const modules[] = {"lm_head",
                                          "model.layers.0.self_attn.q_proj"};
    struct tlr_lora_config c;
    struct tlr_err err = TLR_ERR_INIT;
    if (tlr_lora_config_read(&c, root, "adapter_config.json", &err) != 0) {
        if (err.code == 0) {
            abort();
        }
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint32_t rank = 0;
        float scale;
        tlr_lora_config_module(&c, modules[i], &rank, &scale);
        if (rank < 1 || rank > TLR_LORA_MAX_RANK) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root = NULL;
    if (size < 1) {
        return 0;
    }
    if (tlr_json_parse(&root, (const char *)data + 1, size - 1, "fuzz", NULL)) {
        return 0;
    }
    if (data[0] % 4 == 0) {
        read_config(root);
    } else if (data[0] % 4 == 2) {
        read_adapter(root);
    } else {
        read_generation(root);
    }
    json_decref(root);
    return 0;
}
