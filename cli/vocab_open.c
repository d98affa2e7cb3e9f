/* vocab_open.c - see vocab_open.h. */
#include "cli/vocab_open.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/hf_tokenizer.h"
#include "convert/source.h"

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static int from_vocab(struct cli_vocab *v, const struct tlr_vocab *vocab,
                      const char *where, struct tlr_err *err)
{
    size_t len = 0;
    int rc = tlr_vocab_pack(vocab, &v->packed, &len, err);
    if (rc)
        return rc;
    struct tlr_bytes bytes = { v->packed, len };
    return tlr_tokenizer_new(&v->tokenizer, bytes, where, err);
}

static int from_gguf(struct cli_vocab *v, const char *path,
                     struct tlr_err *err)
{
    struct tlr_source *src;
    int rc = tlr_source_open(&src, path, err);
    if (rc)
        return rc;
    rc = from_vocab(v, &src->vocab, path, err);
    tlr_source_close(src);
    return rc;
}

/* tokenizer.json alone, without the weights that may lie beside it.  What
 * tokenizer_config.json would add (end token, chat template) is not needed to
 * turn text into ids. */
static int from_json(struct cli_vocab *v, const char *path,
                     struct tlr_err *err)
{
    struct tlr_hf_tokenizer hf = { 0 };
    struct tlr_bytes none = { NULL, 0 };
    struct tlr_map map;
    int rc = tlr_map_open(&map, path, true, err);
    if (rc)
        return rc;
    struct tlr_bytes json = { map.ptr, map.len };
    rc = tlr_hf_tokenizer_read(&hf, json, path, none, "", err);
    if (!rc)
        rc = from_vocab(v, &hf.owned.vocab, path, err);
    tlr_hf_tokenizer_clear(&hf);
    tlr_map_close(&map);
    return rc;
}

static int from_file(struct cli_vocab *v, const char *path,
                     struct tlr_err *err)
{
    struct tlr_file_options lazy = { .populate = false };
    int rc = tlr_file_open(&v->file, path, &lazy, err);
    if (rc)
        return rc;
    struct tlr_bytes bytes = tlr_file_section(v->file, TLR_SECTION_TOKENIZER);
    if (!bytes.ptr)
        return tlr_err_set(err, TLR_EUNSUPPORTED,
                           "%s: carries no tokenizer (random weights)", path);
    return tlr_tokenizer_new(&v->tokenizer, bytes, path, err);
}

int cli_vocab_open(struct cli_vocab *out, const char *path,
                   struct tlr_err *err)
{
    struct stat st;
    int rc;
    *out = (struct cli_vocab){ 0 };
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        char json[4096];
        snprintf(json, sizeof json, "%s/tokenizer.json", path);
        rc = from_json(out, json, err);
    } else if (ends_with(path, ".json")) {
        rc = from_json(out, path, err);
    } else if (ends_with(path, ".gguf")) {
        rc = from_gguf(out, path, err);
    } else {
        rc = from_file(out, path, err);
    }
    if (rc)
        cli_vocab_close(out);
    return rc;
}

void cli_vocab_close(struct cli_vocab *v)
{
    tlr_tokenizer_free(v->tokenizer);
    tlr_free(v->packed);
    tlr_file_close(v->file);
    *v = (struct cli_vocab){ 0 };
}
