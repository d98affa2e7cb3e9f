/* vocab_open.c - see vocab_open.h. */
#include "cli/vocab_open.h"

#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "convert/source.h"

static bool is_source(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        return true;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int from_source(struct cli_vocab *v, const char *path,
                       struct tlr_err *err)
{
    struct tlr_source *src;
    size_t len = 0;
    int rc = tlr_source_open(&src, path, err);
    if (rc)
        return rc;
    rc = tlr_vocab_pack(&src->vocab, &v->packed, &len, err);
    tlr_source_close(src);
    if (rc)
        return rc;
    struct tlr_bytes bytes = { v->packed, len };
    return tlr_tokenizer_new(&v->tokenizer, bytes, path, err);
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
    *out = (struct cli_vocab){ 0 };
    int rc = is_source(path) ? from_source(out, path, err)
                             : from_file(out, path, err);
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
