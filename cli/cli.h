/* cli.h - what the verbs share: version, interrupts, progress, and how a model
 * and a session are opened from the common options.
 */
#ifndef TLR_CLI_CLI_H
#define TLR_CLI_CLI_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/version.h"
#include "cli/options.h"
#include "engine/sampler.h"
#include "engine/tlr.h"

/* Exit status: done, failed, wrong usage. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* The verbs, in the order of the help. */
#define CLI_VERBS(X)                                                           \
    X(convert) X(inspect) X(run) X(chat) X(tokenize) X(detokenize)             \
    X(perplexity) X(bench) X(label) X(train) X(calibrate) X(eval) X(router)    \
    X(serve)
#define CLI_VERB_DECL(name) extern const struct cli_verb cli_verb_##name;
CLI_VERBS(CLI_VERB_DECL)
#undef CLI_VERB_DECL

extern const struct cli_verb *const cli_verbs[];
extern const size_t cli_n_verbs;

/* help.c: one verb's help, or that of the program for NULL. */
void cli_print_help(const struct cli_verb *verb);
/* manual.c and completion.c: the generated documents. */
void cli_print_man(void);
int cli_print_completion(const char *shell, struct tlr_err *err);

/* blas.c: starts the program again if OpenBLAS does not know this processor;
 * comes first in main.  And the kernels OpenBLAS uses, for --stats. */
void cli_fix_blas(char **argv);
const char *cli_blas_core(void);

/* ---- interrupts (signals.c) ----
 * By default SIGINT, SIGTERM and SIGHUP remove temporary files and end the
 * process.  Between hold and release the first one is only noted; the second
 * ends the process. */
void cli_signals_begin(void);
void cli_interrupt_hold(void);
void cli_interrupt_release(void);
bool cli_interrupted(void);

/* ---- progress on standard error (progress.c) ----
 * On a terminal one line that is redrawn, otherwise now and then a line. */
struct cli_progress {
    const char *label;
    const char *unit; /* of what is counted, where it is not bytes */
    bool counts_bytes;
    uint64_t begun_ns, drawn_ns;
    int tenth;     /* last one printed */
    bool is_drawn;
};
void cli_progress_begin(struct cli_progress *p, const char *label,
                        bool counts_bytes);
void cli_progress_set(struct cli_progress *p, uint64_t done, uint64_t total,
                      const char *what);
void cli_progress_end(struct cli_progress *p);

/* ---- common options ---- */

struct cli_session_args {
    int64_t threads;
    int64_t ctx;
    const char *cpu;
    const char *kv;
    const char *act;
};

#define CLI_LEVEL_WORD(id, name) name "|"
/* "auto" closes the list because each level's name ends with a bar. */
#define CLI_CPU_CHOICE TLR_CPU_LEVELS(CLI_LEVEL_WORD) "auto"

#define CLI_CTX_OPTION(type, field, text)                                      \
    { .name = "ctx", .letter = 'c', .kind = CLI_INT, .at = offsetof(type, field),\
      .value = "N", .help = text, .min = 1, .max = 1048576 }
#define CLI_THREAD_OPTIONS(type, field)                                        \
    { .name = "threads", .letter = 't', .kind = CLI_INT,                       \
      .at = offsetof(type, field.threads), .value = "N",                       \
      .help = "threads to compute with", .min = 1, .max = 4096,                \
      .unset = "physical performance cores that this process may use" },       \
    { .name = "cpu", .kind = CLI_CHOICE, .at = offsetof(type, field.cpu),      \
      .value = CLI_CPU_CHOICE,                                                 \
      .help = "instruction set of the kernels, at most what the machine has",  \
      .unset = "TLR_CPU, else auto: the machine's best" }
#define CLI_KV_OPTION(type, field)                                             \
    { .name = "kv", .kind = CLI_CHOICE, .at = offsetof(type, field.kv),        \
      .value = "f32|f16|q8|auto", .help = "number type of the KV cache",       \
      .fallback = "auto" }
#define CLI_ACT_OPTION(type, field)                                            \
    { .name = "act", .kind = CLI_CHOICE, .at = offsetof(type, field.act),      \
      .value = "int8|int16|auto", .fallback = "auto",                          \
      .help = "how finely the inputs of quantised weights are rounded; auto "  \
              "is int8 for models of --type q4, else int16" }

/* Fills the session options from the common ones; n_ctx stays 0 when not
 * given.  More threads than the machine has, and a level that it has not, are
 * refused (TLR_EUSAGE). */
int cli_session_options(struct tlr_session_options *out,
                        const struct cli_session_args *args,
                        struct tlr_err *err);

/* Milliseconds from the start of this process to a reading of tlr_now_ns, in
 * steps of 10 ms; 0 where the system does not tell. */
double cli_ms_since_start(uint64_t at_ns);

/* Opens a model.  With load false its pages are left on disk until used. */
int cli_model_open(struct tlr_model **out, const char *path, bool load,
                   struct tlr_err *err);
/* TLR_EUNSUPPORTED when the model has no tokenizer, or no template although one
 * is needed. */
int cli_check_can_talk(const struct tlr_model *m, const char *path, bool raw,
                       struct tlr_err *err);

/* Says what a session needs and what this machine has (--estimate). */
int cli_print_estimate(const char *path, const struct tlr_session_options *o,
                       bool json, struct tlr_err *err);

struct cli_sampling_args {
    double temp, top_p, min_p, repeat_penalty;
    int64_t top_k, seed;
};

#define CLI_FROM_MODEL "the model's own default"
#define CLI_SAMPLING_OPTIONS(type, field)                                      \
    { .name = "temp", .kind = CLI_REAL, .at = offsetof(type, field.temp),      \
      .value = "T", .help = "temperature; 0 always takes the likeliest token", \
      .unset = CLI_FROM_MODEL, .min = 0, .max = 100 },                         \
    { .name = "top-k", .kind = CLI_INT, .at = offsetof(type, field.top_k),     \
      .value = "K", .help = "draw among the K likeliest tokens; 0 among all",  \
      .unset = CLI_FROM_MODEL, .min = 0, .max = 1048576 },                     \
    { .name = "top-p", .kind = CLI_REAL, .at = offsetof(type, field.top_p),    \
      .value = "P", .help = "draw among the likeliest tokens that together "   \
      "have probability P; 1 among all",                                       \
      .unset = CLI_FROM_MODEL, .min = 1e-6, .max = 1 },                        \
    { .name = "min-p", .kind = CLI_REAL, .at = offsetof(type, field.min_p),    \
      .value = "P", .help = "drop tokens less likely than P times the "        \
      "likeliest one; 0 drops none",                                           \
      .unset = CLI_FROM_MODEL, .min = 0, .max = 0.999999 },                    \
    { .name = "repeat-penalty", .kind = CLI_REAL,                              \
      .at = offsetof(type, field.repeat_penalty), .value = "R",                \
      .help = "make tokens that were there before less likely; 1 does not",    \
      .unset = CLI_FROM_MODEL, .min = 0.01, .max = 10 },                       \
    { .name = "seed", .kind = CLI_INT, .at = offsetof(type, field.seed),       \
      .value = "N", .help = "seed of the draws; the same seed makes the same " \
      "text", .unset = "another one each time", .min = 0, .max = 9e15 }

/* The model's generation defaults with the given options in their place. */
void cli_generation(struct tlr_generation *out, const struct tlr_model *m,
                    const struct cli_sampling_args *args);
/* The seed given, or a fresh one. */
uint64_t cli_seed(const struct cli_sampling_args *args);

#endif
