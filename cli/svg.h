/* svg.h - a picture as it is written: the file appears whole or not at all. */
#ifndef TLR_CLI_SVG_H
#define TLR_CLI_SVG_H

#include "base/err.h"

struct tlr_out;

struct cli_svg {
    struct tlr_out *out;
    struct tlr_err *err;
    int rc; /* of the first failure; later calls do nothing */
};

int cli_svg_begin(struct cli_svg *s, const char *path, struct tlr_err *err);
/* Formats up to 1,023 bytes. */
void cli_svg_put(struct cli_svg *s, const char *fmt, ...) TLR_PRINTF(2, 3);
/* Closes the root element and names the file, or removes it after a failure. */
int cli_svg_end(struct cli_svg *s);

#endif
