/* loopback.h - a large model behind llama.cpp's POST /completion on this machine:
 * one thread a connection, every answer at least a set time after its request was
 * read.  It trusts its client, the bench itself.
 */
#ifndef TLR_BENCH_ESCALATE_LOOPBACK_H
#define TLR_BENCH_ESCALATE_LOOPBACK_H

#include "base/err.h"
#include "engine/tlr.h"
#include "router/expert.h"

struct loopback;

/* Listens on a free port of 127.0.0.1.  llm answers one request at a time; `like`
 * cuts text for POST /tokenize.  Both stay the caller's. */
int loopback_open(struct loopback **out, struct tlr_expert *llm,
                  const struct tlr_model *like, struct tlr_err *err);
void loopback_close(struct loopback *s); /* NULL is allowed */
void loopback_set(struct loopback *s, double latency_ms, double think_ms);
/* Sorts v; NaN without any. */
double median_of(float *v, size_t n);
/* Median time from an asked request's last byte to its reply's first, so far: the
 * latency, and what the system overslept; NaN without any. */
double loopback_took_ms(struct loopback *s);
const char *loopback_url(const struct loopback *s);

#endif
