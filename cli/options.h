/* options.h - what a verb takes, said once.
 *
 * One table per verb drives parsing, range checks, error text, --help, the man
 * page and the completions of bash, zsh and fish.  A parsed command line is the
 * verb's own plain struct; every row says where in it the value goes.
 */
#ifndef TLR_CLI_OPTIONS_H
#define TLR_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum cli_kind {
    CLI_FLAG,   /* bool */
    CLI_INT,    /* int64_t within [min, max]; CLI_NO_INT when not given */
    CLI_REAL,   /* double within [min, max]; NAN when not given */
    CLI_SHARE,  /* the same within [0, 1]; "7%" and "0.07" are one number */
    CLI_CHOICE, /* const char *, one of the words of `value` ("a|b|c") */
    CLI_TEXT,   /* const char * */
    CLI_FILE,   /* const char *, completed with file names */
    CLI_LIST    /* struct cli_list, the option may be repeated */
};

#define CLI_NO_INT INT64_MIN

enum { CLI_LIST_MAX = 16 };

struct cli_list {
    const char *items[CLI_LIST_MAX];
    int n;
};

/* All operands from one on; borrowed from argv. */
struct cli_rest {
    char **items;
    int n;
};

struct cli_option {
    const char *name;     /* long name without dashes */
    char letter;          /* short name, 0: none */
    bool required;
    enum cli_kind kind;
    size_t at;            /* offset in the verb's struct */
    const char *value;    /* what to call the value; the words of a CHOICE */
    const char *help;     /* one sentence, no full stop */
    const char *fallback; /* value when not given; parsed like a given one */
    const char *unset;    /* for help: what holds when there is no fallback */
    double min, max;      /* INT and REAL, both included */
};

struct cli_operand {
    const char *name;
    const char *help;
    enum cli_kind kind; /* CLI_TEXT or CLI_FILE */
    bool optional;
    bool repeats;       /* last one only: struct cli_rest, else const char * */
    size_t at;
};

struct cli_verb {
    const char *name;
    const char *summary;         /* one line */
    const char *about;           /* paragraphs, separated by an empty line */
    const char *const *examples; /* command, what it does, ..., NULL */
    const struct cli_operand *operands;
    size_t n_operands;
    const struct cli_option *options;
    size_t n_options;
    size_t args_bytes;           /* size of the verb's struct */
    /* 0 or a negative TLR_E with err filled. */
    int (*main)(const void *args, struct tlr_err *err);
};

#define CLI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Fills args [verb->args_bytes] from argv (without the program and the verb).
 * Options may stand anywhere before "--"; argv is reordered.  TLR_EUSAGE says
 * what is wrong; *wants_help is set by -h or --help, and then nothing else is
 * checked. */
int cli_parse(const struct cli_verb *verb, int argc, char **argv, void *args,
              bool *wants_help, struct tlr_err *err);

/* Of the candidates the one most like word, NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *candidates,
                        size_t n);

/* Number of words of a choice "a|b|c", and the i-th one into out. */
size_t cli_choice_count(const char *choice);
void cli_choice_word(const char *choice, size_t i, char *out, size_t cap);

/* "7%" or "0.07", within [0, 1]; name is the option's, for the message. */
int cli_share_parse(double *out, const char *name, const char *text,
                    struct tlr_err *err);

#endif
