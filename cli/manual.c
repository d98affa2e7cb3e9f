/* manual.c - tlr.1 in mdoc(7), from the option tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { LINE = 60 }; /* a line of the source is ended after this */

/* Text of a paragraph: a backslash and a dash mean themselves, a line does not
 * begin with a request, an empty line is a new paragraph. */
static void print_text(const char *text)
{
    bool at_start = true;
    int n = 0; /* characters in this line */
    for (; *text; text++, n++) {
        if (*text == '\n') {
            text += strspn(text, "\n") - 1;
            cli_printf("\n.Pp\n");
            at_start = true;
            n = 0;
            continue;
        }
        if (at_start && (*text == '.' || *text == '\''))
            cli_printf("\\&");
        if (*text == '\\')
            cli_printf("\\e");
        else if (*text == '-')
            cli_printf("\\-");
        else
            cli_write(text, 1);
        at_start = false;
        /* A sentence begins a line, as mdoc wants it. */
        bool ends = text[1] == ' ' && (*text == '.' || *text == '?') &&
                    text[2] >= 'A' && text[2] <= 'Z';
        if (ends || (text[1] == ' ' && n > LINE)) {
            cli_printf("\n");
            at_start = true;
            n = 0;
            text++;
        }
    }
    cli_printf("\n");
}

/* An argument of a macro: quoted, so that no word of it is a macro itself. */
static void print_argument(const char *text)
{
    cli_printf(" \"");
    for (; *text; text++) {
        if (*text == '"')
            cli_printf("\"\"");
        else if (*text == '\\')
            cli_printf("\\e");
        else
            cli_write(text, 1);
    }
    cli_printf("\"");
}

static void print_synopsis(const struct cli_verb *v)
{
    cli_printf(".Nm tlr\n.Cm %s\n", v->name);
    for (size_t i = 0; i < v->n_operands; i++) {
        const struct cli_operand *p = &v->operands[i];
        cli_printf(p->optional ? ".Op Ar %s%s\n" : ".Ar %s%s\n", p->name,
                   p->repeats ? " ..." : "");
    }
    for (size_t i = 0; i < v->n_options; i++) {
        const struct cli_option *o = &v->options[i];
        if (o->required && o->letter)
            cli_printf(".Fl %c Ar %s\n", o->letter, o->value);
        else if (o->required)
            cli_printf(".Fl \\-%s Ar %s\n", o->name, o->value);
    }
    cli_printf(".Op Ar options\n");
}

static void print_option(const struct cli_option *o)
{
    cli_printf(".It");
    if (o->letter)
        cli_printf(" Fl %c ,", o->letter);
    cli_printf(" Fl \\-%s", o->name);
    if (o->kind != CLI_FLAG) {
        cli_printf(" Ar");
        print_argument(o->value);
    }
    cli_printf("\n");
    print_text(o->help);
    const char *standard = o->fallback ? o->fallback : o->unset;
    if (standard) {
        cli_printf(".Pq default: ");
        print_text(standard);
    }
}

static void print_verb(const struct cli_verb *v)
{
    cli_printf(".Ss tlr %s\n", v->name);
    print_text(v->about);
    cli_printf(".Bl -tag -width Ds\n");
    for (size_t i = 0; i < v->n_operands; i++) {
        cli_printf(".It Ar %s\n", v->operands[i].name);
        print_text(v->operands[i].help);
    }
    for (size_t i = 0; i < v->n_options; i++)
        print_option(&v->options[i]);
    cli_printf(".El\n");
}

static void print_ending(void)
{
    cli_printf(
        ".Sh ENVIRONMENT\n.Bl -tag -width TLR_CPU\n"
        ".It Ev TLR_CPU\nThe level of kernels to use, as\n.Fl \\-cpu ,\n"
        "which goes before it.\n"
        ".It Ev TLR_API_KEY\nThe key for the server of\n.Fl \\-llm .\n"
        ".It Ev http_proxy , https_proxy , NO_PROXY\n"
        "Proxies on the way to the server of\n.Fl \\-llm .\n"
        ".It Ev NO_COLOR\nWhen set and not empty, messages have no color.\n"
        ".El\n"
        ".Sh FILES\n"
        "Model files are made by\n.Cm tlr convert\n"
        "and are the same for all machines.\n"
        "While one is made, its beginning lies beside it as\n"
        ".Pa .NAME.tmp\\-PID .\n"
        ".Sh EXIT STATUS\n.Bl -tag -width Ds\n"
        ".It 0\nThe job is done.\n"
        "An answer that was ended by an interrupt counts as done.\n"
        ".It 1\nIt failed, and one line on standard error says why.\n"
        "There is no line when the reader of standard output went away.\n"
        ".It 2\nThe command line was wrong; nothing was done.\n.El\n");
}

static void print_examples(void)
{
    cli_printf(".Sh EXAMPLES\n");
    for (size_t i = 0; i < cli_n_verbs; i++) {
        for (size_t k = 0; cli_verbs[i]->examples[k]; k += 2) {
            if (i + k > 0)
                cli_printf(".Pp\n");
            print_text(cli_verbs[i]->examples[k + 1]);
            cli_printf(".Dl");
            print_argument(cli_verbs[i]->examples[k]);
            cli_printf("\n");
        }
    }
}

void cli_print_man(void)
{
    cli_printf(".Dd %s\n.Dt TLR 1\n.Os\n.Sh NAME\n.Nm tlr\n"
               ".Nd runs language models\n.Sh SYNOPSIS\n", TLR_VERSION_DATE);
    for (size_t i = 0; i < cli_n_verbs; i++)
        print_synopsis(cli_verbs[i]);
    cli_printf(".Nm tlr\n.Cm help\n.Op Ar VERB\n"
               ".Nm tlr\n.Fl \\-version | \\-man | \\-completion Ar SHELL\n"
               ".Sh DESCRIPTION\n.Nm\n"
               "converts language models into its own file format\n"
               "and runs them on the processor.\n"
               "The product goes to standard output, everything else to "
               "standard error.\n"
               "An option may stand anywhere after the verb;\n.Fl \\-\n"
               "ends the options.\n"
               "Every verb takes\n.Fl h\nand\n.Fl \\-help .\n");
    for (size_t i = 0; i < cli_n_verbs; i++)
        print_verb(cli_verbs[i]);
    print_ending();
    print_examples();
}
