/* tokenize.c - `tlr tokenize`: text to ids. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/vocab_open.h"

enum { MAX_TEXT_BYTES = 1 << 30 };

struct tokenize_args {
    const char *model, *text;
    bool json, pieces, no_special, no_bos;
};

static const struct cli_operand operands[] = {
    { .name = "MODEL", .kind = CLI_FILE,
      .at = offsetof(struct tokenize_args, model),
      .help = "a model file, a .gguf file, a Hugging Face folder or its "
              "tokenizer.json" },
    { .name = "TEXT", .kind = CLI_TEXT, .optional = true,
      .at = offsetof(struct tokenize_args, text),
      .help = "the text; - or nothing reads standard input" },
};

static const struct cli_option options[] = {
    { .name = "no-special", .kind = CLI_FLAG,
      .at = offsetof(struct tokenize_args, no_special),
      .help = "read special tokens spelled out in the text as plain text" },
    { .name = "no-bos", .kind = CLI_FLAG,
      .at = offsetof(struct tokenize_args, no_bos),
      .help = "leave out the begin-of-text token that some models want" },
    { .name = "pieces", .kind = CLI_FLAG,
      .at = offsetof(struct tokenize_args, pieces),
      .help = "one line for each token: id, and its text as a JSON string" },
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct tokenize_args, json),
      .help = "print one JSON object: ids, their count and encode_ms, the time "
              "without start, loading and printing" },
};

static const char *const examples[] = {
    "tlr tokenize model.bin \"Hello, world\" --pieces",
    "See how a text is cut.",
    "tlr tokenize model.bin - --json <book.txt", "Count the tokens of a file.",
    NULL
};

/* Decimal digits by hand: millions of ids are printed here. */
static void print_id(int32_t id, char after)
{
    char text[16];
    size_t at = sizeof text;
    uint32_t v = (uint32_t)id;
    text[--at] = after;
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    cli_write(text + at, sizeof text - at);
}

static void print_ids(const struct tlr_ids *ids, bool json, double encode_ms)
{
    if (json)
        cli_printf("{\"ids\": [");
    for (size_t i = 0; i < ids->n; i++) {
        bool last = i + 1 == ids->n;
        print_id(ids->ids[i], json ? (last ? ']' : ',') : (last ? '\n' : ' '));
    }
    if (json)
        cli_printf("%s, \"count\": %zu, \"encode_ms\": %.3f}\n",
                   ids->n ? "" : "]", ids->n, encode_ms);
}

static int print_pieces(const struct tlr_tokenizer *tok,
                        const struct tlr_ids *ids, struct tlr_err *err)
{
    for (size_t i = 0; i < ids->n; i++) {
        struct tlr_bytes b = tlr_token_bytes(tok, ids->ids[i]);
        json_t *j = cli_json_text((const char *)b.ptr, b.len);
        char *quoted = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
        json_decref(j);
        if (!quoted)
            return tlr_err_nomem(err, "piece of text", b.len);
        cli_printf("%d\t%s\n", ids->ids[i], quoted);
        free(quoted);
    }
    return 0;
}

static int tokenize(const void *args, struct tlr_err *err)
{
    const struct tokenize_args *a = args;
    struct cli_vocab v;
    struct tlr_ids ids = { 0 };
    char *owned = NULL;
    const char *text = a->text;
    size_t len = text ? strlen(text) : 0;
    unsigned flags = (a->no_special ? 0 : TLR_ENCODE_SPECIAL) |
                     (a->no_bos ? 0 : TLR_ENCODE_BOS);
    int rc = cli_vocab_open(&v, a->model, err);
    if (rc)
        return rc;
    if (!text || strcmp(text, "-") == 0) {
        rc = tlr_read_file(&owned, &len, "-", MAX_TEXT_BYTES, err);
        text = owned;
    }
    uint64_t begun = tlr_now_ns();
    if (!rc)
        rc = tlr_encode(v.tokenizer, text, len, flags, &ids, err);
    double encode_ms = tlr_ms_between(begun, tlr_now_ns());
    if (!rc && a->pieces && !a->json)
        rc = print_pieces(v.tokenizer, &ids, err);
    else if (!rc)
        print_ids(&ids, a->json, encode_ms);
    tlr_ids_clear(&ids);
    tlr_free(owned);
    cli_vocab_close(&v);
    return rc;
}

const struct cli_verb cli_verb_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids",
    .about = "Prints the ids of a text as the model sees them, the same ids "
             "that Hugging Face tokenizers make. Any bytes are accepted; "
             "detokenize gives them back.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct tokenize_args),
    .main = tokenize,
};
