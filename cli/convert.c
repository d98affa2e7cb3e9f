/* convert.c - `tlr convert`: a foreign model becomes a model file. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "convert/convert.h"
#include "convert/lora.h"

enum { MAX_TEXT_BYTES = 256 << 20, CALIBRATE_TOK = 16384 };

struct convert_args {
    const char *src, *out, *type, *lora, *calibrate;
    int64_t calibrate_tok;
    bool verify, json;
};

static const struct cli_operand operands[] = {
    { .name = "SRC", .kind = CLI_FILE, .at = offsetof(struct convert_args, src),
      .help = "a Hugging Face folder, a .gguf file, or random:NAME for seeded "
              "random weights" },
};

static const struct cli_option options[] = {
    { .name = "output", .letter = 'o', .kind = CLI_FILE, .required = true,
      .at = offsetof(struct convert_args, out), .value = "OUT",
      .help = "the model file to make; an old one stays until the new one is "
              "complete" },
    { .name = "type", .kind = CLI_CHOICE,
      .at = offsetof(struct convert_args, type), .value = TLR_CONVERT_TYPES,
      .help = "number type of the matrices; q8 and q4 keep the LM head in 8 "
              "bits that can be searched like 4, the plain ones do not",
      .unset = "what a .gguf file holds, where that fits without loss, else "
               "q8" },
    { .name = "lora", .kind = CLI_FILE,
      .at = offsetof(struct convert_args, lora), .value = "FOLDER",
      .help = "merge a LoRA adapter: a PEFT folder with adapter_config.json and "
              "adapter_model.safetensors; the matrices that it changes are "
              "rounded anew, to q8 unless --type says otherwise" },
    { .name = "calibrate", .kind = CLI_FILE,
      .at = offsetof(struct convert_args, calibrate), .value = "TEXT",
      .help = "a text that mixes, from its beginning, the kinds that the model "
              "will read, in plain UTF-8 (one kind alone costs the others): "
              "q4n matrices (--type q4 or q4n) are rounded so that their "
              "errors cancel on it, which takes minutes" },
    { .name = "calibrate-tokens", .kind = CLI_INT,
      .at = offsetof(struct convert_args, calibrate_tok), .value = "N",
      .help = "tokens of that text to read", .unset = "16384", .min = 512,
      .max = 1048576 },
    { .name = "verify", .kind = CLI_FLAG,
      .at = offsetof(struct convert_args, verify),
      .help = "read both again and compare every number before an old model is "
              "replaced" },
    { .name = "json", .kind = CLI_FLAG,
      .at = offsetof(struct convert_args, json),
      .help = "print the report as one JSON object" },
};

static const char *const examples[] = {
    "tlr convert Qwen2.5-0.5B-Instruct/ -o qwen.bin --type q8",
    "Convert a Hugging Face snapshot.",
    "tlr convert smollm2.gguf -o smollm2.bin --verify",
    "Take a .gguf file over without loss, and make sure.",
    "tlr convert smollm2.gguf --lora my-adapter/ -o tuned.bin --type q8",
    "Merge a fine-tuned adapter into its base.",
    NULL
};

struct shown {
    struct cli_progress progress;
    bool verify; /* the last source_bytes of the total */
    bool calibrate;
};

static int on_progress(void *ctx, uint64_t done, uint64_t total,
                       const char *tensor)
{
    struct shown *s = ctx;
    uint64_t parts = s->calibrate ? 6 : 2; /* of which verify is the last */
    if (s->verify && done >= total - total / parts)
        s->progress.label = "verify";
    cli_progress_set(&s->progress, done, total, tensor);
    return cli_interrupted();
}

/* A source that is replaced by its own conversion is lost. */
static int check_paths(const struct convert_args *a, struct tlr_err *err)
{
    static const char *const foreign[] = { ".safetensors", ".gguf", ".json" };
    struct stat src, out;
    size_t n = strlen(a->out);
    for (size_t i = 0; i < CLI_COUNT(foreign); i++) {
        size_t len = strlen(foreign[i]);
        if (n >= len && strcmp(a->out + n - len, foreign[i]) == 0)
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: is named like a source; a model of tlr "
                               "should end in .bin", a->out);
    }
    if (stat(a->src, &src) != 0 || stat(a->out, &out) != 0)
        return 0;
    if (src.st_dev == out.st_dev && src.st_ino == out.st_ino)
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: is source and output at once; give another "
                           "output", a->out);
    return 0;
}

