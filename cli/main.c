/* main.c - from argv to a verb, and from its result to an exit status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"

#define VERB_ROW(name) &cli_verb_##name,
const struct cli_verb *const cli_verbs[] = { CLI_VERBS(VERB_ROW) };
const size_t cli_n_verbs = CLI_COUNT(cli_verbs);

static const struct cli_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < cli_n_verbs; i++)
        if (strcmp(cli_verbs[i]->name, name) == 0)
            return cli_verbs[i];
    return NULL;
}

static int unknown_verb(const char *name, struct tlr_err *err)
{
    const char *names[CLI_COUNT(cli_verbs) + 1];
    for (size_t i = 0; i < cli_n_verbs; i++)
        names[i] = cli_verbs[i]->name;
    names[cli_n_verbs] = "help";
    const char *near = cli_nearest(name, names, cli_n_verbs + 1);
    if (near)
        return tlr_err_set(err, TLR_EUSAGE,
                           "there is no verb '%s'; did you mean %s?", name,
                           near);
    return tlr_err_set(err, TLR_EUSAGE,
                       "there is no verb '%s'; tlr --help lists them", name);
}

static int run_verb(const struct cli_verb *verb, int argc, char **argv,
                    struct tlr_err *err)
{
    void *args = tlr_calloc(1, verb->args_bytes);
    if (!args)
        return tlr_err_nomem(err, "arguments", verb->args_bytes);
    bool wants_help;
    int rc = cli_parse(verb, argc, argv, args, &wants_help, err);
    if (wants_help)
        cli_print_help(verb);
    else if (!rc)
        rc = verb->main(args, err);
    tlr_free(args);
    return rc;
}

static int help(int argc, char **argv, struct tlr_err *err)
{
    const struct cli_verb *verb = NULL;
    if (argc > 0) {
        verb = find_verb(argv[0]);
        if (!verb)
            return unknown_verb(argv[0], err);
    }
    cli_print_help(verb);
    return 0;
}

static int dispatch(int argc, char **argv, const struct cli_verb **verb,
                    struct tlr_err *err)
{
    if (argc < 2)
        return tlr_err_set(err, TLR_EUSAGE, "a verb is missing");
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        cli_printf("tlr %s\n", TLR_VERSION);
        return 0;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 ||
        strcmp(word, "-h") == 0)
        return help(argc - 2, argv + 2, err);
    if (strcmp(word, "--man") == 0) {
        cli_print_man();
        return 0;
    }
    if (strcmp(word, "--completion") == 0)
        return cli_print_completion(argc > 2 ? argv[2] : "", err);
    *verb = find_verb(word);
    if (*verb)
        return run_verb(*verb, argc - 2, argv + 2, err);
    if (word[0] == '-')
        return tlr_err_set(err, TLR_EUSAGE,
                           "unknown option %s; options stand after the verb",
                           word);
    return unknown_verb(word, err);
}

int main(int argc, char **argv)
{
    struct tlr_err err = TLR_ERR_INIT;
    const struct cli_verb *verb = NULL;
    cli_fix_blas(argv);
    cli_out_begin();
    cli_signals_begin();
    int rc = dispatch(argc, argv, &verb, &err);
    int rc_out = cli_out_finish(&err);
    if (rc == TLR_ECANCELLED)
        cli_complain("interrupted%s%s", err.text[0] ? ": " : "", err.text);
    else if (rc == TLR_EUSAGE && verb)
        cli_complain("%s; tlr help %s says more", err.text, verb->name);
    else if (rc == TLR_EUSAGE)
        cli_complain("%s; usage: tlr VERB ..., tlr --help says more", err.text);
    else if (err.text[0])
        cli_complain("%s", err.text);
    if (rc == TLR_EUSAGE)
        return CLI_USAGE;
    if (rc == TLR_ENOMEM)
        _exit(CLI_FAILED); /* OpenBLAS's own exit may wait for memory for ever */
    return rc || rc_out ? CLI_FAILED : CLI_DONE;
}
