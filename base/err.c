/* err.c - the one line that says what failed.
 *
 * Texts may carry bytes of hostile files (names, keys), so everything that
 * could steer a terminal is replaced here, once, and a cut never splits a
 * UTF-8 sequence.  Errors need no memory: out of memory is one of them.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERRNO_TEXT_BYTES = 128 };

static const struct {
    int code;
    const char *name, *text;
} codes[] = {
    {TLR_OK, "TLR_OK", "no error"},
#define ROW(name, code, text) {code, #name, text},
    TLR_ERRORS(ROW)
#undef ROW
};

enum { N_CODES = sizeof codes / sizeof codes[0] };

const char *tlr_err_name(int code)
{
    for (int i = 0; i < N_CODES; i++) {
        if (codes[i].code == code) {
            return codes[i].name;
        }
    }
    return "unknown";
}

const char *tlr_err_generic(int code)
{
    for (int i = 0; i < N_CODES; i++) {
        if (codes[i].code == code) {
            return codes[i].text;
        }
    }
    return "unknown error";
}

/* C0, DEL and, as two bytes of UTF-8, C1 (U+009B starts a control sequence). */
static void blank_controls(char *text)
{
    unsigned char *p = (unsigned char *)text;
    for (; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        } else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) {
            p[0] = p[1] = '?';
        }
    }
}

/* Ends text, which fills its buffer of cap bytes, in "..." at a character. */
static void end_in_dots(char *text, size_t cap)
{
    size_t end = cap - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80) {
        end--;
    }
    memcpy(text + end, "...", 4);
}

/* Uses the first cap bytes of err->text; the code is the caller's to set. */
static void TLR_PRINTF(4, 0) format(struct tlr_err *err, int code, size_t cap,
                                    const char *fmt, va_list args)
{
    int n = vsnprintf(err->text, cap, fmt, args);
    if (n < 0) {
        snprintf(err->text, cap, "%s", tlr_err_generic(code));
    } else if ((size_t)n >= cap) {
        end_in_dots(err->text, cap);
    }
    blank_controls(err->text);
}

int tlr_err_set(struct tlr_err *err, int code, const char *fmt, ...)
{
    if (!err || err->code) {
        return code;
    }
    va_list args;
    va_start(args, fmt);
    format(err, code, sizeof err->text, fmt, args);
    va_end(args);
    err->code = code;
    return code;
}

/* strerror_r is int in POSIX and char * in glibc; both may leave buf alone. */
static const char *text_of_int(int rc, const char *buf)
{
    return rc == 0 ? buf : "unknown error";
}

static const char *text_of_ptr(const char *text, const char *buf)
{
    (void)buf;
    return text;
}

int tlr_err_set_errno(struct tlr_err *err, int code, int errnum,
                      const char *fmt, ...)
{
    if (!err || err->code) {
        return code;
    }
    char buf[ERRNO_TEXT_BYTES] = "";
    const char *reason =
        _Generic(strerror_r(0, buf, sizeof buf), int
                 : text_of_int, char *
                 : text_of_ptr)(strerror_r(errnum, buf, sizeof buf), buf);
    va_list args;
    va_start(args, fmt);
    /* Room is kept for the reason: it is the part that must not be cut. */
    format(err, code, sizeof err->text - sizeof buf - 2, fmt, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %.*s",
             (int)sizeof buf - 1, reason);
    err->code = code;
    return code;
}

int tlr_err_nomem(struct tlr_err *err, const char *object,
                  unsigned long long n_bytes)
{
    return tlr_err_set(err, TLR_ENOMEM, "%s: out of memory for %llu bytes",
                       object, n_bytes);
}

void tlr_err_clear(struct tlr_err *err)
{
    err->code = TLR_OK;
    err->text[0] = '\0';
}
