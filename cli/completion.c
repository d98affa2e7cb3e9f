/* completion.c - completions for bash, zsh and fish, from the option tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

/* Text inside single quotes of the shell. */
static void print_quoted(const char *text, const char *escape)
{
    for (; *text; text++) {
        if (*text == '\'')
            cli_printf("'\\''");
        else {
            if (strchr(escape, *text))
                cli_printf("\\");
            cli_write(text, 1);
        }
    }
}

/* The words of a choice with something between them. */
static void print_choice(const char *choice, const char *between)
{
    size_t n = cli_choice_count(choice);
    for (size_t i = 0; i < n; i++) {
        char word[64];
        cli_choice_word(choice, i, word, sizeof word);
        cli_printf("%s%s", i ? between : "", word);
    }
}

static void print_bash_verb(const struct cli_verb *v)
{
    cli_printf("    %s)\n        words='--help", v->name);
    for (size_t i = 0; i < v->n_options; i++) {
        cli_printf(" --%s", v->options[i].name);
        if (v->options[i].letter)
            cli_printf(" -%c", v->options[i].letter);
    }
    cli_printf("'\n        case $before in\n");
    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        if (o->kind == CLI_FLAG)
            continue;
        cli_printf("        --%s", o->name);
        if (o->letter)
            cli_printf("|-%c", o->letter);
        if (o->kind == CLI_CHOICE) {
            cli_printf(") words='");
            print_choice(o->value, " ");
            cli_printf("'; any=1 ;;\n");
        } else {
            cli_printf(o->kind == CLI_FILE ? ") words=''; any=1 ;;\n"
                                           : ") return ;;\n");
        }
    }
    cli_printf("        esac ;;\n");
}

static void print_bash(void)
{
    cli_printf("# bash completion for tlr\n_tlr() {\n"
               "    local word=${COMP_WORDS[COMP_CWORD]} words='' any=''\n"
               "    local before=${COMP_WORDS[COMP_CWORD-1]}\n"
               "    COMPREPLY=()\n"
               "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    for (size_t i = 0; i < cli_n_verbs; i++)
        cli_printf("%s ", cli_verbs[i]->name);
    cli_printf("help --help --version'\n        any=1\n    else\n"
               "    case ${COMP_WORDS[1]} in\n    help)\n        words='");
    for (size_t i = 0; i < cli_n_verbs; i++)
        cli_printf("%s%s", i ? " " : "", cli_verbs[i]->name);
    cli_printf("'\n        any=1 ;;\n");
    for (size_t i = 0; i < cli_n_verbs; i++)
        print_bash_verb(cli_verbs[i]);
    cli_printf("    esac\n    fi\n"
               "    if [ -n \"$words\" ] && { [ -n \"$any\" ] || "
               "[[ $word == -* ]]; }; then\n"
               "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- "
               "\"$word\")\n"
               "    else\n"
               "        compopt -o filenames\n"
               "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
               "    fi\n}\ncomplete -F _tlr tlr\n");
}

/* What follows an option or an operand in _arguments. */
static void print_zsh_action(enum cli_kind kind, const char *value)
{
    if (kind == CLI_CHOICE) {
        cli_printf(":value:(");
        print_choice(value, " ");
        cli_printf(")");
    } else {
        cli_printf(":%s:%s", value, kind == CLI_FILE ? "_files" : " ");
    }
}

static void print_zsh_option(const struct cli_option *o, bool by_letter)
{
    cli_printf("            '");
    if (o->kind == CLI_LIST)
        cli_printf("*");
    if (by_letter)
        cli_printf("-%c%s", o->letter, o->kind == CLI_FLAG ? "" : "+");
    else
        cli_printf("--%s%s", o->name, o->kind == CLI_FLAG ? "" : "=");
    cli_printf("[");
    print_quoted(o->help, "[]:");
    cli_printf("]");
    if (o->kind != CLI_FLAG)
        print_zsh_action(o->kind, o->value);
    cli_printf("' \\\n");
}

static void print_zsh_verb(const struct cli_verb *v)
{
    cli_printf("    %s)\n        _arguments -s \\\n", v->name);
    for (size_t i = 0; i < v->n_options; i++) {
        print_zsh_option(&v->options[i], false);
        if (v->options[i].letter)
            print_zsh_option(&v->options[i], true);
    }
    for (size_t i = 0; i < v->n_operands; i++) {
        const struct cli_operand *p = &v->operands[i];
        if (p->repeats)
            cli_printf("            '*");
        else
            cli_printf("            '%zu", i + 1);
        print_zsh_action(p->kind, p->name);
        cli_printf("' \\\n");
    }
    cli_printf("            '(-h --help)'{-h,--help}'[print help]' ;;\n");
}

static void print_zsh(void)
{
    cli_printf("#compdef tlr\n# zsh completion for tlr\n_tlr() {\n"
               "    local -a verbs\n    verbs=(\n");
    for (size_t i = 0; i < cli_n_verbs; i++) {
        cli_printf("        '%s:", cli_verbs[i]->name);
        print_quoted(cli_verbs[i]->summary, ":");
        cli_printf("'\n");
    }
    cli_printf("        'help:say more about a verb'\n    )\n"
               "    if (( CURRENT == 2 )); then\n"
               "        _describe verb verbs\n        return\n    fi\n"
               "    local verb=$words[2]\n"
               "    shift words\n    (( CURRENT-- ))\n"
               "    case $verb in\n"
               "    help) _describe verb verbs ;;\n");
    for (size_t i = 0; i < cli_n_verbs; i++)
        print_zsh_verb(cli_verbs[i]);
    cli_printf("    esac\n}\nif [ \"$funcstack[1]\" = _tlr ]; then\n"
               "    _tlr \"$@\"\nelse\n    compdef _tlr tlr\nfi\n");
}

static void print_fish_verb(const struct cli_verb *v)
{
    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        cli_printf("complete -c tlr -n '__fish_seen_subcommand_from %s' -l %s",
                   v->name, o->name);
        if (o->letter)
            cli_printf(" -s %c", o->letter);
        if (o->kind == CLI_CHOICE) {
            cli_printf(" -x -a '");
            print_choice(o->value, " ");
            cli_printf("'");
        } else if (o->kind != CLI_FLAG) {
            cli_printf(o->kind == CLI_FILE ? " -r" : " -x");
        }
        cli_printf(" -d '");
        for (const char *p = o->help; *p; p++)
            cli_printf(*p == '\'' || *p == '\\' ? "\\%c" : "%c", *p);
        cli_printf("'\n");
    }
}

static void print_fish(void)
{
    cli_printf("# fish completion for tlr\n");
    for (size_t i = 0; i < cli_n_verbs; i++)
        cli_printf("complete -c tlr -f -n __fish_use_subcommand -a %s -d '%s'\n",
                   cli_verbs[i]->name, cli_verbs[i]->summary);
    cli_printf("complete -c tlr -f -n __fish_use_subcommand -a help "
               "-d 'say more about a verb'\n"
               "complete -c tlr -l help -s h -d 'print help'\n");
    for (size_t i = 0; i < cli_n_verbs; i++)
        print_fish_verb(cli_verbs[i]);
}

int cli_print_completion(const char *shell, struct tlr_err *err)
{
    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else if (strcmp(shell, "fish") == 0)
        print_fish();
    else
        return tlr_err_set(err, TLR_EUSAGE,
                           "--completion: expected bash, zsh or fish, found "
                           "'%s'", shell);
    return 0;
}
