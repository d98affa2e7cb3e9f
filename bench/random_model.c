/* random_model.c - see random_model.h. */
#include "bench/random_model.h"

#include <stdio.h>

#include "convert/convert.h"
#include "convert/source.h"

int tlr_bench_random_model(struct tlr_model **out, const char *shape,
                           struct tlr_err *err)
{
    struct tlr_source *src = NULL;
    struct tlr_convert_report report;
    struct tlr_convert_options o = {.type = TLR_RECIPE_Q4};
    struct tlr_file *file = NULL;
    char name[128];
    FILE *scratch = tmpfile();
    if (!scratch)
        return tlr_err_set(err, TLR_EIO, "no temporary file");
    fprintf(stderr, "making the weights ...\n");
    snprintf(name, sizeof name, "random:%s", shape);
    int rc = tlr_source_open(&src, name, err);
    if (!rc)
        rc = tlr_convert_fd(src, fileno(scratch), "random", &o, &report, err);
    tlr_source_close(src);
    if (!rc)
        rc = tlr_file_open_fd(&file, fileno(scratch), "random", NULL, err);
    fclose(scratch);
    return rc ? rc : tlr_model_from_file(out, file, err);
}
