/* audit.c - see audit.h.  A line goes out in one write to a file opened for
 * appending, so several programs may share it. */
#include "net/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/buf.h"

struct tlr_audit {
    int fd;
    bool with_text;
    char *path, *host;
    pthread_mutex_t lock;
    struct tlr_buf line;
};

int tlr_audit_open(struct tlr_audit **out, const char *path, const char *host,
                   bool with_text, struct tlr_err *err)
{
    struct tlr_audit *a = tlr_calloc(1, sizeof *a);
    *out = NULL;
    if (!a)
        return tlr_err_nomem(err, "audit", sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    a->with_text = with_text;
    a->path = tlr_strdup(path);
    a->host = tlr_strdup(host);
    a->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int rc = 0;
    if (a->fd < 0)
        rc = tlr_err_set_errno(err, TLR_EIO, errno, "--audit: %s", path);
    else if (!a->path || !a->host)
        rc = tlr_err_nomem(err, "audit", strlen(path));
    if (rc) {
        tlr_audit_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

void tlr_audit_close(struct tlr_audit *a)
{
    if (!a)
        return;
    if (a->fd >= 0)
        close(a->fd);
    tlr_buf_clear(&a->line);
    pthread_mutex_destroy(&a->lock);
    tlr_free(a->path);
    tlr_free(a->host);
    tlr_free(a);
}

static void put_time(struct tlr_buf *b)
{
    struct timespec now;
    struct tm utc;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03dZ",
             (int)(now.tv_nsec / 1000000));
    tlr_buf_json(b, text, strlen(text));
}

static void put_entry(struct tlr_buf *b, const struct tlr_audit *a,
                      const struct tlr_audit_entry *e)
{
    tlr_buf_text(b, "{\"time\":");
    put_time(b);
    tlr_buf_text(b, ",\"host\":");
    tlr_buf_json(b, a->host, strlen(a->host));
    tlr_buf_text(b, ",\"path\":");
    tlr_buf_json(b, e->path, strlen(e->path));
    tlr_buf_text(b, ",\"bytes\":");
    tlr_buf_int(b, (long long)e->n_bytes);
    tlr_buf_text(b, ",\"tokens\":");
    tlr_buf_int(b, (long long)e->n_tok);
    if (a->with_text) {
        tlr_buf_text(b, ",\"text\":");
        tlr_buf_json(b, e->text ? e->text : "", e->n_text);
    }
    tlr_buf_text(b, "}\n");
}

static int write_line(struct tlr_audit *a, struct tlr_err *err)
{
    size_t done = 0;
    while (done < a->line.n) {
        ssize_t n = write(a->fd, a->line.ptr + done, a->line.n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return tlr_err_set_errno(err, TLR_ELIMIT, n < 0 ? errno : ENOSPC,
                                     "--audit: %s: cannot be written, so "
                                     "nothing is sent", a->path);
        done += (size_t)n;
    }
    return 0;
}

int tlr_audit_add(struct tlr_audit *a, const struct tlr_audit_entry *e,
                  struct tlr_err *err)
{
    if (!a)
        return 0;
    pthread_mutex_lock(&a->lock);
    tlr_buf_reset(&a->line);
    put_entry(&a->line, a, e);
    int rc = a->line.failed ? tlr_err_nomem(err, "audit", a->line.n)
                            : write_line(a, err);
    pthread_mutex_unlock(&a->lock);
    return rc;
}
