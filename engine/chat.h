/* chat.h - the pieces around a message that a chat model was trained with.
 *
 * No Jinja: convert/ recognises a template by its markers and keeps the pieces;
 * what it does not recognise leaves the section out, and then `tlr run` says so
 * and wants --raw.  Stored as a JSON object (weights/FORMAT.md).
 */
#ifndef TLR_ENGINE_CHAT_H
#define TLR_ENGINE_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"
#include "engine/tokenizer.h"

enum tlr_role { TLR_ROLE_SYSTEM, TLR_ROLE_USER, TLR_ROLE_ASSISTANT, TLR_N_ROLES };

struct tlr_chat {
    char *name;                /* "chatml", "llama3", ... */
    char *prefix[TLR_N_ROLES]; /* before a message, special tokens spelled out */
    char *suffix[TLR_N_ROLES]; /* after it */
    char *begin;               /* before the first message, "" mostly */
    char *default_system;      /* message used when the caller gives none; NULL:
                                  no system message then */
    bool trims;                /* message texts lose outer white space */
};

/* The recognised families (a static table). Fills out from a Jinja template:
 * TLR_ENOTFOUND when none fits. */
int tlr_chat_recognise(struct tlr_chat *out, const char *jinja,
                       struct tlr_err *err);
int tlr_chat_to_json(const struct tlr_chat *c, char **out, size_t *out_len,
                     struct tlr_err *err);
int tlr_chat_from_json(struct tlr_chat *out, struct tlr_bytes json,
                       const char *where, struct tlr_err *err);
void tlr_chat_clear(struct tlr_chat *c);

struct tlr_message {
    enum tlr_role role;
    const char *text;
};

/* Appends the ids of the messages, in order, to out.  first: the conversation
 * starts here (begin, bos and, unless messages[0] is a system message, the
 * default system message).  With open_reply the assistant's prefix follows, so
 * the model answers next.  Only the pieces may yield special tokens: marker
 * text inside a message stays text. */
int tlr_chat_encode(const struct tlr_chat *c, const struct tlr_tokenizer *t,
                    const struct tlr_message *messages, size_t n_messages,
                    bool first, bool open_reply, struct tlr_ids *out,
                    struct tlr_err *err);

#endif
