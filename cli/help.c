/* help.c - --help, from the option tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { WIDTH = 79, INDENT = 8 };

/* Prints text with every line indented and broken at blanks; an empty line in
 * it stays one. */
static void print_wrapped(const char *text, int indent)
{
    int at = 0;
    while (*text) {
        if (*text == '\n') {
            text += strspn(text, "\n");
            cli_printf("\n\n");
            at = 0;
            continue;
        }
        int len = (int)strcspn(text, " \n");
        if (at > 0 && at + 1 + len > WIDTH) {
            cli_printf("\n");
            at = 0;
        }
        int before = at > 0 ? 1 : indent;
        cli_printf("%*s%.*s", before, "", len, text);
        at += before + len;
        text += len;
        text += strspn(text, " ");
    }
    cli_printf("\n");
}

static void print_synopsis(const struct cli_verb *v)
{
    cli_printf("usage: tlr %s", v->name);
    for (size_t i = 0; i < v->n_operands; i++) {
        const struct cli_operand *p = &v->operands[i];
        cli_printf(p->optional ? " [%s%s]" : " %s%s", p->name,
                   p->repeats ? "..." : "");
    }
    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        if (o->required && o->letter)
            cli_printf(" -%c %s", o->letter, o->value);
        else if (o->required)
            cli_printf(" --%s %s", o->name, o->value);
    }
    cli_printf(" [options]\n\n");
}

static void print_option(const struct cli_option *o)
{
    char text[512];
    if (o->letter)
        cli_printf("  -%c, --%s", o->letter, o->name);
    else
        cli_printf("      --%s", o->name);
    if (o->kind != CLI_FLAG)
        cli_printf(" %s", o->value);
    cli_printf("\n");
    const char *standard = o->fallback ? o->fallback : o->unset;
    snprintf(text, sizeof text, "%s%s%s%s", o->help,
             standard ? " [" : "", standard ? standard : "",
             standard ? "]" : "");
    print_wrapped(text, INDENT);
}

static void print_verb(const struct cli_verb *v)
{
    print_synopsis(v);
    print_wrapped(v->about, 0);
    cli_printf("\n");
    for (size_t i = 0; i < v->n_operands; i++) {
        cli_printf("  %s\n", v->operands[i].name);
        print_wrapped(v->operands[i].help, INDENT);
    }
    cli_printf("\n");
    for (size_t i = 0; i < v->n_options; i++)
        print_option(&v->options[i]);
    cli_printf("  -h, --help\n%*sprint this\n\nexamples:\n", INDENT, "");
    for (size_t i = 0; v->examples[i]; i += 2) {
        cli_printf("  %s\n", v->examples[i]);
        print_wrapped(v->examples[i + 1], INDENT);
    }
}

void cli_print_help(const struct cli_verb *verb)
{
    if (verb) {
        print_verb(verb);
        return;
    }
    cli_printf("tlr %s - runs language models\n\nusage: tlr VERB ...\n\n",
               TLR_VERSION);
    for (size_t i = 0; i < cli_n_verbs; i++)
        cli_printf("  %-12s %s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
    cli_printf("  %-12s say more about a verb\n\n"
               "  --version    print the version\n"
               "  --man        print the manual page (mdoc)\n"
               "  --completion bash|zsh|fish\n"
               "               print completions for a shell\n", "help");
}
