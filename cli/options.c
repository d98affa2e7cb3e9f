/* options.c - the parser over the tables of options.h.
 *
 * Accepts --name VALUE, --name=VALUE, -l VALUE and -lVALUE; "--" ends options
 * and "-" is an operand.  Names are never abbreviated: a script must not change
 * its meaning when an option is added.
 */
#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORD = 63 };

/* Edits (insert, delete, replace, swap of neighbours) between two short words;
 * Damerau's distance in the restricted form, one row at a time. */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][MAX_WORD + 2];
    size_t na = strlen(a), nb = strlen(b);
    if (na > MAX_WORD || nb > MAX_WORD)
        return MAX_WORD;
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *now = rows[i % 3];
        const int *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best)
                best = up[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *cli_nearest(const char *word, const char *const *candidates,
                        size_t n)
{
    const char *best = NULL;
    size_t len = strlen(word);
    int limit = len <= 4 ? 2 : (int)(len / 3) + 1, found = limit + 1;
    for (size_t i = 0; i < n; i++) {
        /* The beginning of a name is as near as one typing error. */
        int d = edit_distance(word, candidates[i]);
        if (len >= 2 && strncmp(word, candidates[i], len) == 0 && d > 1)
            d = 1;
        if (d < found) {
            found = d;
            best = candidates[i];
        }
    }
    return best;
}

size_t cli_choice_count(const char *choice)
{
    size_t n = 1;
    for (; *choice; choice++)
        n += *choice == '|';
    return n;
}

void cli_choice_word(const char *choice, size_t i, char *out, size_t cap)
{
    for (; i > 0; i--)
        choice += strcspn(choice, "|") + 1;
    size_t len = strcspn(choice, "|");
    snprintf(out, cap, "%.*s", (int)len, choice);
}

/* The option as the user should see it: --name, or -l where he used that. */
static const char *shown(const struct cli_option *o, bool by_letter, char *buf,
                         size_t cap)
{
    if (by_letter)
        snprintf(buf, cap, "-%c", o->letter);
    else
        snprintf(buf, cap, "--%s", o->name);
    return buf;
}

static int set_int(const struct cli_option *o, const char *name, int64_t *out,
                   const char *text, struct tlr_err *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)v < o->min ||
        (double)v > o->max)
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a whole number from %.0f to %.0f, "
                           "found '%s'", name, o->min, o->max, text);
    *out = v;
    return 0;
}

static int set_real(const struct cli_option *o, const char *name, double *out,
                    const char *text, struct tlr_err *err)
{
    char *end;
    double v = strtod(text, &end);
    /* Written so that NaN fails too. */
    if (end == text || *end || !(v >= o->min && v <= o->max))
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a number from %g to %g, found '%s'",
                           name, o->min, o->max, text);
    *out = v;
    return 0;
}

int cli_share_parse(double *out, const char *name, const char *text,
                    struct tlr_err *err)
{
    char *end;
    double v = strtod(text, &end);
    bool is_percent = end != text && strcmp(end, "%") == 0;
    if (is_percent)
        v /= 100;
    if (end == text || (*end && !is_percent) || !(v >= 0 && v <= 1))
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a share from 0%% to 100%% (or 0 to 1), "
                           "found '%s'", name, text);
    *out = v;
    return 0;
}

static int set_choice(const struct cli_option *o, const char *name,
                      const char **out, const char *text, struct tlr_err *err)
{
    size_t n = cli_choice_count(o->value);
    for (size_t i = 0; i < n; i++) {
        char word[MAX_WORD + 1];
        cli_choice_word(o->value, i, word, sizeof word);
        if (strcmp(word, text) == 0) {
            *out = text;
            return 0;
        }
    }
    return tlr_err_set(err, TLR_EUSAGE, "%s: expected one of %s, found '%s'",
                       name, o->value, text);
}

static int set_value(const struct cli_option *o, const char *name, void *args,
                     const char *text, struct tlr_err *err)
{
    void *at = (char *)args + o->at;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)at = true;
        return 0;
    case CLI_INT:
        return set_int(o, name, at, text, err);
    case CLI_REAL:
        return set_real(o, name, at, text, err);
    case CLI_SHARE:
        return cli_share_parse(at, name, text, err);
    case CLI_CHOICE:
        return set_choice(o, name, at, text, err);
    case CLI_TEXT:
    case CLI_FILE:
        *(const char **)at = text;
        return 0;
    case CLI_LIST: {
        struct cli_list *list = at;
        if (!*text)
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: expected a text, found an empty one", name);
        if (list->n == CLI_LIST_MAX)
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: given more than %d times", name,
                               CLI_LIST_MAX);
        list->items[list->n++] = text;
        return 0;
    }
    }
    return 0;
}

