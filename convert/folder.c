/* folder.c - see folder.h.  Files are opened through links, since Hugging Face's
 * snapshots are links into a cache. */
#include "convert/folder.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "convert/provenance.h"
#include "engine/json.h"

enum { MAX_JSON_BYTES = 16 << 20 };

static int join(char **out, const char *dir, const char *name,
                struct tlr_err *err)
{
    size_t cap = strlen(dir) + strlen(name) + 2;
    *out = tlr_calloc(cap, 1);
    if (!*out) {
        return tlr_err_nomem(err, dir, cap);
    }
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    snprintf(*out, cap, "%.*s/%s", (int)len, dir, name);
    return 0;
}

bool tlr_folder_has(const struct tlr_folder *f, const char *name)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/%s", f->dir, name);
    return len > 0 && (size_t)len < sizeof path && access(path, F_OK) == 0;
}

int tlr_folder_open(const struct tlr_folder *f, const char *name,
                    size_t max_bytes, char **path, struct tlr_map *map,
                    struct tlr_err *err)
{
    int rc;
    if ((rc = join(path, f->dir, name, err)) ||
        (rc = tlr_map_open(map, *path, false, err))) {
        return rc;
    }
    if (map->len > max_bytes) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: expected at most %zu bytes, found %zu; is it "
                           "the right file?",
                           *path, max_bytes, map->len);
    }
    return tlr_provenance_add(f->sources, *path, map->ptr, map->len, err);
}

int tlr_folder_json(const struct tlr_folder *f, const char *name, json_t **out,
                    char **path, struct tlr_err *err)
{
    struct tlr_map map = {0};
    int rc = tlr_folder_open(f, name, MAX_JSON_BYTES, path, &map, err);
    if (rc == 0) {
        rc = tlr_json_parse(out, (const char *)map.ptr, map.len, *path, err);
    }
    tlr_map_close(&map);
    return rc;
}
