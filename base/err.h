/* err.h - how a function of tlr says that it failed.
 *
 * Fallible functions return 0 or a negative TLR_E code and fill a caller-owned
 * struct tlr_err with one line of text: place, object, expected, found, what to
 * do.  The first error wins: a clean-up path that fails again cannot overwrite
 * the cause.  Nothing outside cli/ prints, exits or aborts on outside input.
 */
#ifndef TLR_BASE_ERR_H
#define TLR_BASE_ERR_H

/* One list makes the enum, the names and the texts. */
#define TLR_ERRORS(X)                                                          \
    X(TLR_EUSAGE, -1, "wrong usage")                                           \
    X(TLR_EIO, -2, "input or output failed")                                   \
    X(TLR_ENOMEM, -3, "out of memory")                                         \
    X(TLR_EFORMAT, -4, "malformed data")                                       \
    X(TLR_EUNSUPPORTED, -5, "not supported")                                   \
    X(TLR_ELIMIT, -6, "over a limit")                                          \
    X(TLR_ENOTFOUND, -7, "not found")                                          \
    X(TLR_ECANCELLED, -8, "cancelled")                                         \
    X(TLR_EMISMATCH, -9, "comparison failed")                                  \
    X(TLR_EPENDING, -10, "not ready yet")

#define TLR_ERRORS_ENUM(name, code, text) name = code,
enum tlr_err_code { TLR_OK = 0, TLR_ERRORS(TLR_ERRORS_ENUM) };
#undef TLR_ERRORS_ENUM

enum { TLR_ERR_TEXT_BYTES = 1024 };

struct tlr_err {
    int code; /* 0 while nothing failed */
    char text[TLR_ERR_TEXT_BYTES];
};

#define TLR_ERR_INIT                                                           \
    {                                                                          \
        0, { 0 }                                                               \
    }

#if defined(__GNUC__)
#define TLR_PRINTF(fmt_index, first_arg)                                       \
    __attribute__((format(printf, fmt_index, first_arg)))
#else
#define TLR_PRINTF(fmt_index, first_arg)
#endif

/* Records code and a formatted one-line text unless err already holds an error;
 * control characters in the result become '?', an over-long text ends in "...".
 * err may be NULL.  Returns code, so callers write
 * `return tlr_err_set(err, TLR_EIO, ...)`. */
int tlr_err_set(struct tlr_err *err, int code, const char *fmt, ...)
    TLR_PRINTF(3, 4);

/* The same, with ": <strerror(errnum)>" appended. */
int tlr_err_set_errno(struct tlr_err *err, int code, int errnum,
                      const char *fmt, ...) TLR_PRINTF(4, 5);

/* "<object>: out of memory for <n> bytes"; always returns TLR_ENOMEM. */
int tlr_err_nomem(struct tlr_err *err, const char *object,
                  unsigned long long n_bytes);

/* Name ("TLR_EIO") and generic text of a code; never NULL. */
const char *tlr_err_name(int code);
const char *tlr_err_generic(int code);

void tlr_err_clear(struct tlr_err *err);

#endif
