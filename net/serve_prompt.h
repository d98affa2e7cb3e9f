/* serve_prompt.h - the text or the ids that a request brings, as ids. */
#ifndef TLR_NET_SERVE_PROMPT_H
#define TLR_NET_SERVE_PROMPT_H

#include "net/serve_fields.h"

/* "messages" through the model's template. */
int tlr_prompt_messages(struct tlr_ids *out, const json_t *root,
                        const struct tlr_request_limits *limits,
                        struct tlr_fault *f, struct tlr_err *err);

/* A text under one name or ids under another (which may be the same): a string,
 * [ids], or a list of one of these (*is_batch).  Special tokens that are spelled
 * out count, as in tlr run --raw. */
int tlr_prompt_text(struct tlr_ids *out, const json_t *root,
                    const char *text_name, const char *ids_name, bool *is_batch,
                    const struct tlr_request_limits *limits,
                    struct tlr_fault *f, struct tlr_err *err);

#endif
