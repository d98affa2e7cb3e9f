/* file_in.c - files that are read: mapped, or small and copied.
 *
 * What a path names is judged on the opened descriptor: links are followed, and
 * nothing can be swapped between the check and the use.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* Maps the pages now, in order.  WILLNEED starts large asynchronous reads of a
 * cold file and is quick on a warm one; POPULATE_READ then fills the page table
 * in one call and reports a read error that touching would make a SIGBUS. */
static int populate_pages(const struct tlr_map *map)
{
    const void *ptr = map->ptr;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    posix_madvise((void *)(uintptr_t)ptr, map->len, POSIX_MADV_WILLNEED);
#if defined(MADV_POPULATE_READ)
    int rc;
    do {
        rc = madvise((void *)(uintptr_t)ptr, map->len, MADV_POPULATE_READ);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN));
    if (rc == 0) {
        return 0;
    }
    if (errno != EINVAL && errno != ENOSYS) { /* Linux before 5.14 */
        return errno == EFAULT ? EIO : errno;
    }
#endif
    const volatile uint8_t *byte = map->ptr;
    for (size_t i = 0; i < map->len; i += page) {
        (void)byte[i];
    }
    return 0;
}

int tlr_map_open_fd(struct tlr_map *out, int fd, const char *label,
                    bool populate, struct tlr_err *err)
{
    *out = (struct tlr_map){0};
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return tlr_err_set_errno(err, TLR_EIO, errno, "%s: cannot be examined",
                                 label);
    }
    if (S_ISDIR(st.st_mode)) {
        return tlr_err_set(err, TLR_EIO,
                           "%s: expected a file, found a directory", label);
    }
    if (!S_ISREG(st.st_mode)) {
        return tlr_err_set(err, TLR_EIO,
                           "%s: expected a regular file, found a pipe, device "
                           "or socket; copy it to a file first",
                           label);
    }
    if (st.st_size == 0) {
        return tlr_err_set(err, TLR_EFORMAT,
                           "%s: the file is empty; was it fetched whole?",
                           label);
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > PTRDIFF_MAX) {
        return tlr_err_set(err, TLR_ELIMIT,
                           "%s: %lld bytes are more than this system can map",
                           label, (long long)st.st_size);
    }
    size_t len = (size_t)st.st_size;
    void *ptr = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (ptr == MAP_FAILED) {
        return tlr_err_set_errno(err, errno == ENOMEM ? TLR_ENOMEM : TLR_EIO,
                                 errno, "%s: cannot be mapped", label);
    }
    *out = (struct tlr_map){.ptr = ptr, .len = len};
    int errnum = populate ? populate_pages(out) : 0;
    if (errnum) {
        tlr_map_close(out);
        return tlr_err_set_errno(err, TLR_EIO, errnum,
                                 "%s: cannot be read whole", label);
    }
    return 0;
}

int tlr_map_open(struct tlr_map *out, const char *path, bool populate,
                 struct tlr_err *err)
{
    *out = (struct tlr_map){0};
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int code = errno == ENOENT ? TLR_ENOTFOUND : TLR_EIO;
        return tlr_err_set_errno(err, code, errno, "%s: cannot be opened",
                                 path);
    }
    int rc = tlr_map_open_fd(out, fd, path, populate, err);
    close(fd); /* the mapping keeps the file */
    return rc;
}

void tlr_map_close(struct tlr_map *map)
{
    if (map->ptr) {
        munmap((void *)(uintptr_t)map->ptr, map->len);
    }
    *map = (struct tlr_map){0};
}

/* Bytes to ask for first: the whole file, and one to see its end. */
static size_t first_cap(int fd, size_t max_bytes)
{
    struct stat st;
    size_t cap = 4096;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
        (uint64_t)st.st_size < SIZE_MAX / 2) {
        cap = (size_t)st.st_size + 1;
    }
    return cap - 1 > max_bytes ? max_bytes + 1 : cap;
}

static int read_all(char **out, size_t *out_len, int fd, const char *label,
                    size_t max_bytes, struct tlr_err *err)
{
    if (max_bytes > SIZE_MAX / 4) {
        max_bytes = SIZE_MAX / 4;
    }
    size_t cap = first_cap(fd, max_bytes), len = 0;
    char *buf = NULL;
    int rc = 0;
    for (;;) {
        if (!buf || len == cap) {
            cap = buf ? cap * 2 : cap;
            cap = cap > max_bytes + 1 ? max_bytes + 1 : cap;
            char *larger = tlr_realloc(buf, cap + 1, 1);
            if (!larger) {
                rc = tlr_err_nomem(err, label, cap + 1);
                goto fail;
            }
            buf = larger;
        }
        ssize_t n = read(fd, buf + len, cap - len);
        if (n < 0) {
            /* Only a handler installed without SA_RESTART lets this through:
             * the user wants out of waiting for input. */
            rc = errno == EINTR
                     ? tlr_err_set(err, TLR_ECANCELLED, "%s: interrupted",
                                   label)
                     : tlr_err_set_errno(err, TLR_EIO, errno,
                                         "%s: cannot be read", label);
            goto fail;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
        if (len > max_bytes) {
            rc = tlr_err_set(err, TLR_ELIMIT,
                             "%s: expected at most %zu bytes, found more",
                             label, max_bytes);
            goto fail;
        }
    }
    buf[len] = '\0';
    *out = buf;
    *out_len = len;
    return 0;
fail:
    tlr_free(buf);
    return rc;
}

int tlr_read_file(char **out, size_t *out_len, const char *path,
                  size_t max_bytes, struct tlr_err *err)
{
    *out = NULL;
    *out_len = 0;
    if (strcmp(path, "-") == 0) {
        return read_all(out, out_len, STDIN_FILENO, "standard input",
                        max_bytes, err);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int code = errno == ENOENT ? TLR_ENOTFOUND : TLR_EIO;
        return tlr_err_set_errno(err, code, errno, "%s: cannot be opened",
                                 path);
    }
    int rc = read_all(out, out_len, fd, path, max_bytes, err);
    close(fd);
    return rc;
}

long tlr_read_text(char *buf, size_t cap, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    size_t len = 0;
    ssize_t n = 1;
    while (n > 0 && len < cap - 1) {
        n = read(fd, buf + len, cap - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    buf[len] = '\0';
    return n < 0 ? -1 : (long)len;
}
