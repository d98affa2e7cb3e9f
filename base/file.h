/* file.h - input mapped read-only, output that appears whole or not at all. */
#ifndef TLR_BASE_FILE_H
#define TLR_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

/* A regular file mapped read-only.  Symbolic links are followed (Hugging Face
 * snapshots are links); the opened descriptor is checked, not the path. */
struct tlr_map {
    const uint8_t *ptr;
    size_t len;
};

/* populate: read all pages in now, sequentially.  An empty file is an error
 * that names the path, like "no such file", "a directory", "not a regular
 * file". */
int tlr_map_open(struct tlr_map *out, const char *path, bool populate,
                 struct tlr_err *err);
/* The same for an open descriptor, which stays the caller's; label is the name
 * that messages use. */
int tlr_map_open_fd(struct tlr_map *out, int fd, const char *label,
                    bool populate, struct tlr_err *err);
void tlr_map_close(struct tlr_map *map); /* a zeroed map is allowed */

/* Whole small file into memory (NUL-terminated, tlr_free); more than max_bytes
 * is TLR_ELIMIT.  path "-" reads standard input; a signal whose handler was set
 * without SA_RESTART ends the wait with TLR_ECANCELLED. */
int tlr_read_file(char **out, size_t *out_len, const char *path,
                  size_t max_bytes, struct tlr_err *err);

/* The first cap - 1 bytes of a small text file, NUL-terminated, without
 * allocating; their number, or -1.  For files of the kernel, which may be
 * missing: no message. */
long tlr_read_text(char *buf, size_t cap, const char *path);

/* Output written beside its final name as ".NAME.tmp-PID-N", then fsync +
 * rename + fsync of the folder: a kill, a full disk or an error leaves what was
 * there before.  Temporaries are removed on abort and on SIGINT/SIGTERM by the CLI
 * through tlr_out_cleanup; those of a killed process by the next tlr_out_begin of
 * the same name, which takes the process ids for this machine's. */
struct tlr_out;
int tlr_out_begin(struct tlr_out **out, const char *path, struct tlr_err *err);
int tlr_out_write(struct tlr_out *o, const void *data, size_t len,
                  struct tlr_err *err);
int tlr_out_pwrite(struct tlr_out *o, const void *data, size_t len,
                   uint64_t offset, struct tlr_err *err);
uint64_t tlr_out_pos(const struct tlr_out *o); /* where write goes on */
/* Hands everything written to the system; *fd, which stays o's, then reads it:
 * a look at the whole before it takes its name. */
int tlr_out_flush(struct tlr_out *o, int *fd, struct tlr_err *err);
int tlr_out_commit(struct tlr_out *o, struct tlr_err *err); /* frees o */
void tlr_out_abort(struct tlr_out *o); /* removes and frees; NULL is allowed */
/* All of the above for bytes that are in memory. */
int tlr_write_file(const char *path, const void *data, size_t len,
                   struct tlr_err *err);
/* Async-signal-safe: unlinks every temporary of this process. */
void tlr_out_cleanup(void);

/* Fault injection for tests: after n more calls that write (write, fsync,
 * rename: what the system is asked, not what tlr_out_write is) every one fails
 * with errnum (ENOSPC, EIO); n < 0 turns it off. */
void tlr_io_fail_after(long n, int errnum);

#endif
