/* hash_llm.h - what the server answers, without a socket. */
#ifndef TLR_TESTS_NET_HASH_LLM_H
#define TLR_TESTS_NET_HASH_LLM_H

#include "tests/net/server.h"

/* The next id after ids[0..n): a hash; by_text: one that prints something. */
int32_t hash_next(const struct server_options *o, const int32_t *ids, size_t n,
                  bool by_text);

/* The reply to a request: a status, and JSON to be freed. */
int hash_reply(const struct server_options *o, const char *method,
               const char *path, const char *body, size_t n_body, char **out,
               bool *is_question);

#endif
