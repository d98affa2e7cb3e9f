/* svg.c - see svg.h. */
#include "cli/svg.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/file.h"

int cli_svg_begin(struct cli_svg *s, const char *path, struct tlr_err *err)
{
    s->err = err;
    s->rc = tlr_out_begin(&s->out, path, err);
    return s->rc;
}

void cli_svg_put(struct cli_svg *s, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!s->rc && n > 0)
        s->rc = tlr_out_write(s->out, text,
                              (size_t)n < sizeof text ? (size_t)n
                                                      : sizeof text - 1,
                              s->err);
}

int cli_svg_end(struct cli_svg *s)
{
    cli_svg_put(s, "</svg>\n");
    if (s->rc) {
        tlr_out_abort(s->out);
        return s->rc;
    }
    return tlr_out_commit(s->out, s->err);
}
