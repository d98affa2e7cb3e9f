/* output.c - see output.h.  Buffered by hand and not by stdio, so that the
 * errno of the write that failed is the one that is reported. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/tokenizer.h"

static struct {
    char buf[1 << 16];
    size_t n;
    int errnum; /* of the first failed write */
    bool tty, err_tty, json_nomem;
    bool colour, err_colour; /* may be coloured */
} out;

void cli_out_begin(void)
{
    /* With a standard descriptor closed, the next file opened would get its
     * number, and messages would land in a model.  What is put there instead
     * cannot be used in the wrong direction. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    out.tty = isatty(STDOUT_FILENO);
    out.err_tty = isatty(STDERR_FILENO);
    bool may = !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
    out.colour = out.tty && may;
    out.err_colour = out.err_tty && may;
}

void cli_flush(void)
{
    size_t done = 0;
    while (done < out.n && !out.errnum) {
        ssize_t n = write(STDOUT_FILENO, out.buf + done, out.n - done);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && errno != EINTR)
            out.errnum = errno;
    }
    out.n = 0;
}

static void write_raw(const char *text, size_t len)
{
    while (len > 0 && !out.errnum) {
        size_t n = sizeof out.buf - out.n;
        if (n > len)
            n = len;
        memcpy(out.buf + out.n, text, n);
        out.n += n;
        text += n;
        len -= n;
        if (out.n == sizeof out.buf)
            cli_flush();
    }
}

/* Length of the well-formed sequence at s, 0 if there is none; its code point
 * to *cp. */
static size_t utf8_at(const char *s, size_t left, uint32_t *cp)
{
    const uint8_t *u = (const uint8_t *)s;
    size_t n = u[0] < 0x80 ? 1 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    if (n > left || !tlr_utf8_valid(s, n))
        return 0;
    *cp = n == 1 ? u[0] : u[0] & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        *cp = *cp << 6 | (u[i] & 0x3Fu);
    return n;
}

static bool is_tame(uint32_t cp)
{
    if (cp < 0x20)
        return cp == '\n' || cp == '\t';
    return !(cp >= 0x7F && cp < 0xA0) &&       /* DEL and C1 */
           !(cp >= 0x202A && cp <= 0x202E) &&  /* bidirectional overrides */
           !(cp >= 0x2066 && cp <= 0x2069);
}

size_t cli_tame(char *dst, const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t step = utf8_at(text + i, len - i, &cp);
        if (step > 0 && is_tame(cp)) {
            memcpy(dst + n, text + i, step);
            n += step;
        } else {
            memcpy(dst + n, "\xEF\xBF\xBD", 3);
            n += 3;
        }
        i += step > 0 ? step : 1;
    }
    return n;
}

void cli_write(const char *text, size_t len)
{
    if (!out.tty) {
        write_raw(text, len);
        return;
    }
    while (len > 0) {
        char tame[3 * 1024 + 1];
        size_t n = len;
        if (n > 1024) { /* cut between characters */
            n = 1024;
            while (n > 1020 && ((uint8_t)text[n] & 0xC0) == 0x80)
                n--;
        }
        write_raw(tame, cli_tame(tame, text, n));
        text += n;
        len -= n;
    }
}

void cli_write_marked(const char *text, size_t len)
{
    static const char on[] = "\x1b[31m", off[] = "\x1b[0m";
    if (out.colour)
        write_raw(on, sizeof on - 1);
    cli_write(text, len);
    if (out.colour)
        write_raw(off, sizeof off - 1);
}

void cli_out_set_color(const char *when)
{
    if (strcmp(when, "auto") != 0)
        out.colour = strcmp(when, "always") == 0;
}

void cli_printf(const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0)
        cli_write(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

bool cli_out_failed(void)
{
    return out.errnum != 0;
}

bool cli_out_is_tty(void)
{
    return out.tty;
}

bool cli_err_is_tty(void)
{
    return out.err_tty;
}

int cli_out_finish(struct tlr_err *err)
{
    cli_flush();
    if (!out.errnum && close(STDOUT_FILENO) != 0 && errno != EBADF)
        out.errnum = errno;
    if (!out.errnum)
        return 0;
    if (out.errnum == EPIPE)
        return TLR_EIO;
    return tlr_err_set_errno(err, TLR_EIO, out.errnum,
                             "standard output: writing failed");
}

static void write_err(const char *prefix, const char *fmt, va_list ap)
    TLR_PRINTF(2, 0);
static void write_err(const char *prefix, const char *fmt, va_list ap)
{
    char text[2048], tame[3 * sizeof text + 1];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    if (n < 0)
        return;
    size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    len = cli_tame(tame, text, len);
    fprintf(stderr, "%s%.*s\n", prefix, (int)len, tame);
}

void cli_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    write_err("", fmt, ap);
    va_end(ap);
}

void cli_complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    write_err(out.err_colour ? "\x1b[1;31mtlr:\x1b[0m " : "tlr: ", fmt, ap);
    va_end(ap);
}

json_t *cli_json_text(const char *text, size_t len)
{
    if (tlr_utf8_valid(text, len))
        return json_stringn(text, len);
    char *clean = tlr_calloc(len + 4, 3);
    if (!clean)
        return NULL;
    struct tlr_utf8_stream s = { { 0 }, 0 };
    struct tlr_bytes bytes = { (const uint8_t *)text, len };
    struct tlr_bytes none = { NULL, 0 };
    size_t n = 0, tail = 0;
    tlr_utf8_stream_push(&s, bytes, false, clean, &n);
    tlr_utf8_stream_push(&s, none, true, clean + n, &tail);
    json_t *j = json_stringn(clean, n + tail);
    tlr_free(clean);
    return j;
}

json_t *cli_json_real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

void cli_json_put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        out.json_nomem = true;
}

void cli_json_push(json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        out.json_nomem = true;
}

static int dump(const char *text, size_t len, void *ctx)
{
    (void)ctx;
    cli_write(text, len);
    return 0;
}

int cli_json_print(json_t *root, struct tlr_err *err)
{
    int rc = 0;
    if (out.json_nomem ||
        json_dump_callback(root, dump, NULL, JSON_REAL_PRECISION(10)) != 0)
        rc = tlr_err_set(err, TLR_ENOMEM, "JSON output: out of memory");
    else
        cli_write("\n", 1);
    json_decref(root);
    return rc;
}

char *cli_bytes(char *dst, size_t cap, uint64_t n)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)n;
    size_t u = 0;
    while (v >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    snprintf(dst, cap, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return dst;
}
