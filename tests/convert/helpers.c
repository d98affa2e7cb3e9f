/* helpers.c - files and foreign bytes for the tests of convert/. */
#include "tests/convert/helpers.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/tlr_check.h"

uint8_t *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s cannot be read", path);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*len + 1);
    ck_assert_uint_eq(fread(data, 1, *len, f), *len);
    data[*len] = 0;
    fclose(f);
    return data;
}

void spill(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "%s cannot be written", path);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    fclose(f);
}

const char *tmp_path(const char *name)
{
    static char paths[8][512];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", tlr_test_tmpdir(), name);
    return path;
}

static void empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    ck_assert_msg(dir != NULL, "%s cannot be read", path);
    struct dirent *e;
    while ((e = readdir(dir))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            char name[1024];
            snprintf(name, sizeof name, "%s/%s", path, e->d_name);
            ck_assert_int_eq(remove(name), 0);
        }
    }
    closedir(dir);
}

const char *copy_folder(const char *golden, const char *name)
{
    const char *to = tmp_path(name);
    mkdir(to, 0777);
    empty_folder(to);
    DIR *dir = opendir(golden);
    ck_assert_msg(dir != NULL, "%s cannot be read", golden);
    struct dirent *e;
    while ((e = readdir(dir))) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char path[1024];
        size_t len;
        snprintf(path, sizeof path, "%s/%s", golden, e->d_name);
        uint8_t *data = slurp(path, &len);
        snprintf(path, sizeof path, "%s/%s", to, e->d_name);
        spill(path, data, len);
        free(data);
    }
    closedir(dir);
    return to;
}

void edit_file(const char *dir, const char *name, const char *from,
               const char *to)
{
    char path[1024];
    size_t len;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = (char *)slurp(path, &len);
    char *at = strstr(text, from);
    ck_assert_msg(at != NULL, "%s has no %s", path, from);
    struct bytes b = {0};
    put(&b, text, (size_t)(at - text));
    put(&b, to, strlen(to));
    put(&b, at + strlen(from), strlen(at + strlen(from)));
    spill(path, b.data, b.len);
    free(b.data);
    free(text);
}

int count_hidden(const char *path)
{
    DIR *dir = opendir(path);
    ck_assert_msg(dir != NULL, "%s cannot be read", path);
    struct dirent *e;
    int n = 0;
    while ((e = readdir(dir))) {
        n += e->d_name[0] == '.' && strcmp(e->d_name, ".") != 0 &&
             strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return n;
}

void expect_error(const char *what, int rc, const struct tlr_err *err, int code,
                  const char *part)
{
    ck_assert_msg(rc == code && err->code == code,
                  "%s: expected %s, found %d %s: %s", what, tlr_err_name(code),
                  rc, tlr_err_name(err->code), err->text);
    ck_assert_msg(strstr(err->text, part) != NULL,
                  "%s: expected \"%s\" in: %s", what, part, err->text);
    ck_assert_msg(!strpbrk(err->text, "\n\r\x1b"), "%s: not one line: %s", what,
                  err->text);
}

void put(struct bytes *b, const void *data, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2 + 64;
        b->data = realloc(b->data, b->cap);
        ck_assert_ptr_nonnull(b->data);
    }
    if (len) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
}

void put_u32(struct bytes *b, uint32_t v)
{
    uint8_t raw[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                      (uint8_t)(v >> 24)};
    put(b, raw, sizeof raw);
}

void put_u64(struct bytes *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

void put_string(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}
