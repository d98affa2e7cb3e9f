/* router_import.c - see router_import.h. */
#include "cli/router_import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "convert/gguf_blocks.h"
#include "convert/safetensors.h"
#include "router/citer.h"
#include "router/import.h"

struct loaded {
    struct tlr_map map;
    struct tlr_safetensors file;
    struct tlr_import_tensor *tensors; /* [file.n], data owned */
};

static void loaded_clear(struct loaded *l)
{
    for (size_t i = 0; l->tensors && i < l->file.n; i++)
        tlr_free((void *)(uintptr_t)l->tensors[i].data);
    tlr_free(l->tensors);
    tlr_safetensors_clear(&l->file);
    tlr_map_close(&l->map);
}

/* What no network has (integers, many dimensions) stays without data: the
 * import refuses it by name, or knows that it is a counter. */
static int take_tensor(struct tlr_import_tensor *to,
                       const struct tlr_safetensor *t, struct tlr_err *err)
{
    const struct tlr_block_type *type = tlr_block_type_by_name(t->dtype);
    to->name = t->name;
    to->n_dims = t->n_dims;
    size_t n = type ? (size_t)t->n_bytes / type->n_bytes : 0;
    if (!type || n > UINT32_MAX || t->n_dims < 1 || t->n_dims > 2) {
        to->n_dims = 0;
        return 0;
    }
    float *data = tlr_calloc(n, sizeof *data);
    if (!data)
        return tlr_err_nomem(err, t->name, n * sizeof *data);
    to->data = data;
    memcpy(to->shape, t->shape, t->n_dims * sizeof *t->shape);
    size_t n_rows = t->n_dims > 1 ? t->shape[0] : 1, n_cols = n_rows ? n / n_rows : 0;
    for (size_t r = 0; r < n_rows; r++)
        tlr_block_row_decode(type, data + r * n_cols,
                             t->data + r * n_cols * type->n_bytes,
                             (uint32_t)n_cols);
    return 0;
}

static int load(struct loaded *l, const char *path, struct tlr_err *err)
{
    int rc = tlr_map_open(&l->map, path, false, err);
    if (!rc)
        rc = tlr_safetensors_parse(&l->file, l->map.ptr, l->map.len, path, err);
    if (rc)
        return rc;
    l->tensors = tlr_calloc(l->file.n, sizeof *l->tensors);
    if (!l->tensors)
        return tlr_err_nomem(err, path, l->file.n * sizeof *l->tensors);
    for (size_t i = 0; !rc && i < l->file.n; i++)
        rc = take_tensor(&l->tensors[i], &l->file.tensors[i], err);
    return rc;
}

static int save(const char *out, const struct tlr_router_weights *w,
                uint64_t fingerprint, const char *source, double worst,
                struct tlr_err *err)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    json_t *j = json_object();
    cli_json_put(j, "policy", json_string(tlr_policy_name(w->kind)));
    cli_json_put(j, "imported_from", cli_json_text(source, strlen(source)));
    cli_json_put(j, "fold_error", cli_json_real(worst));
    char *info = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    if (!info)
        return tlr_err_nomem(err, source, 256);
    int rc = tlr_router_pack(&bytes, &len, w, NULL, fingerprint, info, err);
    free(info);
    if (!rc)
        rc = tlr_write_file(out, bytes, len, err);
    tlr_free(bytes);
    return rc;
}

int cli_router_import(const char *source, const char *model_path,
                      const char *out, struct tlr_err *err)
{
    struct loaded l = { .tensors = NULL };
    struct tlr_router_weights w = { .w1 = NULL };
    struct tlr_model *m = NULL;
    struct stat st;
    char path[4096];
    double worst;
    bool is_folder = stat(source, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(path, sizeof path, "%s%s", source,
             is_folder ? "/model.safetensors" : "");
    int rc = cli_model_open(&m, model_path, false, err);
    if (!rc)
        rc = load(&l, path, err);
    if (!rc)
        rc = tlr_import_citer(&w, l.tensors, l.file.n, path,
                              tlr_model_config(m)->dim, &worst, err);
    if (!rc)
        rc = save(out, &w, tlr_file_fingerprint(tlr_model_file(m)), path, worst,
                  err);
    if (!rc)
        cli_note("%s: folded to %u units, off by at most %.1e; tlr calibrate "
                 "makes its thresholds", out, w.n_hidden, worst);
    tlr_router_weights_clear(&w);
    loaded_clear(&l);
    tlr_model_close(m);
    return rc;
}
