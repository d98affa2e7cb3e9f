/* output.h - standard output, standard error, and JSON.
 *
 * The product goes to standard output, everything else to standard error.  On a
 * terminal no control character of a model or a file gets through.  Writing
 * never fails at the call: the first failure is kept, later writes do nothing,
 * loops ask cli_out_failed and main.c reports it in the end.
 */
#ifndef TLR_CLI_OUTPUT_H
#define TLR_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Makes sure that descriptors 0..2 are taken and looks at the terminals. */
void cli_out_begin(void);

void cli_write(const char *text, size_t len);
/* The same in colour, where colour is on. */
void cli_write_marked(const char *text, size_t len);
/* "always", "never", or "auto": on a terminal without NO_COLOR. */
void cli_out_set_color(const char *when);
void cli_printf(const char *fmt, ...) TLR_PRINTF(1, 2);
void cli_flush(void);
bool cli_out_failed(void);
bool cli_out_is_tty(void);

/* Flushes and closes.  TLR_EIO with a text, or with an empty text when the
 * reader went away (which is not worth a message). */
int cli_out_finish(struct tlr_err *err);

/* Lines for people, on standard error. */
void cli_note(const char *fmt, ...) TLR_PRINTF(1, 2);
void cli_complain(const char *fmt, ...) TLR_PRINTF(1, 2); /* "tlr: ..." */
bool cli_err_is_tty(void);

/* Copies text [len] to out [cap >= 3 * len + 1] with what a terminal might obey
 * (control characters but newline and tab, bidirectional overrides) replaced by
 * U+FFFD; broken UTF-8 likewise.  Returns the length. */
size_t cli_tame(char *out, const char *text, size_t len);

/* A string of any bytes: broken UTF-8 becomes U+FFFD. */
json_t *cli_json_text(const char *text, size_t len);
/* null when the number is not finite. */
json_t *cli_json_real(double v);
/* Sets key of the object; a NULL value (out of memory) is remembered. */
void cli_json_put(json_t *object, const char *key, json_t *value);
void cli_json_push(json_t *array, json_t *value);
/* Prints root and a newline, and drops it. */
int cli_json_print(json_t *root, struct tlr_err *err);

/* "145.2 MiB" into out [cap >= 16]; returns out. */
char *cli_bytes(char *out, size_t cap, uint64_t n);

#endif
