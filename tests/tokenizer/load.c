/* load.c - see load.h.  Qwen3's tokenizer.json is stored compressed; the xz
 * program unpacks it into the test folder. */
#include "tests/tokenizer/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/gguf.h"
#include "convert/gguf_vocab.h"
#include "convert/hf_tokenizer.h"
#include "tests/support/tlr_check.h"

static void finish(struct test_tokenizer *out, const struct tlr_vocab *v)
{
    struct tlr_err err = TLR_ERR_INIT;
    size_t len;
    ck_assert_msg(tlr_vocab_pack(v, &out->packed, &len, &err) == 0, "%s",
                  err.text);
    struct tlr_bytes packed = {out->packed, len};
    ck_assert_msg(tlr_tokenizer_new(&out->t, packed, "packed", &err) == 0, "%s",
                  err.text);
}

void load_smollm2(struct test_tokenizer *out)
{
    memset(out, 0, sizeof *out);
    const char *path = tlr_test_model("smollm2-135m-instruct.gguf");
    if (!path) {
        return;
    }
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_map map = {NULL, 0};
    struct tlr_gguf gguf = {0};
    struct tlr_vocab_owned v = {0};
    int rc = tlr_map_open(&map, path, false, &err);
    rc = rc ? rc : tlr_gguf_parse(&gguf, map.ptr, map.len, path, &err);
    rc = rc ? rc : tlr_gguf_vocab_read(&v, &gguf, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    struct tlr_bytes text;
    ck_assert_int_eq(tlr_gguf_get_string(&gguf, "tokenizer.chat_template", true,
                                         &text, &err),
                     0);
    out->chat_template = tlr_calloc(text.len + 1, 1);
    memcpy(out->chat_template, text.ptr, text.len);
    finish(out, &v.vocab);
    tlr_vocab_owned_clear(&v);
    tlr_gguf_clear(&gguf);
    tlr_map_close(&map);
}

static void load_hf(struct test_tokenizer *out, struct tlr_bytes json,
                    struct tlr_bytes config)
{
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_hf_tokenizer hf = {0};
    int rc = tlr_hf_tokenizer_read(&hf, json, "tokenizer.json", config,
                                   "tokenizer_config.json", &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    finish(out, &hf.owned.vocab);
    out->chat_template = hf.chat_template;
    hf.chat_template = NULL;
    tlr_hf_tokenizer_clear(&hf);
}

void load_json(struct test_tokenizer *out, const char *json)
{
    memset(out, 0, sizeof *out);
    load_hf(out, (struct tlr_bytes){(const uint8_t *)json, strlen(json)},
            (struct tlr_bytes){NULL, 0});
}

void load_qwen3(struct test_tokenizer *out)
{
    memset(out, 0, sizeof *out);
    const char *found = tlr_test_shared("qwen3-tokenizer/tokenizer.json.xz");
    if (!found || system("xz --version >/dev/null 2>&1") != 0) {
        return;
    }
    char command[4096], path[600];
    snprintf(path, sizeof path, "%s/qwen3.json", tlr_test_tmpdir());
    snprintf(command, sizeof command, "xz -dc %s >%s.%ld && mv %s.%ld %s",
             found, path, (long)getpid(), path, (long)getpid(), path);
    if (access(path, R_OK) != 0) {
        ck_assert_int_eq(system(command), 0);
    }
    struct tlr_err err = TLR_ERR_INIT;
    struct tlr_map json = {NULL, 0}, config = {NULL, 0};
    found = tlr_test_shared("qwen3-tokenizer/tokenizer_config.json");
    ck_assert_ptr_nonnull(found);
    int rc = tlr_map_open(&config, found, false, &err);
    rc = rc ? rc : tlr_map_open(&json, path, false, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    load_hf(out, (struct tlr_bytes){json.ptr, json.len},
            (struct tlr_bytes){config.ptr, config.len});
    tlr_map_close(&json);
    tlr_map_close(&config);
}

void unload(struct test_tokenizer *t)
{
    tlr_tokenizer_free(t->t);
    tlr_free(t->packed);
    tlr_free(t->chat_template);
    memset(t, 0, sizeof *t);
}

char *read_golden(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s: missing; run the tests in the repository's "
                             "root folder", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = malloc((size_t)size + 1);
    ck_assert_uint_eq(fread(text, 1, (size_t)size, f), (size_t)size);
    text[size] = 0;
    fclose(f);
    *len = (size_t)size;
    return text;
}
