/* helpers.h - files and foreign bytes for the tests of convert/. */
#ifndef TLR_TESTS_CONVERT_HELPERS_H
#define TLR_TESTS_CONVERT_HELPERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Whole file (free with free); fails the test when it cannot be read. */
uint8_t *slurp(const char *path, size_t *len);
void spill(const char *path, const void *data, size_t len);
/* "<tmpdir>/<name>"; one of eight rotating buffers. */
const char *tmp_path(const char *name);
/* A fresh copy of a golden folder in the temporary folder; its path. */
const char *copy_folder(const char *golden, const char *name);
/* Replaces the only `from` in a text file by `to`. */
void edit_file(const char *dir, const char *name, const char *from,
               const char *to);
/* Files in dir whose name starts with '.': temporaries that stayed. */
int count_hidden(const char *dir);

/* The error has this code and its text holds `part`, is one line and does not
 * run over. */
void expect_error(const char *what, int rc, const struct tlr_err *err, int code,
                  const char *part);

/* Bytes that grow. */
struct bytes {
    uint8_t *data;
    size_t len, cap;
};
void put(struct bytes *b, const void *data, size_t len);
void put_u32(struct bytes *b, uint32_t v);
void put_u64(struct bytes *b, uint64_t v);
void put_string(struct bytes *b, const char *text); /* u64 length + text */

#endif
