/* seam_chat.c - a prompt that a chat template made, taken apart into messages again.
 *
 * Only for servers that offer chat and nothing else.  The template's pieces are
 * text, so a message runs from its role's prefix to its role's suffix; what does
 * not add up is refused and not guessed.
 */
#include <string.h>

#include "net/seam.h"

static const char *const roles[TLR_N_ROLES] = {"system", "user", "assistant"};

static bool starts(const char *text, size_t n, const char *piece)
{
    size_t k = piece ? strlen(piece) : 0;
    return k > 0 && k <= n && memcmp(text, piece, k) == 0;
}

/* The role whose prefix is the longest at text; -1. */
static int role_at(const struct tlr_chat *c, const char *text, size_t n)
{
    int found = -1;
    for (int r = 0; r < TLR_N_ROLES; r++)
        if (starts(text, n, c->prefix[r]) &&
            (found < 0 || strlen(c->prefix[r]) > strlen(c->prefix[found])))
            found = r;
    return found;
}

/* Length up to the suffix, n if it is not there. */
static size_t message_length(const char *text, size_t n, const char *suffix)
{
    size_t k = suffix ? strlen(suffix) : 0;
    for (size_t i = 0; k > 0 && i + k <= n; i++)
        if (memcmp(text + i, suffix, k) == 0)
            return i;
    return n;
}

static void put_message(struct tlr_buf *out, int role, const char *text,
                        size_t n, bool is_first)
{
    tlr_buf_text(out, is_first ? "[{\"role\":\"" : ",{\"role\":\"");
    tlr_buf_text(out, roles[role]);
    tlr_buf_text(out, "\",\"content\":");
    tlr_buf_json(out, text, n);
    tlr_buf_text(out, "}");
}

int tlr_seam_messages(const struct tlr_seam *s, const char *text, size_t n,
                      struct tlr_buf *out, struct tlr_err *err)
{
    const struct tlr_chat *c = s->chat;
    bool is_open = false;
    tlr_buf_reset(out);
    if (c && c->begin && starts(text, n, c->begin)) {
        n -= strlen(c->begin);
        text += strlen(c->begin);
    }
    while (c && !is_open) {
        int role = role_at(c, text, n);
        if (role < 0)
            break;
        text += strlen(c->prefix[role]);
        n -= strlen(c->prefix[role]);
        size_t len = message_length(text, n, c->suffix[role]);
        is_open = role == TLR_ROLE_ASSISTANT && len == n;
        put_message(out, role, text, len, out->n == 0);
        if (len < n)
            len += strlen(c->suffix[role]);
        text += len;
        n -= len;
    }
    tlr_buf_text(out, "]");
    if (out->failed)
        return tlr_err_nomem(err, "messages", out->n);
    return is_open ? 0
                   : tlr_err_set(err, TLR_EUNSUPPORTED,
                                 "the server offers chat only, and this text "
                                 "is no chat of the model's template; leave "
                                 "--raw out");
}
