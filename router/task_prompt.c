/* task_prompt.c - see task.h: worked examples, and the ids before an answer.
 *
 * A small model often does not do what a prompt asks for, but goes on as the
 * conversation went before (few-shot chains of thought: Wei et al. 2022, arXiv
 * 2201.11903, section 2).  The examples are tlr's own, and of no data set.  The
 * answers' letters are spread, so that none is favoured.
 */
#include <string.h>

#include "engine/tlr.h"
#include "router/task.h"
#include "router/task_line.h"

static const struct tlr_shot csqa[TLR_SHOTS_MAX] = {
    {"Question: Where would you put milk so that it stays fresh?\nChoices:\n"
     "A. bakery\nB. refrigerator\nC. bookshelf\nD. garage\nE. mailbox\n"
     TLR_CSQA_INSTRUCTIONS,
     "The answer must be a place that is cold. Milk goes bad when it gets warm, "
     "and a refrigerator keeps food cold. Therefore, the answer is refrigerator "
     "(b)."},
    {"Question: Anna had run a long race in the sun. What was she likely to "
     "feel?\nChoices:\n"
     "A. thirsty\nB. invisible\nC. married\nD. bored\nE. purple\n"
     TLR_CSQA_INSTRUCTIONS,
     "The answer must be a feeling that comes from running and heat. The body "
     "loses water when it is hot. Therefore, the answer is thirsty (a)."},
    {"Question: The mechanic picked up a wrench because he wanted to do what?\n"
     "Choices:\n"
     "A. sing a song\nB. cook dinner\nC. write\nD. sleep\nE. tighten a bolt\n"
     TLR_CSQA_INSTRUCTIONS,
     "The answer must be something that is done with a wrench. A wrench is a "
     "tool that turns nuts and bolts. Therefore, the answer is tighten a bolt "
     "(e)."},
    {"Question: What do people carry when the sky is full of dark clouds?\n"
     "Choices:\n"
     "A. ladder\nB. pillow\nC. umbrella\nD. guitar\nE. candle\n"
     TLR_CSQA_INSTRUCTIONS,
     "The answer must be something that helps against rain. Dark clouds bring "
     "rain, and an umbrella keeps people dry. Therefore, the answer is umbrella "
     "(c)."},
    {"Question: Where can someone borrow a book without paying for it?\n"
     "Choices:\n"
     "A. theater\nB. bank\nC. kitchen\nD. library\nE. bus stop\n"
     TLR_CSQA_INSTRUCTIONS,
     "The answer must be a place that lends books. A library lends books to "
     "people for free. Therefore, the answer is library (d)."},
};

const struct tlr_shot *tlr_task_shots(enum tlr_task_kind kind, int *n)
{
    *n = kind == TLR_TASK_CSQA ? TLR_SHOTS_MAX : 0;
    return csqa;
}

/* A prompt as `tlr run --raw` takes it, so special tokens in it count; a text of
 * lm is text. */
static int encode_raw(const struct tlr_tokenizer *t, enum tlr_task_kind kind,
                      const struct tlr_shot *shots, int n_shots,
                      const char *prompt, struct tlr_ids *out, size_t *n_shared,
                      struct tlr_err *err)
{
    static const char between[] = "\n\n";
    unsigned special = kind == TLR_TASK_LM ? 0 : TLR_ENCODE_SPECIAL;
    unsigned flags = TLR_ENCODE_BOS;
    int rc = 0;
    for (int i = 0; i < n_shots && !rc; i++) {
        const char *pieces[] = {shots[i].prompt, " ", shots[i].reply, between};
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces && !rc; k++) {
            rc = tlr_encode(t, pieces[k], strlen(pieces[k]), flags, out, err);
            flags = 0;
        }
    }
    *n_shared = out->n;
    return rc ? rc : tlr_encode(t, prompt, strlen(prompt), flags | special, out,
                                err);
}

int tlr_task_encode(const struct tlr_model *m, enum tlr_task_kind kind,
                    int n_shots, bool raw, const struct tlr_item *item,
                    struct tlr_ids *out, size_t *n_shared, struct tlr_err *err)
{
    const struct tlr_tokenizer *t = tlr_model_tokenizer(m);
    const struct tlr_chat *chat = tlr_model_chat(m);
    struct tlr_message turns[2 * TLR_SHOTS_MAX];
    size_t n = 0, shared;
    int n_has;
    const struct tlr_shot *shots = tlr_task_shots(kind, &n_has);
    if (!t || (!raw && !chat)) {
        return tlr_err_set(err, TLR_EUNSUPPORTED, "%s: carries no %s",
                           tlr_file_label(tlr_model_file(m)),
                           t ? "chat template that tlr knows; use --raw"
                             : "tokenizer; convert the model again");
    }
    n_shots = n_shots < n_has ? n_shots : n_has;
    n_shared = n_shared ? n_shared : &shared;
    if (raw) {
        return encode_raw(t, kind, shots, n_shots, item->prompt, out, n_shared,
                          err);
    }
    for (int i = 0; i < n_shots; i++) {
        turns[n++] = (struct tlr_message){TLR_ROLE_USER, shots[i].prompt};
        turns[n++] = (struct tlr_message){TLR_ROLE_ASSISTANT, shots[i].reply};
    }
    struct tlr_message question = {TLR_ROLE_USER, item->prompt};
    int rc = n ? tlr_chat_encode(chat, t, turns, n, true, false, out, err) : 0;
    *n_shared = out->n;
    return rc ? rc : tlr_chat_encode(chat, t, &question, 1, n == 0, true, out,
                                     err);
}
