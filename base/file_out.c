/* file_out.c - output that appears whole or not at all.
 *
 * Bytes go to a temporary beside the final name (the same file system, so that
 * rename is atomic), are forced to the disk, and only then take the name.  The
 * names of live temporaries stand in one process-wide table of fixed slots, the
 * only thing that a signal handler can safely walk.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum {
    BUF_BYTES = 256 * 1024,
    PATH_BYTES = 4096,
    NAME_KEPT = 200, /* of the final name, so that the temporary's fits too */
    N_SLOTS = 8,
    MAX_STALE = 1000, /* temporaries of dead processes to step over */
};

enum { SLOT_FREE, SLOT_TAKEN, SLOT_LIVE };

/* Temporaries to remove when the process is told to end.  Lock-free atomics may
 * be used in a handler (C11 7.14.1.1); pid keeps a forked child away. */
static struct slot {
    atomic_int state;
    pid_t pid;
    char path[PATH_BYTES];
} slots[N_SLOTS];

static atomic_long write_budget = -1; /* calls left to succeed; < 0: all */
static atomic_int write_errnum;

struct tlr_out {
    int fd;
    struct slot *slot;
    bool failed;  /* a write was lost: commit must refuse */
    size_t n_buf; /* bytes in buf, to be written at pos */
    uint64_t pos;
    char *path;
    char *buf;
};

void tlr_io_fail_after(long n, int errnum)
{
    atomic_store(&write_errnum, errnum);
    atomic_store(&write_budget, n < 0 ? -1 : n);
}

/* True, with errno set, when the test wants this call to fail. */
static bool injected(void)
{
    long left = atomic_load(&write_budget);
    while (left > 0 &&
           !atomic_compare_exchange_weak(&write_budget, &left, left - 1)) {
    }
    if (left == 0) {
        errno = atomic_load(&write_errnum);
    }
    return left == 0;
}

/* ---- temporaries ---------------------------------------------------------- */

static struct slot *take_slot(void)
{
    for (int i = 0; i < N_SLOTS; i++) {
        int expected = SLOT_FREE;
        if (atomic_compare_exchange_strong(&slots[i].state, &expected,
                                           SLOT_TAKEN)) {
            slots[i].pid = getpid();
            return &slots[i];
        }
    }
    return NULL;
}

static void release_slot(struct slot *slot)
{
    atomic_store(&slot->state, SLOT_FREE);
}

void tlr_out_cleanup(void)
{
    int saved = errno;
    for (int i = 0; i < N_SLOTS; i++) {
        if (atomic_load(&slots[i].state) == SLOT_LIVE &&
            slots[i].pid == getpid()) {
            unlink(slots[i].path);
        }
    }
    errno = saved;
}

/* Length of the folder part of path, its slash included; 0: none. */
static size_t folder_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* The folder of path; false when it does not fit. */
static bool folder_of(char out[PATH_BYTES], const char *path)
{
    size_t len = folder_len(path);
    if (len + 2 > PATH_BYTES) {
        return false;
    }
    memcpy(out, path, len);
    memcpy(out + len, ".", 2);
    return true;
}

