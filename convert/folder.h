/* folder.h - files of a foreign folder, each noted as a source. */
#ifndef TLR_CONVERT_FOLDER_H
#define TLR_CONVERT_FOLDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/file.h"

/* What the files of a folder are opened with. */
struct tlr_folder {
    const char *dir;
    json_t *sources; /* list that opened files are added to (provenance.h) */
};

/* Allocates nothing: "no memory" must not read as "no such file". */
bool tlr_folder_has(const struct tlr_folder *f, const char *name);

/* Maps a file and notes it.  *path is tlr_free'd by the caller, also after
 * failure. */
int tlr_folder_open(const struct tlr_folder *f, const char *name,
                    size_t max_bytes, char **path, struct tlr_map *map,
                    struct tlr_err *err);

/* A JSON object of at most 16 MiB; *path as for tlr_folder_open. */
int tlr_folder_json(const struct tlr_folder *f, const char *name, json_t **out,
                    char **path, struct tlr_err *err);

#endif
