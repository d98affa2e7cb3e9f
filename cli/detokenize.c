/* detokenize.c - `tlr detokenize`: ids to text. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/vocab_open.h"

enum { MAX_IDS_BYTES = 1 << 30 };

struct detokenize_args {
    const char *model;
    struct cli_rest ids;
    bool json, skip_special;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE,
      .at = offsetof(struct detokenize_args, model),
      .help = "a model file, a .gguf file, a Hugging Face folder or its "
              "tokenizer.json" },
    { .name = "ID", .kind = CLI_TEXT, .optional = true, .repeats = true,
      .at = offsetof(struct detokenize_args, ids),
      .help = "token ids; - or nothing reads them from standard input, "
              "separated by blanks or commas, or as JSON that tokenize made" },
};

static const struct cli_option options[] = {
    { .name = "skip-special", .kind = CLI_FLAG,
      .at = offsetof(struct detokenize_args, skip_special),
      .help = "leave special tokens out of the text" },
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct detokenize_args, json),
      .help = "print one JSON object with text" },
};

static const char *const examples[] = {
    "tlr detokenize model.bin 504 3575 282", "Show what ids stand for.",
    "tlr tokenize model.bin - --json <a.txt | tlr detokenize model.bin | "
    "cmp a.txt", "There and back again: no output, no difference.",
    NULL
};

static int push_id(struct tlr_ids *ids, const struct tlr_tokenizer *tok,
                   long long id, struct tlr_err *err)
{
    uint32_t n = tlr_tokenizer_n_tokens(tok);
    if (id < 0 || id >= (long long)n)
        return tlr_err_set(err, TLR_EUSAGE,
                           "id %lld: expected 0 to %u", id, n - 1);
    return tlr_ids_push(ids, (int32_t)id, err);
}

/* Ids separated by anything that is blank or a comma. */
static int parse_plain(struct tlr_ids *ids, const struct tlr_tokenizer *tok,
                       const char *text, struct tlr_err *err)
{
    while (*text) {
        if (isspace((unsigned char)*text) || *text == ',') {
            text++;
            continue;
        }
        char *end;
        errno = 0;
        long long id = strtoll(text, &end, 10);
        bool ended = *end == '\0' || *end == ',' || isspace((unsigned char)*end);
        if (end == text || errno || !ended)
            return tlr_err_set(err, TLR_EUSAGE,
                               "expected a token id, found '%.*s'",
                               (int)strcspn(text, " \t\r\n,"), text);
        int rc = push_id(ids, tok, id, err);
        if (rc)
            return rc;
        text = end;
    }
    return 0;
}

/* [1, 2] or {"ids": [1, 2], ...} */
static int parse_json(struct tlr_ids *ids, const struct tlr_tokenizer *tok,
                      const char *text, size_t len, struct tlr_err *err)
{
    json_error_t je;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    const json_t *array = json_is_object(root) ? json_object_get(root, "ids")
                                               : root;
    int rc = 0;
    if (!root)
        rc = tlr_err_set(err, TLR_EFORMAT, "standard input: line %d: %s",
                         je.line, je.text);
    else if (!json_is_array(array))
        rc = tlr_err_set(err, TLR_EFORMAT,
                         "standard input: expected an array of ids, or an "
                         "object with one called ids");
    for (size_t i = 0; !rc && i < json_array_size(array); i++) {
        const json_t *id = json_array_get(array, i);
        if (!json_is_integer(id))
            rc = tlr_err_set(err, TLR_EFORMAT,
                             "standard input: ids[%zu]: expected a whole "
                             "number", i);
        else
            rc = push_id(ids, tok, json_integer_value(id), err);
    }
    json_decref(root);
    return rc;
}

static int read_ids(const struct detokenize_args *a,
                    const struct tlr_tokenizer *tok, struct tlr_ids *ids,
                    struct tlr_err *err)
{
    int rc = 0;
    if (a->ids.n > 0 && strcmp(a->ids.items[0], "-") != 0) {
        for (int i = 0; i < a->ids.n && !rc; i++)
            rc = parse_plain(ids, tok, a->ids.items[i], err);
        return rc;
    }
    char *text;
    size_t len;
    rc = tlr_read_file(&text, &len, "-", MAX_IDS_BYTES, err);
    if (rc)
        return rc;
    size_t start = strspn(text, " \t\r\n");
    if (text[start] == '{' || text[start] == '[')
        rc = parse_json(ids, tok, text, len, err);
    else if (strlen(text) != len)
        rc = tlr_err_set(err, TLR_EFORMAT, "standard input: has a NUL byte");
    else
        rc = parse_plain(ids, tok, text, err);
    tlr_free(text);
    return rc;
}

/* The bytes as they are; in JSON and on a terminal broken UTF-8 is replaced. */
static int print_text(const struct detokenize_args *a,
                      const struct tlr_tokenizer *tok,
                      const struct tlr_ids *ids, struct tlr_err *err)
{
    uint64_t len = 0;
    for (size_t i = 0; i < ids->n; i++)
        len += tlr_token_bytes(tok, ids->ids[i]).len;
    char *text = tlr_calloc(len + 1, 1);
    if (!text)
        return tlr_err_nomem(err, "text", len + 1);
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++) {
        struct tlr_bytes b = tlr_token_bytes(tok, ids->ids[i]);
        if (b.len == 0 ||
            (a->skip_special && tlr_token_is_special(tok, ids->ids[i])))
            continue;
        memcpy(text + n, b.ptr, b.len);
        n += b.len;
    }
    int rc = 0;
    if (a->json) {
        json_t *j = json_object();
        cli_json_put(j, "text", cli_json_text(text, n));
        rc = cli_json_print(j, err);
    } else {
        cli_write(text, n);
        if (cli_out_is_tty() && n > 0 && text[n - 1] != '\n')
            cli_write("\n", 1);
    }
    tlr_free(text);
    return rc;
}

static int detokenize(const void *args, struct tlr_err *err)
{
    const struct detokenize_args *a = args;
    struct cli_vocab v;
    struct tlr_ids ids = { 0 };
    int rc = cli_vocab_open(&v, a->model, err);
    if (rc)
        return rc;
    rc = read_ids(a, v.tokenizer, &ids, err);
    if (!rc)
        rc = print_text(a, v.tokenizer, &ids, err);
    tlr_ids_clear(&ids);
    cli_vocab_close(&v);
    return rc;
}

const struct cli_verb cli_verb_detokenize = {
    .name = "detokenize",
    .summary = "turn token ids into text",
    .about = "Prints the bytes that ids stand for, nothing added and nothing "
             "left out, so that detokenize undoes tokenize.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct detokenize_args),
    .main = detokenize,
};