static int set_fallbacks(const struct cli_verb *verb, void *args,
                         struct tlr_err *err)
{
    memset(args, 0, verb->args_bytes);
    for (size_t i = 0; i < verb->n_options; i++) {
        const struct cli_option *o = &verb->options[i];
        void *at = (char *)args + o->at;
        if (o->kind == CLI_INT)
            *(int64_t *)at = CLI_NO_INT;
        if (o->kind == CLI_REAL || o->kind == CLI_SHARE)
            *(double *)at = NAN;
        if (o->fallback) {
            int rc = set_value(o, o->name, args, o->fallback, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static int unknown_option(const struct cli_verb *verb, const char *word,
                          struct tlr_err *err)
{
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < verb->n_options && n < CLI_COUNT(names) - 1; i++)
        names[n++] = verb->options[i].name;
    names[n++] = "help";
    char name[MAX_WORD + 1];
    const char *bare = word + strspn(word, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(bare, "="), bare);
    bool is_letter = word[1] != '-' && !word[2];
    const char *near = bare[0] && !is_letter ? cli_nearest(name, names, n) : NULL;
    if (near)
        return tlr_err_set(err, TLR_EUSAGE,
                           "unknown option %s; did you mean --%s?", word, near);
    return tlr_err_set(err, TLR_EUSAGE,
                       "unknown option %s; put -- before text that begins with "
                       "a dash", word);
}

/* Finds the row of argv[i]; *value is the attached value or NULL. */
static const struct cli_option *find_option(const struct cli_verb *verb,
                                            const char *word, bool *by_letter,
                                            const char **value)
{
    *by_letter = word[1] != '-';
    *value = NULL;
    for (size_t i = 0; i < verb->n_options; i++) {
        const struct cli_option *o = &verb->options[i];
        if (*by_letter) {
            if (!o->letter || word[1] != o->letter)
                continue;
            if (word[2])
                *value = word + 2 + (word[2] == '=');
            return o;
        }
        size_t len = strlen(o->name);
        if (strncmp(word + 2, o->name, len) != 0)
            continue;
        if (word[2 + len] == '=')
            *value = word + 3 + len;
        else if (word[2 + len])
            continue;
        return o;
    }
    return NULL;
}

/* Takes the option at argv[*i] and, when it is there, its value. */
static int take_option(const struct cli_verb *verb, int argc, char **argv,
                       int *i, void *args, bool *seen, struct tlr_err *err)
{
    bool by_letter;
    const char *value;
    const struct cli_option *o = find_option(verb, argv[*i], &by_letter, &value);
    if (!o)
        return unknown_option(verb, argv[*i], err);
    char name[MAX_WORD + 3];
    shown(o, by_letter, name, sizeof name);
    seen[o - verb->options] = true;
    if (o->kind == CLI_FLAG) {
        if (value)
            return tlr_err_set(err, TLR_EUSAGE, "%s takes no value", name);
        return set_value(o, name, args, NULL, err);
    }
    if (!value) {
        if (*i + 1 >= argc)
            return tlr_err_set(err, TLR_EUSAGE, "%s: a value (%s) is missing",
                               name, o->value);
        value = argv[++*i];
    }
    return set_value(o, name, args, value, err);
}

static int take_operands(const struct cli_verb *verb, int n, char **operands,
                         void *args, struct tlr_err *err)
{
    int used = 0;
    for (size_t i = 0; i < verb->n_operands; i++) {
        const struct cli_operand *p = &verb->operands[i];
        void *at = (char *)args + p->at;
        if (used >= n && !p->optional)
            return tlr_err_set(err, TLR_EUSAGE, "%s is missing", p->name);
        if (p->repeats) {
            struct cli_rest *rest = at;
            rest->items = operands + used;
            rest->n = n - used;
            used = n;
        } else if (used < n) {
            *(const char **)at = operands[used++];
        }
    }
    if (used < n)
        return tlr_err_set(err, TLR_EUSAGE,
                           "unexpected operand '%s'; quote a text that has "
                           "blanks in it", operands[used]);
    return 0;
}

int cli_parse(const struct cli_verb *verb, int argc, char **argv, void *args,
              bool *wants_help, struct tlr_err *err)
{
    bool seen[64] = { false };
    *wants_help = false;
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *wants_help = true;
    if (*wants_help)
        return 0;
    int rc = set_fallbacks(verb, args, err);
    int n_operands = 0;
    bool ended = false;
    for (int i = 0; i < argc && !rc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0)
            ended = true;
        else if (!ended && argv[i][0] == '-' && argv[i][1])
            rc = take_option(verb, argc, argv, &i, args, seen, err);
        else
            argv[n_operands++] = argv[i];
    }
    if (rc)
        return rc;
    rc = take_operands(verb, n_operands, argv, args, err);
    for (size_t i = 0; i < verb->n_options && !rc; i++) {
        const struct cli_option *o = &verb->options[i];
        if (o->required && !seen[i])
            rc = tlr_err_set(err, TLR_EUSAGE, "--%s %s is missing", o->name,
                             o->value);
    }
    return rc;
}