/* The name is "PREFIX" "PID-N", and there is no such process any more. */
static bool is_orphan(const char *name, const char *prefix, size_t n_prefix)
{
    if (strncmp(name, prefix, n_prefix) != 0 || name[n_prefix] < '1' ||
        name[n_prefix] > '9') {
        return false;
    }
    char *end;
    errno = 0;
    long pid = strtol(name + n_prefix, &end, 10);
    if (errno != 0 || pid > INT_MAX || *end != '-' || !end[1] ||
        end[1 + strspn(end + 1, "0123456789")]) {
        return false;
    }
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

/* Removes what killed writers of path left: a failure only leaves it there. */
static void sweep_orphans(const char *path)
{
    char folder[PATH_BYTES], prefix[NAME_KEPT + 8];
    int n = snprintf(prefix, sizeof prefix, ".%.*s.tmp-", NAME_KEPT,
                     path + folder_len(path));
    DIR *d = folder_of(folder, path) ? opendir(folder) : NULL;
    if (!d) {
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (is_orphan(e->d_name, prefix, (size_t)n)) {
            unlinkat(dirfd(d), e->d_name, 0);
        }
    }
    closedir(d);
}

/* Creates the temporary and enters it in its slot; the descriptor, or -1 with
 * errno.  Signals wait meanwhile: none may find a file without an entry. */
static int create_temporary(struct slot *slot, const char *path, mode_t mode)
{
    int dir = (int)folder_len(path);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fd = -1;
    for (int i = 0; fd < 0 && i < MAX_STALE; i++) {
        int n = snprintf(slot->path, sizeof slot->path,
                         "%.*s.%.*s.tmp-%ld-%d", dir, path, NAME_KEPT,
                         path + dir, (long)getpid(), i);
        if (n < 0 || (size_t)n >= sizeof slot->path) {
            errno = ENAMETOOLONG;
            break;
        }
        fd = open(slot->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST && errno != EINTR) {
            break;
        }
    }
    int saved = errno;
    if (fd >= 0) {
        atomic_store(&slot->state, SLOT_LIVE);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return fd;
}

/* ---- begin, write --------------------------------------------------------- */

/* What is there already must be a file (a rename over /dev/null would replace
 * the device); its permissions are kept. */
static int check_target(const char *path, mode_t *mode, bool *exists,
                        struct tlr_err *err)
{
    struct stat st;
    size_t dir = folder_len(path);
    if (!path[dir]) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected the name of a file to write", path);
    }
    *exists = stat(path, &st) == 0;
    if (!*exists) {
        return 0;
    }
    if (S_ISDIR(st.st_mode)) {
        return tlr_err_set(err, TLR_EIO,
                           "%s: expected a file to write, found a directory; "
                           "add a file name",
                           path);
    }
    if (!S_ISREG(st.st_mode)) {
        return tlr_err_set(err, TLR_EIO,
                           "%s: expected a regular file to replace, found a "
                           "device, pipe or socket; choose another name",
                           path);
    }
    *mode = st.st_mode & 0777;
    return 0;
}

int tlr_out_begin(struct tlr_out **out, const char *path, struct tlr_err *err)
{
    *out = NULL;
    mode_t mode = 0666;
    bool exists;
    int rc = check_target(path, &mode, &exists, err);
    if (rc) {
        return rc;
    }
    struct tlr_out *o = tlr_calloc(1, sizeof *o);
    if (!o) {
        return tlr_err_nomem(err, path, sizeof *o);
    }
    o->fd = -1;
    o->path = tlr_strdup(path);
    o->buf = tlr_alloc_aligned(BUF_BYTES);
    if (!o->path || !o->buf) {
        rc = tlr_err_nomem(err, path, BUF_BYTES);
        goto fail;
    }
    o->slot = take_slot();
    if (!o->slot) {
        rc = tlr_err_set(err, TLR_ELIMIT,
                         "%s: %d files are being written already", path,
                         N_SLOTS);
        goto fail;
    }
    sweep_orphans(path);
    o->fd = create_temporary(o->slot, path, mode);
    if (o->fd < 0) {
        rc = tlr_err_set_errno(err, TLR_EIO, errno,
                               "%s: cannot be created in its folder", path);
        goto fail;
    }
    if (exists && fchmod(o->fd, mode) != 0) {
        rc = tlr_err_set_errno(err, TLR_EIO, errno,
                               "%s: cannot keep its permissions", path);
        goto fail;
    }
    *out = o;
    return 0;
fail:
    tlr_out_abort(o);
    return rc;
}

/* All of data at offset; false with errno. */
static bool write_all(int fd, const char *data, size_t len, uint64_t offset)
{
    while (len > 0) {
        size_t part = len < (1u << 30) ? len : (1u << 30);
        if (offset > INT64_MAX - part) {
            errno = EFBIG;
            return false;
        }
        ssize_t n = injected() ? -1 : pwrite(fd, data, part, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? ENOSPC : errno;
            return false;
        }
        data += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static int lost(struct tlr_out *o, int errnum, struct tlr_err *err)
{
    o->failed = true;
    return tlr_err_set_errno(
        err, TLR_EIO, errnum,
        "%s: cannot be written, what was there before is untouched", o->path);
}

static int flush(struct tlr_out *o, struct tlr_err *err)
{
    if (o->failed) {
        return lost(o, EIO, err);
    }
    if (!write_all(o->fd, o->buf, o->n_buf, o->pos)) {
        return lost(o, errno, err);
    }
    o->pos += o->n_buf;
    o->n_buf = 0;
    return 0;
}

int tlr_out_write(struct tlr_out *o, const void *data, size_t len,
                  struct tlr_err *err)
{
    if (o->failed) {
        return lost(o, EIO, err);
    }
    if (len > BUF_BYTES - o->n_buf) {
        int rc = flush(o, err);
        if (rc) {
            return rc;
        }
    }
    if (len > BUF_BYTES) {
        if (!write_all(o->fd, data, len, o->pos)) {
            return lost(o, errno, err);
        }
        o->pos += len;
    } else if (len > 0) {
        memcpy(o->buf + o->n_buf, data, len);
        o->n_buf += len;
    }
    return 0;
}

int tlr_out_pwrite(struct tlr_out *o, const void *data, size_t len,
                   uint64_t offset, struct tlr_err *err)
{
    /* The buffer goes first: the later of two writes to a place must win. */
    int rc = flush(o, err);
    if (rc) {
        return rc;
    }
    return write_all(o->fd, data, len, offset) ? 0 : lost(o, errno, err);
}

uint64_t tlr_out_pos(const struct tlr_out *o)
{
    return o->pos + o->n_buf;
}

int tlr_out_flush(struct tlr_out *o, int *fd, struct tlr_err *err)
{
    *fd = o->fd;
    return flush(o, err);
}

/* ---- commit, abort -------------------------------------------------------- */

static bool sync_fd(int fd)
{
    if (injected()) {
        return false;
    }
    int rc;
    do {
#if defined(F_FULLFSYNC)
        rc = fcntl(fd, F_FULLFSYNC); /* macOS: fsync stops at the drive */
        rc = rc == 0 ? 0 : fsync(fd);
#else
        rc = fsync(fd);
#endif
    } while (rc != 0 && errno == EINTR);
    return rc == 0;
}

/* Makes the rename last.  The data are safe and the name is right already, so
 * a file system that cannot do this is no reason to report a failure. */
static void sync_folder(const char *path)
{
    char dir[PATH_BYTES];
    if (!folder_of(dir, path)) {
        return;
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int tlr_out_commit(struct tlr_out *o, struct tlr_err *err)
{
    int rc = flush(o, err);
    if (rc) {
        goto done;
    }
    if (!sync_fd(o->fd)) {
        rc = lost(o, errno, err);
        goto done;
    }
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0 && errno != EINTR) {
        rc = lost(o, errno, err);
        goto done;
    }
    if (injected() || rename(o->slot->path, o->path) != 0) {
        rc = lost(o, errno, err);
        goto done;
    }
    release_slot(o->slot);
    o->slot = NULL;
    sync_folder(o->path);
done:
    tlr_out_abort(o);
    return rc;
}

void tlr_out_abort(struct tlr_out *o)
{
    if (!o) {
        return;
    }
    if (o->fd >= 0) {
        close(o->fd);
    }
    if (o->slot) {
        if (atomic_load(&o->slot->state) == SLOT_LIVE) {
            unlink(o->slot->path);
        }
        release_slot(o->slot);
    }
    tlr_free(o->buf);
    tlr_free(o->path);
    tlr_free(o);
}

int tlr_write_file(const char *path, const void *data, size_t len,
                   struct tlr_err *err)
{
    struct tlr_out *o;
    int rc = tlr_out_begin(&o, path, err);
    if (rc) {
        return rc;
    }
    rc = tlr_out_write(o, data, len, err);
    if (rc) {
        tlr_out_abort(o);
        return rc;
    }
    return tlr_out_commit(o, err);
}