static int print_json(const struct convert_args *a,
                      const struct tlr_convert_report *r, struct tlr_err *err)
{
    json_t *j = json_object(), *types = json_object();
    cli_json_put(j, "path", cli_json_text(a->out, strlen(a->out)));
    cli_json_put(j, "bytes", json_integer((json_int_t)r->out_bytes));
    cli_json_put(j, "tensors", json_integer(r->n_tensors));
    cli_json_put(j, "exact", json_integer(r->n_exact));
    cli_json_put(j, "rounded", json_integer(r->n_rounded));
    cli_json_put(j, "fallback", json_integer(r->n_fallback));
    for (unsigned t = 0; t < TLR_N_TYPES; t++)
        cli_json_put(types, tlr_type_name(t), json_integer(r->n_by_type[t]));
    cli_json_put(j, "types", types);
    cli_json_put(j, "max_rel_rms", cli_json_real(r->max_rel_rms));
    cli_json_put(j, "worst", r->n_rounded ? cli_json_text(r->worst,
                                                          strlen(r->worst))
                                          : json_null());
    cli_json_put(j, "verified", json_boolean(a->verify));
    return cli_json_print(j, err);
}

static void print_report(const struct convert_args *a,
                         const struct tlr_convert_report *r)
{
    char size[24];
    cli_printf("%s: %s, %u tensors (", a->out,
               cli_bytes(size, sizeof size, r->out_bytes), r->n_tensors);
    const char *comma = "";
    for (unsigned t = 0; t < TLR_N_TYPES; t++) {
        if (r->n_by_type[t] > 0) {
            cli_printf("%s%u %s", comma, r->n_by_type[t], tlr_type_name(t));
            comma = ", ";
        }
    }
    cli_printf(")\n%u taken over without loss, %u rounded", r->n_exact,
               r->n_rounded);
    if (r->n_rounded > 0)
        cli_printf("; largest error %.3g %% of the weights (rms) in %s",
                   r->max_rel_rms * 100, r->worst);
    cli_printf("\n");
    if (r->n_fallback > 0)
        cli_printf("%u kept as bf16, because their rows do not divide into "
                   "blocks of 32\n", r->n_fallback);
    if (a->verify)
        cli_printf("verified: every number compared with the source\n");
}

static int convert_shown(const struct convert_args *a, struct tlr_source *src,
                         struct tlr_convert_report *r, struct tlr_err *err)
{
    struct shown shown = { .verify = a->verify,
                           .calibrate = a->calibrate != NULL };
    struct tlr_convert_options o = { .type = -1, .verify = a->verify,
                                     .progress = on_progress,
                                     .progress_ctx = &shown };
    if (a->type)
        tlr_convert_type_parse(a->type, &o.type);
    char *text = NULL;
    if (a->calibrate) {
        int rc = tlr_read_file(&text, &o.calibration_bytes, a->calibrate,
                               MAX_TEXT_BYTES, err);
        if (rc)
            return rc;
        o.calibration_text = text;
        o.calibration_tok = (uint32_t)(a->calibrate_tok == CLI_NO_INT
                                           ? CALIBRATE_TOK
                                           : a->calibrate_tok);
    }
    cli_progress_begin(&shown.progress, "convert", true);
    int rc = tlr_convert(src, a->out, &o, r, err);
    cli_progress_end(&shown.progress);
    tlr_free(text);
    return rc;
}

static int convert(const void *args, struct tlr_err *err)
{
    const struct convert_args *a = args;
    struct tlr_convert_report report = { 0 };
    struct tlr_source *src = NULL;
    if (a->calibrate_tok != CLI_NO_INT && !a->calibrate)
        return tlr_err_set(err, TLR_EUSAGE,
                           "--calibrate-tokens goes with --calibrate TEXT");
    int rc = check_paths(a, err);
    if (!rc)
        rc = tlr_source_open(&src, a->src, err);
    if (!rc && a->lora)
        rc = tlr_source_add_lora(&src, a->lora, err);
    if (rc) {
        tlr_source_close(src);
        return rc;
    }
    cli_interrupt_hold();
    rc = convert_shown(a, src, &report, err);
    cli_interrupt_release();
    if (!rc && a->json)
        rc = print_json(a, &report, err);
    else if (!rc)
        print_report(a, &report);
    tlr_source_close(src);
    return rc;
}

const struct cli_verb cli_verb_convert = {
    .name = "convert",
    .summary = "make a model file from a Hugging Face folder or a .gguf file",
    .about = "Reads one tensor after the other, so memory stays small however "
             "large the model is, and writes one file that holds all that tlr "
             "needs. The file appears under its name only when it is complete: "
             "after an interrupt, an error or a full disk everything is as it "
             "was before. The same source gives the same bytes.\n\n"
             "Families: Llama and SmolLM2, Qwen2 and Qwen2.5, Qwen3.",
    .examples = examples,
    .operands = operands,
    .n_operands = CLI_COUNT(operands),
    .options = options,
    .n_options = CLI_COUNT(options),
    .args_bytes = sizeof(struct convert_args),
    .main = convert,
};
