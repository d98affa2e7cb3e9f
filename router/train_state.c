/* train_state.c - see train_state.h.
 *
 * The file: magic, name, counters, the floats, CRC-32 of all before it; numbers
 * as they lie in memory, since a checkpoint never leaves its machine (a rounding
 * of another SGEMM would break "the same bits").
 */
#include "router/train_state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#define MAGIC "tlrckpt1"

struct head {
    char magic[8];
    char name[TLR_TRAIN_NAME_BYTES];
    uint64_t n_floats, step;
    double best_loss, best_train_loss;
    uint32_t epoch, best_epoch;
};

static size_t n_floats(const struct tlr_train_state *s)
{
    return 2 * (s->n_all + s->n_trained);
}

int tlr_train_state_new(struct tlr_train_state *s,
                        const struct tlr_net_shape *shape, uint64_t seed,
                        struct tlr_err *err)
{
    memset(s, 0, sizeof *s);
    s->shape = *shape;
    s->n_trained = tlr_net_n_trained(shape);
    s->n_all = tlr_net_n_all(shape);
    s->best_loss = s->best_train_loss = INFINITY;
    s->storage = tlr_calloc(n_floats(s), sizeof *s->storage);
    if (!s->storage)
        return tlr_err_nomem(err, "parameters", n_floats(s) * 4ull);
    s->params = s->storage;
    s->m = s->params + s->n_all;
    s->v = s->m + s->n_trained;
    s->best = s->v + s->n_trained;
    tlr_net_init(shape, s->params, seed);
    return 0;
}

void tlr_train_state_clear(struct tlr_train_state *s)
{
    tlr_free(s->storage);
    memset(s, 0, sizeof *s);
}

int tlr_train_state_save(const struct tlr_train_state *s, const char *name,
                         const char *path, struct tlr_err *err)
{
    struct tlr_out *o;
    struct head h;
    memset(&h, 0, sizeof h); /* padding too: the file is a function of s */
    memcpy(h.magic, MAGIC, sizeof h.magic);
    snprintf(h.name, sizeof h.name, "%s", name);
    h.n_floats = n_floats(s);
    h.step = s->step;
    h.best_loss = s->best_loss;
    h.best_train_loss = s->best_train_loss;
    h.epoch = s->epoch;
    h.best_epoch = s->best_epoch;
    size_t n_bytes = n_floats(s) * sizeof *s->storage;
    uint32_t crc = tlr_crc32(tlr_crc32(0, &h, sizeof h), s->storage, n_bytes);
    int rc = tlr_out_begin(&o, path, err);
    if (rc)
        return rc;
    rc = tlr_out_write(o, &h, sizeof h, err);
    if (!rc)
        rc = tlr_out_write(o, s->storage, n_bytes, err);
    if (!rc)
        rc = tlr_out_write(o, &crc, sizeof crc, err);
    if (!rc)
        return tlr_out_commit(o, err);
    tlr_out_abort(o);
    return rc;
}

static int take(struct tlr_train_state *s, const char *name, const char *path,
                const struct tlr_map *map, struct tlr_err *err)
{
    struct head h;
    uint32_t crc = 0;
    size_t n_bytes = n_floats(s) * sizeof *s->storage;
    if (map->len < sizeof h || memcmp(map->ptr, MAGIC, 8) != 0)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: is no checkpoint of tlr train; remove it, or "
                           "give --fresh", path);
    memcpy(&h, map->ptr, sizeof h);
    h.name[sizeof h.name - 1] = '\0';
    if (strcmp(h.name, name) != 0)
        return tlr_err_set(err, TLR_EMISMATCH,
                           "%s: belongs to another run (%s), found (%s); give "
                           "its dataset and options, or --fresh", path, h.name,
                           name);
    bool whole = h.n_floats == n_floats(s) &&
                 map->len == sizeof h + n_bytes + sizeof crc;
    if (whole)
        memcpy(&crc, map->ptr + map->len - sizeof crc, sizeof crc);
    if (!whole || tlr_crc32(0, map->ptr, map->len - sizeof crc) != crc)
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: checkpoint is damaged; remove it, or give "
                           "--fresh", path);
    memcpy(s->storage, map->ptr + sizeof h, n_bytes);
    s->step = h.step;
    s->best_loss = h.best_loss;
    s->best_train_loss = h.best_train_loss;
    s->epoch = h.epoch;
    s->best_epoch = h.best_epoch;
    return 0;
}

int tlr_train_state_load(struct tlr_train_state *s, const char *name,
                         const char *path, struct tlr_err *err)
{
    struct stat st;
    struct tlr_map map;
    if (stat(path, &st) != 0)
        return TLR_ENOTFOUND;
    int rc = tlr_map_open(&map, path, false, err);
    if (rc)
        return rc;
    rc = take(s, name, path, &map, err);
    tlr_map_close(&map);
    return rc;
}
