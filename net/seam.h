/* seam.h - between our token ids and a server's words.
 *
 * Out: the prefix as text, where the server takes no ids.  In: an answer's ids, or
 * its text cut into our tokens where it joins the prefix.  Byte-exact: the ids
 * that come out spell the beginning of what the server wrote and nothing else.
 * An end of the text is one only where the server says so; an empty reply is not.
 */
#ifndef TLR_NET_SEAM_H
#define TLR_NET_SEAM_H

#include "base/err.h"
#include "engine/chat.h"
#include "engine/generation.h"
#include "engine/tokenizer.h"
#include "net/api.h"
#include "net/buf.h"

/* The small model's, borrowed. */
struct tlr_seam {
    const struct tlr_tokenizer *tok;
    const struct tlr_generation *gen; /* may be NULL: no end of text */
    const struct tlr_chat *chat;      /* may be NULL */
    uint32_t n_ids;
};

enum { TLR_SEAM_TAIL = 12 }; /* tokens of the prefix that are cut anew with a
                                reply */

/* The prefix as text into out (reset first).  skip_bos: the server adds that token
 * itself.  A character that the prefix only begins cannot be sent: its bytes go to
 * begun [4], *n_begun of them. */
void tlr_seam_prompt(const struct tlr_seam *s, const int32_t *ids, size_t n,
                     bool skip_bos, struct tlr_buf *out, uint8_t begun[4],
                     int *n_begun);

/* The same text as a JSON list of chat messages, by the model's template, the last
 * being the assistant's: TLR_EUNSUPPORTED where it does not look like that. */
int tlr_seam_messages(const struct tlr_seam *s, const char *text, size_t n,
                      struct tlr_buf *out, struct tlr_err *err);

struct tlr_seam_want {
    const int32_t *tail; /* last tokens of the prefix, TLR_SEAM_TAIL at most */
    int n_tail;
    uint8_t begun[4];    /* of tlr_seam_prompt; none where ids were sent */
    int n_begun;
    int n_tok;           /* 1..TLR_EXPERT_TOK_MAX */
    int n_slack;         /* tokens it may have made beyond those */
};

/* The answer as 1..n_tok ids into out.  TLR_EPENDING without a message: the text
 * shows no whole token of ours yet, more must be asked for. */
int tlr_seam_answer(const struct tlr_seam *s, const struct tlr_net_answer *a,
                    const struct tlr_seam_want *want, int32_t *out, int *n_out,
                    struct tlr_err *err);

#endif
